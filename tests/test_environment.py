"""What is installed, the sentence when something is missing, and what freed memory becomes."""

import json
import os
import platform
import subprocess
import sys

import pytest

from persondet import environment
from persondet.errors import InstallationError


def test_report_is_plain_json_and_true():
    torch = pytest.importorskip("torch")
    report = environment.environment_report()
    assert json.loads(json.dumps(report)) == report
    assert report["python"] == ".".join(map(str, sys.version_info[:3]))
    assert torch.__version__.startswith(str(report["torch"]).split("+")[0])
    assert int(report["cpu_count"]) >= 1
    assert (report["device"] == "cpu") == (not torch.cuda.is_available())


@pytest.mark.parametrize(
    ("module", "mend"),
    [
        ("detectron2.modeling", "run `python tools/install_detectron2.py`"),
        ("torch", "pip install torch torchvision"),
    ],
)
def test_missing_package_is_one_sentence(module, mend, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    if module != "torch":
        monkeypatch.setitem(sys.modules, "torch", sys)
    with pytest.raises(InstallationError) as caught:
        environment.require_detectron2()
    assert mend in str(caught.value)
    assert "\n" not in str(caught.value)


# Fills and frees what a frame takes, and counts the pages that the system had to map for it.
FRAMES = """
import resource
import numpy as np
from persondet.environment import keep_freed_memory
keep_freed_memory()
for frame in range(12):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    maps = [np.ones(size << 20, np.uint8) for size in (10, 20, 30)]
    del maps
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own settings")
@pytest.mark.parametrize("own", [{}, {"MALLOC_TRIM_THRESHOLD_": "65536"}])
def test_freed_memory_is_kept_for_the_next_frame_unless_the_user_says_otherwise(own):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", FRAMES]
    result = subprocess.run(command, env=env | own, capture_output=True, text=True, check=True)
    assert (int(result.stdout) < 100) == (not own)

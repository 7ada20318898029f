"""What is installed: the report, and the sentence when something is missing."""

import json
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

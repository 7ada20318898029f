"""Every tool explains itself at once: `--help` imports nothing heavy."""

import os
import subprocess
import sys
from pathlib import Path

import cli
import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
HEAVY = ("torch", "detectron2", "cv2", "av", "albumentations", "matplotlib", "numpy")

# Runs a tool as `python tools/x.py --help` does, then names the heavy modules that it imported.
PROBE = f"""
import runpy, sys
sys.argv = [sys.argv[1], "--help"]
sys.path.insert(0, {str(TOOLS)!r})
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    print("exit code", end.code)
print("heavy", [name for name in {HEAVY!r} if name in sys.modules])
"""


@pytest.mark.parametrize(
    # What has no command line of its own is a part that tools share.
    "tool",
    sorted(p.name for p in TOOLS.glob("*.py") if "__main__" in p.read_text(encoding="utf-8")),
)
def test_help_is_light_and_has_an_example_and_the_exit_codes(tool):
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(TOOLS / tool)], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    assert "exit code 0" in done.stdout
    assert "heavy []" in done.stdout
    assert "usage:" in done.stdout
    assert "example" in done.stdout
    assert f"tools/{tool}" in done.stdout
    assert "exit codes:" in done.stdout


@pytest.mark.parametrize(
    ("chosen", "waits"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")]
)
def test_threads_sleep_while_they_wait_unless_the_user_has_chosen(monkeypatch, chosen, waits):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    cli.wait_passively()
    assert os.environ["OMP_WAIT_POLICY"] == waits

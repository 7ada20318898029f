"""Every tool explains itself at once: `--help` imports nothing heavy."""

import os
import subprocess
import sys
from pathlib import Path

import cli

TOOLS = Path(__file__).resolve().parents[2] / "tools"
HEAVY = ("torch", "detectron2", "cv2", "av", "albumentations", "matplotlib", "numpy")

# Runs `--help` of each tool, as `python tools/x.py` does, then names the heavy modules imported.
PROBE = f"""
import runpy, sys
sys.path.insert(0, {str(TOOLS)!r})
for path in sys.argv[1:]:
    sys.argv = [path, "--help"]
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as end:
        print("exit code", end.code)
    print("heavy", [name for name in {HEAVY!r} if name in sys.modules], end="\\f")
"""


def test_help_is_light_and_has_an_example_and_the_exit_codes():
    # What has no command line of its own is a part that tools share.
    tools = sorted(p for p in TOOLS.glob("*.py") if "__main__" in p.read_text(encoding="utf-8"))
    command = [sys.executable, "-c", PROBE, *map(str, tools)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    for tool, said in zip(tools, done.stdout.split("\f")[:-1], strict=True):
        for words in ("usage:", "example", f"tools/{tool.name}", "exit codes:"):
            assert words in said
        assert "exit code 0\nheavy []" in said, tool.name


def test_a_tool_sets_what_libraries_read_once_and_leaves_what_the_user_set(monkeypatch):
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    cli.set_environment()
    assert int(os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"]) == 256
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "100")
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    cli.set_environment()
    assert "OMP_WAIT_POLICY" not in os.environ
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "64"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    cli.set_environment()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"

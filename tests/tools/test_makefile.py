"""`make` and the script behind it: what they would run, and what they say when they cannot."""

import re
import shutil
import subprocess
from pathlib import Path

import make_environment
import pytest

ROOT = Path(__file__).resolve().parents[2]
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def make(tmp_path):
    """`make` in a copy of the files it reads, in a folder whose path has spaces."""
    folder = tmp_path / "a folder with spaces"
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    command = ["make", "-C", str(folder)]
    return lambda *more: subprocess.run([*command, *more], capture_output=True, text=True)


@needs_make
@pytest.mark.parametrize("target", ["demo", "test", "test-all", "lint"])
def test_targets_make_the_environment_first_and_quote_the_interpreter(make, target):
    result = make("-n", target, "PYTHON=/opt/a python/bin/python3")
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if not line.startswith("make")]
    assert lines[1].startswith('"/opt/a python/bin/python3" tools/make_environment.py')
    assert lines[2].startswith(".venv/bin/python ")


@needs_make
def test_clean_keeps_data_and_results(make, tmp_path):
    kept = ("output/run/__pycache__", "datasets/x/__pycache__")
    gone = (".venv", "tests/__pycache__")
    folder = tmp_path / "a folder with spaces"
    for name in kept + gone:
        (folder / name).mkdir(parents=True)
    assert make("clean").returncode == 0
    assert [name for name in kept + gone if (folder / name).exists()] == list(kept)


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch):
    """No test may start a real installation, not even when the check it tests is broken."""
    monkeypatch.setattr(make_environment, "run", lambda *_: pytest.fail("it ran something"))


def test_digest_follows_the_place_and_the_pins(tmp_path, monkeypatch):
    for name in make_environment.INPUTS:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    monkeypatch.setattr(make_environment, "ROOT", tmp_path)
    digests = [make_environment.digest(tmp_path / name) for name in "aab"]
    (tmp_path / "constraints.txt").write_text("numpy==1")
    digests.append(make_environment.digest(tmp_path / "a"))
    assert digests[0] == digests[1] and len({*digests}) == 3


def test_every_direct_dependency_has_an_exact_version():
    pins = dict(
        line.lower().replace("_", "-").split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
    source = (ROOT / "setup.py").read_text()
    named = re.findall(r'^    "([A-Za-z-]+)[<>=]', source, re.MULTILINE)
    assert len(named) > 10 and {name.lower() for name in named} <= {*pins}


@pytest.mark.parametrize(
    ("free", "expected"),
    [(1000, True), (12, False), (8, False), (6, "6.0 GB are free, .* takes 7.0; free some space")],
)
def test_little_room_costs_the_cache_first_and_then_the_installation(
    free, expected, monkeypatch, tmp_path, capsys
):
    usage = shutil.disk_usage(tmp_path)._replace(free=int(free * 1e9))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(make_environment, "LINUX_GB", (7.0, 3.5, 3.5))
    monkeypatch.setattr(make_environment.sys, "platform", "linux")
    for name in ("PIP_CACHE_DIR", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path))  # all on one disk
    monkeypatch.setattr(make_environment.tempfile, "tempdir", None)
    if isinstance(expected, str):
        with pytest.raises(make_environment.EnvironmentFailure, match=expected):
            make_environment.check_disk(tmp_path / "venv", None)
    else:
        assert make_environment.check_disk(tmp_path / "venv", None) is expected
    assert ("takes 10.5, unless" in capsys.readouterr().out) == (free == 8)
    assert make_environment.check_disk(tmp_path / "venv", 0)

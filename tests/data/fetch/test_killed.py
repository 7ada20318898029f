"""Killed at any moment, a command leaves nothing under the final name, or all of it.

SIGKILL leaves no chance to tidy up: what is tested is the order in which things get their names.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
MOMENTS = 20

IMPORT = """
from persondet.data.fetch.importing import import_export
print("go", flush=True)
import_export(sys.argv[1], sys.argv[2], overwrite=True)
"""
DOWNLOAD = """
from persondet.data.fetch.downloading import download_export
print("go", flush=True)
download_export("harbour", "people", 3, sys.argv[2], overwrite=True)
"""
CLEAN = """
from persondet.data.cleaning import clean_dataset
print("go", flush=True)
clean_dataset(sys.argv[1], sys.argv[2], overwrite=True)
"""


@dataclass(frozen=True)
class Command:
    """A program that makes the folder `argv[2]`, of `argv[1]`, after it has printed a line."""

    name: str
    code: str
    source: str  # "folder" or "zip"

    def start(self, source: Path, output: Path) -> subprocess.Popen[bytes]:
        code = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{self.code}"
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(source), str(output)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"go\n"
        return process


COMMANDS = [
    Command("import a zip", IMPORT, "zip"),
    Command("import a folder", IMPORT, "folder"),
    Command("download", DOWNLOAD, "zip"),
    Command("clean", CLEAN, "folder"),
]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.soak
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_nothing_or_all(command, roboflow, export_writer, zip_writer, tmp_path):
    place, source = tmp_path / "place", tmp_path / "source"
    place.mkdir()
    export_writer(source, {"train": 200, "valid": 60, "test": 60})
    zip_writer(tmp_path / "source.zip", source)
    roboflow.content = (tmp_path / "source.zip").read_bytes()
    roboflow.files = ["slow 0.4"]
    given, output = (
        (source if command.source == "folder" else tmp_path / "source.zip"),
        place / "out",
    )

    expected = run(command, given, output)
    assert {"train/_annotations.coco.json"} < set(expected)
    process = command.start(given, output)
    start = time.monotonic()  # when it begins to work, not when Python starts
    assert process.wait(60) == 0
    process.stdout.close()
    duration = time.monotonic() - start
    rng = random.Random(0)
    interrupted = 0
    for _ in range(MOMENTS):
        subprocess.run(["rm", "-r", str(output)], check=True)
        process = command.start(given, output)
        time.sleep(rng.uniform(0, duration))
        process.send_signal(signal.SIGKILL)
        interrupted += process.wait() == -signal.SIGKILL
        process.stdout.close()
        assert not output.exists() or contents(output) == expected
        assert run(command, given, output) == expected
        assert [path.name for path in place.iterdir()] == ["out"]
    assert interrupted >= MOMENTS / 2


def run(command: Command, given: Path, output: Path) -> dict[str, bytes]:
    """Run a command to its end, and return what it made."""
    process = command.start(given, output)
    assert process.wait(60) == 0
    process.stdout.close()
    return contents(output)

"""Killed at any moment, a command leaves nothing under the final name, or all of it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.data.fetch.conftest import contents, write_zip

ROOT = Path(__file__).resolve().parents[3]
MOMENTS = 20

COMMANDS = {
    "import": "from persondet.data.fetch.importing import import_export as work",
    "clean": "from persondet.data.clean import clean_dataset as work",
    "download": "from persondet.data.fetch.transfer import download_export\n"
    "work = lambda _, *given, **named: download_export('harbour', 'people', 3, *given, **named)",
}


def start(command, source, output):
    """Start a program that makes `output` of `source`, and wait until it begins to."""
    run = "print('go', flush=True)\nwork(sys.argv[1], sys.argv[2], overwrite=True)"
    code = f"import sys\n{COMMANDS[command]}\n{run}"
    arguments = [sys.executable, "-c", code, str(source), str(output)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, env=environment)
    with process.stdout:
        assert process.stdout.readline() == b"go\n"
    return process


@pytest.mark.soak
@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_or_all(command, roboflow, export_writer, tmp_path):
    source, archive, output = tmp_path / "source", tmp_path / "a.zip", tmp_path / "place/out"
    output.parent.mkdir()
    export_writer(source, {"train": 200, "valid": 60, "test": 60})
    write_zip(archive, source)
    roboflow.content = archive.read_bytes()
    roboflow.files = ["slow 0.4"]
    given = archive if command == "import" else source

    def finish():
        process = start(command, given, output)
        begin = time.monotonic()  # when it begins to work, not when Python starts
        assert process.wait(60) == 0
        return time.monotonic() - begin

    finish()
    expected = contents(output)
    assert {"train/_annotations.coco.json"} < set(expected)
    duration = finish()
    rng, interrupted = random.Random(0), 0
    for _ in range(MOMENTS):
        shutil.rmtree(output)
        process = start(command, given, output)
        time.sleep(rng.uniform(0, duration))
        process.send_signal(signal.SIGKILL)
        interrupted += process.wait() == -signal.SIGKILL
        assert not output.exists() or contents(output) == expected
        finish()
        assert contents(output) == expected
        assert [path.name for path in output.parent.iterdir()] == ["out"]
    assert interrupted >= MOMENTS / 2

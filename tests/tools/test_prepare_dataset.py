"""The dataset commands as they are typed: output, exit codes, files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def prepare(*words: object, key: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "ROBOFLOW_API_KEY"}
    if key is not None:
        environment["ROBOFLOW_API_KEY"] = key
    return subprocess.run(
        [sys.executable, ROOT / "tools" / "prepare_dataset.py", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )


def test_from_zip_to_clean_and_divided(tiny_export: Path, tmp_path: Path) -> None:
    archive = tmp_path / "my export.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(tiny_export.rglob("*.*")):
            file.write(path, path.relative_to(tiny_export))
    imported, clean, divided = (tmp_path / name for name in ("in", "clean", "divided"))
    done = prepare("import", archive, "--output", imported)
    assert done.returncode == 0, done.stderr
    assert "train: 6 images" in done.stdout
    assert f"next: python tools/prepare_dataset.py check {imported}" in done.stdout

    found = prepare("check", imported, "--json", tmp_path / "report.json")
    assert found.returncode == 1
    assert "ERROR annotation-id-zero" in found.stdout
    assert "Traceback" not in found.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["errors"] == 1
    again = prepare("check", imported, "--json", tmp_path / "report.json")
    assert again.returncode == 2
    assert "--overwrite" in again.stderr

    done = prepare("clean", imported, "--output", clean)
    assert done.returncode == 0, done.stderr
    assert "train: 6 of 6 images" in done.stdout
    assert prepare("check", clean).returncode == 0
    assert prepare("check", clean, "--strict").returncode == 1

    done = prepare("split", clean, "--output", divided, "--fractions", 0.5, 0.25, 0.25)
    assert done.returncode == 0, done.stderr
    assert len(list(divided.rglob("*.jpg"))) == 12


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("check", "nowhere"), "no such folder"),
        (("clean", "nowhere", "--output", "x"), "no such folder"),
        (("import", "nowhere.zip", "--output", "x"), "no such file"),
        (("check", ".", "--plot", "page.txt"), "does not end in .png or .pdf"),
        (
            ("download", "--workspace", "w", "--project", "p", "--version", "1", "--output", "x"),
            "ROBOFLOW_API_KEY is not set",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_2(words: tuple[str, ...], says: str) -> None:
    done = prepare(*words)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


@pytest.mark.slow
def test_the_page_is_drawn(tiny_export: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_export, tmp_path / "export")
    done = prepare("check", copy, "--plot", tmp_path / "page.png")
    assert done.returncode == 1
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")

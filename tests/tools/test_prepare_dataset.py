"""The dataset commands as they are typed: output, exit codes, files."""

import json
import zipfile

import prepare_dataset
import pytest

from persondet.errors import DatasetError, OutputExistsError, PersondetError


def prepare(*words):
    return prepare_dataset.main([str(word) for word in words])


@pytest.mark.slow
def test_from_zip_to_clean_and_divided(tiny_export, tmp_path, capsys):
    archive = tmp_path / "my export.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(tiny_export.rglob("*.*")):
            file.write(path, path.relative_to(tiny_export))
    imported, clean, divided = (tmp_path / name for name in ("in", "clean", "divided"))
    assert prepare("import", archive, "--output", imported) == 0
    said = capsys.readouterr().out
    assert "train: 6 images" in said
    assert f"next: python tools/prepare_dataset.py check {imported}" in said

    assert prepare("check", imported, "--json", tmp_path / "report.json") == 1
    assert "ERROR annotation-id-zero" in capsys.readouterr().out
    assert json.loads((tmp_path / "report.json").read_text())["errors"] == 1
    with pytest.raises(OutputExistsError, match="--overwrite"):
        prepare("check", imported, "--json", tmp_path / "report.json")

    assert prepare("clean", imported, "--output", clean) == 0
    assert "train: 6 of 6 images" in capsys.readouterr().out
    assert prepare("clean", imported, "--output", clean, "--overwrite") == 0
    assert prepare("check", clean) == 0
    assert prepare("check", clean, "--strict") == 1

    assert prepare("split", clean, "--output", divided, "--fractions", 0.5, 0.25, 0.25) == 0
    assert len(list(divided.rglob("*.jpg"))) == 12


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        ("check nowhere", DatasetError, "no such folder"),
        ("import nowhere.zip --output x", DatasetError, "no such file"),
        ("check . --plot page.txt", SystemExit, "2"),
        (
            "download --workspace w --project p --version 1 --output x",
            PersondetError,
            "ROBOFLOW_API_KEY is not set",
        ),
    ],
)
def test_bad_input_is_refused_and_writes_nothing(words, error, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROBOFLOW_API_KEY", raising=False)
    with pytest.raises(error, match=says):
        prepare(*words.split())
    assert not list(tmp_path.iterdir())

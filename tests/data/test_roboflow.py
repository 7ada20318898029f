"""Where an export lies, and which of its folders are its splits."""

from pathlib import Path

import pytest

from persondet.data.roboflow import copy_readmes, find_export
from persondet.errors import DatasetError


def _make(root: Path, text: str) -> None:
    """Make what `text` lists: `a/` is an empty folder, `a/+` one with a json, `a/b` a file."""
    for name in text.split():
        path = root / name.replace("+", "_annotations.coco.json")
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_text("{}")


@pytest.mark.parametrize(
    ("files", "found", "splits"),
    [
        ("train/+ valid/+ test/+", "", "train=train valid=valid test=test"),
        ("Train/+ VAL/+ README.txt", "", "train=Train valid=VAL"),
        ("test/+ validation/+ train/ other/a.jpg", "", "valid=validation test=test"),
        ("My.v3/train/+ __MACOSX/train/+ .x/+", "My.v3", "train=train"),
        ("a/b/c/d/test/+", "a/b/c/d", "test=test"),
        ("+ a.jpg", "", "train=."),
        ("flat/+ flat/test/a.jpg", "flat", "train=."),  # a folder of images
        ("train/+ other/train/+", "", "train=train"),
    ],
)
def test_an_export_is_found(tmp_path: Path, files: str, found: str, splits: str) -> None:
    _make(tmp_path, files)
    root, folders = find_export(tmp_path)
    assert root == tmp_path / found
    pairs = [f"{split}={folder.relative_to(root)}" for split, folder in folders.items()]
    assert " ".join(pairs) == splits


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ("a.jpg images/a.jpg", "holds no export; expected a Roboflow export"),
        ("a/b/c/d/e/train/+", "holds no export"),
        ("train/a.jpg", r"train/ has no _annotations\.coco\.json; export the dataset as COCO"),
        ("train/+ valid/a.jpg", r"valid/ has no _annotations\.coco\.json"),
        ("val/+ valid/+", r"val/ and valid/ are the same split \(valid\)"),
        ("+ valid/+", "itself and in valid/; keep one"),
        ("one/train/+ two/train/+", "several exports, e.g. 'one' and 'two'"),
    ],
)
def test_what_is_no_single_export(tmp_path: Path, files: str, match: str) -> None:
    _make(tmp_path, files)
    with pytest.raises(DatasetError, match=match):
        find_export(tmp_path)
    with pytest.raises(DatasetError, match="^the zip"):
        find_export(tmp_path, "the zip")


def test_no_folder_and_a_folder_behind_a_link(tmp_path: Path) -> None:
    _make(tmp_path, "export.zip root/ elsewhere/train/+")
    with pytest.raises(DatasetError, match="no such folder; expected a Roboflow export"):
        find_export(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="unpack it"):
        find_export(tmp_path / "export.zip")
    (tmp_path / "root/link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match="holds no export"):
        find_export(tmp_path / "root")
    assert find_export(tmp_path / "root/link")[0] == tmp_path / "root/link"


def test_readmes_are_copied_but_not_through_links(tmp_path: Path) -> None:
    _make(tmp_path, "in/README.dataset.txt in/readme.txt in/other.txt in/README.d.txt/ out/")
    (tmp_path / "in/README.link.txt").symlink_to("/etc/hostname")
    copy_readmes(tmp_path / "in", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("README.dataset.txt", "readme.txt"),
    }

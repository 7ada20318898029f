"""Which folders of an export are its splits."""

from __future__ import annotations

from pathlib import Path

import pytest

from persondet.data.roboflow import find_splits
from persondet.errors import DatasetError


def _split(folder: Path, *, json: bool = True) -> Path:
    folder.mkdir(parents=True)
    if json:
        (folder / "_annotations.coco.json").write_text("{}")
    return folder


@pytest.mark.parametrize("name", ["valid", "val", "validation"])
def test_each_name_of_the_validation_split(tmp_path: Path, name: str) -> None:
    train, valid, test = (_split(tmp_path / split) for split in ("train", name, "test"))
    assert find_splits(tmp_path) == {"train": train, "valid": valid, "test": test}
    assert list(find_splits(tmp_path)) == ["train", "valid", "test"]


def test_splits_may_be_missing(tmp_path: Path) -> None:
    test = _split(tmp_path / "test")
    (tmp_path / "README.roboflow.txt").touch()
    assert find_splits(tmp_path) == {"test": test}


def test_an_export_one_folder_down_is_found(tmp_path: Path) -> None:
    train = _split(tmp_path / "My Project.v3i.coco" / "train")
    _split(tmp_path / "__MACOSX" / "train", json=False)
    assert find_splits(tmp_path) == {"train": train}


def test_a_flat_export_is_the_train_split(tmp_path: Path) -> None:
    _split(tmp_path / "flat")
    assert find_splits(tmp_path / "flat") == {"train": tmp_path / "flat"}
    assert find_splits(tmp_path) == {"train": tmp_path / "flat"}
    (tmp_path / "flat" / "test").mkdir()  # a folder of images
    assert find_splits(tmp_path / "flat") == {"train": tmp_path / "flat"}
    _split(tmp_path / "flat" / "valid")
    with pytest.raises(DatasetError, match=r"itself and in valid/; keep one"):
        find_splits(tmp_path / "flat")


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder; expected a Roboflow export"):
        find_splits(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="no split folder; expected a Roboflow export"):
        find_splits(tmp_path)
    _split(tmp_path / "a" / "train", json=False)
    with pytest.raises(DatasetError, match=r"a/train has no _annotations\.coco\.json"):
        find_splits(tmp_path / "a")
    _split(tmp_path / "b" / "val")
    _split(tmp_path / "b" / "valid")
    with pytest.raises(DatasetError, match="valid/ and val/"):
        find_splits(tmp_path / "b")
    _split(tmp_path / "c" / "one" / "train")
    _split(tmp_path / "c" / "two" / "train")
    with pytest.raises(DatasetError, match="several exports"):
        find_splits(tmp_path / "c")
    (tmp_path / "export.zip").touch()
    with pytest.raises(DatasetError, match="unpack it"):
        find_splits(tmp_path / "export.zip")

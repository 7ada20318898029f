"""The cleaned copy on disk: linked, whole, reproducible; and the images that cleaning changes."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from persondet.data.check import check_export
from persondet.data.clean import changed_images, clean_dataset
from persondet.errors import DatasetError, OutputExistsError


def test_changed_boxes_and_dropped_images_and_nothing_else(
    tiny_export: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(tiny_export, tmp_path / "export"))
    assert changed_images(root, "train") == []
    path = root / "train" / "_annotations.coco.json"
    coco = json.loads(path.read_text())
    first = coco["annotations"][0]
    first["bbox"], first["segmentation"] = [-9, 0, 40, 20], [[0, 0, 31, 0, 31, 20]]
    by_id = {image["id"]: image for image in coco["images"]}
    gone = by_id[max(by_id)]
    (root / "train" / gone["file_name"]).unlink()
    path.write_text(json.dumps(coco))
    clipped, dropped = changed_images(root, "train")
    assert clipped.path == root / "train" / by_id[first["image_id"]]["file_name"]
    assert clipped.before[0]["bbox"] == [-9, 0, 40, 20]
    assert clipped.after is not None
    assert clipped.after[0]["bbox"] == [0, 0, 31, 20]
    assert clipped.codes == ("box-outside",)
    assert clipped.origins == tuple(range(len(clipped.after)))
    assert dropped.after is None
    assert dropped.codes == ("file-missing",)
    shutil.rmtree(root / "test")
    with pytest.raises(DatasetError, match="choose another --split"):
        changed_images(root, "test")


def _listing(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _content(folder: Path) -> dict[str, bytes]:
    return {name: content for name, (content, _) in _listing(folder).items()}


@pytest.fixture
def export(tiny_export: Path, tmp_path: Path) -> Path:
    """A copy of the tiny export, with a readme, that a test may break."""
    copy = Path(shutil.copytree(tiny_export, tmp_path / "export"))
    (copy / "README.dataset.txt").write_text("CC BY 4.0")
    return copy


def test_the_copy_has_no_error_and_the_source_is_as_it_was(export: Path, tmp_path: Path) -> None:
    before = _listing(export)
    record = clean_dataset(export, tmp_path / "clean")
    assert _listing(export) == before
    assert check_export(tmp_path / "clean")["errors"] == 0
    assert record == json.loads((tmp_path / "clean" / "cleaning.json").read_text())
    assert record["splits"]["train"]["images"] == record["splits"]["train"]["images_before"] == 6
    assert record["changes"]["grouping-category"] == 1
    assert (tmp_path / "clean" / "README.dataset.txt").read_text() == "CC BY 4.0"
    assert str(tmp_path) not in (tmp_path / "clean" / "cleaning.json").read_text()


def test_images_are_hard_links_and_copies_where_links_are_refused(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean_dataset(export, tmp_path / "linked")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    clean_dataset(export, tmp_path / "copied")
    assert _content(tmp_path / "linked") == _content(tmp_path / "copied")
    picture = next((export / "train").glob("*.jpg"))
    for name, links in (("linked", True), ("copied", False)):
        other = tmp_path / name / "train" / picture.name
        assert other.samefile(picture) == links


def test_cleaning_twice_gives_the_same_bytes(export: Path, tmp_path: Path) -> None:
    first = clean_dataset(export, tmp_path / "first")
    assert clean_dataset(export, tmp_path / "second") == first
    assert _content(tmp_path / "first") == _content(tmp_path / "second")
    again = clean_dataset(tmp_path / "first", tmp_path / "again")
    assert again["changes"] == {}
    strip = {"cleaning.json": b""}
    assert _content(tmp_path / "again") | strip == _content(tmp_path / "first") | strip


def test_an_output_that_is_used_or_nested_is_refused(export: Path, tmp_path: Path) -> None:
    clean_dataset(export, tmp_path / "clean")
    with pytest.raises(OutputExistsError):
        clean_dataset(export, tmp_path / "clean")
    clean_dataset(export, tmp_path / "clean", overwrite=True)
    for output in (export, export / "train", tmp_path):
        with pytest.raises((DatasetError, OutputExistsError)):
            clean_dataset(export, output, overwrite=output != tmp_path)
    with pytest.raises(DatasetError, match="one in the other"):
        clean_dataset(export, tmp_path, overwrite=True)
    assert (export / "train").is_dir()


def test_images_that_cannot_be_used_are_left_behind_by_name(export: Path, tmp_path: Path) -> None:
    first, second, third, *_ = sorted((export / "train").glob("*.jpg"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:700])
    path = export / "train" / "_annotations.coco.json"
    coco = json.loads(path.read_text())
    image = next(image for image in coco["images"] if image["file_name"] == third.name)
    image["width"] += 1
    path.write_text(json.dumps(coco))
    record = clean_dataset(export, tmp_path / "clean")
    assert record["dropped_images"]["train"] == {
        first.name: "file-missing",
        second.name: "image-truncated",
        third.name: "image-size-differs",
    }
    assert record["splits"]["train"]["images"] == 3
    assert len(list((tmp_path / "clean" / "train").glob("*.jpg"))) == 3


def test_drop_leaks_keeps_the_later_split_whole(export: Path, tmp_path: Path) -> None:
    picture = next((export / "test").glob("*.jpg"))
    twin = next((export / "train").glob("*.jpg"))
    shutil.copyfile(picture, twin)
    kept = clean_dataset(export, tmp_path / "kept")
    assert kept["splits"]["train"]["images"] == 6
    record = clean_dataset(export, tmp_path / "clean", drop_leaks=True)
    assert record["splits"]["train"]["images"] == 5
    assert record["splits"]["test"]["images"] == 3
    assert record["dropped_images"] == {"train": {twin.name: "leak-dropped"}}
    assert check_export(tmp_path / "clean")["leaks"]["test"]["leaked"] == 0

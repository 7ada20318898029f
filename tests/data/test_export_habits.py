"""Exports with the habits of real ones: each is checked, cleaned and scored."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persondet.data.check import check_export
from persondet.data.clean import clean_dataset
from persondet.errors import DatasetError
from tests.data.exports import ANNOTATION_FILE, compressed_rle, picture, raster, raster_area
from tests.data.ground_truth_score import assert_ground_truth_scores_100

PERSON = [{"id": 1, "name": "person", "supercategory": "none"}]
Shape = Callable[[int, int, int], dict[str, Any]]


def octagon(cell: int, width: int, height: int) -> dict[str, Any]:
    """Box, polygon and true area of an octagon in one quarter of the image."""
    left, top = (cell % 2) * width / 2 + 1, (cell // 2) * height / 2 + 1
    wide, high = width / 2 - 2, height / 2 - 2
    unit = [(1, 0), (3, 0), (4, 1), (4, 3), (3, 4), (1, 4), (0, 3), (0, 1)]
    points = [(left + x / 4 * wide, top + y / 4 * high) for x, y in unit]
    polygon = [value for point in points for value in point]
    area = raster_area([polygon], height, width)
    box = [left, top, wide, high]
    return {"bbox": box, "segmentation": [polygon], "area": area, "iscrowd": 0}


def without_mask(cell: int, width: int, height: int) -> dict[str, Any]:
    shape = octagon(cell, width, height)
    box = shape["bbox"]
    return shape | {"segmentation": [], "area": box[2] * box[3]}


def rle_string(cell: int, width: int, height: int) -> dict[str, Any]:
    shape = octagon(cell, width, height)
    mask = raster(shape["segmentation"], height, width)
    ys, xs = np.nonzero(mask)
    box = [int(v) for v in (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1)]
    return shape | {"segmentation": compressed_rle(mask), "bbox": box}


def write_habit(
    root: Path,
    splits: dict[str, Sequence[Sequence[tuple[Shape, int]]]],
    *,
    categories: list[dict[str, Any]] = PERSON,
    name: Callable[[str, int], str] = lambda folder, index: f"{'abcdefghij'[index]}{folder}.jpg",
) -> None:
    """Write an export without any other habit than what is asked for.

    Args:
        splits: folder name ("" for a flat export) to its images, each a list of its objects: the
            shape and the category id.
    """
    number = 0
    for folder, images in splits.items():
        coco: dict[str, Any] = {"info": {}, "licenses": [], "categories": categories}
        coco |= {"images": [], "annotations": []}
        (root / folder).mkdir(parents=True, exist_ok=True)
        for index, objects in enumerate(images):
            pixels, jpeg, _, _ = picture(number)
            number += 1
            file_name = name(folder, index)
            (root / folder / file_name).write_bytes(jpeg)
            height, width = pixels.shape[:2]
            image = {"id": index, "file_name": file_name, "height": height, "width": width}
            coco["images"].append(image)
            for cell, (shape, category) in enumerate(objects):
                annotation = {"id": len(coco["annotations"]) + 1, "image_id": index}
                annotation |= {"category_id": category, **shape(cell, width, height)}
                coco["annotations"].append(annotation)
        (root / folder / ANNOTATION_FILE).write_text(json.dumps(coco), encoding="utf-8")


def people(count: int, shape: Shape = octagon, category: int = 1) -> list[tuple[Shape, int]]:
    return [(shape, category)] * count


# The habits


def _three(objects: list[tuple[Shape, int]], test: Any = None) -> dict[str, Any]:
    return {"train": [objects] * 4, "valid": [objects] * 2, "test": [test or objects] * 2}


def _categories(*rows: tuple[int, str, str]) -> list[dict[str, Any]]:
    return [dict(zip(("id", "name", "supercategory"), row, strict=True)) for row in rows]


def _frame(folder: str, index: int) -> str:
    frame = 3 * index + ["train", "valid", "test"].index(folder)
    return f"walk_mp4-{frame:04d}_jpg.rf.{frame:032x}.jpg"


MANY = _categories((0, "things", "none"), *((n, f"class {n}", "things") for n in range(1, 109)))
MIXED = [(octagon, 1), (rle_string, 1), (octagon, 1)]
SOME = {
    "train": [people(2), [], people(1), [], people(3)],
    **{"valid": [people(2), []], "test": [people(2), []]},
}


@dataclass(frozen=True)
class Habit:
    """What an export of one kind looks like, and what is true of it.

    Attributes:
        splits, categories, name: for `write_habit`.
        findings: code to count; "some" where the count is a matter of taste.
        classes: the class names after cleaning.
        options: for `clean`.
        missing: an image to delete.
    """

    splits: dict[str, Any]
    findings: dict[str, int | str]
    classes: list[str] = field(default_factory=lambda: ["person"])
    categories: list[dict[str, Any]] = field(default_factory=lambda: PERSON)
    options: dict[str, Any] = field(default_factory=dict)
    name: Any = None
    missing: str = ""

    def write(self, root: Path) -> Path:
        more = {"name": self.name} if self.name else {}
        write_habit(root, self.splits, categories=self.categories, **more)
        if self.missing:
            (root / self.missing).unlink()
        return root


HABITS = {
    "109 categories, one used": Habit(
        _three(people(2, category=50)),
        {"grouping-category": "some", "class-unused": "some"},
        [f"class {n}" for n in range(1, 109)],
        MANY,
    ),
    "one class of many": Habit(
        _three(people(2, category=50)),
        {"grouping-category": "some", "class-unused": "some"},
        ["class 50"],
        MANY,
        {"classes": ("class 50",)},
    ),
    "id 0 is a real class": Habit(
        _three([(octagon, 0), (octagon, 1), (octagon, 0)]),
        {},
        ["person", "rider"],
        _categories((0, "person", "none"), (1, "rider", "person")),
    ),
    "flat, an image is missing": Habit(
        {"": [people(2)] * 5}, {"split-missing": "some", "file-missing": 1}, missing="c.jpg"
    ),
    "images without annotations": Habit(SOME, {"image-without-annotations": 4}),
    "empty and polygon masks in one image": Habit(
        _three([(octagon, 1), (without_mask, 1), (octagon, 1)], people(2)), {"mask-missing": 6}
    ),
    "boxes only": Habit(_three(people(2, without_mask)), {"masks-none": "some"}),
    "boxes only, filled": Habit(
        _three(people(2, without_mask)), {"masks-none": "some"}, options={"masks": "box"}
    ),
    "RLE strings": Habit(_three(people(3, rle_string)), {}),
    "RLE strings among polygons": Habit(_three(MIXED, people(2)), {"mask-formats-mixed": "some"}),
    "polygons as bitmasks": Habit(_three(people(2)), {}, options={"masks": "bitmask"}),
    "polygons without masks": Habit(_three(people(2)), {}, options={"masks": "none"}),
    "two categories of one name": Habit(
        _three([(octagon, 0), (octagon, 1)]),
        {"category-name-twice": "some"},
        ["Person"],
        _categories((0, "Person", "none"), (1, "Person", "Person")),
    ),
    "frames of one clip in all splits": Habit(
        {"train": [people(2)] * 4, "valid": [people(1)] * 2, "test": [people(1)] * 3},
        {"leak-same-clip": 5},
        name=_frame,
    ),
}


def counts(report: dict[str, Any]) -> dict[str, int]:
    return {finding["code"]: finding["count"] for finding in report["findings"]}


def read(root: Path) -> dict[str, Any]:
    return {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(root.glob(f"*/{ANNOTATION_FILE}"))
    }


@pytest.mark.parametrize("name", HABITS)
def test_check_is_true_and_what_clean_writes_scores_100(name: str, tmp_path: Path) -> None:
    habit = HABITS[name]
    root = habit.write(tmp_path / "export")
    report = check_export(root)
    found = counts(report)
    assert found.keys() == habit.findings.keys()
    for code, count in habit.findings.items():
        assert count in ("some", found[code]), code
    for finding in report["findings"]:
        assert len(finding["examples"]) == min(3, finding["count"])
    summary = clean_dataset(root, tmp_path / "clean", **habit.options)
    for code in ("file-missing", "mask-missing", "category-name-twice"):
        assert summary["changes"].get(code, 0) == found.get(code, 0)
    assert check_export(tmp_path / "clean")["errors"] == 0
    for coco in read(tmp_path / "clean").values():
        assert [category["name"] for category in coco["categories"]] == habit.classes
        assert len({category["id"] for category in coco["categories"]}) == len(habit.classes)
    dataset = f"habit_{list(HABITS).index(name)}"
    assert_ground_truth_scores_100(dataset, tmp_path / "clean", tmp_path / "run")


def test_masks_of_either_form_are_kept_byte_for_byte(tmp_path: Path) -> None:
    root = HABITS["RLE strings among polygons"].write(tmp_path / "export")
    clean_dataset(root, tmp_path / "clean")
    before, after = read(root), read(tmp_path / "clean")
    for split, coco in before.items():
        masks = [annotation["segmentation"] for annotation in coco["annotations"]]
        assert masks == [annotation["segmentation"] for annotation in after[split]["annotations"]]


def test_clip_mates_are_told_apart_from_leaks(tmp_path: Path) -> None:
    HABITS["frames of one clip in all splits"].write(tmp_path)
    leaks = check_export(tmp_path)["leaks"]
    assert (leaks["test"]["images"], leaks["test"]["leaked"], leaks["test"]["share"]) == (3, 0, 0)
    assert (leaks["test"]["clip_mates"], leaks["valid"]["clip_mates"]) == (3, 2)


def test_an_export_whose_only_image_is_missing_leaves_nothing_to_write(tmp_path: Path) -> None:
    write_habit(tmp_path / "export", {"": [people(2)]})
    (tmp_path / "export/a.jpg").unlink()
    report = check_export(tmp_path / "export")
    assert (counts(report)["file-missing"], report["errors"]) == (1, 1)
    with pytest.raises(DatasetError):
        clean_dataset(tmp_path / "export", tmp_path / "clean")
    assert [path.name for path in tmp_path.iterdir()] == ["export"]

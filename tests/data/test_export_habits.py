"""Exports with the habits of real ones: each is checked, cleaned and scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from persondet.data.check import check_export
from persondet.data.clean import clean_dataset
from tests.data.exports import (
    Objects,
    categories,
    counts,
    in_this_process,
    octagon,
    people,
    read_splits,
    rle_string,
    without_mask,
    write_habit,
)
from tests.data.ground_truth_score import assert_ground_truth_scores_100

MANY = categories((0, "things"), *((n, f"class {n}", "things") for n in range(1, 109)))


def _three(objects: Objects, test: Any = None) -> dict[str, Any]:
    return {"train": [objects] * 3, "valid": [objects], "test": [test or objects] * 2}


def _frame(folder: str, index: int) -> str:
    frame = 3 * index + ["train", "valid", "test"].index(folder)
    return f"walk_mp4-{frame:04d}_jpg.rf.{frame:032x}.jpg"


# Name to the splits, what `check` finds (None where the count is a matter of taste), the class
# names after cleaning, and options of `write_habit` or of `clean`.
HABITS: dict[str, tuple[dict[str, Any], dict[str, int | None], list[str], dict[str, Any]]] = {
    "109 categories, one used": (
        _three(people(2, category=50)),
        {"grouping-category": None, "class-unused": None},
        [f"class {n}" for n in range(1, 109)],
        {"categories": MANY},
    ),
    "id 0 is a real class": (
        _three([(octagon, 0), (octagon, 1), (octagon, 0)]),
        {},
        ["person", "rider"],
        {"categories": categories((0, "person", "none"), (1, "rider", "person"))},
    ),
    "flat, an image is missing": (
        {"": [people(2)] * 5},
        {"split-missing": None, "file-missing": 1},
        ["person"],
        {"missing": "c.jpg"},
    ),
    "images without annotations": (
        {"train": [people(2), [], people(1), [], people(3)], "valid": [people(2), []]},
        {"image-without-annotations": 3, "split-missing": 1},
        ["person"],
        {},
    ),
    "empty and polygon masks in one image": (
        _three([(octagon, 1), (without_mask, 1), (octagon, 1)], people(2)),
        {"mask-missing": 4},
        ["person"],
        {},
    ),
    "boxes only": (_three(people(2, without_mask)), {"masks-none": None}, ["person"], {}),
    "boxes only, filled": (
        _three(people(2, without_mask)),
        {"masks-none": None},
        ["person"],
        {"masks": "box"},
    ),
    "RLE among polygons": (
        _three([(octagon, 1), (rle_string, 1), (octagon, 1)], people(3, rle_string)),
        {"mask-formats-mixed": None},
        ["person"],
        {},
    ),
    "polygons as bitmasks": (_three(people(2)), {}, ["person"], {"masks": "bitmask"}),
    "frames of one clip in all splits": (
        _three(people(1)),
        {"leak-same-clip": 3},
        ["person"],
        {"name": _frame},
    ),
}


def masks(root: Path) -> list[Any]:
    return [a["segmentation"] for coco in read_splits(root).values() for a in coco["annotations"]]


@pytest.mark.parametrize("name", HABITS)
def test_check_is_true_and_what_clean_writes_scores_100(name: str, tmp_path: Path) -> None:
    splits, findings, classes, options = HABITS[name]
    written = {key: options[key] for key in ("categories", "name") if key in options}
    root = write_habit(tmp_path / "export", splits, **written)
    if "missing" in options:
        (root / options["missing"]).unlink()
    with in_this_process():
        report = check_export(root)
    found = counts(report)
    assert found.keys() == findings.keys()
    assert all(count in (None, found[code]) for code, count in findings.items())
    if name == "frames of one clip in all splits":
        shares = report["leaks"]
        assert (shares["test"]["leaked"], shares["test"]["clip_mates"]) == (0, 2)
        assert shares["valid"]["clip_mates"] == 1
    options = {key: options[key] for key in ("masks",) if key in options}
    with in_this_process():
        summary = clean_dataset(root, tmp_path / "clean", **options)
        assert check_export(tmp_path / "clean")["errors"] == 0
    for code in ("file-missing", "mask-missing"):
        assert summary["changes"].get(code, 0) == found.get(code, 0)
    assert summary["classes"] == classes
    if name == "RLE among polygons":
        assert masks(tmp_path / "clean") == masks(root)  # either form is kept as it is
    if findings.keys() <= {"mask-missing", "mask-formats-mixed", "masks-none"}:
        assert_ground_truth_scores_100(f"habit {name}", tmp_path / "clean", tmp_path / "run")

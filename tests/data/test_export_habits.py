"""Exports with the habits of real ones: each checked, cleaned, scored, and trained on."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persondet.data.check.validate import check_export
from persondet.data.cleaned_copy import clean_dataset
from persondet.engine.events import last_row
from persondet.errors import DatasetError
from tests.data.exports import ANNOTATION_FILE, compressed_rle, picture, raster, raster_area
from tests.data.ground_truth_score import assert_ground_truth_scores_100
from tests.test_end_to_end import CONFIG, tool

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


@dataclass(frozen=True)
class Habit:
    """What an export of one kind looks like and what is true of it.

    Attributes:
        findings: code to count, exactly; "some" where the number is a matter of taste.
        classes: the class names after cleaning.
        options: for `clean`.
        changes: code to count in `cleaning.json`, exactly for these codes.
    """

    write: Callable[[Path], None]
    findings: dict[str, int | str]
    classes: list[str]
    options: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, int | str] = field(default_factory=dict)


def _many_categories(root: Path) -> None:
    group = {"id": 0, "name": "things", "supercategory": "none"}
    names = [{"id": n, "name": f"class {n}", "supercategory": "things"} for n in range(1, 109)]
    used = people(2, category=50)
    write_habit(
        root,
        {"train": [used] * 4, "valid": [used] * 2, "test": [used] * 2},
        categories=[group, *names],
    )


def _id_zero_is_a_class(root: Path) -> None:
    both = [(octagon, 0), (octagon, 1), (octagon, 0)]
    categories = [
        {"id": 0, "name": "person", "supercategory": "none"},
        {"id": 1, "name": "rider", "supercategory": "person"},
    ]
    write_habit(
        root,
        {"train": [both] * 4, "valid": [both] * 2, "test": [both] * 2},
        categories=categories,
    )


def _flat_with_a_missing_image(root: Path) -> None:
    write_habit(root, {"": [people(2)] * 5})
    (root / "c.jpg").unlink()


def _images_without_annotations(root: Path) -> None:
    some = [people(2), [], people(1), [], people(3)]
    write_habit(root, {"train": some, "valid": [people(2), []], "test": [people(2), []]})


def _empty_and_polygon_masks(root: Path) -> None:
    mixed = [(octagon, 1), (without_mask, 1), (octagon, 1)]
    write_habit(root, {"train": [mixed] * 4, "valid": [mixed] * 2, "test": [people(2)] * 2})


def _rle_strings(root: Path) -> None:
    strings = people(3, rle_string)
    write_habit(root, {"train": [strings] * 4, "valid": [strings] * 2, "test": [strings] * 2})


def _rle_among_polygons(root: Path) -> None:
    mixed = [(octagon, 1), (rle_string, 1), (octagon, 1)]
    write_habit(root, {"train": [mixed] * 4, "valid": [mixed] * 2, "test": [people(2)] * 2})


def _two_categories_of_one_name(root: Path) -> None:
    both = [(octagon, 0), (octagon, 1)]
    categories = [
        {"id": 0, "name": "Person", "supercategory": "none"},
        {"id": 1, "name": "Person", "supercategory": "Person"},
    ]
    write_habit(
        root,
        {"train": [both] * 4, "valid": [both] * 2, "test": [both] * 2},
        categories=categories,
    )


def _frames_of_one_clip(root: Path) -> None:
    order = {"train": 0, "valid": 1, "test": 2}

    def name(folder: str, index: int) -> str:
        frame = 3 * index + order[folder]
        return f"walk_mp4-{frame:04d}_jpg.rf.{frame:032x}.jpg"

    write_habit(
        root,
        {"train": [people(2)] * 4, "valid": [people(1)] * 2, "test": [people(1)] * 3},
        name=name,
    )


HABITS = {
    "109 categories, one used": Habit(
        _many_categories,
        {"grouping-category": "some", "class-unused": "some"},
        ["class 50"],
        {"classes": ("class 50",)},
    ),
    "id 0 is a real class": Habit(_id_zero_is_a_class, {}, ["person", "rider"]),
    "flat, an image is missing": Habit(
        _flat_with_a_missing_image,
        {"split-missing": "some", "file-missing": 1},
        ["person"],
        changes={"file-missing": 1},
    ),
    "images without annotations": Habit(
        _images_without_annotations, {"image-without-annotations": 4}, ["person"]
    ),
    "empty and polygon masks in one image": Habit(
        _empty_and_polygon_masks, {"mask-missing": 6}, ["person"], changes={"mask-missing": 6}
    ),
    "RLE strings": Habit(_rle_strings, {}, ["person"]),
    "RLE strings among polygons": Habit(
        _rle_among_polygons, {"mask-formats-mixed": "some"}, ["person"]
    ),
    "two categories of one name": Habit(
        _two_categories_of_one_name,
        {"category-name-twice": "some"},
        ["Person"],
        changes={"category-name-twice": "some"},
    ),
    "frames of one clip in all splits": Habit(
        _frames_of_one_clip, {"leak-same-clip": 5}, ["person"]
    ),
}
ALL = pytest.mark.parametrize("habit", HABITS.values(), ids=list(HABITS))


def matches(found: Counter[str], expected: dict[str, int | str]) -> bool:
    return set(found) == set(expected) and all(
        count == "some" or found[code] == count for code, count in expected.items()
    )


def counts(report: dict[str, Any]) -> Counter[str]:
    return Counter({finding["code"]: finding["count"] for finding in report["findings"]})


def read(root: Path) -> dict[str, Any]:
    return {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(root.glob(f"*/{ANNOTATION_FILE}"))
    }


@ALL
def test_check_says_what_is_true_and_nothing_else(habit: Habit, tmp_path: Path) -> None:
    habit.write(tmp_path)
    report = check_export(tmp_path)
    assert matches(counts(report), habit.findings), counts(report)
    for finding in report["findings"]:
        assert len(finding["examples"]) == min(3, finding["count"])


@ALL
def test_clean_passes_check_and_scores_100(
    habit: Habit, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    habit.write(tmp_path / "export")
    summary = clean_dataset(tmp_path / "export", tmp_path / "clean", **habit.options)
    for code, count in habit.changes.items():
        found = summary["changes"].get(code, 0)
        assert found == count or (count == "some" and found), summary["changes"]
    report = check_export(tmp_path / "clean")
    assert report["errors"] == 0, report["findings"]
    for coco in read(tmp_path / "clean").values():
        assert [category["name"] for category in coco["categories"]] == habit.classes
        assert len({category["id"] for category in coco["categories"]}) == len(habit.classes)
    name = f"habit_{list(HABITS.values()).index(habit)}"
    assert_ground_truth_scores_100(name, tmp_path / "clean", tmp_path / "run")


@pytest.mark.slow
@ALL
def test_a_few_steps_of_training(habit: Habit, tmp_path: Path) -> None:
    habit.write(tmp_path / "export")
    clean_dataset(tmp_path / "export", tmp_path / "clean", **habit.options)
    tool(
        "train_net",
        *("--config-file", CONFIG),
        *("DATASETS.ROBOFLOW.ROOT", tmp_path / "clean", "OUTPUT_DIR", tmp_path / "run"),
        *("SOLVER.MAX_ITER", 4, "TEST.EVAL_PERIOD", 4, "SOLVER.CHECKPOINT_PERIOD", 4),
    )
    assert last_row(tmp_path / "run/metrics.json") >= 3
    if (tmp_path / "clean/test").exists():
        results = json.loads((tmp_path / "run/results.json").read_text())
        assert 0 <= results["test"]["bbox"]["AP"] <= 100


@pytest.mark.parametrize(
    "habit",
    [
        pytest.param(
            habit,
            id=name,
            marks=pytest.mark.slow
            if index < 2 or "file-missing" in habit.findings
            else pytest.mark.soak,
        )
        for index, (name, habit) in enumerate(HABITS.items())
    ],
)
def test_a_few_steps_on_the_export_as_it_is(habit: Habit, tmp_path: Path) -> None:
    """Training mends in memory what is safe to mend, and refuses the rest in one sentence."""
    habit.write(tmp_path / "export")
    refused = "file-missing" in habit.findings
    said = tool(
        "train_net",
        *("--config-file", CONFIG),
        *("DATASETS.ROBOFLOW.ROOT", tmp_path / "export", "OUTPUT_DIR", tmp_path / "run"),
        *("SOLVER.MAX_ITER", 2, "TEST.EVAL_PERIOD", 0, "SOLVER.CHECKPOINT_PERIOD", 2),
        expect=2 if refused else 0,
    )
    assert last_row(tmp_path / "run/metrics.json") == (-1 if refused else 2)
    assert "Traceback" not in said


# What is particular to one habit


def test_a_flat_folder_of_one_image_that_is_missing_leaves_nothing_to_write(
    tmp_path: Path,
) -> None:
    write_habit(tmp_path / "export", {"": [people(2)]})
    (tmp_path / "export/a.jpg").unlink()
    report = check_export(tmp_path / "export")
    assert counts(report)["file-missing"] == 1
    assert report["errors"] == 1, report["findings"]
    assert list(report["splits"]) == ["train"]
    with pytest.raises(DatasetError) as refusal:
        clean_dataset(tmp_path / "export", tmp_path / "clean")
    assert "\n" not in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_all_classes_are_kept_where_none_are_named(tmp_path: Path) -> None:
    _many_categories(tmp_path / "export")
    report = check_export(tmp_path / "export")
    assert counts(report)["class-unused"] in (107, 3 * 107)
    clean_dataset(tmp_path / "export", tmp_path / "clean")
    for coco in read(tmp_path / "clean").values():
        assert [c["name"] for c in coco["categories"]] == [f"class {n}" for n in range(1, 109)]
        assert {a["category_id"] for a in coco["annotations"]} == {50}
    assert check_export(tmp_path / "clean")["errors"] == 0


def test_rle_strings_are_kept_byte_for_byte(tmp_path: Path) -> None:
    _rle_among_polygons(tmp_path / "export")
    clean_dataset(tmp_path / "export", tmp_path / "clean")
    before, after = read(tmp_path / "export"), read(tmp_path / "clean")
    for split, coco in before.items():
        masks = [annotation["segmentation"] for annotation in coco["annotations"]]
        assert masks == [annotation["segmentation"] for annotation in after[split]["annotations"]]


def test_clip_mates_are_told_apart_from_leaks(tmp_path: Path) -> None:
    _frames_of_one_clip(tmp_path)
    leaks = check_export(tmp_path)["leaks"]
    assert leaks["test"]["images"] == 3
    assert leaks["test"]["leaked"] == 0
    assert leaks["test"]["share"] == 0
    assert leaks["test"]["clip_mates"] == 3
    assert leaks["valid"]["clip_mates"] == 2


def test_annotations_of_both_categories_of_one_name_become_one_class(tmp_path: Path) -> None:
    _two_categories_of_one_name(tmp_path / "export")
    clean_dataset(tmp_path / "export", tmp_path / "clean")
    after = read(tmp_path / "clean")["train"]
    assert len(after["annotations"]) == 8
    assert {annotation["category_id"] for annotation in after["annotations"]} == {1}


@pytest.mark.parametrize(
    ("masks", "kind"),
    [("auto", "polygon"), ("polygon", "polygon"), ("bitmask", "rle"), ("box", "box"), ("none", "")],
)
def test_masks_as_asked_for(tmp_path: Path, masks: str, kind: str) -> None:
    write_habit(tmp_path / "export", {"train": [people(2)] * 3, "valid": [people(1)] * 2})
    before = read(tmp_path / "export")
    clean_dataset(tmp_path / "export", tmp_path / "clean", masks=masks)
    report = check_export(tmp_path / "clean")
    assert report["errors"] == 0, report["findings"]
    for split, coco in read(tmp_path / "clean").items():
        images = {image["id"]: image for image in coco["images"]}
        for old, new in zip(before[split]["annotations"], coco["annotations"], strict=True):
            image = images[new["image_id"]]
            mask = new["segmentation"]
            if kind == "polygon":
                assert mask == old["segmentation"]
            elif kind == "":
                assert mask == []
                assert new["area"] == new["bbox"][2] * new["bbox"][3]
            elif kind == "rle" and isinstance(mask, dict):
                expected = raster(old["segmentation"], image["height"], image["width"])
                assert (raster(mask, image["height"], image["width"]) == expected).all()
            elif kind == "rle":  # rasterised when it is loaded
                assert mask == old["segmentation"]
    name = f"masks_{masks}"
    assert_ground_truth_scores_100(name, tmp_path / "clean", tmp_path / "run")


def test_boxes_only_stay_boxes_unless_masks_are_asked_for(tmp_path: Path) -> None:
    boxes = people(2, without_mask)
    write_habit(tmp_path / "export", {"train": [boxes] * 3, "valid": [boxes] * 2})
    report = check_export(tmp_path / "export")
    assert set(counts(report)) == {"masks-none", "split-missing"}
    clean_dataset(tmp_path / "export", tmp_path / "boxes")
    clean_dataset(tmp_path / "export", tmp_path / "filled", masks="box")
    for coco in read(tmp_path / "boxes").values():
        assert all(annotation["segmentation"] == [] for annotation in coco["annotations"])
    for coco in read(tmp_path / "filled").values():
        for annotation in coco["annotations"]:
            x, y, w, h = annotation["bbox"]
            (polygon,) = annotation["segmentation"]
            assert set(zip(polygon[::2], polygon[1::2], strict=True)) == {
                (x, y), (x + w, y), (x, y + h), (x + w, y + h)
            }  # fmt: skip
    assert check_export(tmp_path / "filled")["errors"] == 0
    assert_ground_truth_scores_100("boxes_only", tmp_path / "boxes", tmp_path / "run 1")
    assert_ground_truth_scores_100("boxes_filled", tmp_path / "filled", tmp_path / "run 2")


def test_names_that_differ_only_in_case_become_the_one_that_is_used_most(tmp_path: Path) -> None:
    categories = [
        {"id": 0, "name": "Person", "supercategory": "none"},
        {"id": 1, "name": "person", "supercategory": "none"},
    ]
    mixed = [(octagon, 0), (octagon, 1), (octagon, 1)]
    write_habit(tmp_path / "export", {"train": [mixed] * 3}, categories=categories)
    report = check_export(tmp_path / "export")
    assert set(counts(report)) == {"category-name-case", "split-missing"}
    clean_dataset(tmp_path / "export", tmp_path / "clean")
    coco = read(tmp_path / "clean")["train"]
    assert [category["name"] for category in coco["categories"]] == ["person"]
    assert len(coco["annotations"]) == 9


def test_classes_that_differ_between_splits_become_one_list(tmp_path: Path) -> None:
    write_habit(tmp_path / "export", {"train": [people(2)] * 3})
    other = [{"id": 1, "name": "dog", "supercategory": "none"}, PERSON[0] | {"id": 2}]
    second = tmp_path / "second"
    write_habit(second, {"test": [[(octagon, 1), (octagon, 2)]] * 2}, categories=other)
    for number, path in enumerate(sorted((second / "test").glob("*.jpg"))):
        path.write_bytes(picture(40 + number)[1])  # not the images of train
        coco = json.loads((second / "test" / ANNOTATION_FILE).read_text())
        height, width = picture(40 + number)[0].shape[:2]
        coco["images"][number] |= {"width": width, "height": height}
        for annotation in coco["annotations"]:
            if annotation["image_id"] == number:
                cell = annotation["id"] % 2
                annotation |= octagon(cell, width, height)
        (second / "test" / ANNOTATION_FILE).write_text(json.dumps(coco))
    (second / "test").rename(tmp_path / "export" / "test")
    report = check_export(tmp_path / "export")
    assert set(counts(report)) == {"classes-differ", "split-missing"}, counts(report)
    before = copy.deepcopy(read(tmp_path / "export"))
    clean_dataset(tmp_path / "export", tmp_path / "clean")
    after = read(tmp_path / "clean")
    assert after["train"]["categories"] == after["test"]["categories"]
    for split, coco in before.items():
        old_names = {category["id"]: category["name"] for category in coco["categories"]}
        new_names = {c["id"]: c["name"] for c in after[split]["categories"]}
        assert [old_names[a["category_id"]] for a in coco["annotations"]] == [
            new_names[a["category_id"]] for a in after[split]["annotations"]
        ]

"""Real exports, unchanged: what is true of each is counted here, from the raw json, without
persondet; then `check` has to say so and nothing else, and `clean` has to mend it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import pytest

from persondet.data.check import check_export
from persondet.data.clean import clean_dataset
from persondet.data.findings import CODES
from persondet.data.split import split_export
from persondet.errors import DatasetError
from tests.data.exports import ANNOTATION_FILE, crosses_itself, raster_area
from tests.data.ground_truth_score import assert_ground_truth_scores_100

pytestmark = pytest.mark.slow

OUR_NAMES = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid"}
OUR_NAMES["test"] = "test"
LEAKS = ("leak-same-file", "leak-same-source", "leak-near-identical", "leak-same-clip")


@dataclass(frozen=True)
class Real:
    """What is said of an export.

    Attributes:
        folder: below the folder of real inputs.
        images, annotations: by split.
        errors: code to count, exactly.
        warnings: code to count, exactly; leaks are judged apart.
        classes: after cleaning.
        leaked: (at least, at most) images of valid and test that have a leak or a clip-mate.
    """

    folder: str
    images: dict[str, int]
    annotations: dict[str, int]
    errors: dict[str, int]
    warnings: dict[str, int]
    classes: list[str]
    leaked: tuple[int, int]
    sources: dict[str, int] = field(default_factory=dict)


VARIANTS = "tiny-roboflow-variants/tests/assets"
EXPORTS = {
    "drone": Real(
        "roboflow-drone-person-polygons",
        {"train": 85, "valid": 24, "test": 12},
        {"train": 100, "valid": 31, "test": 16},
        {"annotation-id-zero": 3},
        {
            "grouping-category": 1,
            "image-without-annotations": 1,
            "box-outside-slightly": 4,
            "area-of-box": 147,
        },
        ["person"],
        (36, 36),  # all are frames of one clip
        sources={"train": 85, "valid": 24, "test": 12},
    ),
    "heads": Real(
        "roboflow-heads-boxes-only",
        {"train": 174, "valid": 16, "test": 9},
        {"train": 255, "valid": 24, "test": 11},
        {"annotation-id-zero": 3, "category-name-twice": 1},
        {"masks-none": 1},
        ["Person"],
        (25, 25),  # the same
        sources={"train": 58, "valid": 16, "test": 9},
    ),
    "multimodal": Real(
        "roboflow-multimodal-human-polygons/dataset",
        {"train": 241, "valid": 66, "test": 33},
        {"train": 241, "valid": 66, "test": 33},
        {"annotation-id-zero": 3},
        # One person of the validation split fills the box, so that the area is right.
        {"grouping-category": 1, "box-outside-slightly": 6, "area-of-box": 339},
        ["person"],
        (30, 99),
        sources={"train": 241, "valid": 66, "test": 33},
    ),
    "flat polygons": Real(
        "bad-flat-polygons",
        {"test": 8},
        {"test": 32},
        {"annotation-id-zero": 1, "polygon-flat": 28, "box-outside": 4},
        {"grouping-category": 1, "area-of-box": 32, "split-missing": 2, "box-beside-mask": 20},
        ["Cat"],
        (0, 0),
        sources={"test": 1},
    ),
    "tiny 1": Real(
        f"{VARIANTS}/coco_dataset/coco_roboflow",
        {"train": 1, "valid": 1},
        {"train": 1, "valid": 2},
        {"mask-missing": 1},
        {"box-tiny": 3, "box-beside-mask": 1, "class-unused": 1, "split-missing": 1},
        ["a", "b", "c"],
        (0, 1),  # two black images of different sizes
    ),
    "tiny 2": Real(
        f"{VARIANTS}/roboflow_dataset/coco",
        {"train": 2, "valid": 1},
        {"train": 2, "valid": 2},
        {"annotation-id-zero": 1},
        {"masks-none": 1, "box-tiny": 3, "split-missing": 1},
        ["label_0", "label_1"],
        (1, 1),  # the file of the validation split is one of train, byte for byte
    ),
}
EACH = pytest.mark.parametrize("name", EXPORTS)


def raw(root: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Our name of a split to its folder and its json, read plainly."""
    return {
        OUR_NAMES[path.parent.name]: (path.parent, json.loads(path.read_text(encoding="utf-8")))
        for path in sorted(root.glob(f"*/{ANNOTATION_FILE}"))
    }


def parts_of(annotation: dict[str, Any]) -> list[list[float]]:
    """The polygons of an annotation, flat or nested."""
    mask = annotation["segmentation"]
    if not mask or isinstance(mask, dict):
        return []
    return mask if isinstance(mask[0], list) else [mask]


TASTE = {
    *("grouping-category", "category-name-twice", "class-unused", "mask-formats-mixed"),
    "masks-none",
}
"""Codes of an export as a whole: whether one counts once or once per split is open."""


def facts(root: Path) -> Counter[str]:
    """What is wrong with an export, by plain counting."""
    found: Counter[str] = Counter()
    splits = raw(root)
    found["split-missing"] = 3 - len(splits)
    everything = [a for _, coco in splits.values() for a in coco["annotations"]]
    masked = [a for a in everything if a["segmentation"]]
    found["masks-none"] = int(not masked)
    if masked:
        found["mask-missing"] = len(everything) - len(masked)
    # The RLE of a crowd is COCO's own way, and never learned from.
    rle = sum(isinstance(a["segmentation"], dict) and not a["iscrowd"] for a in masked)
    found["mask-formats-mixed"] = int(0 < rle < len(masked))
    for folder, coco in splits.values():
        images = {image["id"]: image for image in coco["images"]}
        assert len(images) == len(coco["images"])
        names = {path.name for path in folder.iterdir()} - {ANNOTATION_FILE}
        assert names == {image["file_name"] for image in coco["images"]}
        used = {annotation["image_id"] for annotation in coco["annotations"]}
        found["image-without-annotations"] += len(set(images) - used)
        for annotation in coco["annotations"]:
            image = images[annotation["image_id"]]
            width, height = image["width"], image["height"]
            x, y, w, h = annotation["bbox"]
            beyond = max(-x, -y, x + w - width, y + h - height)
            found["annotation-id-zero"] += annotation["id"] == 0
            found["box-outside"] += beyond > 0.5
            found["box-outside-slightly"] += 1e-6 < beyond <= 0.5
            found["box-tiny"] += min(w, h) < 2
            parts = parts_of(annotation)
            found["polygon-flat"] += bool(parts) and parts is not annotation["segmentation"]
            found["polygon-self-intersecting"] += any(map(crosses_itself, parts))
            if parts:
                flat = np.concatenate([np.reshape(part, (-1, 2)) for part in parts])
                out = max(-flat.min(), (flat - [width, height]).max())
                found["polygon-outside"] += out > 0.5
                found["polygon-outside-slightly"] += 1e-6 < out <= 0.5
                inside = clipped([x, y, x + w, y + h], width, height)
                extent = [*flat.min(axis=0), *flat.max(axis=0)]
                found["box-beside-mask"] += beyond <= 0.5 and overlap(inside, extent) < 0.5
                is_box = abs(annotation["area"] - w * h) <= 0.01 * w * h
                area = raster_area(parts, height, width)
                found["area-of-box"] += is_box and abs(area - w * h) > 0.002 * w * h
            if isinstance(annotation["segmentation"], dict):
                rle = mask_util.frPyObjects(annotation["segmentation"], height, width)
                rows, columns = np.nonzero(mask_util.decode(rle))
                extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                found["box-beside-mask"] += overlap([x, y, x + w, y + h], extent) < 0.5
    categories = [coco["categories"] for _, coco in splits.values()]
    assert all(each == categories[0] for each in categories)
    used = {annotation["category_id"] for annotation in everything}
    named = {category["supercategory"] for category in categories[0]}
    once = {category["name"]: category["id"] for category in categories[0]}
    found["category-name-twice"] = len(categories[0]) - len(once)
    for name, number in once.items():
        if number not in used:
            found["grouping-category" if name in named else "class-unused"] += 1
    return +found


def clipped(box: list[float], width: int, height: int) -> list[float]:
    """A box, XYXY, inside the image."""
    x0, y0, x1, y1 = box
    return [max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)]


def overlap(one: list[float], other: list[float]) -> float:
    """IoU of two boxes, XYXY."""
    sides = [min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1)]
    both = max(sides[0], 0) * max(sides[1], 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return float(both / (sum(areas) - both))


@pytest.fixture(scope="module")
def reports(real_data: Path) -> dict[str, dict[str, Any]]:
    return {name: check_export(real_data / real.folder) for name, real in EXPORTS.items()}


def found(report: dict[str, Any]) -> Counter[str]:
    return Counter({finding["code"]: finding["count"] for finding in report["findings"]})


@EACH
def test_the_table_is_true_by_plain_counting(real_data: Path, name: str) -> None:
    real = EXPORTS[name]
    splits = raw(real_data / real.folder)
    assert {s: len(coco["images"]) for s, (_, coco) in splits.items()} == real.images
    assert {s: len(coco["annotations"]) for s, (_, coco) in splits.items()} == real.annotations
    for split, count in real.sources.items():
        images = splits[split][1]["images"]
        assert len({image["file_name"].partition(".rf.")[0] for image in images}) == count
    # Names that a group of one and the same has are counted as one and the same.
    assert facts(real_data / real.folder) == {**real.errors, **real.warnings}


@EACH
def test_check_says_what_is_true_and_nothing_else(
    reports: dict[str, dict[str, Any]], name: str
) -> None:
    real, report = EXPORTS[name], reports[name]
    got = found(report)
    leaks = {code: got.pop(code) for code in LEAKS if code in got}
    expected = {**real.errors, **real.warnings}
    for code in TASTE & set(got):
        assert got[code] in (1, len(real.images), sum(real.annotations.values())), code
        got[code] = 1
    if name == "heads":
        # Its category 0 groups the other `Person` and has no annotation: both can be said.
        got.pop("grouping-category", None)
    if name == "multimodal":
        # One more mask fills 99.7 % of its box.
        assert got["area-of-box"] in (338, 339)
        got["area-of-box"] = 339
    assert got == expected
    assert report["errors"] == len(real.errors)
    assert real.leaked[0] <= sum(leaks.values()) <= real.leaked[1], leaks
    for finding in report["findings"]:
        assert finding["severity"] == CODES[finding["code"]].severity
    shown = report["statistics"].get("splits")
    for split, count in real.images.items():
        if shown:
            assert shown[split]["images"] == count
            assert shown[split]["annotations"] == real.annotations[split]


def cleaned_folder(real_data: Path, name: str, folder: Path) -> Path:
    """`split` where splits are missing, then `clean`."""
    root = real_data / EXPORTS[name].folder
    if len(EXPORTS[name].images) < 3:
        split_export(root, folder / "cut", fractions=(0.7, 0.2, 0.1), seed=0)
        root = folder / "cut"
    clean_dataset(root, folder / "clean")
    return folder / "clean"


@EACH
def test_clean_mends_it(real_data: Path, tmp_path: Path, name: str) -> None:
    real = EXPORTS[name]
    clean = cleaned_folder(real_data, name, tmp_path)
    report = check_export(clean)
    assert report["errors"] == 0, report["findings"]
    assert not set(found(report)) & (set(real.errors) | {"grouping-category", "area-of-box"})
    splits = raw(clean)
    assert sum(len(coco["images"]) for _, coco in splits.values()) == sum(real.images.values())
    annotations = sum(len(coco["annotations"]) for _, coco in splits.values())
    assert annotations == sum(real.annotations.values())
    for folder, coco in splits.values():
        assert [category["name"] for category in coco["categories"]] == real.classes
        names = {image["file_name"] for image in coco["images"]}
        assert {path.name for path in folder.iterdir()} == {ANNOTATION_FILE, *names}
    assert_ground_truth_scores_100(f"real_{name.replace(' ', '_')}", clean, tmp_path / "run")


def test_plain_coco_trees_are_refused_in_one_sentence(real_data: Path, tmp_path: Path) -> None:
    tree = real_data / VARIANTS / "coco_dataset" / "coco_person_keypoints"
    for call in (check_export, lambda root: clean_dataset(root, tmp_path / "clean")):
        with pytest.raises(DatasetError) as refusal:
            call(tree)
        assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []

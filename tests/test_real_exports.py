"""Real exports, unchanged: `check` says what is true of each and nothing else, and `clean` mends
it. What plain counting can tell is counted here, from the raw json, without persondet."""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from persondet.data.check import check_export
from persondet.data.clean import clean_dataset
from persondet.data.split import split_export
from persondet.errors import DatasetError
from tests.data.exports import ANNOTATION_FILE, Coco, counts, raster, read_splits
from tests.data.ground_truth_score import assert_ground_truth_scores_100

pytestmark = pytest.mark.slow

LEAKS = ("leak-same-file", "leak-same-source", "leak-near-identical", "leak-same-clip")


class Real(NamedTuple):
    """What is true of an export; lists hold a number for each of train, valid and test."""

    folder: str  # below the folder of real inputs
    images: list[int]
    annotations: list[int]
    errors: dict[str, int]
    warnings: dict[str, int]  # leaks are judged apart
    classes: list[str]  # after cleaning
    leaked: tuple[int, int]  # at least and at most, of valid and test, with clip-mates
    sources: list[int]  # different images before augmentation


VARIANTS = "tiny-roboflow-variants/tests/assets"
EXPORTS = {
    "drone": Real(
        "roboflow-drone-person-polygons",
        [85, 24, 12],
        [100, 31, 16],
        {"annotation-id-zero": 3},
        {
            "grouping-category": 1,
            "image-without-annotations": 1,
            "box-outside-slightly": 4,
            "area-of-box": 147,
        },
        ["person"],
        *((36, 36), [85, 24, 12]),  # all are frames of one clip
    ),
    "heads": Real(
        "roboflow-heads-boxes-only",
        [174, 16, 9],
        [255, 24, 11],
        {"annotation-id-zero": 3, "category-name-twice": 1},
        {"masks-none": 1, "grouping-category": 1},
        ["Person"],
        *((25, 25), [58, 16, 9]),  # the same
    ),
    "multimodal": Real(
        "roboflow-multimodal-human-polygons/dataset",
        [241, 66, 33],
        [241, 66, 33],
        {"annotation-id-zero": 3},
        {"grouping-category": 1, "box-outside-slightly": 6, "area-of-box": 339},
        ["person"],
        *((30, 99), [241, 66, 33]),
    ),
    "flat polygons": Real(
        "bad-flat-polygons",
        *([8], [32]),
        {"train-missing": 1, "annotation-id-zero": 1, "polygon-flat": 28, "box-outside": 4},
        {"grouping-category": 1, "area-of-box": 32, "split-missing": 1, "box-beside-mask": 20},
        ["Cat"],
        (0, 0),
        [1],
    ),
    "tiny 1": Real(
        f"{VARIANTS}/coco_dataset/coco_roboflow",
        [1, 1],
        [1, 2],
        {"mask-missing": 1},
        {
            **dict.fromkeys(("class-unused", "class-not-in-train", "class-not-in-valid"), 1),
            **{"box-tiny": 3, "box-beside-mask": 1, "split-missing": 1, "crowds-many": 1},
        },
        ["a", "b", "c"],
        (0, 1),  # two black images of different sizes
        [1, 1],
    ),
    "tiny 2": Real(
        f"{VARIANTS}/roboflow_dataset/coco",
        [2, 1],
        [2, 2],
        {"annotation-id-zero": 1},
        {"masks-none": 1, "box-tiny": 3}
        | dict.fromkeys(("split-missing", "crowds-many", "class-not-in-valid"), 1),
        ["label_0", "label_1"],
        (1, 1),  # the file of the validation split is one of train, byte for byte
        [2, 1],
    ),
}


def raw(root: Path) -> list[Coco]:
    order = ["train", "valid", "val", "validation", "test"]
    splits = read_splits(root)
    return [splits[name] for name in sorted(splits, key=order.index)]


def parts_of(annotation: dict[str, Any]) -> list[list[float]]:
    mask = annotation["segmentation"]
    if not mask or isinstance(mask, dict):
        return []
    return mask if isinstance(mask[0], list) else [mask]


COUNTED = {
    *("annotation-id-zero", "box-outside", "box-outside-slightly", "box-tiny", "polygon-flat"),
    *("image-without-annotations", "area-of-box"),
}


def counted(splits: list[Coco]) -> Counter[str]:
    found: Counter[str] = Counter()
    for coco in splits:
        images = {image["id"]: image for image in coco["images"]}
        used = {annotation["image_id"] for annotation in coco["annotations"]}
        found["image-without-annotations"] += len(set(images) - used)
        for annotation in coco["annotations"]:
            width, height = (images[annotation["image_id"]][key] for key in ("width", "height"))
            x, y, w, h = annotation["bbox"]
            beyond = max(-x, -y, x + w - width, y + h - height)
            found["annotation-id-zero"] += annotation["id"] == 0
            found["box-outside"] += beyond > 0.5
            found["box-outside-slightly"] += 1e-6 < beyond <= 0.5
            found["box-tiny"] += min(w, h) < 2
            parts = parts_of(annotation)
            found["polygon-flat"] += bool(parts) and parts is not annotation["segmentation"]
            if parts and abs(annotation["area"] - w * h) <= 0.01 * w * h:
                area = float(raster(parts, height, width).sum())
                found["area-of-box"] += abs(area - w * h) > 0.002 * w * h
    return +found


@pytest.mark.parametrize("name", EXPORTS)
def test_check_says_what_is_true_and_clean_mends_it(
    real_data: Path, tmp_path: Path, name: str
) -> None:
    real = EXPORTS[name]
    root, splits = real_data / real.folder, raw(real_data / real.folder)
    expected = {**real.errors, **real.warnings}
    for key in ("images", "annotations"):
        assert [len(coco[key]) for coco in splits] == getattr(real, key)
    assert {code: n for code, n in expected.items() if code in COUNTED} == counted(splits)
    # What check says
    report = check_export(root)
    found = counts(report)
    leaks = sum(found.pop(code, 0) for code in LEAKS)
    assert real.leaked[0] <= leaks <= real.leaked[1]
    if name == "multimodal":  # one more mask fills 99.7 % of its box
        found["area-of-box"] += 1
    assert found.keys() == expected.keys()
    # Whether a code of the export as a whole counts once or for each annotation is open.
    assert {c: n for c, n in found.items() if c != "masks-none"} == {
        c: n for c, n in expected.items() if c != "masks-none"
    }
    assert report["errors"] == len(real.errors)
    shown = report["statistics"]["splits"].values()
    for key in ("images", "annotations", "sources"):
        assert [split[key] for split in shown] == getattr(real, key)
    # What clean mends, after split where splits are missing
    if len(splits) < 3:
        split_export(root, tmp_path / "cut", fractions=(0.7, 0.2, 0.1), seed=0)
        root = tmp_path / "cut"
    clean = tmp_path / "clean"
    assert clean_dataset(root, clean)["classes"] == real.classes
    again = check_export(clean)
    assert again["errors"] == 0, again["findings"]
    assert not set(counts(again)) & {*real.errors, "grouping-category", "area-of-box"}
    for key in ("images", "annotations"):
        assert sum(len(coco[key]) for coco in raw(clean)) == sum(getattr(real, key))
    for split, coco in read_splits(clean).items():
        names = {image["file_name"] for image in coco["images"]}
        assert {path.name for path in (clean / split).iterdir()} == {ANNOTATION_FILE, *names}
    assert_ground_truth_scores_100(f"real {name}", clean, tmp_path / "run")


def test_plain_coco_trees_are_refused_in_one_sentence(real_data: Path, tmp_path: Path) -> None:
    tree = real_data / VARIANTS / "coco_dataset" / "coco_person_keypoints"
    for call in (check_export, lambda root: clean_dataset(root, tmp_path / "clean")):
        with pytest.raises(DatasetError) as refusal:
            call(tree)
        assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []

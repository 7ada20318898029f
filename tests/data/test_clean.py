"""What cleaning mends, what it refuses, and what it leaves alone."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persondet.data.annotation_shapes import usable_segmentation
from persondet.data.clean import class_names, clean_export, grouping_categories
from persondet.errors import DatasetError

SQUARE = [10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]


def _coco(*annotations: dict[str, Any], categories: Any = None) -> dict[str, Any]:
    defaults = {"image_id": 0, "category_id": 1, "bbox": [10, 10, 20, 20], "segmentation": [SQUARE]}
    return {
        "images": [{"id": 0, "file_name": "a.jpg", "width": 100, "height": 80}],
        "categories": categories
        or [
            {"id": 0, "name": "people", "supercategory": "none"},
            {"id": 1, "name": "person", "supercategory": "people"},
        ],
        "annotations": [
            defaults | {"id": number} | annotation
            for number, annotation in enumerate(annotations or ({},))
        ],
    }


def _cleaned(*annotations: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = clean_export({"train": _coco(*annotations)}, **options).splits[
        "train"
    ]["annotations"]
    return result


# Trap 7: the grouping category.


def test_trap_07_the_grouping_category_is_dropped() -> None:
    clean = clean_export({"train": _coco()})
    assert clean.classes == ("person",)
    assert clean.splits["train"]["categories"] == [
        {"id": 1, "name": "person", "supercategory": "none"}
    ]
    assert clean.splits["train"]["annotations"][0]["category_id"] == 1
    assert clean.report["grouping categories dropped"] == 1


def test_trap_07_id_0_may_be_a_real_class() -> None:
    categories = [
        {"id": 0, "name": "person", "supercategory": "none"},
        {"id": 1, "name": "dog", "supercategory": "none"},
    ]
    clean = clean_export({"train": _coco({"category_id": 0}, categories=categories)})
    assert clean.classes == ("person", "dog")
    assert clean.splits["train"]["annotations"][0]["category_id"] == 1


def test_trap_07_a_grouping_category_that_is_used_in_any_split_stays() -> None:
    splits = {"train": _coco(), "test": _coco({"category_id": 0})}
    assert grouping_categories({"train": _coco()}) == {"people"}
    assert grouping_categories(splits) == set()
    assert clean_export(splits).classes == ("people", "person")


def test_trap_07_a_category_above_itself_groups_nothing() -> None:
    categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "bus", "supercategory": "bus"}]
    assert clean_export({"train": _coco(categories=categories)}).classes == ("person", "bus")


def test_trap_07_two_categories_of_one_name_are_merged() -> None:
    categories = [
        {"id": 0, "name": "Person", "supercategory": "none"},
        {"id": 1, "name": "Person", "supercategory": "Person"},
    ]
    coco = _coco({"category_id": 0}, {"category_id": 1}, categories=categories)
    clean = clean_export({"train": coco})
    assert clean.classes == ("Person",)
    assert [a["category_id"] for a in clean.splits["train"]["annotations"]] == [1, 1]


def test_trap_07_one_used_of_many_categories() -> None:
    categories = [{"id": 0, "name": "all", "supercategory": "none"}] + [
        {"id": number, "name": f"class {number}", "supercategory": "all"}
        for number in range(1, 109)
    ]
    clean = clean_export({"train": _coco({"category_id": 50}, categories=categories)})
    assert len(clean.classes) == 108
    assert clean.classes[clean.splits["train"]["annotations"][0]["category_id"] - 1] == "class 50"


def test_classes_are_the_union_of_the_splits_in_the_order_of_the_first() -> None:
    first = [{"id": 2, "name": "b"}, {"id": 5, "name": "a"}]
    second = [{"id": 0, "name": "c"}, {"id": 1, "name": "a"}]
    splits = {"train": _coco({"category_id": 5}, categories=first)}
    splits["test"] = _coco(categories=second)
    assert class_names(splits) == ("b", "a", "c")
    clean = clean_export(splits)
    assert clean.splits["train"]["annotations"][0]["category_id"] == 2
    assert clean.splits["test"]["annotations"][0]["category_id"] == 2
    assert clean.splits["train"]["categories"] == clean.splits["test"]["categories"]


def test_classes_can_be_chosen_and_ordered() -> None:
    categories = [{"id": 0, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 2, "name": "car"}]
    coco = _coco({"category_id": 0}, {"category_id": 1}, {"category_id": 2}, categories=categories)
    clean = clean_export({"train": coco}, classes=("person", "dog"))
    assert clean.classes == ("person", "dog")
    assert [a["category_id"] for a in clean.splits["train"]["annotations"]] == [2, 1]
    assert clean.report["annotations of other classes dropped"] == 1
    with pytest.raises(DatasetError, match="no class 'persn'; did you mean 'person'"):
        clean_export({"train": coco}, classes=("persn",))
    with pytest.raises(DatasetError, match="named twice"):
        clean_export({"train": coco}, classes=("dog", "dog"))


# Trap 9: exports without masks, and mixtures.


def test_trap_09_no_mask_at_all_means_boxes_only() -> None:
    clean = clean_export({"train": _coco({"segmentation": []}, {"segmentation": None})})
    assert clean.mask_format == ""
    assert [a["segmentation"] for a in clean.splits["train"]["annotations"]] == [[], []]
    assert [a["area"] for a in clean.splits["train"]["annotations"]] == [400, 400]


def test_trap_09_few_missing_masks_are_filled_from_the_box() -> None:
    first, second, third = _cleaned({"segmentation": [[]]}, {}, {})
    assert first["segmentation"] == [[10, 10, 30, 10, 30, 30, 10, 30]]
    assert second["segmentation"] == third["segmentation"] == [SQUARE]


def test_trap_09_few_masks_among_boxes_are_left_out() -> None:
    clean = clean_export({"train": _coco({}, {"segmentation": []}, {"segmentation": []})})
    assert clean.mask_format == ""
    assert clean.report["masks left out"] == 1


def test_trap_09_the_decision_is_one_for_all_splits() -> None:
    splits = {"train": _coco({}, {}, {}), "test": _coco({"segmentation": []})}
    clean = clean_export(splits)
    assert clean.mask_format == "polygon"
    assert clean.splits["test"]["annotations"][0]["segmentation"]


def test_trap_09_rle_among_polygons_asks_for_bitmasks() -> None:
    mask = np.zeros((80, 100), np.uint8)
    mask[5:15, 20:40] = 1
    compressed = mask_util.encode(np.asfortranarray(mask))
    counts = [int(n) for n in np.diff(np.flatnonzero(np.diff(mask.T.reshape(-1), prepend=2)))]
    counts = [*counts, 8000 - sum(counts)]
    texts = {"size": [80, 100], "counts": compressed["counts"].decode()}
    lists = {"size": [80, 100], "counts": counts}
    clean = clean_export({"train": _coco({}, {"segmentation": texts}, {"segmentation": lists})})
    assert clean.mask_format == "bitmask"
    polygon, first, second = clean.splits["train"]["annotations"]
    assert polygon["segmentation"] == [SQUARE]
    assert first["segmentation"] == second["segmentation"] == texts
    assert first["area"] == 200
    with pytest.raises(DatasetError, match="RLE"):
        clean_export({"train": _coco({}, {"segmentation": texts})}, masks="polygon")


def test_trap_09_what_may_be_asked_of_masks() -> None:
    boxes = {"train": _coco({"segmentation": []})}
    assert clean_export({"train": _coco()}, masks="none").mask_format == ""
    assert clean_export({"train": _coco()}, masks="bitmask").mask_format == "bitmask"
    assert clean_export(boxes, masks="box").mask_format == "polygon"
    with pytest.raises(DatasetError, match="no annotation has one"):
        clean_export(boxes, masks="polygon")
    with pytest.raises(DatasetError, match="use one of auto, polygon"):
        clean_export(boxes, masks="polygons")


# Traps 10, 11, 13.


def test_trap_10_ids_from_1_and_the_headings_that_pycocotools_needs() -> None:
    clean = clean_export({"train": _coco({}, {"id": 7}, {"id": 7})}).splits["train"]
    assert [annotation["id"] for annotation in clean["annotations"]] == [1, 2, 3]
    assert clean["info"] == {}
    assert clean["licenses"] == []


def test_trap_11_area_is_that_of_the_mask() -> None:
    triangle = [10.0, 10.0, 30.0, 10.0, 10.0, 30.0]
    (annotation,) = _cleaned({"segmentation": [triangle], "area": 400})
    rle = mask_util.merge(mask_util.frPyObjects([triangle], 80, 100))
    assert annotation["area"] == mask_util.decode(rle).sum()
    assert annotation["area"] == pytest.approx(200, abs=15)


def test_trap_11_parts_that_overlap_count_once() -> None:
    further_right = [20.0, 10.0, 40.0, 10.0, 40.0, 30.0, 20.0, 30.0]
    (annotation,) = _cleaned({"segmentation": [SQUARE, further_right]})
    assert annotation["area"] == 600


def test_trap_13_boxes_are_clipped_and_empty_ones_dropped() -> None:
    annotations = [
        {"bbox": [-5, -5, 20, 20], "segmentation": []},
        {"bbox": [90, 70, 20.5, 20.5], "segmentation": []},
        {"bbox": [10, 10, 0, 5], "segmentation": []},
        {"bbox": [10, 10, -3, 5], "segmentation": []},
        {"bbox": [100, 10, 5, 5], "segmentation": []},
        {"bbox": [float("nan"), 1, 2, 3], "segmentation": []},
        {"bbox": [1, 2, 3], "segmentation": []},
        {"bbox": None, "segmentation": []},
        {"bbox": [10**30, 0, 1, 1], "segmentation": []},
        {"bbox": [1, 2, 3, 4], "segmentation": []},
    ]
    clean = clean_export({"train": _coco(*annotations)})
    assert [a["bbox"] for a in clean.splits["train"]["annotations"]] == [
        [0, 0, 15, 15],
        [90, 70, 10, 10],
        [1, 2, 3, 4],
    ]
    assert clean.report["annotations without a usable box dropped"] == 7
    assert clean.report["boxes clipped to the image"] == 2


def test_trap_13_a_mask_gives_the_box_that_is_unusable() -> None:
    (annotation,) = _cleaned({"bbox": [0, 0, 0, 0]})
    assert annotation["bbox"] == [10, 10, 20, 20]


def test_trap_13_one_image_id_twice_is_refused() -> None:
    coco = _coco()
    coco["images"].append({"id": 0, "file_name": "b.jpg", "width": 100, "height": 80})
    with pytest.raises(DatasetError, match=r"image id 0 belongs to 'a\.jpg' and to 'b\.jpg'"):
        clean_export({"train": coco})


def test_annotations_of_nobody_are_dropped_and_counted() -> None:
    clean = clean_export({"train": _coco({}, {"image_id": 9}, {"category_id": 9})})
    assert len(clean.splits["train"]["annotations"]) == 1
    assert clean.report["annotations of an unknown image dropped"] == 1
    assert clean.report["annotations of an unknown category dropped"] == 1
    with pytest.raises(DatasetError, match="no annotation is left"):
        clean_export({"train": _coco({"image_id": 9})})


def test_flat_polygons_are_nested_and_broken_parts_dropped() -> None:
    flat, broken = _cleaned(
        {"segmentation": SQUARE},
        {"segmentation": [[1, 2, 3, 4], SQUARE[:-1], SQUARE, [1, 1, 2, 2, 3, 3], ["a"] * 6]},
    )
    assert flat["segmentation"] == broken["segmentation"] == [SQUARE]


@pytest.mark.parametrize(
    "rle",
    [
        {"size": [80, 100], "counts": [8001]},
        {"size": [80, 100], "counts": [10, -5, 7995]},
        {"size": [100, 80], "counts": [10, 5, 7985]},
        {"size": [80, 100], "counts": "00"},
        {"size": [80, 100], "counts": "o" * 40},
        {"size": [80, 100], "counts": "\xff\xff"},
        {"size": [80, 100]},
        {"size": [80, 100], "counts": [8000]},
        {},
        "counts",
        7,
    ],
)
def test_an_rle_that_does_not_fit_its_image_is_no_mask(rle: Any) -> None:
    assert usable_segmentation(rle, 100, 80)[0] == []


@pytest.mark.parametrize("height", [40, 160])
def test_an_rle_of_another_image_is_no_mask(height: int) -> None:
    mask = np.zeros((height, 100), np.uint8)
    mask[5:15, 20:40] = 1
    counts = mask_util.encode(np.asfortranarray(mask))["counts"].decode()
    assert usable_segmentation({"size": [80, 100], "counts": counts}, 100, 80)[0] == []


@given(st.lists(st.integers(1, 70), min_size=1, max_size=40))
def test_compressed_runs_are_understood_as_pycocotools_writes_them(runs: list[int]) -> None:
    counts = [*runs, 8000 - sum(runs)]
    rle = mask_util.frPyObjects({"size": [80, 100], "counts": counts}, 80, 100)
    texts = {"size": [80, 100], "counts": rle["counts"].decode()}
    assert usable_segmentation(texts, 100, 80)[0] == texts
    shortened = {"size": [80, 100], "counts": texts["counts"][:-1]}
    assert usable_segmentation(shortened, 100, 80)[0] == []


def test_what_has_no_fault_stays_and_cleaning_twice_changes_nothing() -> None:
    splits = {"train": _coco({"area": 1, "bbox": [10.25, 10, 20, 20]}, {"iscrowd": 1})}
    before = copy.deepcopy(splits)
    once = clean_export(splits)
    assert splits == before
    first, second = once.splits["train"]["annotations"]
    given_first = {"image_id": 0, "category_id": 1, "bbox": [10.25, 10, 20, 20]}
    assert first == given_first | {"id": 1, "segmentation": [SQUARE], "area": 400, "iscrowd": 0}
    assert second["iscrowd"] == 1
    twice = clean_export(once.splits)
    assert twice.splits == once.splits
    assert twice.report == {}

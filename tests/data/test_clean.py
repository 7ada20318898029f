"""What cleaning mends, what it refuses, and what it leaves alone."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import pytest

from persondet.data.clean import clean_coco
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
    result: list[dict[str, Any]] = clean_coco({"train": _coco(*annotations)}, **options).splits[
        "train"
    ]["annotations"]
    return result


# Trap 7: the grouping category.


def test_trap_07_the_grouping_category_is_dropped() -> None:
    clean = clean_coco({"train": _coco()})
    assert clean.classes == ("person",)
    assert clean.splits["train"]["categories"] == [
        {"id": 1, "name": "person", "supercategory": "none"}
    ]
    assert clean.splits["train"]["annotations"][0]["category_id"] == 1
    assert clean.changes["grouping-category"] == 1


def test_trap_07_id_0_may_be_a_real_class() -> None:
    categories = [
        {"id": 0, "name": "person", "supercategory": "none"},
        {"id": 1, "name": "dog", "supercategory": "none"},
    ]
    clean = clean_coco({"train": _coco({"category_id": 0}, categories=categories)})
    assert clean.classes == ("person", "dog")
    assert clean.splits["train"]["annotations"][0]["category_id"] == 0


def test_trap_07_a_grouping_category_that_is_used_in_any_split_stays() -> None:
    splits = {"train": _coco(), "test": _coco({"category_id": 0})}
    assert clean_coco(splits).classes == ("people", "person")


def test_trap_07_a_category_above_itself_groups_nothing() -> None:
    categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "bus", "supercategory": "bus"}]
    assert clean_coco({"train": _coco(categories=categories)}).classes == ("person", "bus")


def test_trap_07_two_categories_of_one_name_are_merged() -> None:
    categories = [
        {"id": 0, "name": "Person", "supercategory": "none"},
        {"id": 1, "name": "Person", "supercategory": "Person"},
    ]
    coco = _coco(
        {"category_id": 0}, {"category_id": 1, "bbox": [10, 10, 20, 21]}, categories=categories
    )
    clean = clean_coco({"train": coco})
    assert clean.classes == ("Person",)
    assert [a["category_id"] for a in clean.splits["train"]["annotations"]] == [1, 1]
    assert clean.changes["category-name-twice"] == 1


def test_trap_07_a_grouping_category_may_have_the_name_of_its_class() -> None:
    categories = [
        {"id": 0, "name": "Person", "supercategory": "none"},
        {"id": 1, "name": "Person", "supercategory": "Person"},
    ]
    clean = clean_coco({"train": _coco(categories=categories)})
    assert clean.findings.counts().keys() >= {"grouping-category", "category-name-twice"}
    assert [c["id"] for c in clean.splits["train"]["categories"]] == [1]


def test_names_that_differ_in_case_are_one_class_under_the_usual_spelling() -> None:
    categories = [{"id": 1, "name": "Person"}, {"id": 2, "name": " person"}]
    coco = _coco({"category_id": 2}, {"category_id": 2, "iscrowd": 1}, {}, categories=categories)
    clean = clean_coco({"train": coco})
    assert clean.classes == ("person",)
    assert clean.findings.counts()["category-name-case"] == 1


def test_one_id_with_two_names_needs_a_person() -> None:
    categories = [{"id": 1, "name": "person"}, {"id": 1, "name": "dog"}]
    with pytest.raises(DatasetError, match="id 1 is 'person' and 'dog'"):
        clean_coco({"train": _coco(categories=categories)})


def test_classes_are_the_union_of_the_splits_in_the_order_of_the_first() -> None:
    first = [{"id": 2, "name": "b"}, {"id": 5, "name": "a"}]
    second = [{"id": 0, "name": "c"}, {"id": 1, "name": "a"}]
    splits = {"train": _coco({"category_id": 5}, categories=first)}
    splits["test"] = _coco(categories=second)
    clean = clean_coco(splits)
    assert clean.classes == ("b", "a", "c")
    assert clean.splits["train"]["annotations"][0]["category_id"] == 2
    assert clean.splits["test"]["annotations"][0]["category_id"] == 2
    assert clean.findings.counts()["classes-differ"] == 2
    assert clean.splits["train"]["categories"] == clean.splits["test"]["categories"]


def test_classes_can_be_chosen_and_ordered() -> None:
    categories = [{"id": 0, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 2, "name": "car"}]
    coco = _coco({"category_id": 0}, {"category_id": 1}, {"category_id": 2}, categories=categories)
    clean = clean_coco({"train": coco}, classes=("person", "dog"))
    assert clean.classes == ("person", "dog")
    assert [a["category_id"] for a in clean.splits["train"]["annotations"]] == [2, 1]
    assert clean.changes["class-left-out"] == 1
    with pytest.raises(DatasetError, match="no class 'persn', did you mean 'person'"):
        clean_coco({"train": coco}, classes=("persn",))
    with pytest.raises(DatasetError, match="named twice"):
        clean_coco({"train": coco}, classes=("dog", "dog"))


# Trap 9: exports without masks, and mixtures.


def test_trap_09_no_mask_at_all_means_boxes_only() -> None:
    clean = clean_coco(
        {"train": _coco({"segmentation": []}, {"segmentation": None, "bbox": [10, 10, 10, 10]})}
    )
    assert clean.mask_format == ""
    assert [a["segmentation"] for a in clean.splits["train"]["annotations"]] == [[], []]
    assert [a["area"] for a in clean.splits["train"]["annotations"]] == [400, 100]


def test_trap_09_few_missing_masks_are_filled_from_the_box() -> None:
    first, second, third = _cleaned({"segmentation": [[]]}, {}, {"iscrowd": 1})
    assert first["segmentation"] == [[10, 10, 30, 10, 30, 30, 10, 30]]
    assert second["segmentation"] == third["segmentation"] == [SQUARE]


def test_trap_09_few_masks_among_boxes_are_left_out() -> None:
    coco = _coco({}, *({"segmentation": [], "bbox": [n, 0, 5, 5]} for n in range(10)))
    clean = clean_coco({"train": coco})
    assert clean.mask_format == ""
    assert clean.changes["mask-left-out"] == 1


def test_trap_09_the_decision_is_one_for_all_splits() -> None:
    splits = {"train": _coco({}, {}, {}), "test": _coco({"segmentation": []})}
    clean = clean_coco(splits)
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
    clean = clean_coco({"train": _coco({}, {"segmentation": texts}, {"segmentation": lists})})
    assert clean.mask_format == "bitmask"
    polygon, first, second = clean.splits["train"]["annotations"]
    assert polygon["segmentation"] == [SQUARE]
    assert first["segmentation"] == texts
    assert second["segmentation"] == lists
    assert first["area"] == second["area"] == 200
    with pytest.raises(DatasetError, match="RLE"):
        clean_coco({"train": _coco({}, {"segmentation": texts})}, masks="polygon")


def test_trap_09_what_may_be_asked_of_masks() -> None:
    boxes = {"train": _coco({"segmentation": []})}
    assert clean_coco({"train": _coco()}, masks="none").mask_format == ""
    assert clean_coco({"train": _coco()}, masks="bitmask").mask_format == "bitmask"
    assert clean_coco(boxes, masks="box").mask_format == "polygon"
    with pytest.raises(DatasetError, match="no annotation has one"):
        clean_coco(boxes, masks="polygon")
    with pytest.raises(DatasetError, match="use one of auto, polygon"):
        clean_coco(boxes, masks="polygons")


# Traps 10, 11, 13.


def test_trap_10_ids_from_1_and_the_headings_that_pycocotools_needs() -> None:
    coco = _coco({}, {"id": 7, "bbox": [1, 2, 3, 4]}, {"id": 7, "bbox": [2, 2, 3, 4]})
    clean = clean_coco({"train": coco}).splits["train"]
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
    clean = clean_coco({"train": _coco(*annotations)})
    assert [a["bbox"] for a in clean.splits["train"]["annotations"]] == [
        [0, 0, 15, 15],
        [90, 70, 10, 10],
        [1, 2, 3, 4],
    ]
    assert clean.changes["annotation-dropped"] == 7
    found = {code: n for code, n in clean.findings.counts().items() if code.startswith("box-")}
    assert found == {"box-invalid": 4, "box-negative": 1, "box-zero": 1, "box-outside": 3}


def test_trap_13_a_mask_gives_the_box_that_is_unusable() -> None:
    (annotation,) = _cleaned({"bbox": [0, 0, 0, 0]})
    assert annotation["bbox"] == [10, 10, 20, 20]


def test_trap_13_one_image_id_twice_loses_both_images() -> None:
    coco = _coco({}, {"image_id": 1})
    coco["images"].append({"id": 0, "file_name": "b.jpg", "width": 100, "height": 80})
    coco["images"].append({"id": 1, "file_name": "c.jpg", "width": 100, "height": 80})
    clean = clean_coco({"train": coco})
    assert [image["file_name"] for image in clean.splits["train"]["images"]] == ["c.jpg"]
    assert clean.changes["image-id-twice"] == 1
    assert clean.changes["annotation-of-dropped-image"] == 1
    assert clean.dropped_images["train"] == {"a.jpg": "image-id-twice", "b.jpg": "image-id-twice"}
    with pytest.raises(DatasetError, match=r"'b\.jpg': one id .*\(id 0 is also 'a\.jpg'\)"):
        clean_coco({"train": coco}, refuse=True)


def test_what_has_no_fault_stays_and_cleaning_twice_changes_nothing() -> None:
    splits = {"train": _coco({"area": 1, "bbox": [10.25, 10, 20, 20]}, {"iscrowd": 1})}
    before = copy.deepcopy(splits)
    once = clean_coco(splits)
    assert splits == before
    first, second = once.splits["train"]["annotations"]
    given_first = {"image_id": 0, "category_id": 1, "bbox": [10.25, 10, 20, 20]}
    assert first == given_first | {"id": 1, "segmentation": [SQUARE], "area": 400, "iscrowd": 0}
    assert first["segmentation"] is splits["train"]["annotations"][0]["segmentation"]
    assert second["iscrowd"] == 1
    twice = clean_coco(once.splits)
    assert twice.splits == once.splits
    assert twice.changes == {}


def test_what_is_not_ours_stays() -> None:
    extra = {"keypoints": [1, 2, 2], "num_keypoints": 1, "attributes": {"hat": True}}
    coco = _coco(extra) | {"videos": [{"id": 1}]}
    coco["images"][0] |= {"license": 3, "date_captured": "2024"}
    clean = clean_coco({"train": coco}).splits["train"]
    assert clean["annotations"][0].items() >= extra.items()
    assert clean["images"] == coco["images"]
    assert clean["videos"] == [{"id": 1}]


def test_a_box_that_leaves_the_image_is_the_masks_where_clipping_leaves_too_little() -> None:
    far, near = _cleaned(
        {"bbox": [-100, 10, 110, 20]}, {"bbox": [10, -3, 20, 33], "segmentation": [SQUARE]}
    )
    assert far["bbox"] == [10, 10, 20, 20]
    assert near["bbox"] == [10, 0, 20, 30]


def test_every_mask_covers_a_pixel_so_that_truth_as_prediction_scores_100() -> None:
    sliver = [30.2, 20.0, 30.5, 20.0, 30.5, 60.0, 30.2, 60.0]
    cleaned = _cleaned(
        {"bbox": [30.2, 20, 0.3, 40], "segmentation": [sliver]},
        {"bbox": [50, 20, 4, 4], "segmentation": [[50, 20, 50.3, 20, 50, 20.3]]},
        {"bbox": [99.8, 79.8, 0.1, 0.1], "segmentation": []},
        {},
    )
    for annotation in cleaned:
        rle = mask_util.merge(mask_util.frPyObjects(annotation["segmentation"], 80, 100))
        assert annotation["area"] == mask_util.area(rle) > 0
    assert cleaned[1]["segmentation"] == [[50, 20, 54, 20, 54, 24, 50, 24]]
    assert cleaned[2]["segmentation"] == [[99, 79, 100, 79, 100, 80, 99, 80]]
    again = clean_coco({"train": _coco() | {"annotations": cleaned}})
    assert again.splits["train"]["annotations"] == cleaned
    assert "mask-without-pixels" not in again.findings.counts()

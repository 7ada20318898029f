"""What cleaning mends, what it refuses, what it leaves alone; and the cleaned copy on disk."""

import copy
import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import pytest

from persondet.data.check import check_export
from persondet.data.clean import CleanExport, changed_images, clean_coco, clean_dataset
from persondet.data.findings import CHANGES, CODES
from persondet.data.inspect import validate_coco
from persondet.errors import DatasetError
from tests.data.exports import categories, compressed_rle, edit, raster
from tests.data.fetch.conftest import contents

SQUARE = [10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]
NO_MASK: dict[str, Any] = {"segmentation": []}
GROUPED = categories((0, "people"), (1, "person", "people"))


def _coco(*annotations: dict[str, Any], categories: Any = GROUPED) -> dict[str, Any]:
    defaults = {"image_id": 0, "category_id": 1, "bbox": [10, 10, 20, 20], "segmentation": [SQUARE]}
    return {
        "images": [{"id": 0, "file_name": "a.jpg", "width": 100, "height": 80}],
        "categories": categories,
        "annotations": [
            defaults | {"id": number} | annotation
            for number, annotation in enumerate(annotations or ({},))
        ],
    }


def _clean(*annotations: dict[str, Any], given: Any = GROUPED, **options: Any) -> CleanExport:
    return clean_coco({"train": _coco(*annotations, categories=given)}, **options)


@pytest.mark.parametrize("classes", [(), ("person",)])
def test_crowds_alone_teach_nothing_and_become_objects_when_asked(classes: Any) -> None:
    mask = np.zeros((80, 100), np.uint8)
    mask[10:30, 10:30] = 1
    crowds = [{"iscrowd": 1, "segmentation": compressed_rle(mask), "bbox": [10, 10, 20, 20]}]
    coco = _coco(*crowds)
    for refuse in (False, True):
        with pytest.raises(DatasetError, match=r"1 of 1 \(100 %\).*clean --crowds object"):
            clean_coco({"train": coco}, classes=classes, refuse=refuse)
    clean = clean_coco({"train": coco}, classes=classes, crowds="object")
    (annotation,) = clean.splits["train"]["annotations"]
    assert (annotation["iscrowd"], annotation["area"], clean.mask_format) == (0, 400, "bitmask")
    assert clean.changes["crowd-to-object"] == 1
    share = clean_coco({"train": _coco({}, {}, *crowds)}).findings.counts()
    assert "crowds-many" in share and "crowds-only" not in share


@pytest.mark.parametrize(
    ("corners", "area", "lost"),
    [
        ([10, 10, 30, 30, 30, 10, 10, 30], 400, "50 %"),
        ([10, 10, 30, 10, 10, 20, 30, 20], 200, "50 %"),
        ([10, 10, 30, 10, 30, 20, 10, 20], 200, None),
    ],
)
def test_crossed_corners_are_put_in_order_when_asked(
    corners: list[float], area: float, lost: str | None
) -> None:
    annotation: dict[str, Any] = {"segmentation": [corners]}
    clean = _clean(annotation, reorder_corners=True)
    assert clean.splits["train"]["annotations"][0]["area"] == area
    assert clean.changes.get("corners-reordered") == (lost and 1)
    told = [
        example.detail
        for finding in validate_coco({"train": _coco(annotation)})
        for example in finding.examples
        if finding.code.name == "polygon-corners-crossed"
    ]
    assert told == ([f"{lost} of the area is lost"] if lost else [])


def _cleaned(*annotations: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = _clean(*annotations, **options).splits["train"]["annotations"]
    return result


# Trap 7: the grouping category.


SAME, OTHER = categories((0, "Person"), (1, "Person", "Person")), {"category_id": 0}
OWN_GROUP = categories((1, "person"), (2, "bus", "bus"))  # a category above itself groups nothing
SPELLINGS = categories((1, "Person"), (2, " person"))  # the usual spelling wins
TWO, TWICE = {"category_id": 2}, "category-name-twice"


@pytest.mark.parametrize(
    ("given", "annotations", "classes", "ids", "codes"),
    [
        (GROUPED, [{}], ("person",), [1], {"grouping-category"}),
        (categories((0, "person"), (1, "dog")), [OTHER], ("person", "dog"), [0], set()),
        (OWN_GROUP, [{}], ("person", "bus"), [1], set()),
        (SAME, [OTHER, {"bbox": [10, 10, 20, 21]}], ("Person",), [1, 1], {TWICE}),
        (SAME, [{}], ("Person",), [1], {"grouping-category", TWICE}),
        (SPELLINGS, [TWO, TWO | {"iscrowd": 1}, {}], ("person",), [1, 1], {"category-name-case"}),
    ],
)
def test_trap_07_classes(given, annotations, classes, ids, codes) -> None:
    clean = _clean(*annotations, given=given)
    assert clean.classes == classes
    assert [a["category_id"] for a in clean.splits["train"]["annotations"]] == ids
    found = {code for code in clean.findings.counts() if code.startswith(("categ", "group"))}
    assert found == codes


def test_trap_07_a_grouping_category_that_is_used_in_any_split_stays() -> None:
    splits = {"train": _coco(), "test": _coco({"category_id": 0})}
    assert clean_coco(splits).classes == ("people", "person")


def test_classes_are_the_union_of_the_splits_in_the_order_of_the_first() -> None:
    splits = {
        "train": _coco({"category_id": 5}, categories=categories((2, "b"), (5, "a"))),
        "test": _coco(categories=categories((0, "c"), (1, "a"))),
    }
    clean = clean_coco(splits)
    assert clean.classes == ("b", "a", "c")
    assert [coco["annotations"][0]["category_id"] for coco in clean.splits.values()] == [2, 2]
    assert clean.findings.counts()["classes-differ"] == 2
    assert clean.splits["train"]["categories"] == clean.splits["test"]["categories"]


def test_classes_can_be_chosen_and_ordered() -> None:
    given = categories((0, "dog"), (1, "person"), (2, "car"))
    annotations = [{"category_id": number} for number in range(3)]
    clean = _clean(*annotations, given=given, classes=("person", "dog"))
    assert clean.classes == ("person", "dog")
    assert [a["category_id"] for a in clean.splits["train"]["annotations"]] == [2, 1]
    assert clean.changes["class-left-out"] == 1
    with pytest.raises(DatasetError, match="no class 'persn', did you mean 'person'"):
        _clean(given=given, classes=("persn",))
    with pytest.raises(DatasetError, match="named twice"):
        _clean(given=given, classes=("dog", "dog"))


# Trap 9: exports without masks, and mixtures.


def test_trap_09_boxes_only_and_few_masks_among_boxes() -> None:
    boxes = [NO_MASK, {"segmentation": None, "bbox": [10, 10, 10, 10]}]
    clean = _clean(*boxes)
    assert clean.mask_format == ""
    assert [a["segmentation"] for a in clean.splits["train"]["annotations"]] == [[], []]
    assert [a["area"] for a in clean.splits["train"]["annotations"]] == [400, 100]
    clean = _clean({}, *({**NO_MASK, "bbox": [n, 0, 5, 5]} for n in range(10)))
    assert clean.mask_format == ""
    assert clean.changes["mask-left-out"] == 1


def test_an_export_of_rle_alone_has_no_polygons_though_a_broken_mask_becomes_a_box() -> None:
    mask = np.zeros((80, 100), np.uint8)
    mask[10:30, 10:30] = 1
    good, bad = {"segmentation": compressed_rle(mask)}, {"segmentation": {"size": [80, 100]}}
    found = _clean(good, bad | {"bbox": [20, 10, 20, 20]}).findings.counts()
    assert "rle-invalid" in found and "mask-formats-mixed" not in found


def test_a_result_of_boxes_is_not_said_to_have_masks() -> None:
    thin = {"segmentation": [[10.0, 10.2, 30.0, 10.2, 30.0, 10.3]]}
    clean = _clean(thin, *[NO_MASK | {"bbox": [n, 10, 20, 20]} for n in range(20)])
    words = {code: CODES[code].mend if code in CODES else CHANGES[code] for code in clean.changes}
    assert clean.mask_format == "" and {"mask-without-pixels", "area-recomputed"} <= words.keys()
    assert not any(said.endswith(("filled box", "mask")) for said in words.values())


def test_trap_09_few_missing_masks_are_filled_from_the_box_in_all_splits() -> None:
    first, second, third = _cleaned({"segmentation": [[]]}, {}, {"iscrowd": 1})
    assert first["segmentation"] == [[10, 10, 30, 10, 30, 30, 10, 30]]
    assert second["segmentation"] == third["segmentation"] == [SQUARE]
    clean = clean_coco({"train": _coco({}, {}, {}), "test": _coco(NO_MASK)})
    assert clean.mask_format == "polygon"
    assert clean.splits["test"]["annotations"][0]["segmentation"]


def test_trap_09_rle_among_polygons_asks_for_bitmasks() -> None:
    mask = np.zeros((80, 100), np.uint8)
    mask[5:15, 20:40] = 1
    texts = compressed_rle(mask)
    lists = {"size": [80, 100], "counts": [1605, *[10, 70] * 19, 10, 4865]}  # the same
    clean = _clean({}, {"segmentation": texts}, {"segmentation": lists})
    assert clean.mask_format == "bitmask"
    annotations = clean.splits["train"]["annotations"]
    assert [a["segmentation"] for a in annotations] == [[SQUARE], texts, lists]
    assert [a["area"] for a in annotations] == [400, 200, 200]
    with pytest.raises(DatasetError, match="RLE"):
        _clean({}, {"segmentation": texts}, masks="polygon")


def test_trap_09_what_may_be_asked_of_masks() -> None:
    for asked, given, result in (("none", {}, ""), ("bitmask", {}, "bitmask")):
        assert _clean(given, masks=asked).mask_format == result
    assert _clean(NO_MASK, masks="box").mask_format == "polygon"
    with pytest.raises(DatasetError, match="no annotation has one"):
        _clean(NO_MASK, masks="polygon")
    with pytest.raises(DatasetError, match="use one of auto, polygon"):
        _clean(NO_MASK, masks="polygons")


# Traps 11 and 13.


def test_trap_11_area_is_that_of_the_mask_and_overlapping_parts_count_once() -> None:
    triangle = [10.0, 10.0, 30.0, 10.0, 10.0, 30.0]
    further_right = [20.0, 10.0, 40.0, 10.0, 40.0, 30.0, 20.0, 30.0]
    box = {"bbox": [10, 10, 30, 20]}
    one, two = _cleaned(
        {"segmentation": [triangle], "area": 400}, {"segmentation": [SQUARE, further_right], **box}
    )
    assert one["area"] == raster([triangle], 80, 100).sum() == pytest.approx(200, abs=15)
    assert two["area"] == 600


def test_trap_13_one_image_id_twice_loses_both_images() -> None:
    coco = _coco({}, {"image_id": 1})
    for number, name in ((0, "b.jpg"), (1, "c.jpg")):
        coco["images"].append({"id": number, "file_name": name, "width": 100, "height": 80})
    clean = clean_coco({"train": coco})
    assert [image["file_name"] for image in clean.splits["train"]["images"]] == ["c.jpg"]
    assert clean.changes["image-id-twice"] == clean.changes["annotation-of-dropped-image"] == 1
    assert clean.dropped_images["train"] == {"a.jpg": "image-id-twice", "b.jpg": "image-id-twice"}
    with pytest.raises(DatasetError, match=r"'b\.jpg': one id .*\(id 0 is also 'a\.jpg'\)"):
        clean_coco({"train": coco}, refuse=True)


def test_what_has_no_fault_or_is_not_ours_stays_and_cleaning_twice_changes_nothing() -> None:
    extra = {"keypoints": [1, 2, 2], "num_keypoints": 1, "attributes": {"hat": True}}
    given = {"area": 1, "bbox": [10.25, 10, 20, 20]} | extra
    splits = {"train": _coco(given, {"iscrowd": 1}) | {"videos": [{"id": 1}]}}
    splits["train"]["images"][0] |= {"license": 3, "date_captured": "2024"}
    before = copy.deepcopy(splits)
    once = clean_coco(splits)
    assert splits == before
    first, second = once.splits["train"]["annotations"]
    mended = {"id": 1, "segmentation": [SQUARE], "area": 400, "iscrowd": 0}
    assert first == {"image_id": 0, "category_id": 1} | given | mended
    assert second["iscrowd"] == 1
    assert once.splits["train"]["images"] == before["train"]["images"]
    assert once.splits["train"]["videos"] == [{"id": 1}]
    twice = clean_coco(once.splits)
    assert twice.splits == once.splits
    assert twice.changes == {}


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


# The copy on disk


@pytest.fixture
def export(tiny_export: Path, tmp_path: Path) -> Path:
    """A copy of the tiny export, with a readme, that a test may break."""
    root = Path(shutil.copytree(tiny_export, tmp_path / "export"))
    (root / "README.dataset.txt").write_text("CC BY 4.0")
    return root


def test_the_copy_is_clean_and_the_same_each_time_and_the_source_as_it_was(
    export: Path, tmp_path: Path
) -> None:
    before = contents(export)
    first, second, again = (tmp_path / name for name in ("first", "second", "again"))
    record = clean_dataset(export, first)
    assert contents(export) == before
    assert check_export(first)["errors"] == 0
    assert record == json.loads((first / "cleaning.json").read_text())
    assert record["splits"]["train"]["images"] == record["splits"]["train"]["images_before"] == 6
    assert record["changes"]["grouping-category"] == 1
    assert (first / "README.dataset.txt").read_text() == "CC BY 4.0"
    assert str(tmp_path) not in (first / "cleaning.json").read_text()
    assert clean_dataset(export, second) == record
    assert contents(first) == contents(second)
    assert clean_dataset(first, again)["changes"] == {}
    strip = {"cleaning.json": b""}
    assert contents(again) | strip == contents(first) | strip


def test_images_are_copied_where_links_are_refused(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    clean_dataset(export, tmp_path / "copied")
    assert check_export(tmp_path / "copied")["errors"] == 0


def test_drop_leaks_keeps_the_later_split_whole(export: Path, tmp_path: Path) -> None:
    twin = next((export / "train").glob("*.jpg"))
    shutil.copyfile(next((export / "test").glob("*.jpg")), twin)
    kept = clean_dataset(export, tmp_path / "kept")
    assert kept["splits"]["train"]["images"] == 6
    record = clean_dataset(export, tmp_path / "clean", drop_leaks=True)
    assert [record["splits"][split]["images"] for split in ("train", "test")] == [5, 3]
    assert record["dropped_images"] == {"train": {twin.name: "leak-dropped"}}
    assert check_export(tmp_path / "clean")["leaks"]["test"]["leaked"] == 0


def test_changed_boxes_and_dropped_images_and_nothing_else(export: Path) -> None:
    assert changed_images(export, "train") == []
    paths: list[Path] = []

    def change(coco: dict[str, Any]) -> None:
        first, images = coco["annotations"][0], {i["id"]: i["file_name"] for i in coco["images"]}
        first["bbox"], first["segmentation"] = [-9, 0, 40, 20], [[0, 0, 31, 0, 31, 20]]
        paths.extend(export / "train" / images[n] for n in (first["image_id"], max(images)))

    edit(export, change)
    paths[1].unlink()
    clipped, dropped = changed_images(export, "train")
    assert (clipped.path, clipped.codes) == (paths[0], ("box-outside",))
    assert clipped.before[0]["bbox"] == [-9, 0, 40, 20]
    assert clipped.after is not None and clipped.after[0]["bbox"] == [0, 0, 31, 20]
    assert clipped.origins == tuple(range(len(clipped.after)))
    assert (dropped.after, dropped.codes) == (None, ("file-missing",))
    shutil.rmtree(export / "test")
    with pytest.raises(DatasetError, match="choose another --split"):
        changed_images(export, "test")

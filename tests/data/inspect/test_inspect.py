"""What the jsons alone tell, and what nobody can mend."""

from __future__ import annotations

from typing import Any

import pytest

from persondet.data.clean import clean_coco
from persondet.data.inspect import inspect_coco, validate_coco
from persondet.errors import DatasetError


def _coco(**changes: Any) -> dict[str, Any]:
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40], "area": 1200}
    return {
        "info": {},
        "images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [annotation | {"iscrowd": 0, "segmentation": []}],
    } | changes


def test_a_good_export_has_no_error() -> None:
    assert validate_coco({"train": _coco(), "test": _coco()}).of("error") == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"annotations": []}, "no-annotations"),
        ({"categories": []}, "no-class"),
        ({"categories": [{"id": 1, "name": " "}]}, "no-class"),
        (
            {"categories": [{"id": 1, "name": "person"}, {"id": 1, "name": "dog"}]},
            "category-id-twice",
        ),
    ],
)
def test_what_nobody_can_mend_is_an_error_and_refused(changes: dict[str, Any], code: str) -> None:
    splits = {"train": _coco(**changes)}
    found = validate_coco(splits)
    assert code in {finding.code.name for finding in found.of("error")}
    assert code in {finding.code.name for finding in found.refused()}
    with pytest.raises(DatasetError) as refusal:
        clean_coco(splits)
    assert "\n" not in str(refusal.value)


def test_a_split_without_annotations_beside_one_with_is_a_warning() -> None:
    found = validate_coco({"train": _coco(), "valid": _coco(annotations=[])})
    assert found.of("error") == []
    assert found.counts() == {
        "split-without-annotations": 1,
        "image-without-annotations": 1,
        "masks-none": 1,
    }


def test_a_split_that_names_no_image_is_left_out_and_an_export_of_none_refused() -> None:
    empty = _coco(images=[], annotations=[])
    inspection = inspect_coco({"train": _coco(), "test": empty})
    assert list(inspection.images) == ["train"]
    assert inspection.findings.counts()["split-empty"] == 1
    with pytest.raises(DatasetError, match="no split names an image"):
        inspect_coco({"train": empty})


def test_annotations_of_dropped_images_are_not_looked_at() -> None:
    bad = {"id": 2, "image_id": 2, "category_id": 1, "bbox": None}
    coco = _coco()
    coco["images"].append({"id": 2, "file_name": "/etc/hostname", "width": 9, "height": 9})
    coco["annotations"].append(bad)
    inspection = inspect_coco({"train": coco})
    assert inspection.findings.counts().keys() == {"file-name-outside", "masks-none"}
    assert inspection.dropped_images["train"] == {"/etc/hostname": "file-name-outside"}
    assert inspection.annotations["train"].of_dropped_images == 1

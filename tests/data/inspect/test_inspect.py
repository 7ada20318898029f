"""What the jsons and the image files tell, and what nobody can mend."""

from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image, ImageOps

from persondet.data.clean import clean_coco
from persondet.data.coco_json import with_numbers
from persondet.data.findings import Findings
from persondet.data.inspect import inspect_coco, validate_coco
from persondet.data.inspect.annotations import turned
from persondet.data.inspect.images import ImageFacts, inspect_images
from persondet.data.split import split_coco
from persondet.errors import DatasetError
from tests.data.exports import categories, compressed_rle, raster


def _coco(**changes: Any) -> dict[str, Any]:
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40], "area": 1200}
    return {
        "info": {},
        "images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [annotation | {"iscrowd": 0, "segmentation": []}],
    } | changes


@pytest.mark.parametrize("spell", [str, float, lambda value: f" {value}.00 "])
def test_a_number_spelled_otherwise_is_that_number(spell: Any) -> None:
    """In every field, in polygons and in runs; said once a record, with the value."""
    rle = {"size": [80, 100], "counts": [4000, 100, 3900]}
    polygon = [[1, 2, 31, 2, 31, 42, 1, 42]]
    annotation = _coco()["annotations"][0] | {"keypoints": [4, 5, 2]}
    plain = [
        annotation | {"id": number, "segmentation": mask}
        for number, mask in enumerate((polygon, rle), start=1)
    ]

    def spelled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: spelled(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [spelled(inner) for inner in value]
        return spell(value) if isinstance(value, int) else value

    good = _coco(annotations=plain)
    result, mended = with_numbers(spelled(good))
    assert result == good and len(mended) == 4
    assert all(type(one["image_id"]) is int for one in result["annotations"])
    assert with_numbers(good) == (good, []) and with_numbers(good)[0] is good
    findings = validate_coco({"train": spelled(good)})
    (finding,) = (one for one in findings if one.code.name == "number-spelling")
    named = [(one.file, one.annotation) for one in finding.examples[-2:]]
    assert named == [("a.jpg", 1), ("a.jpg", 2)]
    assert finding.examples[-1].detail == f"id {spell(2)!r}"
    expected = clean_coco({"train": good}).splits
    assert clean_coco({"train": spelled(good)}).splits == expected
    divided = split_coco(spelled(good), fractions=(1, 0, 0)).splits
    assert divided["train"]["annotations"] == good["annotations"]


@pytest.mark.parametrize("value", ["", "x", "1e", "0x1", "1_0", "nan", "inf", "1 2", True, None])
def test_text_that_is_no_number_and_numbers_that_are_not_whole_stay(value: Any) -> None:
    for change in ({"id": value}, {"id": 1.5}, {"bbox": [value, 2, 30, 40]}):
        coco = _coco(annotations=[_coco()["annotations"][0] | change])
        assert with_numbers(coco) == (coco, [])


def test_what_an_export_holds_and_nothing_uses_or_a_model_cannot_give_is_told() -> None:
    one = _coco()["annotations"][0]
    changes = [{"keypoints": [4, 5, 2]}, {"rotation": 30}, {"attributes": {"rotation": 0.5}}]
    changes += [{"rotation": 0}, {"keypoints": []}, *[{}] * 96]
    many = [
        one | {"id": number, "bbox": [number % 50, 2, 30, 40 - number // 50]} | change
        for number, change in enumerate(changes, start=1)
    ]
    found = validate_coco({"train": _coco(annotations=many)}).counts()
    expected = {"objects-many": 1, "keypoints-unused": 1, "rotation-unused": 2, "masks-none": 101}
    assert found == expected
    assert "objects-many" not in validate_coco({"train": _coco(annotations=many[:100])}).counts()


RELATIVE = [
    {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 0.1, "segmentation": []}
    | {"bbox": [0.25, 0.4, 0.75, 0.6]}
]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"annotations": []}, "no-annotations"),
        ({"annotations": RELATIVE}, "coordinates-relative"),
        ({"categories": []}, "no-class"),
        ({"categories": categories((1, " "))}, "no-class"),
        ({"categories": categories((1, "person"), (1, "dog"))}, "category-id-twice"),
    ],
)
def test_what_nobody_can_mend_is_an_error_and_refused(changes: dict[str, Any], code: str) -> None:
    splits = {"train": _coco(**changes)}
    found = validate_coco(splits)
    for findings in (found.of("error"), found.refused()):
        assert code in {finding.code.name for finding in findings}
    with pytest.raises(DatasetError) as refusal:
        clean_coco(splits)
    assert "\n" not in str(refusal.value)


def test_an_empty_split_is_a_warning_and_an_export_of_none_refused() -> None:
    found = validate_coco({"train": _coco(), "valid": _coco(annotations=[])})
    assert found.of("error") == []
    codes = ("split-without-annotations", "image-without-annotations", "masks-none")
    assert found.counts() == dict.fromkeys(codes, 1)
    empty = _coco(images=[], annotations=[])
    inspection = inspect_coco({"train": _coco(), "test": empty})
    assert list(inspection.images) == ["train"]
    assert inspection.findings.counts()["split-empty"] == 1
    with pytest.raises(DatasetError, match="no split names an image"):
        inspect_coco({"train": empty})


# Image records against what their files are

FILE = {"width": 640, "height": 480}
TURNED = ImageFacts(**FILE, orientation=6)


@pytest.mark.parametrize(
    ("image", "fact", "codes"),
    [
        ({}, FILE, ""),
        ({}, None, ""),
        ({"width": 480, "height": 640}, FILE, "image-size-differs"),
        ({}, FILE | {"orientation": 3}, "image-orientation"),
        ({}, FILE | {"orientation": 6}, "image-rotated"),
        ({}, {"width": 480, "height": 640, "orientation": 6}, ""),
        ({"height": 640}, {"width": 640, "height": 640, "orientation": 8}, "image-orientation"),
        *(({"height": side}, FILE, "image-size-invalid") for side in (None, 480.5, -3, 2**31)),
        *(({"id": number}, FILE, "image-malformed") for number in (10**30, True, None)),
        *(({"file_name": name}, FILE, "image-malformed") for name in ("", 7)),
    ],
)
def test_what_is_wrong_with_an_image_is_named(image: Any, fact: Any, codes: str) -> None:
    findings = Findings()
    record = {"id": 1, "file_name": "a.jpg", **FILE} | image
    facts = None if fact is None else {record["file_name"]: ImageFacts(**fact)}
    inspect_images("train", [record], facts, findings)
    assert " ".join(findings.counts()) == codes


@pytest.mark.parametrize(("said", "turn", "size"), [(640, 6, (640, 480)), ("x", 1, (480, 640))])
def test_the_size_of_the_file_is_written(said: Any, turn: int, size: tuple[int, int]) -> None:
    record = {"id": 1, "file_name": "a.jpg", "width": said, "height": 480}
    use = inspect_images("train", [record], {"a.jpg": TURNED}, Findings())[1]
    assert use.record is not None
    assert (use.record["width"], use.record["height"]) == (480, 640)
    assert (use.turn, use.size) == (turn, size)


# Annotations turned with their image, judged by Pillow's own turning of the pixels

POLYGON = [10.0, 5.0, 40.0, 8.0, 35.0, 30.0, 12.0, 25.0]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_box_polygon_rle_and_keypoints_turn_as_the_pixels_do(orientation: int) -> None:
    width, height = 60, 40  # as stored
    stored = raster([POLYGON], height, width)
    image = Image.fromarray(stored * 255)
    image.getexif()[0x0112] = orientation
    truth = np.asarray(ImageOps.exif_transpose(image)) > 0
    annotation = {"bbox": [10, 5, 30, 25], "segmentation": [POLYGON], "keypoints": [10, 5, 2]}
    polygon = turned(annotation, orientation, width, height)
    mask = raster(polygon["segmentation"], width, height) > 0
    assert (mask != truth).sum() <= 0.06 * truth.sum()  # the rasteriser's own bias
    rle = turned({**annotation, "segmentation": compressed_rle(stored)}, orientation, width, height)
    assert rle["segmentation"]["size"] == [width, height]
    assert np.array_equal(np.asarray(mask_util.decode(rle["segmentation"])) > 0, truth)
    points = np.reshape(polygon["segmentation"][0], (-1, 2))
    low, high = points.min(axis=0), points.max(axis=0)
    assert polygon["bbox"] == [*low.tolist(), *(high - low).tolist()]
    assert polygon["keypoints"] == [*points[0], 2]
    unseen = turned({**annotation, "keypoints": [0, 0, 0]}, orientation, width, height)
    assert unseen["keypoints"] == [0, 0, 0]

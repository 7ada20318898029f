"""Every way in which an annotation or an image can be wrong: `check` names it once and nothing
else, `clean` mends it and touches nothing else."""

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from persondet.data.check import check_export, look_at_images
from persondet.data.clean import clean_coco, clean_dataset
from persondet.data.findings import CODES
from persondet.data.inspect import inspect_coco
from persondet.data.roboflow import read_export
from tests.data.exports import (
    Coco,
    Shape,
    coco_of,
    compressed_rle,
    counts,
    edit,
    in_this_process,
    octagon,
    people,
    picture,
    raster,
    read_splits,
    rle_string,
    without_mask,
    write_habit,
)

GONE = object()  # in place of a value: the key is missing
NAN, INF, HUGE = float("nan"), float("inf"), 10**400
SIZE = HEIGHT, WIDTH = 48, 64
PIXELS = HEIGHT * WIDTH
VICTIM = 2  # index of the annotation that is broken: the octagon at (1, 25), 30 x 22 pixels
BOX = octagon(2, WIDTH, HEIGHT)["bbox"]
(P,) = octagon(2, WIDTH, HEIGHT)["segmentation"]
SQUARE = [5.0, 30.0, 15.0, 30.0, 15.0, 40.0, 5.0, 40.0]
# Warnings that a fault may bring along, because they are true then.
ALSO_TRUE = {
    *("image-without-annotations", "class-unused", "mask-formats-mixed", "box-beside-mask"),
    *("masks-none", "area-of-box", "box-tiny", "crowds-many"),
}
NOT_NUMBERS: list[Any] = [GONE, None, "x", 1.5, [1], {}, True, NAN]
NOT_POLYGONS: list[Any] = [
    *([*P[:-1], None], [*P[:-1], "x"], [*P[:-1], NAN], [INF, *P[1:]], [HUGE, *P[1:]], "polygon"),
    *({"x": 1}, None, [P], [*P[:-2], [1, 2]]),
]
LINES = [[], [5.0, 30.0] * 3, [5.0, 30.0, 9.0, 30.0, 15.0, 30.0], [5.0, 30.0, 15.0, 40.0] * 2]


def boxes(*values: Any) -> list[Any]:
    return [list(value) for value in values]


def clipped(left: float, right: float) -> list[list[list[float]]]:
    """A mask of ten rows between two columns."""
    return [[[left, 30.0, right, 30.0, right, 40.0, left, 40.0]]]


# Kind, code, key, the values that take its place, and what becomes of the annotation: "dropped",
# "kept", "restored", "boxed" (the filled box as its mask), "masked" (the box of its mask, and
# dropped without one), or what some of its keys are.
Row = tuple[str, str, str, list[Any], Any]
ANY: list[Row] = [
    ("any", "annotation-malformed", "image_id", NOT_NUMBERS, "dropped"),
    ("any", "annotation-malformed", "category_id", NOT_NUMBERS, "dropped"),
    ("any", "annotation-unknown-image", "image_id", [99_999, -5, 10**30], "dropped"),
    ("any", "annotation-unknown-category", "category_id", [99, -1, 10**30], "dropped"),
    ("any", "annotation-id-invalid", "id", NOT_NUMBERS, "restored"),
    ("any", "annotation-id-zero", "id", [0], "restored"),
    ("any", "annotation-id-twice", "id", [1], "restored"),
    ("any", "crowd-flag-invalid", "iscrowd", [GONE, None, "no", [], NAN], {"iscrowd": 0}),
    ("any", "crowd-flag-invalid", "iscrowd", ["true", " Yes ", 2, -1, 0.5], {"iscrowd": 1}),
    ("any", "area-invalid", "area", [GONE, None, 0, -4.5, "x", NAN, INF, [1], HUGE], "restored"),
    ("any", "box-invalid", "bbox", [GONE, None, [], BOX[:3], [*BOX, 1], "box", {"x": 1}, 5,
     ["a", *BOX[1:]], [None, *BOX[1:]], [*BOX[:3], []], [*BOX[:2], NAN, 1], [NAN] * 4,
     [1, INF, 1, 1], [BOX], [HUGE, *BOX[1:]]], "masked"),
    ("any", "box-negative", "bbox", boxes((1, 25, -30, 22), (1, 25, 30, -22)), "masked"),
    ("any", "box-zero", "bbox", boxes((1, 25, 0, 22), (1, 25, 30, 0.0)), "masked"),
    ("any", "box-outside", "bbox", boxes((64, 25, 30, 22), (-30, 25, 30, 22), (1, 1e7, 30, 22)),
     "masked"),
    ("any", "box-outside", "bbox", boxes((-10, 25, 38, 22)), {"bbox": [0, 25, 28, 22]}),
    ("any", "box-outside", "bbox", boxes((1, 25, 30, 24), (1, 25, 30, 23.51)),
     {"bbox": [1, 25, 30, 23]}),
    ("any", "box-outside-slightly", "bbox", boxes((1, 25, 30, 23.031), (1, 25, 30, 23.5)),
     {"bbox": [1, 25, 30, 23]}),
    ("any", "box-tiny", "bbox", boxes((1, 25, 1.5, 22), (1, 25, 30, 0.2)), "kept"),
    ("masks", "box-beside-mask", "bbox", boxes((33, 1, 30, 22)), "kept"),
    ("masks", "mask-invalid", "segmentation", ["mask", 5, 1.5, True], "boxed"),
    ("masks", "mask-missing", "segmentation", [GONE, None, []], "boxed"),
    ("polygons", "area-of-box", "area", [30 * 22, 660.3], "restored"),
    ("polygons", "polygon-flat", "segmentation", [P], "restored"),
    ("polygons", "polygon-invalid", "segmentation", [[part] for part in NOT_POLYGONS], "boxed"),
    ("polygons", "polygon-odd", "segmentation", [[P[:-1]]], "boxed"),
    ("polygons", "polygon-short", "segmentation", [[P[:2]], [P[:4]]], "boxed"),
    ("polygons", "polygon-empty", "segmentation", [[part] for part in LINES], "boxed"),
    ("polygons", "mask-without-pixels", "segmentation",
     [[[9.6, 25, 9.8, 25, 9.8, 47, 9.6, 47]]], "boxed"),
    ("polygons", "polygon-corners-crossed", "segmentation",
     [[[1, 25, 31, 47, 31, 25, 1, 47]], [[1, 25, 31, 47, 31, 30, 1, 47]]], "kept"),
    ("polygons", "polygon-self-intersecting", "segmentation",
     [[[1, 25, 31, 47, 31, 25, 16, 25, 1, 47]]], "kept"),
    *(("polygons", code, "segmentation", [[SQUARE, part]], {"segmentation": [SQUARE], "area": 100})
      for code, part in (("polygon-invalid", NOT_POLYGONS[0]), ("polygon-odd", P[:-1]),
                         ("polygon-short", P[:4]), ("polygon-empty", []),
                         ("polygon-outside", [value + 100 for value in P]))),
    ("polygons", "polygon-outside", "segmentation", [[[v - 100 for v in P]]], "boxed"),
    ("polygons", "polygon-outside", "segmentation", clipped(-10.0, 20.0), {"area": 200}),
    ("polygons", "polygon-outside", "segmentation", clipped(54.0, 64.6), {"area": 100}),
    ("polygons", "polygon-outside-slightly", "segmentation", clipped(-0.5, 20.0), {"area": 200}),
    ("rle", "rle-size", "size", [[WIDTH, HEIGHT], [HEIGHT + 1, WIDTH], [96, 128]], "boxed"),
    ("rle", "rle-invalid", "size", [GONE, "48x64", [HEIGHT], [HEIGHT, None]], "boxed"),
    ("rle", "rle-invalid", "counts", [
        *(GONE, None, 5, "\x7f\x00", "~~~", "0", "P" * 70, {"a": 1}, [PIXELS - 1], [10, PIXELS]),
        *([-1, PIXELS + 1], [PIXELS - 5.5, 5.5], ["x", PIXELS - 1], [PIXELS - 4, NAN]),
    ], "boxed"),
    ("rle", "rle-empty", "segmentation",
     [{"size": [*SIZE], "counts": [PIXELS]}, compressed_rle(np.zeros(SIZE, np.uint8))], "boxed"),
]  # fmt: skip
SHAPES: dict[str, Shape] = {"polygons": octagon, "rle": rle_string, "boxes": without_mask}
KINDS = {"any": list(SHAPES), "masks": ["polygons", "rle"]}  # others are one alone


def valid_coco(kind: str) -> Coco:
    return coco_of(
        [people(3, SHAPES[kind]), people(2, SHAPES[kind])], ["a.jpg", "b.jpg"], [SIZE] * 2
    )


def judge(code: str, valid: Coco, broken: Coco, fate: Any, victim: int = VICTIM) -> None:
    """Assert what `check` says about one fault of one annotation, and what `clean` makes of it."""
    before, usual = copy.deepcopy(broken), inspect_coco({"train": valid}).findings.counts()
    found = inspect_coco({"train": broken}).findings.counts()
    assert found[code] - usual.get(code, 0) == 1
    new = {name for name in found if found[name] > usual.get(name, 0)} - {code}
    assert new <= {*CODES[code].implies, *ALSO_TRUE}, new
    clean = clean_coco({"train": broken})
    assert repr(broken) == repr(before)  # NaN is not equal to itself
    assert clean.changes.get(code, 0) == CODES[code].changes
    cleaned = clean.splits["train"]["annotations"]
    assert [one["id"] for one in cleaned] == list(range(1, len(cleaned) + 1))
    expected = [one for index, one in enumerate(valid["annotations"]) if index != victim]
    others = cleaned
    if fate != "dropped":
        others = cleaned[:victim] + cleaned[victim + 1 :]
        become(cleaned[victim], valid["annotations"][victim], broken["annotations"][victim], fate)
    assert [one | {"id": 0} for one in others] == [one | {"id": 0} for one in expected]
    again = clean_coco(clean.splits)
    assert (again.splits, again.changes) == (clean.splits, {})


def become(cleaned: Any, valid: Any, broken: Any, fate: Any) -> None:
    """Assert what a broken annotation came to."""
    expected = dict(broken if fate == "kept" else valid)
    x, y, w, h = valid["bbox"]
    if fate == "boxed":
        expected["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    elif fate == "masked":
        assert cleaned["bbox"] == pytest.approx(valid["bbox"])
        expected["bbox"] = cleaned["bbox"]
    elif isinstance(fate, dict):
        expected |= fate
        if fate.keys() == {"area"}:  # clipped
            points = np.reshape(cleaned["segmentation"][0], (-1, 2))
            assert points.min() >= 0 and (points <= [WIDTH, HEIGHT]).all()
            expected["segmentation"] = cleaned["segmentation"]
    mask, box = expected["segmentation"], expected["bbox"]
    area = raster(mask, HEIGHT, WIDTH).sum() if mask else box[2] * box[3]
    assert cleaned["area"] == pytest.approx(area)
    assert "area" not in fate or area == fate["area"]
    assert cleaned | {"id": 0, "area": 0} == expected | {"id": 0, "area": 0}


@pytest.mark.parametrize("row", ANY, ids=lambda row: f"{row[1]}-{row[2]}")
def test_trap_13_a_fault_of_an_annotation_is_named_and_mended_alone(row: Row) -> None:
    kinds, code, key, values, fate = row
    for kind in KINDS.get(kinds, [kinds]):
        valid = valid_coco(kind)
        for value in values:
            broken = copy.deepcopy(valid)
            annotation = broken["annotations"][VICTIM]
            record = annotation["segmentation"] if key in ("size", "counts") else annotation
            record[key] = copy.deepcopy(value)
            if value is GONE:
                del record[key]
            unboxed = fate == "masked" and kind == "boxes"
            judge(code, valid, broken, "dropped" if unboxed else fate)


def test_an_annotation_that_is_no_object_or_a_repetition_is_dropped() -> None:
    valid = valid_coco("polygons")
    for record in (None, "x", 5, []):
        broken = copy.deepcopy(valid)
        broken["annotations"][VICTIM] = record
        judge("annotation-malformed", valid, broken, "dropped")
    valid = valid_coco("rle")
    for number in (1, 99):
        broken = copy.deepcopy(valid)
        broken["annotations"].append(broken["annotations"][0] | {"id": number})
        judge("annotation-repeated", valid, broken, "dropped", victim=len(valid["annotations"]))


def test_every_code_of_annotations_has_a_row() -> None:
    starts = ("annotation-", "crowd-", "area-", "box-", "mask-", "polygon-", "rle-")
    codes = {code for code in CODES if code.startswith(starts)}
    assert codes == {row[1] for row in ANY} | {"annotation-repeated", "mask-formats-mixed"}


def test_each_fault_of_an_image_is_named_once_and_the_rest_stays(tmp_path: Path) -> None:
    """One export on disk with all of them; image 0 has none."""
    kept = [
        *("image-size-invalid", "image-orientation", "image-rotated", "image-listed-twice"),
        "file-name-spelled",
    ]
    dropped = [
        *("image-malformed", "file-name-outside", "file-missing", "image-unreadable"),
        *("image-truncated", "image-size-differs", "image-too-large", "image-id-twice"),
    ]
    codes = ["fine", *kept, *dropped, "the other id"]
    names = dict(zip(codes, (f"{letter}.jpg" for letter in "abcdefghijklmno"), strict=True))
    root = write_habit(
        tmp_path / "in",
        {"train": [people(2)] * len(codes)},
        name=lambda folder, index: names[codes[index]],
    )
    files = {code: root / "train" / name for code, name in names.items()}
    files["file-missing"].unlink()
    content = files["image-too-large"].read_bytes()
    frame = content.index(b"\xff\xc0") + 5
    files["image-too-large"].write_bytes(content[:frame] + b"\xf0\xf0" * 2 + content[frame + 4 :])
    files["image-unreadable"].write_bytes(b"<html>")
    os.truncate(files["image-truncated"], 700)
    for code, orientation in (("image-orientation", 3), ("image-rotated", 6)):
        exif = Image.Exif()
        exif[0x112] = orientation
        Image.fromarray(picture(codes.index(code))[0]).save(files[code], exif=exif)
    (root / "train/more.jpg").write_bytes(picture(50)[1])

    def change(coco: Coco) -> None:
        of = dict(zip(codes, coco["images"], strict=True))
        of["image-malformed"]["file_name"] = None
        of["file-name-outside"]["file_name"] = "../x.jpg"
        of["image-size-invalid"]["width"] = "wide"
        of["file-name-spelled"]["file_name"] = f"%{ord(names['file-name-spelled'][0]):x}.JPG"
        of["image-size-differs"]["width"] += 1
        of["the other id"]["id"] = of["image-id-twice"]["id"]
        coco["images"].append(of["image-listed-twice"] | {"id": 99})
        coco["annotations"][9]["image_id"] = 99

    edit(root, change)
    with in_this_process():
        found = counts(check_export(root))
        record = clean_dataset(root, tmp_path / "out")
        assert check_export(tmp_path / "out")["errors"] == 0
    codes_found = {code: n for code, n in found.items() if code.startswith(("image-", "file-"))}
    # The files that no record names: of the malformed record, of the one outside, and one more.
    expected = dict.fromkeys([*kept, *dropped], 1) | {"file-not-listed": 3}
    assert codes_found == expected
    gone = {names[code]: code for code in dropped if code != "image-malformed"}
    gone = {("../x.jpg" if c == "file-name-outside" else n): c for n, c in gone.items()}
    gone[names["the other id"]] = "image-id-twice"
    assert record["dropped_images"] == {"train": gone}
    assert record["changes"]["file-name-spelled"] == 1
    coco = read_splits(tmp_path / "out")["train"]
    assert [i["file_name"] for i in coco["images"]] == [names[c] for c in ("fine", *kept)]
    assert len(coco["annotations"]) == 2 * (1 + len(kept))


def test_an_export_without_train_is_cleaned_as_check_says(tmp_path: Path) -> None:
    root = write_habit(tmp_path / "in", {"valid": [people(1)]})
    with in_this_process():
        (missing, *_) = check_export(root)["findings"]
        assert clean_dataset(root, tmp_path / "out")["splits"]["valid"]["images"] == 1
    assert missing["code"] == "train-missing" and not missing["clean"].startswith("refused")


def test_names_that_look_alike_are_told_apart(tmp_path: Path) -> None:
    root = write_habit(tmp_path, {"train": [people(1)]}, name=lambda *_: "u\u0308.jpg")
    edit(root, lambda coco: coco["images"][0].update(file_name="\xfc.jpg"))
    with in_this_process():
        report = check_export(root)
    (finding,) = [f for f in report["findings"] if f["code"] == "file-name-spelled"]
    (example,) = finding["examples"]
    assert (example["file"], example["detail"]) == ("u\u0308.jpg", r"'\xfc.jpg' in the json")


def test_a_split_that_lists_the_images_of_another_is_said_to(tmp_path: Path) -> None:
    root = write_habit(tmp_path, {"train": [people(1)] * 3}, name=lambda _, index: f"{index}.jpg")
    write_habit(root, {"valid": [people(1)] * 3}, name=lambda _, index: f"{index}.jpg")
    for path in root.glob("valid/*.jpg"):
        path.unlink()
    with in_this_process():
        found = counts(check_export(root))
    assert found["file-of-other-split"] == 3 and "file-missing" not in found
    write_habit(root, {"test": [people(1)] * 3}, name=lambda _, index: f"{index}.jpg")
    with in_this_process():
        facts = look_at_images(read_export(root), decode=False)
    assert {fact.detail for fact in facts["valid"].values()} == {"it lies in train and test"}

"""`read_coco` admits COCO and refuses the rest in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from persondet.data.coco_json import read_coco, write_coco
from persondet.errors import DatasetError

IMAGE = {"id": 0, "file_name": "a.jpg", "width": 4, "height": 3}
ANNOTATION = {"id": 0, "image_id": 0, "category_id": 0, "bbox": [0, 0, 1, 1]}
CATEGORY = {"id": 0, "name": "person"}
COCO = {"images": [IMAGE], "annotations": [ANNOTATION], "categories": [CATEGORY]}


def test_round_trip(tmp_path: Path) -> None:
    write_coco(tmp_path / "a.json", COCO)
    assert read_coco(tmp_path / "a.json") == COCO


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(COCO), encoding="utf-8-sig")
    assert read_coco(tmp_path / "a.json") == COCO


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"images": [\n{,}]}', "line 2"),
        ("<html>", "is not JSON"),
        ("", "is not JSON"),
        ("[]", "is not COCO"),
        ("{}", "no 'images', no 'annotations', no 'categories'"),
        (json.dumps({**COCO, "images": {}}), "'images' is not a list"),
        (json.dumps({**COCO, "annotations": [1]}), "annotations[0]"),
        (json.dumps({**COCO, "annotations": [{**ANNOTATION, "id": "7"}]}), "'id' as a whole"),
        (json.dumps({**COCO, "annotations": [{**ANNOTATION, "image_id": True}]}), "'image_id'"),
        (json.dumps({**COCO, "categories": [{"id": 1}]}), "'name' as a text, but has nothing"),
        (json.dumps({**COCO, "images": [{**IMAGE, "width": 0}]}), "0 x 3 pixels"),
        (json.dumps({**COCO, "images": [{**IMAGE, "width": 2.5}]}), "'width'"),
        (json.dumps(COCO).replace("[0, 0, 1, 1]", "[0, 0, NaN, 1]"), "NaN"),
        (json.dumps(COCO).replace("[0, 0, 1, 1]", "[0, 0, -Infinity, 1]"), "-Infinity"),
        (json.dumps(COCO).replace("[0, 0, 1, 1]", "[0, 0, 1e999, 1]"), "1e999"),
        (json.dumps(COCO).replace("[0, 0, 1, 1]", "[0, 0, " + "9" * 5000 + ", 1]"), "digits"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_not_coco_is_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "_annotations.coco.json"
    path.write_text(text)
    with pytest.raises(DatasetError) as caught:
        read_coco(path)
    message = str(caught.value)
    assert says in message
    assert str(path) in message
    assert "\n" not in message


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such file"):
        read_coco(tmp_path / "none.json")
    (tmp_path / "a.json").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(DatasetError, match="UTF-8"):
        read_coco(tmp_path / "a.json")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_coco(tmp_path)

"""`read_coco` admits COCO and refuses the rest in one sentence."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from persondet.data.coco_json import coco_digest, read_coco, write_coco
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
        (json.dumps(COCO).replace("[0, 0, 1, 1]", "[0, 0, " + "9" * 5000 + ", NaN]"), "digits"),
        (json.dumps(COCO) + "{}", "is not JSON"),
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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("NaN", float("nan")),
        ("-Infinity", float("-inf")),
        ("1e999", float("inf")),
        ("9" * 30, None),
    ],
)
def test_numbers_that_are_none_are_read_for_others_to_judge(
    tmp_path: Path, text: str, value: float | None
) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(COCO).replace("[0, 0, 1, 1]", f"[0, 0, {text}, 1]"))
    read = read_coco(path)["annotations"][0]["bbox"][2]
    assert repr(read) == repr(value) if value is not None else read == int(text)
    write_coco(path, read_coco(path))
    again = json.loads(path.read_text())["annotations"][0]["bbox"][2]
    assert again == (None if value is not None else int(text))


def test_records_of_any_content_are_read(tmp_path: Path) -> None:
    odd = {"images": [1, None], "annotations": [{"id": "7"}], "categories": [[]]}
    write_coco(tmp_path / "a.json", odd)
    assert read_coco(tmp_path / "a.json") == odd


def test_many_records_are_written_as_few_are(tmp_path: Path) -> None:
    annotations = [{**ANNOTATION, "id": number} for number in range(9000)]
    many = {**COCO, "annotations": annotations, "info": {"é": "\ud800"}}
    write_coco(tmp_path / "a.json", many)
    assert json.loads((tmp_path / "a.json").read_bytes()) == many
    assert coco_digest(many) == hashlib.sha256((tmp_path / "a.json").read_bytes()).hexdigest()


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such file"):
        read_coco(tmp_path / "none.json")
    (tmp_path / "a.json").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(DatasetError, match="UTF-8"):
        read_coco(tmp_path / "a.json")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_coco(tmp_path)

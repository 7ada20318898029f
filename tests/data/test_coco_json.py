"""`read_coco` admits COCO and refuses the rest in one sentence."""

import json
from pathlib import Path

import pytest

from persondet.data.coco_json import read_coco, write_coco
from persondet.errors import DatasetError

IMAGE = {"id": 0, "file_name": "a.jpg", "width": 4, "height": 3}
ANNOTATION = {"id": 0, "image_id": 0, "category_id": 0, "bbox": [0, 0, 1, 1]}
COCO = {"images": [IMAGE], "annotations": [ANNOTATION], "categories": [{"id": 0, "name": "person"}]}


def test_round_trip(tmp_path: Path) -> None:
    path, odd = tmp_path / "a.json", {"images": [1, None], "annotations": [{"id": "7"}]}
    for coco in (COCO, odd | {"categories": [[]]}, {**COCO, "info": {"é": "\ud800"}}):
        write_coco(path, coco)
        assert read_coco(path) == json.loads(path.read_bytes()) == coco
        path.write_text("\ufeff" + path.read_text())
        assert read_coco(path) == coco


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"images": [\n{,}]}', "line 2"),
        ("<html>", "is not JSON"),
        ("[]", "is not COCO"),
        ("{}", "no list 'images', no list 'annotations', no list 'categories'"),
        (json.dumps({**COCO, "images": {}}), "no list 'images'"),
        (json.dumps(COCO).replace("[0, 0, 1, 1]", "[0, 0, " + "9" * 5000 + ", NaN]"), "digits"),
        ("[" * 100_000, "recursion"),
        ("\udcff\udcd8", "UTF-8"),
        (None, "no such file"),
    ],
)
def test_what_is_not_coco_is_refused_by_name(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "_annotations.coco.json"
    if text is not None:
        path.write_text(text, errors="surrogateescape")
    with pytest.raises(DatasetError) as caught:
        read_coco(path)
    message = str(caught.value)
    assert says in message
    assert str(path) in message
    assert "\n" not in message


def test_numbers_that_are_none_are_read_for_others_to_judge(tmp_path: Path) -> None:
    path, huge = tmp_path / "a.json", int("9" * 30)
    path.write_text(json.dumps(COCO).replace("[0, 0, 1, 1]", f"[NaN, -Infinity, 1e999, {huge}]"))
    coco = read_coco(path)
    assert repr(coco["annotations"][0]["bbox"]) == f"[nan, -inf, inf, {huge}]"
    write_coco(path, coco)
    assert json.loads(path.read_text())["annotations"][0]["bbox"] == [None, None, None, huge]

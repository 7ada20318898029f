"""Image records against what their files are."""

from __future__ import annotations

from typing import Any

import pytest

from persondet.data.findings import Findings
from persondet.data.inspect.images import ImageFacts, inspect_images

FILE = ImageFacts(width=640, height=480)


def _inspect(image: dict[str, Any], fact: ImageFacts | None = FILE) -> tuple[dict[str, int], Any]:
    findings = Findings()
    record = {"id": 1, "file_name": "a.jpg", "width": 640, "height": 480} | image
    facts = None if fact is None else {record["file_name"]: fact}
    uses = inspect_images("train", [record], facts, findings)
    return findings.counts(), uses.get(1)


@pytest.mark.parametrize(
    ("image", "fact", "codes"),
    [
        ({}, FILE, {}),
        ({}, None, {}),
        ({"width": 641}, FILE, {"image-size-differs": 1}),
        ({"width": 480, "height": 640}, FILE, {"image-size-differs": 1}),
        ({}, ImageFacts("image-truncated"), {"image-truncated": 1}),
        ({}, ImageFacts(width=640, height=480, orientation=3), {"image-orientation": 1}),
        ({}, ImageFacts(width=640, height=480, orientation=6), {"image-rotated": 1}),
        ({}, ImageFacts(width=480, height=640, orientation=6), {}),
        (
            {"width": 640, "height": 640},
            ImageFacts(width=640, height=640, orientation=8),
            {"image-orientation": 1},
        ),
        ({"file_name": "../a.jpg"}, FILE, {"file-name-outside": 1}),
        ({"width": None}, FILE, {"image-size-invalid": 1}),
        ({"height": 480.5}, FILE, {"image-size-invalid": 1}),
        ({"height": -3}, FILE, {"image-size-invalid": 1}),
        ({"id": 10**30}, FILE, {"image-malformed": 1}),
        ({"id": True}, FILE, {"image-malformed": 1}),
        ({"file_name": ""}, FILE, {"image-malformed": 1}),
        ({"file_name": 7}, FILE, {"image-malformed": 1}),
    ],
)
def test_what_is_wrong_is_named(
    image: dict[str, Any], fact: ImageFacts | None, codes: dict[str, int]
) -> None:
    assert _inspect(image, fact)[0] == codes


def test_a_rotated_image_gets_its_upright_size() -> None:
    use = _inspect({}, ImageFacts(width=640, height=480, orientation=6))[1]
    assert (use.record["width"], use.record["height"]) == (480, 640)
    assert use.turn == 6
    assert use.size == (640, 480)


def test_an_unknown_size_is_taken_from_the_file() -> None:
    use = _inspect({"width": "x"}, ImageFacts(width=640, height=480, orientation=6))[1]
    assert (use.record["width"], use.record["height"]) == use.size == (480, 640)
    assert _inspect({"width": "x"}, None)[1].record is None

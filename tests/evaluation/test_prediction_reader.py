"""Predictions are read image by image, and the answer is that of reading the whole file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from persondet.errors import PersondetError
from persondet.evaluation import predictions as prediction_reader
from persondet.evaluation.matching import gather
from persondet.evaluation.predictions import PredictionFile, PredictionReader

NUMBERS = {3: 0, 7: 1}


def record(image_id: int, score: float, category: int = 3) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "category_id": category,
        "bbox": [1.0, 2.0, score, 4.0],
        "score": score,
        "segmentation": {"size": [4, 5], "counts": '}],\\"[{'},
    }


LINE = len(msgspec.json.encode(record(0, 0.5))) + 3  # of one prediction, and the first of a file


def records(rng: np.random.Generator, images: int) -> list[list[dict[str, Any]]]:
    return [
        [
            record(number, float(rng.choice([0.25, 0.5, 1 / 3])), int(rng.choice([3, 7, 8])))
            for _ in range(rng.integers(0, 6))
        ]
        for number in range(images)
    ]


@pytest.mark.parametrize("lines", ["ours", "one line", "indented", "spread"])
def test_each_image_gets_what_the_whole_file_says_of_it(tmp_path: Path, lines: str) -> None:
    rng = np.random.default_rng(1)
    parts = records(rng, 12)
    order = rng.permutation(12).tolist()
    path = tmp_path / "results.json"
    everything = [one for number in order for one in parts[number]]
    if lines == "ours":
        with PredictionFile(tmp_path) as file:
            for number in order:
                file.add(number, parts[number])
            file.add(order[0], [record(order[0], 0.75)])  # an image that is looked at twice
            file.publish(path)
        everything.append(record(order[0], 0.75))
    elif lines == "spread":  # a line for each prediction, and an image's not together
        everything.reverse()
        path.write_text("[" + ",\n".join(map(json.dumps, everything)) + "]\n")
    else:
        path.write_text(json.dumps(everything, indent=2 if lines == "indented" else None))
    known = list(range(2, 14))  # two are not there, two are unknown
    coco = {
        "images": [{"id": number} for number in known],
        "categories": [{"id": number, "name": "a"} for number in NUMBERS],
        "annotations": [],
    }
    expected = gather(coco, everything, masks=True)
    reader = PredictionReader(path, known, NUMBERS)
    assert list(reader) == expected.found
    assert any(map(len, reader)) and reader.have_masks
    assert len(reader) == 12 and reader[1:3] == expected.found[1:3]


def test_our_files_are_never_decoded_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PredictionFile(tmp_path) as file:
        for number in range(300):
            file.add(number, [record(number, 0.5)] * 4)
        file.publish(tmp_path / "results.json")
    sizes: list[int] = []

    class Counting:
        def __init__(self, decoder: Any) -> None:
            self.decoder = decoder

        def decode(self, content: bytes) -> Any:
            sizes.append(len(content))
            return self.decoder.decode(content)

    for name in ("_PLACES", "_DETECTIONS"):
        monkeypatch.setattr(prediction_reader, name, Counting(getattr(prediction_reader, name)))
    reader = PredictionReader(tmp_path / "results.json", range(300), NUMBERS)
    assert [len(found) for found in reader] == [4] * 300
    assert max(sizes) < file.count_bytes / 100


@pytest.mark.parametrize("mask", [None, [], {}, ""])
def test_one_prediction_without_a_mask_is_seen_and_a_stray_is_not(
    tmp_path: Path, mask: Any
) -> None:
    path = tmp_path / "results.json"
    bare = record(1, 0.5) | {"segmentation": mask}
    for stray in (bare | {"image_id": 9}, bare | {"category_id": 99}):
        path.write_text("[" + ",\n".join(map(json.dumps, [record(1, 0.5), stray])) + "]\n")
        assert PredictionReader(path, [1], NUMBERS).have_masks
    path.write_text(json.dumps([record(1, 0.5), bare]))
    assert not PredictionReader(path, [1], NUMBERS).have_masks


def test_nothing_found_and_no_file(tmp_path: Path) -> None:
    with PredictionFile(tmp_path) as file:
        file.add(1, [])
        file.publish(tmp_path / "results.json")
    for name in ("results.json", "missing.json"):
        reader = PredictionReader(tmp_path / name, [1, 2], NUMBERS)
        assert list(reader) == [[], []] and reader.have_masks


# Within a record, at the end of a line, before the closing bracket.
@pytest.mark.parametrize("cut", [1, 2, 3, 40, LINE, 2 * LINE - 1, -2, -3])
def test_a_damaged_file_is_said_in_words(tmp_path: Path, cut: int) -> None:
    with PredictionFile(tmp_path) as file:
        for number in range(3):
            file.add(number, [record(number, 0.5)])
        file.publish(tmp_path / "results.json")
    content = (tmp_path / "results.json").read_bytes()
    (tmp_path / "results.json").write_bytes(content[:cut])
    with pytest.raises(PersondetError, match=r"results\.json: not a list of COCO predictions"):
        PredictionReader(tmp_path / "results.json", [0, 1, 2], NUMBERS)
    assert content[:LINE].endswith(b"},\n")
    for more in (content, content[1:], b"x"):
        (tmp_path / "results.json").write_bytes(content + more)
        with pytest.raises(PersondetError, match="not a list"):
            PredictionReader(tmp_path / "results.json", [0, 1, 2], NUMBERS)

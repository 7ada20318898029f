"""Records: a round trip, by another decoder too, and a file that was cut."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from pycocotools import mask as coco_mask

from persondet.errors import MediaError
from persondet.video.records import (
    FrameRecord,
    PersonRecord,
    RecordsHeader,
    RecordsWriter,
    people_of,
    read_records,
)

HEADER = RecordsHeader("walk é.mp4", "best.pth", ("person",), 0.5, 96, 64, Fraction(30000, 1001))


def frames_of(count):
    return [
        FrameRecord(n, n / 25, tuple(PersonRecord((1.5, 2, 3, 4), 0.9, "person") for _ in range(n)))
        for n in range(count)
    ]


def write(path, frames):
    with RecordsWriter(path, HEADER) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def test_round_trip(tmp_path):
    frames = frames_of(4)
    header, read = read_records(write(tmp_path / "walk.jsonl", frames))
    assert header == HEADER
    assert list(read) == frames


def test_the_file_is_what_the_schema_says(tmp_path):
    lines = write(tmp_path / "walk.jsonl", frames_of(2)).read_text(encoding="utf-8").splitlines()
    first, _, third = (json.loads(line) for line in lines)
    assert (first["schema"], first["version"]) == ("persondet-video-records", 1)
    assert (first["fps"], first["frame_rate"]) == (29.97003, "30000/1001")
    assert third == {
        "index": 1,
        "time": 0.04,
        "people": [
            {
                "box": [1.5, 2, 3, 4],
                "score": 0.9,
                "class": "person",
                "mask": None,
                "track_id": None,
            }
        ],
    }


def test_instances_become_records_with_the_very_mask():
    mask = np.zeros((64, 96), dtype=bool)
    mask[10:40, 20:50] = np.random.default_rng(0).random((30, 30)) < 0.7
    instances = Instances((64, 96))
    instances.pred_boxes = Boxes(torch.tensor([[20.123456, 10, 50, 40], [0, 0, math.nan, 1]]))
    instances.scores = torch.tensor([0.87654321, 0.9])
    instances.pred_classes = torch.tensor([0, 0])
    instances.pred_masks = torch.from_numpy(np.stack([mask, mask]))
    (person,) = people_of(instances, ("person",))  # the box that is no number is left out
    assert person.box == (20.12, 10, 50, 40)
    assert (person.score, person.class_name, person.track_id) == (0.8765, "person", None)
    decoded = coco_mask.decode({"size": [64, 96], "counts": person.mask.encode()})
    assert np.array_equal(decoded.astype(bool), mask)
    assert np.array_equal(person.decode_mask(HEADER), mask)


def test_a_cut_last_line_is_passed_over_with_a_warning(tmp_path, caplog):
    path = write(tmp_path / "walk.jsonl", frames_of(4))
    path.write_bytes(path.read_bytes()[:-20])
    _, frames = read_records(path)
    assert len(list(frames)) == 3
    assert "cut off" in caplog.text


def test_a_damaged_line_in_the_middle_is_an_error(tmp_path):
    path = write(tmp_path / "walk.jsonl", frames_of(4))
    lines = path.read_text().splitlines()
    lines[2] = lines[2][:10]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(MediaError, match="line 3"):
        list(read_records(path)[1])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "line 1 is no JSON"),
        ("[]\n", "not the header"),
        ('{"schema": "persondet-video-records", "version": 2}\n', "version 1"),
        ('{"schema": "persondet-video-records", "version": 1}\n', "'source'"),
    ],
)
def test_foreign_files_are_refused(content, says, tmp_path):
    path = tmp_path / "walk.jsonl"
    path.write_text(content)
    with pytest.raises(MediaError, match=says):
        read_records(path)
    with pytest.raises(MediaError, match="cannot be read"):
        read_records(tmp_path / "none.jsonl")


def test_numbers_that_are_no_json_leave_no_file(tmp_path):
    bad = FrameRecord(0, 0.0, (PersonRecord((0, 0, 1, 1), math.inf, "person"),))
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path / "walk.jsonl", [bad])
    assert list(tmp_path.iterdir()) == []

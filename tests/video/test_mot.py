"""MOT-challenge text: what the format says, and what another reader makes of it."""

from __future__ import annotations

from fractions import Fraction

import motrics
import pytest

from persondet.errors import MediaError
from persondet.inference.records import (
    FrameRecord,
    PersonRecord,
    RecordsHeader,
    RecordsWriter,
    mot_path,
    write_mot,
)

HEADER = RecordsHeader("walk.mp4", "best.pth", ("person",), 0.5, 96, 64, Fraction(25))
FRAMES = [
    # Every fifth frame was annotated, from the tenth on.
    FrameRecord(10, 0.4, (PersonRecord((0.0, 1.5, 30.25, 61.5), 0.9, "person", None, 1),)),
    FrameRecord(15, 0.6, ()),
    FrameRecord(
        20,
        0.8,
        (
            PersonRecord((5.0, 2.0, 35.0, 62.0), 0.8, "person", None, 1),
            PersonRecord((50.0, 2.0, 60.0, 22.0), 0.7, "person", None, 12),
        ),
    ),
]


def write(path, frames):
    with RecordsWriter(path, HEADER) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def test_a_line_per_person_frames_and_pixels_count_from_one(tmp_path):
    records = write(tmp_path / "walk.jsonl", FRAMES)
    target = mot_path(tmp_path / "walk.mp4")
    assert target == tmp_path / "walk.txt"
    assert write_mot(records, target) == 3
    assert target.read_text().splitlines() == [
        "1,1,1.00,2.50,30.25,60.00,0.9000,-1,-1,-1",
        "3,1,6.00,3.00,30.00,60.00,0.8000,-1,-1,-1",
        "3,12,51.00,3.00,10.00,20.00,0.7000,-1,-1,-1",
    ]


def test_another_program_reads_it(tmp_path):
    write_mot(write(tmp_path / "walk.jsonl", FRAMES), tmp_path / "walk.txt")
    read = motrics.load_motchallenge(str(tmp_path / "walk.txt"))
    assert {frame: list(ids) for frame, (ids, _) in read.items()} == {1: [1], 3: [1, 12]}
    assert [tuple(box) for box in read[3][1]] == [(6.0, 3.0, 36.0, 63.0), (51.0, 3.0, 61.0, 23.0)]


def test_without_tracking_nobody_has_an_id(tmp_path):
    frame = FrameRecord(0, 0.0, (PersonRecord((1.0, 1.0, 2.0, 3.0), 0.5, "person"),))
    write_mot(write(tmp_path / "walk.jsonl", [frame]), tmp_path / "walk.txt")
    assert (tmp_path / "walk.txt").read_text() == "1,-1,2.00,2.00,1.00,2.00,0.5000,-1,-1,-1\n"


def test_records_that_cannot_be_read_leave_no_text(tmp_path):
    path = write(tmp_path / "walk.jsonl", FRAMES)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], "{", *lines[2:]]) + "\n")
    with pytest.raises(MediaError, match="line 3"):
        write_mot(path, tmp_path / "walk.txt")
    assert [*tmp_path.iterdir()] == [path]

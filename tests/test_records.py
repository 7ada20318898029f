"""Records: round trip, other decoders, the rest of a killed run, version 1, MOT-challenge text."""

import json
import math
import os
from dataclasses import replace
from fractions import Fraction

import motrics
import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from pycocotools import mask as coco_mask

from persondet.errors import MediaError, OutputExistsError, PartialMediaError
from persondet.files import partial_path
from persondet.inference.masks import encoded_masks
from persondet.records import (
    FrameRecord,
    PersonRecord,
    RecordsHeader,
    RecordsWriter,
    mot_path,
    people_of,
    person_rows,
    read_records,
    write_mot,
)

# A file name that is no UTF-8 survives.
HEADER = RecordsHeader(
    *(os.fsdecode(b"caf\xe9.mp4"), "best.pth", ("person",), 0.5, 96, 64, Fraction(30000, 1001)),
    start=2.5,
    tracker="Norfair",
)


def frames_of(count):
    return [
        FrameRecord(
            n,
            n / 25,
            tuple(PersonRecord((1.5, 2, 3, 4), 0.9, "person", track_id=k) for k in range(n)),
            unique=n,
        )
        for n in range(count)
    ]


def write(path, frames):
    with RecordsWriter(path, HEADER) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def test_round_trip_and_the_file_is_what_the_schema_says(tmp_path):
    path, frames = tmp_path / "walk.jsonl", frames_of(4)
    header, read = read_records(write(path, frames))
    assert header == HEADER
    assert list(read) == frames
    first, _, third, *_ = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert (first["schema"], first["version"]) == ("persondet-video-records", 2)
    assert (first["fps"], first["frame_rate"]) == (29.97003, "30000/1001")
    assert (first["start"], first["tracker"]) == (2.5, "Norfair")
    person = {"box": [1.5, 2, 3, 4], "score": 0.9, "class": "person", "mask": None, "track_id": 0}
    assert third == {"index": 1, "time": 0.04, "people": [person], "unique": 1}


def test_damage_and_fingerprint_join_the_header_and_the_frames_stay(tmp_path):
    path, frames = tmp_path / "walk.jsonl", frames_of(3)
    made_of = {"model": "abc", "source": {"size": 3}}
    with RecordsWriter(path, replace(HEADER, fingerprint=made_of)) as writer:
        for frame in frames:
            writer.write(frame)
        writer.note_damage("the clip is cut")
    header, read = read_records(path)
    assert (header.fingerprint, header.damage) == (made_of, "the clip is cut")
    assert list(read) == frames and [*tmp_path.iterdir()] == [path]


def test_instances_become_records_with_the_very_mask():
    mask = np.zeros((64, 96), dtype=bool)
    mask[10:40, 20:50] = np.random.default_rng(0).random((30, 30)) < 0.7
    instances = Instances((64, 96))
    instances.pred_boxes = Boxes(torch.tensor([[0, 0, math.nan, 1], [20.123456, 10, 50, 40]]))
    instances.scores = torch.tensor([0.9, 0.87654321])
    instances.pred_classes = torch.tensor([0, 0])
    assert people_of(instances, ("person",), None)[0].mask is None
    instances.pred_masks = torch.from_numpy(np.stack([~mask, mask]))
    instances.ID = [7, 3]
    (person,) = people_of(instances, ("person",), encoded_masks(instances))  # without the NaN
    (row,) = person_rows([person])
    assert (row["box"], row["score"]) == ([20.12, 10, 50, 40], 0.8765)
    assert (row["class"], row["track_id"]) == ("person", 3)
    decoded = coco_mask.decode({"size": [64, 96], "counts": person.mask.encode()})
    assert np.array_equal(decoded.astype(bool), mask)
    assert np.array_equal(person.decode_mask(HEADER), mask)


def test_a_cut_last_line_is_passed_over_with_a_warning(tmp_path, caplog):
    path = write(tmp_path / "walk.jsonl", frames_of(4))
    path.write_bytes(path.read_bytes()[:-20])
    assert len(list(read_records(path)[1])) == 3
    assert "cut off" in caplog.text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"people":[{', '"people":{'),
        ('"track_id":0', '"track_id":1.5'),
        ('"track_id":0', '"track_id":99999999999999999999'),
        ('"index":1', '"index":1e999'),
    ],
)
def test_a_damaged_line_is_an_error(old, new, tmp_path):
    path = write(tmp_path / "walk.jsonl", frames_of(2))
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(MediaError, match="line 3 is no frame record"):
        write_mot(path, tmp_path / "walk.txt")
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "line 1 is not the header"),
        ('{"schema": "persondet-video-records", "version": 3}\n', "version 1 or 2"),
        ('{"schema": "persondet-video-records", "version": 2}\n', "'source'"),
        (None, "cannot be read"),
    ],
)
def test_foreign_files_are_refused(content, says, tmp_path):
    path = tmp_path / "walk.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(MediaError, match=says):
        read_records(path)


def test_version_1_has_no_tracks_and_begins_at_the_beginning(tmp_path):
    path = write(tmp_path / "walk.jsonl", frames_of(2))
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in lines:
        for since_2 in ("start", "tracker", "unique"):
            row.pop(since_2, None)
    lines[0]["version"] = 1
    path.write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
    header, frames = read_records(path)
    assert (header.start, header.tracker) == (0.0, None)
    assert header.source == HEADER.source
    assert [frame.unique for frame in frames] == [None, None]


def test_a_failure_keeps_what_there_is_under_a_name_that_says_so(tmp_path):
    path, broken = tmp_path / "walk.jsonl", FrameRecord(1, math.inf, ())
    with pytest.raises(ValueError, match="JSON"):
        write(path, [broken])
    assert [*tmp_path.iterdir()] == []
    with pytest.raises(ValueError, match="JSON"):
        write(path, [*frames_of(1), broken])
    assert [*tmp_path.iterdir()] == [partial_path(path)]
    # A second run does not throw away what the first has kept, unless it is told to.
    with pytest.raises(OutputExistsError, match=r"walk\.partial\.jsonl is there already"):
        write(path, [])
    with RecordsWriter(path, HEADER, overwrite=True):
        pass
    assert [*tmp_path.iterdir()] == [path]
    with pytest.raises(OutputExistsError, match=r"walk\.jsonl is there already"):
        write(path, [])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_full_disk_is_said_in_one_sentence_and_written_lines_are_a_partial_result(tmp_path):
    path = tmp_path / "walk.jsonl"
    partial_path(path).symlink_to("/dev/full")
    with pytest.raises(MediaError, match=r"cannot be written \(No space left.*free some") as caught:
        RecordsWriter(path, HEADER, overwrite=True).__enter__()
    assert (caught.value.exit_code, "stays" in str(caught.value)) == (2, False)
    partial_path(path).unlink(missing_ok=True)
    writer = RecordsWriter(path, HEADER).__enter__()
    writer.write(frames_of(1)[0])
    os.dup2(os.open("/dev/full", os.O_WRONLY), writer._text._file.fileno())
    with pytest.raises(PartialMediaError, match="what was written before stays there; free"):
        writer.write(frames_of(2)[1])


def test_mot_text_has_a_line_per_person_and_another_program_reads_it(tmp_path):
    def person(box, score, number):
        return PersonRecord(box, score, "person", None, number)

    frames = [  # every fifth one was annotated, from the tenth on
        FrameRecord(10, 0.4, (person((0.0, 1.5, 30.25, 61.5), 0.9, 1),)),
        FrameRecord(15, 0.6, ()),
        FrameRecord(
            *(20, 0.8),
            (person((5.0, 2.0, 35.0, 62.0), 0.8, None), person((50.0, 2.0, 60.0, 22.0), 0.7, 12)),
        ),
    ]
    target = mot_path(tmp_path / "walk.mp4")
    assert target == tmp_path / "walk.txt"
    write_mot(write(tmp_path / "walk.jsonl", frames), target)
    # Frames and pixels count from one.
    assert target.read_text().splitlines() == [
        "1,1,1.00,2.50,30.25,60.00,0.9000,-1,-1,-1",
        "3,-1,6.00,3.00,30.00,60.00,0.8000,-1,-1,-1",
        "3,12,51.00,3.00,10.00,20.00,0.7000,-1,-1,-1",
    ]
    read = motrics.load_motchallenge(str(target))
    assert {frame: list(ids) for frame, (ids, _) in read.items()} == {1: [1], 3: [-1, 12]}
    assert [tuple(box) for box in read[3][1]] == [(6.0, 3.0, 36.0, 63.0), (51.0, 3.0, 61.0, 23.0)]

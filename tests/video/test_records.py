"""Records: a round trip, by another decoder too, what a killed run leaves, and version 1."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances, ROIMasks
from pycocotools import mask as coco_mask

from persondet.errors import MediaError, OutputExistsError
from persondet.inference.records import (
    FrameRecord,
    PersonRecord,
    RecordsHeader,
    RecordsWriter,
    partial_records_path,
    people_of,
    read_records,
)
from persondet.inference.region_masks import ROI_FIELD, RegionMasks, paste_regions

HEADER = RecordsHeader(
    *("walk é.mp4", "best.pth", ("person",), 0.5, 96, 64, Fraction(30000, 1001)),
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


def test_round_trip(tmp_path):
    frames = frames_of(4)
    header, read = read_records(write(tmp_path / "walk.jsonl", frames))
    assert header == HEADER
    assert list(read) == frames


def test_the_file_is_what_the_schema_says(tmp_path):
    lines = write(tmp_path / "walk.jsonl", frames_of(2)).read_text(encoding="utf-8").splitlines()
    first, _, third = (json.loads(line) for line in lines)
    assert (first["schema"], first["version"]) == ("persondet-video-records", 2)
    assert (first["fps"], first["frame_rate"]) == (29.97003, "30000/1001")
    assert (first["start"], first["tracker"]) == (2.5, "Norfair")
    assert third == {
        "index": 1,
        "time": 0.04,
        "people": [
            {
                "box": [1.5, 2, 3, 4],
                "score": 0.9,
                "class": "person",
                "mask": None,
                "track_id": 0,
            }
        ],
        "unique": 1,
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
    ("old", "new"),
    [('"track_id":0', '"track_id":"abc"'), ('"track_id":0', '"track_id":1e999'),
     ('"index":1', '"index":1e999'), ('"unique":1', '"unique":"all"'),
     ('"score":0.9', '"score":1' + "0" * 400)],
)  # fmt: skip
def test_a_number_that_is_none_is_a_damaged_line(old, new, tmp_path):
    path = write(tmp_path / "walk.jsonl", frames_of(2))
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(MediaError, match="line 3 is no frame record"):
        list(read_records(path)[1])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "line 1 is no JSON"),
        ("[]\n", "not the header"),
        ('{"schema": "persondet-video-records", "version": 3}\n', "version 1 or 2"),
        ('{"schema": "persondet-video-records", "version": 2}\n', "'source'"),
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


def test_version_1_has_no_tracks_and_begins_at_the_beginning(tmp_path):
    path = write(tmp_path / "walk.jsonl", frames_of(2))
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row, since_2 in zip(lines, (("start", "tracker"), ("unique",), ("unique",)), strict=True):
        for name in since_2:
            del row[name]
    lines[0]["version"] = 1
    path.write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
    header, frames = read_records(path)
    assert (header.start, header.tracker) == (0.0, None)
    assert header.source == HEADER.source
    assert [frame.unique for frame in frames] == [None, None]


def test_masks_are_recorded_whichever_field_carries_them():
    rng = np.random.default_rng(3)
    boxes = Boxes(torch.tensor([[10.0, 5, 40, 60], [60.5, 20, 95, 64]]))
    plain = Instances((64, 96), pred_boxes=boxes, scores=torch.tensor([0.9, 0.8]))
    plain.pred_classes = torch.zeros(2, dtype=torch.int64)
    region = [rng.random((50, 30)) < 0.5, rng.random((40, 30)) < 0.5]
    masks = RegionMasks(region, [(10, 6), (62, 22)], (64, 96))
    whole = Instances((64, 96), **plain.get_fields())
    whole.pred_masks = torch.from_numpy(np.stack([masks.whole(0), masks.whole(1)]))
    regions = Instances((64, 96), **plain.get_fields(), region_masks=masks)
    expected = [
        coco_mask.encode(np.asfortranarray(masks.whole(k), dtype=np.uint8))["counts"].decode()
        for k in range(2)
    ]
    for instances in (whole, regions):
        assert [person.mask for person in people_of(instances, ("person",))] == expected
    roi = Instances((64, 96), **plain.get_fields())
    roi.set(ROI_FIELD, ROIMasks(torch.from_numpy(rng.random((2, 28, 28), np.float32))))
    pasted = people_of(paste_regions(roi), ("person",))
    assert people_of(roi, ("person",)) == pasted
    assert [person.mask for person in people_of(plain, ("person",))] == [None, None]


def test_tracks_are_recorded():
    instances = Instances((64, 96), pred_boxes=Boxes(torch.tensor([[1.0, 1, 9, 9]] * 2)))
    instances.scores = torch.tensor([0.9, 0.8])
    instances.pred_classes = torch.zeros(2, dtype=torch.int64)
    instances.ID = [7, 3]
    assert [person.track_id for person in people_of(instances, ("person",))] == [7, 3]


def test_a_frame_is_on_its_way_to_the_disk_when_write_returns(tmp_path):
    path = tmp_path / "walk.jsonl"
    partial = partial_records_path(path)
    assert partial == tmp_path / "walk.partial.jsonl"
    with RecordsWriter(path, HEADER) as writer:
        for number, frame in enumerate(frames_of(3), start=1):
            writer.write(frame)
            assert len(list(read_records(partial)[1])) == number
            assert not path.exists()
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_killed_run_leaves_every_frame_that_was_written(tmp_path):
    path = tmp_path / "walk.jsonl"
    child = os.fork()
    if child == 0:
        with RecordsWriter(path, HEADER) as writer:
            for frame in frames_of(5):
                writer.write(frame)
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not path.exists()
    _, frames = read_records(partial_records_path(path))
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]


def test_a_failure_keeps_what_there_is_under_a_name_that_says_so(tmp_path):
    path = tmp_path / "walk.jsonl"
    with pytest.raises(ValueError, match="JSON"):
        write(path, [*frames_of(1), FrameRecord(1, math.inf, ())])
    assert [*tmp_path.iterdir()] == [partial_records_path(path)]
    # A second run does not throw away what the first has kept, unless it is told to.
    with pytest.raises(OutputExistsError, match=r"walk\.partial\.jsonl is there already"):
        write(path, [])
    with RecordsWriter(path, HEADER, overwrite=True):
        pass
    assert [*tmp_path.iterdir()] == [path]
    with pytest.raises(OutputExistsError, match=r"walk\.jsonl is there already"):
        write(path, [])


def test_a_failure_before_the_first_frame_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), RecordsWriter(tmp_path / "walk.jsonl", HEADER):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_are_no_json_are_a_bug_and_leave_no_file(tmp_path):
    bad = FrameRecord(0, 0.0, (PersonRecord((0, 0, 1, 1), math.inf, "person"),))
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path / "walk.jsonl", [bad])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_full_disk_is_said_in_one_sentence(tmp_path):
    path = tmp_path / "walk.jsonl"
    partial_records_path(path).symlink_to("/dev/full")
    with pytest.raises(MediaError, match=r"the records cannot be written \(No space left"):
        RecordsWriter(path, HEADER, overwrite=True).__enter__()


def test_a_file_name_that_is_no_utf_8_survives(tmp_path):
    name = os.fsdecode(b"caf\xe9.mp4")
    header = RecordsHeader(name, "m", ("person",), 0.5, 9, 9, Fraction(25))
    with RecordsWriter(tmp_path / "walk.jsonl", header):
        pass
    assert read_records(tmp_path / "walk.jsonl")[0].source == name


def test_clips_and_their_records_are_read_without_pytorch():
    code = (
        "import sys; from persondet.video import read_records, VideoReader, VideoWriter; "
        "sys.exit('torch' in sys.modules or 'detectron2' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

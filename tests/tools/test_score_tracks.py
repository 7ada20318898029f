"""The command line of score_tracks: its table, its JSON, its refusals."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
import score_tracks

from persondet.errors import MediaError
from persondet.records import FrameRecord, PersonRecord, RecordsHeader, RecordsWriter


@pytest.fixture
def records(tmp_path):
    """Two people in ten frames, every second of a clip; half way the second gets a new number."""
    header = RecordsHeader("walk.mp4", "best.pth", ("person",), 0.5, 640, 360, Fraction(25))
    with RecordsWriter(tmp_path / "walk.jsonl", header) as writer:
        for k in range(10):
            boxes = ((0.0, 0.0, 40.0, 80.0), (100.0, 0.0, 140.0, 80.0))
            ids = (1, 2 if k < 5 else 3)
            people = [
                PersonRecord(box, 0.9, "person", None, i) for box, i in zip(boxes, ids, strict=True)
            ]
            writer.write(FrameRecord(2 * k, k / 12.5, tuple(people)))
    return tmp_path / "walk.jsonl"


@pytest.fixture
def truth(tmp_path):
    path = tmp_path / "gt.txt"
    rows = [f"{n},1,1,1,40,80,1,1,1\n{n},2,101,1,40,80,1,1,1\n" for n in range(1, 21)]
    path.write_text("".join(rows))
    return path


def test_the_table_and_json(records, truth, capsys):
    assert score_tracks.main([str(records), str(truth)]) == 0
    rows = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    expected = {"MOTA": "95.0", "IDF1": "75.0", "switches": "1", "fragments": "0", "frames": "10"}
    expected |= {"people": "2", "tracks": "3", "false alarms": "0"}
    assert {name: rows[name] for name in expected} == expected
    score_tracks.main([str(records), str(truth), "--min-height", "81", "--json"])
    assert json.loads(capsys.readouterr().out)["people"] == 0
    truth.write_text("".join(truth.read_text().splitlines(keepends=True)[:10]))  # five frames
    score_tracks.main([str(records), str(truth), "--json"])
    score = json.loads(capsys.readouterr().out)
    assert (score["frames"], score["false_alarms"]) == (10, 14)


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--min-visible", "nan"), ("--min-visible", "-1"), ("--min-visible", "1.5")]
    + [("--min-height", "inf"), ("--min-height", "nan"), ("--min-height", "-1")],
)
def test_thresholds_that_are_none_are_refused(flag, value, records, truth, capsys):
    with pytest.raises(SystemExit) as end:
        score_tracks.main([str(records), str(truth), f"{flag}={value}"])
    assert end.value.code == 2
    assert f"argument {flag}: {value} is not" in capsys.readouterr().err


def test_files_that_do_not_belong_together(records, truth, tmp_path):
    lines = records.read_text().splitlines(keepends=True)
    records.write_text("".join([lines[0], *lines[5:]]))
    person = {"track_id": 1, "box": [0, 0, 40, 80]}
    ours = truth.with_suffix(".json")
    ours.write_text(json.dumps({"frames": [{"index": n, "people": [person]} for n in range(5)]}))
    with pytest.raises(MediaError, match=r"walk\.jsonl: no frame of it is in the ground truth"):
        score_tracks.main([str(records), str(ours)])
    with pytest.raises(MediaError, match="cannot be read"):
        score_tracks.main([str(tmp_path / "none.jsonl"), str(truth)])

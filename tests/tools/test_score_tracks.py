"""The command line of score_tracks: its table, its JSON, its refusals."""

import json
from fractions import Fraction

import pytest
import score_tracks

from persondet.records import FrameRecord, PersonRecord, RecordsHeader, RecordsWriter


@pytest.fixture
def files(tmp_path):
    """Two people in ten frames, every second of a clip; half way the second gets a new number."""
    header = RecordsHeader("walk.mp4", "best.pth", ("person",), 0.5, 640, 360, Fraction(25))
    boxes = ((0.0, 0.0, 40.0, 80.0), (100.0, 0.0, 140.0, 80.0))
    with RecordsWriter(tmp_path / "walk.jsonl", header) as writer:
        for k in range(10):
            ids = (1, 2 if k < 5 else 3)
            both = zip(boxes, ids, strict=True)
            people = tuple(PersonRecord(box, 0.9, "person", None, i) for box, i in both)
            writer.write(FrameRecord(2 * k, k / 12.5, people))
    rows = [f"{n},1,1,1,40,80,1,1,1\n{n},2,101,1,40,80,1,1,1\n" for n in range(1, 21)]
    (tmp_path / "gt.txt").write_text("".join(rows))
    return str(tmp_path / "walk.jsonl"), str(tmp_path / "gt.txt")


def test_the_table_and_json(files, capsys):
    assert score_tracks.main(files) == 0
    rows = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    expected = {"MOTA": "95.0", "IDF1": "75.0", "switches": "1", "fragments": "0", "frames": "10"}
    expected |= {"people": "2", "tracks": "3", "false alarms": "0"}
    assert {name: rows[name] for name in expected} == expected
    score_tracks.main([*files, "--min-height", "81", "--json"])
    assert json.loads(capsys.readouterr().out)["people"] == 0


def test_a_threshold_that_is_none_is_refused(files, capsys):
    with pytest.raises(SystemExit, match="2"):
        score_tracks.main([*files, "--min-visible=1.5"])
    assert "argument --min-visible: 1.5 is not" in capsys.readouterr().err

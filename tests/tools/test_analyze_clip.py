"""The command lines of analyze_clip and draw_areas: what they write, say and refuse."""

import csv
import json

import analyze_clip
import cv2
import draw_areas
import numpy as np
import pytest
import yaml

from persondet.analysis.areas import read_areas
from persondet.errors import ConfigError, MediaError, OutputExistsError, PersondetError
from tests.analysis.walkers import at_rate, frames_of, write
from tests.video.clips import write_clip

AREAS = {
    "lines": {"door": [[100, 200], [500, 200]]},
    "zones": {"=queue": [[100, 150], [500, 150], [500, 250], [100, 250]]},
    "homography": {
        "image": [[0, 100], [640, 100], [640, 360], [0, 360]],
        "metres": [[0, 0], [6.4, 0], [6.4, 2.6], [0, 2.6]],
    },
}


@pytest.fixture
def files(tmp_path):
    """Records of two people: one goes down through the door, the other up and round it."""
    ways = [lambda t: (300.0, 100 + 40 * t), lambda t: (560.0, 300 - 40 * t)]
    records = write(tmp_path / "walk_annotated.jsonl", frames_of(ways, at_rate(25, 5)))
    (tmp_path / "areas.yaml").write_text(yaml.safe_dump(AREAS))
    return records, tmp_path / "areas.yaml", tmp_path / "out"


def run(records, areas, output, *words):
    return analyze_clip.main(
        [*map(str, np.atleast_1d(records)), "--areas", str(areas), "--output", str(output), *words]
    )


def rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_tables_figures_and_sums(files, capsys):
    assert run(*files) == 0
    out = files[2]
    said = capsys.readouterr().out
    assert "line door: 1 in, 0 out (stock counting by box centres: " in said
    names = "analysis.json analysis.png crossings.csv heat_map.png occupancy.csv tracks.csv"
    assert sorted(path.name for path in out.iterdir()) == [
        *names.split(),
        "trajectories.png",
        "visits.csv",
    ]
    (crossing,) = rows(out / "crossings.csv")
    assert (crossing["track"], crossing["line"], crossing["direction"]) == ("1", "door", "in")
    assert float(crossing["time"]) == pytest.approx(2.5, abs=1e-3)
    assert abs(int(crossing["frame"]) - 62.5) < 2
    (visit,) = rows(out / "visits.csv")
    assert float(visit["dwell"]) == pytest.approx(2.5, abs=0.04) and visit["complete"] == "yes"
    occupied = rows(out / "occupancy.csv")
    assert [occupied[k]["=queue"] for k in (0, 60, 124)] == ["0", "1", "0"]
    assert {row["in_view"] for row in occupied} == {"2"}
    assert [float(row["mean_speed"]) for row in rows(out / "tracks.csv")] == pytest.approx(
        [0.4, 0.4], abs=0.01
    )
    document = json.loads((out / "analysis.json").read_text())
    assert (document["schema"], document["people"]) == ("persondet-analysis", 2)
    assert document["lines"][0] | {"points": 0, "box_centres": 0} == {
        **{"name": "door", "in": 1, "out": 0},
        "points": 0,
        "box_centres": 0,
    }
    zone = document["zones"][0]
    assert (zone["visits"], zone["maximum"]) == (1, 1)
    assert zone["seconds_above"] == pytest.approx([2.5], abs=0.05)
    with pytest.raises(OutputExistsError, match="--overwrite"):
        run(*files)


@pytest.mark.slow
def test_several_records_get_a_folder_each(files, tmp_path):
    again = write(tmp_path / "second.jsonl", frames_of([], at_rate(25, 1)))  # nobody in it
    run([files[0], again], *files[1:])
    assert sorted(path.name for path in files[2].iterdir()) == ["second", "walk_annotated"]
    document = json.loads((files[2] / "second" / "analysis.json").read_text())
    assert (document["people"], document["lines"][0]["in"]) == (0, 0)


def test_what_does_not_belong_together_is_refused_and_nothing_is_written(files, tmp_path):
    records, areas, out = files
    clip = write_clip(tmp_path / "other.mp4", [np.zeros((360, 640, 3), np.uint8)])
    small = write_clip(tmp_path / "walk.mp4", [np.zeros((64, 96, 3), np.uint8)])
    for words, says in (
        (["--clip", str(clip)], "other.mp4: .* is of walk.mp4"),
        (["--clip", str(small)], "96 × 64 pixels, and those of the records 640 × 360"),
    ):
        with pytest.raises(MediaError, match=says):
            run(records, areas, out, *words)
    areas.write_text(yaml.safe_dump(AREAS | {"clip": "run.mp4"}))
    with pytest.raises(ConfigError, match="'run.mp4', and this is 'walk.mp4'"):
        run(records, areas, out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace('"track_id":1', '"track_id":null'), "without --no-tracking"),
        (lambda text: text.replace('"track_id":2', '"track_id":1'), "frame 0 has a track_id twice"),
        (lambda text: text.replace('"time":0.04,', '"time":0.0,'), "frame 1 is not later"),
        (lambda text: text.splitlines()[0] + "\n", "hold no frame"),
        (lambda text: "{}\n", "not the header"),
    ],
)
def test_records_that_cannot_be_used(change, says, files):
    records = files[0]
    records.write_text(change(records.read_text()))
    with pytest.raises(PersondetError, match=says) as caught:
        run(*files)
    assert caught.value.exit_code == 2 and not files[2].exists()


def test_a_grid_to_read_from_and_the_areas_drawn(files, tmp_path, capsys):
    clip = write_clip(tmp_path / "walk.mp4", [np.full((360, 640, 3), 60, np.uint8)] * 3)
    assert draw_areas.main([str(clip), "--output", str(tmp_path / "grid.png")]) == 0
    printed = capsys.readouterr().out.partition("written")[0]
    (tmp_path / "new.yaml").write_text(printed)
    areas = read_areas(tmp_path / "new.yaml", 640, 360, "walk.mp4")
    assert (
        draw_areas.main(
            [
                str(clip),
                "--check",
                str(tmp_path / "new.yaml"),
                "--output",
                str(tmp_path / "check.png"),
            ]
        )
        == 0
    )
    grid, check = (cv2.imread(str(tmp_path / name)) for name in ("grid.png", "check.png"))
    assert grid.shape == check.shape == (360, 640, 3)
    (x0, y0), (x1, _) = areas.lines[0].points.astype(int)
    yellow = np.array([66, 228, 240])
    place = (slice(y0 - 1, y0 + 2), (2 * x0 + x1) // 3)
    assert np.abs(check[place].astype(int) - yellow).sum(axis=-1).min() < 60
    assert np.abs(grid[place].astype(int) - yellow).sum(axis=-1).min() > 150
    with pytest.raises(OutputExistsError):
        draw_areas.main([str(clip), "--output", str(tmp_path / "grid.png")])
    (tmp_path / "new.yaml").write_text("lines: {a: [[1, 1], [9, 999]]}")
    with pytest.raises(ConfigError, match="outside"):
        draw_areas.main([str(clip), "--check", str(tmp_path / "new.yaml"), "--output", "x.png"])

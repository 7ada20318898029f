"""What is doubtful in frames, which are picked, and what is written of them."""

import csv
import json
import shutil
from pathlib import Path

import mine_frames as tool
import numpy as np
import pytest
import torch
from detectron2.data.catalog import Metadata
from detectron2.structures import Boxes, Instances
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.data.inspect import validate_coco
from persondet.data.roboflow import ANNOTATION_FILE, read_export
from persondet.data.shapes import mask_area, mask_to_polygons
from persondet.errors import MediaError, OutputExistsError
from persondet.labelling import frames
from persondet.labelling.frames import (
    MOST_POINTS,
    WEIGHTS,
    Candidate,
    frame_names,
    pick_frames,
    watch_clip,
)
from tests.video.clips import BrightSquares, squares, write_clip

A, B = [10.0, 10.0, 30.0, 50.0], [14.0, 12.0, 34.0, 52.0]


class Script:
    """Finds what is written for a frame, and in the mirrored frame the same unless it says more."""

    metadata = Metadata(name="stub", thing_classes=["person"])

    def __init__(self, rows, mirrored=None):
        self.rows, self.mirrored, self.frame = rows, mirrored or {}, 0

    def predict_frames(self, images):
        one, other = images
        assert (other[:, ::-1] == one).all()
        rows = self.rows.get(self.frame, [(A, 0.9)])
        other_rows = self.mirrored.get(self.frame, rows)
        self.frame += 1
        flipped = [([96 - x1, y0, 96 - x0, y1], s) for (x0, y0, x1, y1), s in other_rows]
        return [instances(rows), instances(flipped)]


def instances(rows):
    found = Instances((64, 96))
    found.pred_boxes = Boxes(torch.tensor([box for box, _ in rows]).reshape(-1, 4))
    found.scores = torch.tensor([score for _, score in rows])
    found.pred_classes = torch.zeros(len(rows), dtype=torch.int64)
    return found


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "walk.mp4"
    write_clip(path, squares(12))
    return path


def doubts(clip, rows, mirrored=None):
    """The frames of each sign that some frame has, and how often."""
    watched = watch_clip(clip, Script(rows, mirrored), 0.5, every=1 / 30)
    assert [one.index for one in watched] == [*range(12)]
    told = {sign: {n: one.doubts[sign][0] for n, one in enumerate(watched)} for sign in WEIGHTS}
    for one in watched:
        assert all((number > 0) == (strength > 0) for number, strength in one.doubts.values())
        assert 0 <= one.doubt <= 1
    return {sign: {n: c for n, c in found.items() if c} for sign, found in told.items()}


@pytest.mark.slow
def test_signs_of_doubt(clip):
    nothing: dict = {sign: {} for sign in WEIGHTS}
    assert doubts(clip, {}) == nothing
    assert doubts(clip, {3: [(A, 0.55), ([60.0, 5, 80, 40], 0.2)]}) == nothing | {
        "threshold": {3: 1}
    }
    assert doubts(clip, {}, {5: [], 6: [(A, 0.9), (B, 0.4)]}) == nothing | {"mirror": {5: 1}}
    assert doubts(clip, {}, {5: [(A, 0.9), ([60.0, 5, 80, 40], 0.9)]})["mirror"] == {5: 1}
    assert doubts(clip, {7: []}) == nothing | {"tracks": {7: 1}}
    both = doubts(clip, {9: [(A, 0.9), (B, 0.9)]})
    assert both == nothing | {"crowd": {9: 1}, "tracks": {9: 1}}


def test_a_frame_is_looked_at_every_so_often(tmp_path):
    write_clip(tmp_path / "c.mp4", squares(70))
    watched = watch_clip(tmp_path / "c.mp4", Script({}), 0.5, every=0.5)
    assert [one.index for one in watched] == [0, 15, 30, 45, 60]


def candidate(time, doubt, *, bits=None, boxes=(A,), clip="a.mp4"):
    """A frame; without bits its hash shares nothing with that of another time."""
    rng = np.random.default_rng(round(1000 * time) + len(clip))
    signature = int(rng.integers(2**63)) if bits is None else bits
    one = Candidate(
        clip=Path(clip),
        index=round(30 * time),
        time=time,
        size=(96, 64),
        boxes=np.array(boxes, float).reshape(-1, 4),
        scores=np.full(len(boxes), 0.9),
        classes=np.zeros(len(boxes), np.int64),
        polygons=[[] for _ in boxes],
        signature=signature,
    )
    one.doubts = dict.fromkeys(WEIGHTS, (1, doubt))
    return one


def picked_times(candidates, count):
    return [one.time for one in pick_frames(candidates, count)]


def test_doubt_decides_and_what_is_of_a_kind_is_picked_once():
    far = [candidate(100.0 * n, 0.1 * n) for n in range(1, 9)]
    assert picked_times(far, 3) == [800, 700, 600]
    # The same hash up to a few bits: of a kind, if the people stand where they stood.
    still = [candidate(100.0 * n, 0.5 + 0.01 * n, bits=0b111 >> (n % 3)) for n in range(9)]
    assert picked_times(still, 5) == [800]
    moved = candidate(950, 0.1, bits=0, boxes=([60.0, 10, 80, 50],))
    more = candidate(975, 0.1, bits=0, boxes=(A, [60.0, 10, 80, 50]))
    assert picked_times([*still, moved, more], 5) == [800, 950, 975]
    assert pick_frames([], 5) == []


def test_neighbours_and_full_clips_wait():
    times = picked_times([candidate(t, 0.9 - t / 1000) for t in (0, 0.5, 1, 20, 40)], 3)
    assert times == [0, 20, 40]
    busy = [candidate(60.0 * n, 0.8) for n in range(20)]
    calm = [candidate(60.0 * n, 0.5, clip="bb.mp4") for n in range(20)]
    clips = [one.clip.name for one in pick_frames([*busy, *calm], 10)]
    assert 2 <= clips.count("bb.mp4") < 5


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 7), st.sampled_from([0, 3, 2**40 - 1]), st.booleans())))
def test_no_two_that_were_picked_are_of_a_kind(rows):
    shown = [
        candidate(float(t), 0.5, bits=bits, boxes=(A, B) if two else ()) for t, bits, two in rows
    ]
    picked = pick_frames(shown, 10)
    kinds = [(one.signature > 3, len(one.boxes)) for one in picked]
    assert len(kinds) == len(set(kinds)) == len({(b > 3, two) for _, b, two in rows})


def test_names_are_plain_and_differ():
    clips = ["x/walk.mp4", "y/walk.mp4", "y/WALK.mkv", "../a b/ü: c.mp4", "z/...mp4"]
    names = frame_names([candidate(1.0, 0.1, clip=clip) for clip in clips]).values()
    assert list(names) == [
        *("walk_f000030.jpg", "walk_2_f000030.jpg", "WALK_3_f000030.jpg"),
        *("c_f000030.jpg", "clip_f000030.jpg"),
    ]


def test_an_outline_of_many_corners_keeps_its_shape_with_few_points():
    y, x = np.mgrid[:400, :400]
    angle = np.arctan2(y - 200, x - 200)
    mask = np.hypot(x - 200, y - 200) < 150 + 20 * np.sin(40 * angle)
    (free,), (bounded,) = mask_to_polygons(mask), mask_to_polygons(mask, most_points=MOST_POINTS)
    assert len(free) > 2 * MOST_POINTS >= len(bounded) >= 6
    assert bounded[:2] == bounded[-2:]
    assert mask_area([bounded], 400, 400) == pytest.approx(mask.sum(), rel=0.1)


class Outlines(BrightSquares):
    def predict_frames(self, images):
        return self.predict_batch(images)


@pytest.fixture
def mined(tmp_path, monkeypatch, capsys):
    """The export of two clips and a broken one."""
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in ("walk.mp4", "<i>run.mp4"):
        write_clip(clips / name, squares(40))
    (clips / "broken.mp4").write_bytes(b"no clip")
    monkeypatch.setattr(frames, "unsure_predictor", lambda *_: (Outlines(), 0.5))
    words = ["--run", "r", "--video-input", str(clips), "--output", str(tmp_path / "out")]
    assert tool.main([*words, "--count", "6", "--every", "0.1"]) == 0
    said = capsys.readouterr()
    assert "6 frames picked" in said.out and "broken.mp4" in said.err
    with pytest.raises(OutputExistsError, match="--overwrite"):
        tool.main(words)
    return tmp_path / "out"


@pytest.mark.slow
def test_the_export_of_clips(mined):
    coco = json.loads((mined / "train" / ANNOTATION_FILE).read_text())
    names = [image["file_name"] for image in coco["images"]]
    assert len(names) == 6 == len(list((mined / "train").glob("*.jpg")))
    assert {name.partition("_f")[0] for name in names} == {"walk", "i_run"}
    for records in (coco["images"], coco["annotations"], coco["categories"]):
        assert [record["id"] for record in records] == [*range(1, len(records) + 1)]
    for one in coco["annotations"]:
        for polygon in one["segmentation"]:
            assert 6 <= len(polygon) <= 2 * MOST_POINTS
    assert not validate_coco(read_export(mined).splits).of("error")
    square = max(coco["annotations"], key=lambda one: one["area"])
    assert square["bbox"][2:] == pytest.approx([16, 16], abs=2)  # H.264 blurs the edge
    with (mined / "frames.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["file_name"] for row in rows] == names and rows[0]["clip"] == "<i>run.mp4"
    page = (mined / "frames.html").read_text()
    assert page.count("<img") == 6 and "&lt;i&gt;run.mp4" in page and "<i>run" not in page


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layout", ["roboflow_coco", "coco_instances"])
def test_datumaro_s_importers_take_the_export(mined, tmp_path, layout):
    """CVAT uses them: Roboflow's layout, and COCO's own."""
    datumaro = pytest.importorskip("datumaro.components.dataset")
    coco = json.loads((mined / "train" / ANNOTATION_FILE).read_text())
    if layout == "coco_instances":
        (tmp_path / "coco" / "annotations").mkdir(parents=True)
        shutil.copytree(mined / "train", tmp_path / "coco" / "images" / "train")
        target = tmp_path / "coco" / "annotations" / "instances_train.json"
        (tmp_path / "coco" / "images" / "train" / ANNOTATION_FILE).rename(target)
        mined = tmp_path / "coco"
    dataset = datumaro.Dataset.import_from(str(mined), layout)
    every = [a for item in dataset for a in item.annotations]
    found = [one for one in every if type(one).__name__ == "Polygon"]
    polygons = sum(len(one["segmentation"]) for one in coco["annotations"])
    assert len(dataset) == 6 and len(found) == polygons > 6
    assert all(item.media.data.shape == (64, 96, 3) for item in dataset)
    labels = dataset.categories()[next(iter(dataset.categories()))]
    assert {labels[one.label].name for one in found} == {"person"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_label_studio_s_importer_takes_the_export(mined, tmp_path):
    importer = pytest.importorskip("label_studio_sdk.converter.imports.coco")
    source, target = mined / "train" / ANNOTATION_FILE, tmp_path / "tasks.json"
    importer.convert_coco_to_ls(str(source), str(target), out_type="predictions")
    coco, tasks = json.loads(source.read_text()), json.loads(target.read_text())
    names = [task["data"]["image"].rpartition("=")[2] for task in tasks]
    assert names == [image["file_name"] for image in coco["images"]]
    results = [one for task in tasks for one in task["predictions"][0]["result"]]
    found = [one["value"] for one in results if one["type"] == "polygonlabels"]
    polygons = [p for one in coco["annotations"] for p in one["segmentation"]]
    # Per cent of the image's sides.
    outlines = [(np.array(one["points"]) * (0.96, 0.64)).ravel() for one in found]
    assert len(outlines) == len(polygons) > 6
    assert all(np.allclose(*pair) for pair in zip(outlines, polygons, strict=True))
    assert {label for one in found for label in one["polygonlabels"]} == {"person"}
    assert "<PolygonLabels" in (tmp_path / "tasks.label_config.xml").read_text()


def test_bad_input_is_refused_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(frames, "unsure_predictor", lambda *_: (Outlines(), 0.5))
    monkeypatch.setenv("ROBOFLOW_API_KEY", "abc")
    for words, says in (
        ("--output o", "--upload"),
        ("--output o --video-input c.mp4", "--run"),
        ("--output o --video-input c.mp4 --run r --count 0", "--count"),
    ):
        with pytest.raises(SystemExit):
            tool.main(words.split())
        assert says in capsys.readouterr().err
    with pytest.raises(MediaError, match=r"nowhere\.mp4 does not exist"):
        tool.main("--output o --video-input nowhere.mp4 --run r".split())
    Path("empty").mkdir()
    with pytest.raises(MediaError, match="no clip"):
        tool.main("--output o --video-input empty --run r".split())
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]

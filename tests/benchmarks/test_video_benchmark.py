"""The video benchmark: both sides do the same work, on a scene that is what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.data.catalog import Metadata
from detectron2.structures import Boxes, Instances
from detectron2.utils.video_visualizer import VideoVisualizer

from persondet.benchmarks import video
from persondet.benchmarks.stock_video import stock_annotate, stock_draw, stock_paste
from persondet.benchmarks.video_model import people_apart
from persondet.benchmarks.video_scene import (
    PEOPLE,
    SimulatedPredictor,
    raw_people,
    small_masks,
    street,
    write_street,
)
from persondet.inference.masks import paste_regions
from persondet.records import read_records
from persondet.video.pipeline import annotate_video
from persondet.video.reader import VideoReader

PERSON = Metadata(name="benchmark_test", thing_classes=["person"])


def test_both_sides_paste_the_same_ten_masks():
    result = raw_people(7, 320, 180)
    ours = paste_regions(small_masks(result)).region_masks
    stock = stock_paste(raw_people(7, 320, 180)).pred_masks.numpy()
    assert len(stock) == PEOPLE
    for number in range(PEOPLE):
        assert np.array_equal(ours.whole(number), stock[number])
        assert 0.2 < stock[number].sum() / float(result.pred_boxes.area()[number]) < 0.9


def test_people_walk_and_a_frame_is_the_same_every_time():
    one, again, later = (raw_people(n, 1280, 720).pred_boxes.tensor for n in (4, 4, 5))
    assert torch.equal(one, again)
    assert (one - later)[:, 0].abs().max() > 1
    assert one.min() >= 0
    assert (one[:, 2] <= 1280).all() and (one[:, 3] <= 720).all()


def test_both_sides_annotate_every_frame_with_the_same_people(tmp_path):
    source = write_street(tmp_path / "street.mp4", 5, (160, 96))
    summary = annotate_video(source, tmp_path / "ours.mp4", SimulatedPredictor(PERSON, 0.0))
    stock = SimulatedPredictor(PERSON, 0.0)
    found = stock_annotate(
        str(source),
        str(tmp_path / "stock.mp4"),
        lambda image: {"instances": stock_paste(stock.raw([image])[0])},
        PERSON,
        100,
    )
    assert summary.frames == len(found) == 5
    _, frames = read_records(summary.records)
    for frame, people in zip(frames, found, strict=True):
        ours = np.array([person.box for person in frame.people])
        assert np.abs(ours - people.pred_boxes.tensor.numpy()).max() < 0.01
    for path in (summary.output, tmp_path / "stock.mp4"):
        assert len(list(VideoReader(path))) == 5


def test_the_stock_side_draws():
    image = street(160, 96)
    people = stock_paste(raw_people(0, 160, 96))
    drawn = stock_draw(VideoVisualizer(PERSON), image, people)
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    assert np.abs(drawn.astype(int) - image).max() > 60


def test_how_far_apart_people_are():
    def people(boxes, scores):
        found = Instances((100, 100))
        found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        found.scores = torch.tensor(scores)
        return found

    one = people([[0, 0, 50, 50], [60, 60, 90, 90]], [0.9, 0.8])
    other = people([[60, 60, 90, 90.5], [0.25, 0, 50, 50]], [0.7, 0.9])
    apart = people_apart([one], [other])
    assert apart["box_apart"] == 0.5
    assert apart["score_apart"] == pytest.approx(0.1)
    assert apart["matched"] == 1.0
    assert people_apart([one], [people([], [])])["matched"] == 0.0
    assert people_apart([one], [people([[0, 0, 50, 50]], [0.9])])["matched"] == 2 / 3
    assert people_apart([people([], [])], [people([], [])])["matched"] == 1.0


@pytest.mark.slow
def test_all_rows_are_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "WIDTH", 320)
    monkeypatch.setattr(video, "HEIGHT", 180)
    monkeypatch.setattr(video, "in_own_process", lambda work, *rest: work(*rest))
    monkeypatch.setattr(video, "_GROWTH_FRAMES", (10, 40))
    steps = []
    found = video.benchmark_video(
        pairs=1, frames=4, progress=lambda done, total: steps.append((done, total))
    )
    assert found["draw"]["ratio"] > 1
    assert found["simulated"]["ratio"] > 1
    assert (found["memory"]["from"], found["memory"]["to"]) == (10, 40)
    assert steps[-1][0] == steps[-1][1]
    assert "default" not in found

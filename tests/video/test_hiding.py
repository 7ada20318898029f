"""Who is hidden in which frame: gaps, the first and last moments, and people who stay visible."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from persondet.records import read_records
from persondet.video.hiding import CoverTracker, covers_ahead
from persondet.video.pipeline import annotate_video
from persondet.video.reader import VideoReader
from persondet.visualization.hiding import Cover, HideOptions, hidden_mask
from persondet.visualization.visualizer import PersonVideoVisualizer
from tests.video.clips import BrightSquares, square_frame, write_clip

ROOT = Path(__file__).resolve().parents[2]
RATE = 25


def cover(x, shown=False, at_edge=False):
    return Cover(np.ones((40, 20), bool), (x, 10), 40.0, 2.0, at_edge, shown)


def run(covers, count=150, rate=RATE):
    """Return for each frame the corners of the covers, given those of some frames by track."""
    frames = [(n, n / rate, covers.get(n, {})) for n in range(count)]
    found = list(covers_ahead(frames))
    assert [n for n, _ in found] == list(range(count))
    return [sorted({c.corner[0] for c in hidden if not c.shown}) for _, hidden in found]


def test_a_person_who_is_missed_for_up_to_a_second_is_hidden_at_the_place_between():
    hidden = run({30: {1: cover(100)}, 55: {1: cover(200)}})
    assert all(100 + 4 * n in one for n, one in enumerate(hidden[30:56]))
    # A moment around, and nothing beyond.
    assert all(100 in one for one in hidden[23:30])
    assert all(200 in one for one in hidden[56:63])
    assert hidden[:22] == [[]] * 22 and hidden[64:] == [[]] * 86
    apart = run({30: {1: cover(100)}, 56: {1: cover(200)}})
    assert apart[42:45] == [[]] * 3


def test_a_new_track_goes_on_where_one_was_lost_nearby_and_as_tall():
    hidden = run({30: {1: cover(100)}, 40: {2: cover(120)}})
    assert all(100 + 2 * n in one for n, one in enumerate(hidden[30:41]))
    assert run({30: {1: cover(100)}, 40: {2: cover(190)}})[35] == [100, 190]
    small = Cover(np.ones((20, 10), bool), (120, 10), 20.0, 2.0)
    assert run({30: {1: cover(100)}, 40: {2: small}})[35] == [100, 120]


def test_frames_wait_for_a_second_and_no_longer():
    taken = []

    def frames():
        for n in range(200):
            taken.append(n)
            yield n, n / RATE, {}

    for n, _ in covers_ahead(frames()):
        assert taken[-1] == min(n + RATE + 1, 199)
    assert len(taken) == 200


@pytest.mark.parametrize(("at_edge", "until"), [(False, 7), (True, 25)])
def test_at_the_edge_of_the_image_people_are_hidden_for_longer(at_edge, until):
    hidden = run({50: {1: cover(3, at_edge=at_edge)}})
    assert [bool(covers) for covers in hidden] == [abs(n - 50) <= until for n in range(150)]


def test_at_the_end_nothing_is_known_so_whoever_was_lost_stays_hidden():
    hidden = run({80: {1: cover(100)}}, count=100)
    assert all(hidden[80:])
    # The margin grows meanwhile.
    margins = [c[0].margin for _, c in covers_ahead([(0, 0.0, {1: cover(5)}), (1, 0.5, {})])]
    assert margins == [2.0, pytest.approx(2.0 + 0.2 * 40 * 0.5)]


def test_a_mask_that_lacks_a_part_for_some_frames_has_it_from_the_frames_around():
    whole, part = np.ones((40, 20), bool), np.zeros((40, 20), bool)
    part[:25] = True
    frames = [
        (n, n / RATE, {1: Cover(part if 20 <= n < 24 else whole, (5, 10), 40.0, 0.0)})
        for n in range(60)
    ]
    for _, covers in covers_ahead(frames):
        assert hidden_mask(covers, (60, 30))[10:50, 5:25].all()


def test_cells_follow_the_height_that_a_person_has_a_moment_earlier_or_later():
    small = Cover(np.ones((10, 20), bool), (5, 10), 10.0, 2.0)
    frames = [(n, n / RATE, {1: cover(5) if n % 20 == 0 else small}) for n in range(60)]
    heights = [covers[0].height for _, covers in covers_ahead(frames)]
    assert min(heights[:41]) == 40 and 10 < heights[-1] < 40


def test_somebody_exempt_is_shown_only_while_known_on_both_sides():
    frames = {n: {1: cover(10, shown=None), 2: cover(50)} for n in range(20, 60)}
    for n in (30, 45):
        frames[n][1] = cover(10, shown=True)
    del frames[35][1]
    hidden = run(frames)
    assert [10 in one for one in hidden[20:60]] == [not 30 <= n <= 45 for n in range(20, 60)]
    assert all(50 in one for one in hidden[20:60])
    frames[45][1] = cover(10, shown=False)
    assert [10 in one for one in run(frames)[31:60]] == [True] * 29


def detections(boxes, scores):
    found = Instances((200, 300), pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32)))
    found.scores, found.pred_classes = torch.tensor(scores), torch.zeros(len(boxes)).long()
    return found


def test_a_weak_detection_inside_somebody_exempt_is_part_of_them_unless_it_was_another():
    boxes = [[10.0, 10, 60, 160], [100, 10, 150, 160], [20, 20, 50, 80]]
    tracker = CoverTracker(HideOptions("fill", exempt=(7, 9)), RATE, ["person"])
    covers = tracker.update(detections(boxes, [0.9, 0.8, 0.1]), {0: 7, 1: 8}, 0.0)
    assert sorted(c.shown for c in covers.values()) == [False, True]
    assert tracker.missing == {9}
    # The third was a person of its own a moment ago, and stays hidden.
    other = CoverTracker(HideOptions("fill", exempt=(7,)), RATE, ["person"])
    other.update(detections(boxes, [0.9, 0.8, 0.7]), {0: 7, 1: 8, 2: 4}, 0.0)
    covers = other.update(detections(boxes, [0.9, 0.8, 0.1]), {0: 7, 1: 8}, 0.04)
    assert [c.shown for c in covers.values()] == [True, False, None]


def test_where_a_class_is_of_people_the_others_are_left_as_they_are():
    found = detections([[10.0, 10, 60, 160], [100, 10, 150, 160]], [0.9, 0.8])
    found.pred_classes = torch.tensor([0, 1])
    for classes, count in ((["car", "Person"], 1), (["car", "van"], 2)):
        tracker = CoverTracker(HideOptions("fill"), RATE, classes)
        assert len(tracker.update(found, {}, 0.0)) == count


class Missing(BrightSquares):
    """Misses the square in most frames, and is unsure of it in others."""

    seen = 0

    def detect(self, image):
        found = super().detect(image)
        self.seen += 1
        found.scores[:1] = 0.2 if self.seen % 3 else 0.9
        return found[1:] if self.seen % 9 in (1, 2, 4, 5, 6) and self.seen > 1 else found


def shows_nobody(path):
    """Return how many frames a clip has, after a look at each: the square is the only light."""
    images = [frame.image for frame in VideoReader(path)]
    assert all(image.max() < 120 for image in images)
    return len(images)


def squares(count):
    return [square_frame(number, width=10 + 2 * count + 60) for number in range(count)]


QUIET = {"masks": False, "labels": False, "count": False, "boxes": False}


@pytest.mark.slow
def test_no_frame_on_the_disk_ever_shows_anybody(tmp_path):
    clip = write_clip(tmp_path / "in.mp4", squares(90), sound=("aac",))
    partial, copies = tmp_path / "out.partial.mp4", []

    def copy(done, _):  # what a kill would leave
        if done % 9 == 0:
            copies.append(shutil.copy(partial, tmp_path / f"{done}.mp4"))

    predictor = Missing()
    visualizer = PersonVideoVisualizer(predictor.metadata, **QUIET)
    choices = {"visualizer": visualizer, "progress": copy}
    options = HideOptions("fill", exempt=(50,))
    summary = annotate_video(clip, tmp_path / "out.mp4", predictor, hiding=options, **choices)
    assert shows_nobody(summary.output) == 90
    assert [shows_nobody(one) for one in copies][-1] >= 88 and len(copies) == 10
    # What is recorded is what is seen without hiding: no weak detection, and no mask.
    people = [p for frame in read_records(summary.records)[1] for p in frame.people]
    assert {p.mask for p in people} == {None} and min(p.score for p in people) >= 0.5
    assert [stage.name for stage in summary.stages].index("hide") == 3
    told = ["people are hidden, but their voices are not; --mute leaves them out"]
    assert summary.notes == (*told, "the clip has no track 50, which was to stay visible")


@pytest.mark.slow
def test_masks_are_kept_if_asked_and_the_sound_is_left_out_if_asked(tmp_path, predictor):
    clip = write_clip(tmp_path / "in.mp4", squares(10), sound=("aac",))
    options = HideOptions("pixelate", masks=True)
    summary = annotate_video(clip, tmp_path / "out.mp4", predictor, hiding=options, mute=True)
    assert all(p.mask for frame in read_records(summary.records)[1] for p in frame.people)
    assert (summary.notes, VideoReader(summary.output).sound) == ((), False)


@pytest.mark.slow
def test_somebody_exempt_stays_as_they_are(tmp_path, predictor):
    clip = write_clip(tmp_path / "in.mp4", squares(30))
    visualizer = PersonVideoVisualizer(predictor.metadata, **QUIET)
    options = HideOptions("fill", exempt=(1,))
    summary = annotate_video(
        clip, tmp_path / "out.mp4", predictor, hiding=options, visualizer=visualizer
    )
    pairs = zip(VideoReader(clip), VideoReader(summary.output), strict=True)
    for before, after in pairs:
        bright = before.image.min(axis=2) > 160
        assert (after.image[bright] > 150).mean() > 0.9
        assert after.image[2:8, 2:8].max() < 40  # the other person, in even positions or near


@pytest.mark.slow
def test_when_the_model_fails_the_frames_that_waited_are_hidden_too(tmp_path):
    clip = write_clip(tmp_path / "in.mp4", squares(60))
    predictor = Missing()
    detect = predictor.detect
    predictor.detect = lambda image: detect(image) if predictor.seen < 50 else 1 / 0
    visualizer = PersonVideoVisualizer(predictor.metadata, **QUIET)
    with pytest.raises(ZeroDivisionError):
        annotate_video(
            clip,
            tmp_path / "out.mp4",
            predictor,
            hiding=HideOptions("fill"),
            visualizer=visualizer,
        )
    assert shows_nobody(tmp_path / "out.partial.mp4") >= 45


KILLED = """
import sys
from persondet.video.pipeline import annotate_video
from persondet.visualization.hiding import HideOptions
from persondet.visualization.visualizer import PersonVideoVisualizer
from tests.video.test_hiding import QUIET, Missing

predictor = Missing()
visualizer = PersonVideoVisualizer(predictor.metadata, **QUIET)
told = lambda done, _: print(done, flush=True)
options = {"visualizer": visualizer, "progress": told, "overwrite": True}
annotate_video(*sys.argv[1:], predictor, hiding=HideOptions("fill"), **options)
"""


@pytest.mark.soak
def test_a_kill_at_any_of_ten_moments_leaves_nobody(tmp_path):
    clip = write_clip(tmp_path / "in.mp4", squares(400))
    for until in np.random.default_rng().integers(1, 300, 10):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, clip, tmp_path / "out.mp4"],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
            stdout=subprocess.PIPE,
            text=True,
        )
        while int(process.stdout.readline()) < until:
            pass
        process.kill()
        process.communicate()
        assert shows_nobody(tmp_path / "out.partial.mp4") >= until - 2, f"killed after {until}"

"""A model on trial: what is redrawn, what a clip gives, what is refused; with a stand-in."""

import json
import threading
import zipfile

import cv2
import pytest

from persondet.errors import MediaError, PersondetError
from persondet.inference.images import RECORDS, predict_images
from persondet.page.trials import ClipResult, Stopped, Trial, clips_in, refuse_pointer
from persondet.records import read_records
from persondet.video.pipeline import annotate_video
from persondet.video.reader import VideoReader
from persondet.visualization.visualizer import draw_instances
from tests.video.clips import BrightSquares, square_frame, squares, write_clip


@pytest.fixture
def trial():
    return Trial(BrightSquares())


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "square.tiff"  # a format that browsers do not show
    cv2.imwrite(str(path), square_frame(0))
    return path


def test_the_threshold_moves_and_masks_go_without_the_model(tmp_path, trial, image):
    tried = trial.detect(image)
    assert trial.predictor.batches == [1]
    results = {
        threshold: trial.draw(tried, tmp_path / str(threshold), threshold=threshold)
        for threshold in (0.05, 0.6, 0.61, 0.95)
    }
    plain = trial.draw(tried, tmp_path / "plain", threshold=0.05, masks=False)
    assert trial.predictor.batches == [1]
    assert [len(result.people) for result in results.values()] == [2, 2, 1, 0]
    assert results[0.61].people[0]["box"] == [10, 20, 26, 36]
    assert results[0.05].image.name == "square.tiff.jpg"
    pixels = [cv2.imread(str(result.image)) for result in (*results.values(), plain)]
    different = [(one != pixels[0]).any() for one in pixels[1:]]
    assert different == [False, True, True, True]


def test_the_files_are_those_of_predict_images(tmp_path, trial, image):
    result = trial.draw(trial.detect(image), tmp_path / "a", threshold=0.5)
    predictor = BrightSquares()

    def draw(image, instances):
        return draw_instances(image, instances, predictor.metadata)

    predict_images([(image, result.image.name)], tmp_path / "b", predictor, draw)
    for name in (RECORDS, "predictions.json", "images.json", result.image.name):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert json.loads(result.records.read_text().splitlines()[1])["people"] == result.people


def test_what_is_no_image_is_refused(tmp_path, trial):
    (tmp_path / "page.jpg").write_text("<html>")
    with pytest.raises(MediaError, match="it is an HTML page"):
        trial.detect(tmp_path / "page.jpg")
    assert trial.predictor.batches == []


def last(steps):
    *_, result = steps
    assert isinstance(result, ClipResult)
    return result


@pytest.mark.slow
def test_a_part_of_a_clip_is_annotated_and_analyzed(tmp_path, trial):
    clip = write_clip(tmp_path / "walk.mp4", squares(60))
    part = {"start": 0.1, "end": 1.1}
    result = last(trial.annotate(clip, tmp_path / "out", threshold=0.85, **part))
    predictor = BrightSquares()
    predictor.confidence_threshold = 0.85
    annotate_video(clip, tmp_path / "expected.mp4", predictor, **part)
    frames = list(read_records(result.records)[1])
    # Without the threshold, a second person with a score of 0.6 is in the records.
    expected = [
        (frame.index, [person.box for person in frame.people[:1]])
        for frame in read_records(tmp_path / "expected.jsonl")[1]
    ]
    assert [(frame.index, [p.box for p in frame.people]) for frame in frames] == expected
    assert len(frames) == 30 and result.clip.name == "walk_annotated.mp4"
    assert not result.stopped and "1 person was in sight" in result.sentences[-1]
    with zipfile.ZipFile(result.analysis) as archive:
        names = set(archive.namelist())
    assert names >= {"tracks.csv", "occupancy.csv", "heat_map.png", "trajectories.png"}
    assert all(path.is_file() for path in result.figures) and len(result.figures) == 3


@pytest.mark.slow
def test_a_stopped_clip_keeps_and_analyzes_what_is_done(tmp_path, trial):
    clip = write_clip(tmp_path / "walk.mp4", squares(600))
    stop, detect = threading.Event(), trial.predictor.detect
    seen = []

    def some(image):
        seen.append(1)
        if len(seen) == 60:
            stop.set()
        return detect(image)

    trial.predictor.detect = some
    result = last(trial.annotate(clip, tmp_path / "out", threshold=0.5, stop=stop))
    frames = len(list(read_records(result.records)[1]))
    assert result.stopped and 1 <= frames < 200
    with VideoReader(result.clip) as reader:
        assert abs(len(list(reader)) - frames) <= 1
    assert not list((tmp_path / "out").glob("*partial*"))
    trial.finish(0)
    with pytest.raises(Stopped, match="before the first frame"):
        list(trial.annotate(clip, tmp_path / "again", threshold=0.5, stop=stop))
    steps = trial.annotate(clip, tmp_path / "closed", threshold=0.5)
    next(steps)
    steps.close()  # as the page does when its tab goes
    assert len(seen) < 400


@pytest.mark.parametrize(("start", "end"), [(2, 1), (1, 1), (-1, None), (None, 0)])
def test_an_end_before_the_start_is_refused(tmp_path, trial, start, end):
    (tmp_path / "walk.mp4").touch()
    with pytest.raises(PersondetError, match="later than the start"):
        next(trial.annotate(tmp_path / "walk.mp4", tmp_path, threshold=0.5, start=start, end=end))


@pytest.mark.parametrize(
    "text", ["#EXTM3U\n/etc/passwd", "\ufeff \n#extm3u", "ffconcat version 1.0", "<?xml ?><MPD>"]
)
def test_a_text_that_sends_ffmpeg_elsewhere_is_refused(tmp_path, text):
    (tmp_path / "walk.mp4").write_text(text)
    with pytest.raises(MediaError, match="names other files"):
        refuse_pointer(tmp_path / "walk.mp4")


def test_clips_of_one_name_can_be_told_apart(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "walk.mp4").touch()
    (tmp_path / "a" / "walk_annotated.mp4").touch()
    found = clips_in([tmp_path / "a", tmp_path / "b", tmp_path / "a" / "walk.mp4"])
    assert list(found) == ["walk.mp4", f"walk.mp4 in {tmp_path / 'b'}"]
    with pytest.raises(MediaError, match="does not exist"):
        clips_in([tmp_path / "c"])


def test_one_thing_at_a_time_whoever_asks(image):
    running, most = [], []

    class Slow(BrightSquares):
        def predict_batch(self, images):
            running.append(1)
            most.append(len(running))
            threading.Event().wait(0.01)
            running.pop()
            return super().predict_batch(images)

    trial = Trial(Slow())
    threads = [threading.Thread(target=trial.detect, args=(image,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]

"""A clip whose people get their numbers back: two readings, one result."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances, ROIMasks

from persondet.errors import MediaError
from persondet.inference.masks import mask_extent
from persondet.records import read_records
from persondet.video.pipeline import annotate_video
from persondet.video.relinking import StoredPredictor, relinked
from tests.video.clips import BrightSquares, square_frame, write_clip


class Looks(BrightSquares):
    """Detects a bright square on the left and one on the right; they look as bright as they are."""

    def detect(self, image):
        boxes, looks = [], []
        for left, right in ((0, 110), (110, 160)):
            x0, y0, x1, y1 = mask_extent(image[:, left:right].min(axis=2) > 160)
            if x1:
                boxes.append([left + x0, y0, left + x1, y1])
                looks.append(image[y0:y1, left + x0 : left + x1].mean(axis=(0, 1)))
        noise = np.random.default_rng(len(self.batches)).normal(0, 0.3, (len(boxes), 3))
        found = Instances(image.shape[:2], pred_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)))
        found.pred_boxes.tensor = found.pred_boxes.tensor.float()
        found.scores, found.pred_classes = torch.full((len(boxes),), 0.75), torch.zeros(len(boxes))
        found.appearance = torch.from_numpy(np.reshape(looks, (-1, 3)) + noise).float()
        found.roi_masks = ROIMasks(torch.full((len(boxes), 28, 28), 0.625))
        return found


def frames():
    """A square that is there for a second, away for three, and there again."""
    for n in range(125):
        image = square_frame(n if n < 25 else 0, 160, 96)
        image[:] = image if n < 25 or n > 100 else 60
        image[60:76, 120:136] = 200  # somebody who stays
        yield image


@pytest.mark.slow
def test_who_comes_back_has_the_number_again_in_clip_and_records(tmp_path):
    clip = write_clip(tmp_path / "in.mp4", list(frames()), rate=Fraction(25))
    told = []
    with relinked(clip, Looks(), progress=lambda *done: told.append(done)) as (stored, tracker):
        assert told == [(n, None) for n in range(1, 126)]
        summary = annotate_video(clip, tmp_path / "out.mp4", stored, tracker=tracker)
    plain = annotate_video(clip, tmp_path / "plain.mp4", Looks())
    _, ours = read_records(summary.records)
    _, theirs = read_records(plain.records)
    for frame, other in zip(ours, theirs, strict=True):
        assert [(p.box, p.score, p.mask) for p in frame.people] == [
            (p.box, p.score, p.mask) for p in other.people
        ]
        numbers = {p.track_id for p in frame.people}
        assert len(numbers) == (1 if 25 <= frame.index <= 100 else 2) and numbers <= {1, 2}
    assert (summary.unique_people, plain.unique_people) == (2, 3)


def test_what_cannot_be_relinked_is_one_sentence(tmp_path, predictor):
    with pytest.raises(MediaError, match="save it as a file"), relinked("rtsp://x/y", predictor):
        pass
    clip = write_clip(tmp_path / "in.mp4", [square_frame(n) for n in range(3)])
    with pytest.raises(MediaError, match="needs an R-CNN"), relinked(clip, predictor):
        pass


def test_stored_detections_are_what_they_were(tmp_path):
    image = square_frame(4)
    with open(tmp_path / "found", "w+b") as file:
        predictor = Looks()
        stored = StoredPredictor(predictor, file)
        found = [predictor.detect(image), predictor.detect(image * 0), predictor.detect(image)]
        for one in found:
            stored.store(one)
        file.seek(0)
        for one, again in zip(found, stored.predict_batch([image] * 3), strict=True):
            assert torch.equal(one.pred_boxes.tensor, again.pred_boxes.tensor)
            assert torch.equal(one.scores, again.scores) and len(one) == len(again)
            assert torch.allclose(one.roi_masks.tensor, again.roi_masks.tensor, atol=1e-3)

"""Batches through the model: order, sizes, several at once, errors."""

from __future__ import annotations

import signal
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import pairwise_iou

from persondet.checkpoint import SafeDetectionCheckpointer
from persondet.engine import load_cfg
from persondet.inference.predictor import Predictor
from persondet.inference.region_masks import paste_regions
from persondet.video.pipeline import detect_people
from persondet.video.reader import VideoFrame

CONFIG = (
    Path(__file__).resolve().parents[2]
    / "configs/quick_schedules/person_mask_rcnn_R_18_FPN_instant_test.yaml"
)


class Numbered:
    """Returns for each image the number that is in it, from as many threads as it is asked for."""

    def __init__(self, workers=1, fail_at=None):
        self.workers, self.fail_at = workers, fail_at
        self.batches, self.threads, self.intra_op = [], set(), set()
        self.together = self.most = 0
        self.lock = threading.Lock()
        self.pair = threading.Barrier(2)

    def predict_batch(self, images):
        raise AssertionError("predict_frames is there")

    def predict_frames(self, images):
        with self.lock:
            self.together += 1
            self.most = max(self.most, self.together)
            self.threads.add(threading.current_thread().name)
            self.intra_op.add(torch.get_num_threads())
        numbers = [int(image[0, 0, 0]) for image in images]
        if self.workers == 2 and self.fail_at is None and numbers[0] < 18:
            self.pair.wait(10)  # passes only when a second batch is in work, too
        if self.fail_at in numbers:
            raise KeyError("broken")
        with self.lock:
            self.batches.append(numbers)
            self.together -= 1
        return numbers


def frames(count):
    for number in range(count):
        yield VideoFrame(number, Fraction(number), np.full((2, 2, 3), number, np.uint8))


@pytest.mark.parametrize("workers", [1, 2])
def test_every_frame_once_in_order_with_its_own_people(workers):
    predictor = Numbered(workers)
    found = list(detect_people(frames(20), predictor, 3))
    assert [(frame.index, people) for frame, people in found] == [(n, n) for n in range(20)]
    assert sorted(predictor.batches) == [list(range(n, min(n + 3, 20))) for n in range(0, 20, 3)]
    assert predictor.most == workers


def test_several_forward_passes_share_the_cores(monkeypatch):
    monkeypatch.setattr("persondet.video.pipeline.cpu_count", lambda: 6)
    before = torch.get_num_threads()
    predictor = Numbered(2)
    list(detect_people(frames(20), predictor, 3))
    assert predictor.intra_op == {3}
    assert len(predictor.threads) == 2
    fresh = []
    thread = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert [torch.get_num_threads(), *fresh] == [before, before]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_comes_after_the_frames_before_it(workers):
    got = []
    with pytest.raises(KeyError, match="broken"):
        got.extend(detect_people(frames(50), Numbered(workers, fail_at=8), 2))
    assert [people for _, people in got] == list(range(8))
    assert not [t for t in threading.enumerate() if t.name.startswith("persondet-model")]


def test_frames_are_not_taken_far_ahead():
    taken = []

    def source():
        for frame in frames(40):
            taken.append(frame.index)
            yield frame

    found = detect_people(source(), Numbered(3), 2)
    next(found)
    assert len(taken) <= 2 * (3 + 1)
    found.close()


def test_an_interruption_while_batches_are_in_work_waits_for_them():
    main, ended = threading.main_thread(), []

    class Slow(Numbered):
        def predict_frames(self, images):
            if images[0][0, 0, 0] >= 2:
                time.sleep(0.1)
                signal.pthread_kill(main.ident, signal.SIGINT)
                time.sleep(0.2)
                ended.append(1)
            return super().predict_frames(images)

    predictor = Slow(3)
    found = detect_people(frames(40), predictor, 2)
    next(found)
    with pytest.raises(KeyboardInterrupt):
        found.close()
    assert ended
    assert not [t for t in threading.enumerate() if t.name.startswith("persondet-model")]


@pytest.mark.gpu
def test_a_gpu_finds_in_the_frames_what_a_cpu_finds(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    found = people_on("cpu", tmp_path), people_on("cuda", tmp_path)
    for cpu, gpu in zip(*found, strict=True):
        assert len(cpu) > 0
        strong = cpu[cpu.scores > cpu.scores.median()]
        overlaps = pairwise_iou(strong.pred_boxes, gpu.pred_boxes)
        # Of boxes with nearly the same score either may suppress the other.
        assert (overlaps.max(dim=1).values > 0.95).float().mean() > 0.9
        best = gpu.scores[overlaps.argmax(dim=1)]
        assert (best - strong.scores).abs().median() < 0.01


def people_on(device, folder):
    """Return the people that a model with fixed random weights finds, clip to instances."""
    cfg = load_cfg(CONFIG, ["MODEL.DEVICE", "cpu", "SOLVER.AMP.ENABLED", "False"])
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 1
    torch.manual_seed(0)
    carried = {"config": cfg.dump(), "class_names": ["person"]}
    run = folder / device
    SafeDetectionCheckpointer(build_model(cfg), str(run), carried=carried).save_model(
        "model_best", iteration=1
    )
    predictor = Predictor.from_run(run, confidence_threshold=0.01, device=device)
    noise = np.random.default_rng(0).integers(0, 255, (5, 96, 128, 3), dtype=np.uint8)
    clip = (VideoFrame(n, Fraction(n), image) for n, image in enumerate(noise))
    return [paste_regions(people).to("cpu") for _, people in detect_people(clip, predictor, 2)]

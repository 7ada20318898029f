"""From clip to annotated clip and records, with a predictor that needs no model."""

import errno
import os
import threading
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import pairwise_iou

from persondet.errors import MediaError, OutputExistsError, PartialMediaError
from persondet.inference.masks import paste_regions
from persondet.inference.predictor import Predictor
from persondet.inference.stages import THREAD_PREFIX
from persondet.inference.tracking import PersonTracker
from persondet.records import read_records
from persondet.video.pipeline import annotate_video, detect
from persondet.video.reader import VideoFrame, VideoReader
from persondet.video.writer import VideoWriter
from persondet.visualization.visualizer import PersonVideoVisualizer
from tests.inference.tiny_model import save_run, tiny_cfg
from tests.video.clips import frames_on_disk, noise, noisy_clip, square_frame, squares, write_clip


def threads(prefix=THREAD_PREFIX):
    return [thread for thread in threading.enumerate() if thread.name.startswith(prefix)]


def test_every_frame_once_in_order_at_its_time(clip, tmp_path, predictor):
    seen, output = [], tmp_path / "out" / "annotated.mp4"
    summary = annotate_video(
        clip, output, predictor, save_mot=True, progress=lambda *told: seen.append(told)
    )
    assert (summary.frames, summary.damage, predictor.batches) == (10, "", [3, 3, 3, 1])
    assert seen == [(n, 10) for n in range(1, 11)]
    reader = VideoReader(output)
    assert reader.frame_rate == Fraction(30000, 1001)
    assert [f.time for f in reader] == [f.time for f in VideoReader(clip)]
    assert summary.records == tmp_path / "out" / "annotated.jsonl"
    header, frames = read_records(summary.records)
    assert (header.source, header.model, header.classes) == (clip.name, "stub.pth", ("person",))
    assert (header.width, header.height, header.tracker) == (96, 64, PersonTracker.name)
    frames = list(frames)
    assert [frame.index for frame in frames] == list(range(10))
    for number, frame in enumerate(frames):
        x = 10 + 2 * number
        assert np.abs(np.array(frame.people[0].box) - [x, 20, x + 16, 36]).max() <= 1
        mask = frame.people[0].decode_mask(header)
        assert np.mean(mask == (square_frame(number)[:, :, 0] == 255)) > 0.99
    # The walking square is the first person of all frames.
    assert {frame.people[0].track_id for frame in frames} == {1}
    assert frames[-1].unique == summary.unique_people >= 1
    before, after = (next(iter(VideoReader(p))).image for p in (clip, output))
    assert np.abs(before.astype(int) - after)[18:40, 8:30].max() > 60  # something is drawn
    assert [stage.name for stage in summary.stages] == "decode infer track draw encode".split()
    assert all(0 < stage.busy <= summary.seconds for stage in summary.stages)
    counts = [len(frame.people) for frame in frames]
    assert (summary.people_max, summary.people_mean) == (max(counts), sum(counts) / 10)
    rows = (tmp_path / "out" / "annotated.txt").read_text().splitlines()
    assert [int(row.split(",")[0]) for row in rows] == list(np.repeat(range(1, 11), counts))


def test_a_part_with_a_stride_begins_at_zero(clip, tmp_path, predictor):
    start, end, seen = Fraction(1001 * 3, 30000), Fraction(1001 * 9, 30000), []
    summary = annotate_video(
        clip,
        tmp_path / "out.mp4",
        predictor,
        tracker=None,
        start=start,
        end=end,
        stride=2,
        max_frames=2,
        progress=lambda *told: seen.append(told),
    )
    header, frames = read_records(summary.records)
    frames = list(frames)
    assert [frame.index for frame in frames] == [3, 5]
    assert (header.start, header.frame_rate) == (pytest.approx(float(start)), Fraction(15000, 1001))
    assert [frame.time for frame in frames] == pytest.approx([0.1001, 1001 / 6000], abs=1e-6)
    # Players show nothing before zero.
    assert frames_on_disk(summary.output) == [0, Fraction(1001 * 2, 30000)]
    assert (seen, predictor.batches) == ([(1, 2), (2, 2)], [2])
    assert (header.tracker, summary.unique_people) == (None, None)
    assert {(f.unique, p.track_id) for f in frames for p in f.people} == {(None, None)}


def test_existing_outputs_are_refused_before_any_work(clip, tmp_path, predictor):
    for name in ("out.mp4", "out.jsonl", "out.txt", "out.partial.mp4", "out.partial.jsonl"):
        target = tmp_path / name
        target.write_text("precious")
        with pytest.raises(OutputExistsError, match="--overwrite"):
            annotate_video(clip, tmp_path / "out.mp4", predictor, save_mot=True)
        assert target.read_text() == "precious"
        target.unlink()
    assert predictor.batches == []
    for name in ("out.mp4", "out.partial.mp4"):
        (tmp_path / name).write_text("old")
    annotate_video(clip, tmp_path / "out.mp4", predictor, overwrite=True)
    assert len(list(VideoReader(tmp_path / "out.mp4"))) == 10
    assert not (tmp_path / "out.partial.mp4").exists()


def test_the_source_is_never_the_output(clip, tmp_path, predictor):
    link, left = tmp_path / "link.mp4", tmp_path / "a.partial.mp4"
    os.symlink(clip, link)
    left.write_bytes(clip.read_bytes())
    for source, output in ((clip, clip), (clip, link), (left, tmp_path / "a.mp4")):
        before = source.read_bytes()
        with pytest.raises(MediaError, match="is the source itself"):
            annotate_video(source, output, predictor, overwrite=True)
        assert source.read_bytes() == before


@pytest.mark.parametrize("choice", [{"start": 60}, {"stride": 0}, {"batch_size": -1}])
def test_what_fails_at_once_leaves_nothing(choice, clip, tmp_path, predictor):
    with pytest.raises(MediaError, match=r"no frame between|1 or more"):
        annotate_video(clip, tmp_path / "out" / "a.mp4", predictor, **choice)
    predictor.detect = lambda image: 1 / 0
    with pytest.raises(ZeroDivisionError):
        annotate_video(clip, tmp_path / "out" / "a.mp4", predictor)
    assert list((tmp_path / "out").iterdir()) == []
    assert threads() == []


@pytest.mark.parametrize("stage", ["infer", "track", "draw", "encode", "caller"])
def test_frames_before_a_failure_are_kept(stage, clip, tmp_path, predictor, monkeypatch):
    tracker, visualizer = PersonTracker(30.0), PersonVideoVisualizer(predictor.metadata)
    owners = {"infer": (predictor, "detect"), "track": (tracker, "update")}
    owners |= {"draw": (visualizer, "draw_on"), "encode": (VideoWriter, "write")}
    broken, limit, calls, seen = RuntimeError(f"{stage} broke"), 6, iter(range(100)), []
    if stage in owners:
        owner, name = owners[stage]
        work = getattr(owner, name)

        def failing(*arguments):
            if next(calls) == limit:
                raise broken
            return work(*arguments)

        monkeypatch.setattr(owner, name, failing)

    def progress(done, _):
        seen.append(done)
        if stage == "caller" and done == limit:
            raise broken

    choices = {"tracker": tracker, "visualizer": visualizer, "progress": progress}
    with pytest.raises(RuntimeError) as caught:
        annotate_video(clip, tmp_path / "out" / "a.mp4", predictor, **choices)
    assert (caught.value, seen, threads()) == (broken, list(range(1, limit + 1)), [])
    records, left = sorted((tmp_path / "out").iterdir())
    assert (records.name, left.name) == ("a.partial.jsonl", "a.partial.mp4")
    kept = len(frames_on_disk(left))
    indices = [frame.index for frame in read_records(records)[1]]
    assert indices == list(range(len(indices)))
    if stage == "caller":  # some frames are on their way still
        assert limit <= kept <= len(indices) <= 10
    else:
        # The record of the frame that the encoder refused is written: records come first.
        assert (kept, len(indices)) == (limit, limit + (stage == "encode"))


@pytest.mark.parametrize(
    ("choice", "kept"),
    [
        ({"stride": 2, "start": 0, "end": 99}, True),
        ({"start": 0.1}, False),
        ({"max_frames": 3}, False),
    ],
)
def test_sound_is_kept_unless_something_is_cut(choice, kept, tmp_path, predictor):
    source = write_clip(tmp_path / "in.mp4", squares(10), sound=("aac",))
    summary = annotate_video(source, tmp_path / "a.mp4", predictor, **choice)
    with VideoReader(summary.output) as reader:
        assert reader.sound == kept
    assert sum("sound" in note for note in summary.notes) == (not kept)


def test_quality_reaches_the_encoder_and_lossless_comes_with_a_warning(tmp_path, predictor):
    clip, sizes = noisy_clip(tmp_path / "in.mp4", 4), []
    for crf in (0, None, 40):
        summary = annotate_video(clip, tmp_path / f"{crf}.mp4", predictor, crf=crf)
        sizes.append(summary.output.stat().st_size)
        lossless = "High 4:4:4 Predictive"
        assert any(lossless in note for note in summary.notes) == (crf == 0)
        with av.open(str(summary.output)) as container:
            assert (container.streams.video[0].profile == lossless) == (crf == 0)
    assert sizes[0] > sizes[1] > 2 * sizes[2]


def test_a_full_disk_at_the_end_keeps_a_partial_result(tmp_path, predictor, clip, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("persondet.video.pipeline.write_mot", full)
    with pytest.raises(PartialMediaError, match=r"a\.mp4 and its records are written") as caught:
        annotate_video(clip, tmp_path / "out" / "a.mp4", predictor, save_mot=True)
    assert caught.value.exit_code == 3
    (kept,) = (tmp_path / "out").glob("*.mp4")
    assert len(list(VideoReader(kept))) == 10


def test_the_title_stays_and_a_note_names_other_tracks(tmp_path, predictor):
    with av.open(str(tmp_path / "in.mkv"), "w") as container:
        container.metadata["title"] = "A walk"
        for _ in range(2):
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for stream in container.streams.video:
            frame = av.VideoFrame.from_ndarray(square_frame(0), format="bgr24")
            container.mux([*stream.encode(frame), *stream.encode(None)])
    summary = annotate_video(tmp_path / "in.mkv", tmp_path / "out.mp4", predictor)
    assert summary.notes == ("1 further video track left out",)
    with av.open(str(summary.output)) as container:
        assert container.metadata["title"] == "A walk"


class Numbered:
    """Returns for each image the number that is in it, from as many threads as it is asked for."""

    def __init__(self, workers):
        self.workers, self.batches, self.threads = workers, [], set()
        self.together = threading.Barrier(workers)  # passes only when all workers are at work

    def predict_batch(self, images):
        raise AssertionError("predict_frames is there")

    def predict_frames(self, images):
        self.threads.add((threading.current_thread().name, torch.get_num_threads()))
        self.batches.append([int(image[0, 0, 0]) for image in images])
        if max(self.batches[-1]) < 18:
            self.together.wait(10)
        return [int(image[0, 0, 0]) for image in images]


def frames(count):
    for number in range(count):
        yield VideoFrame(number, Fraction(number), np.full((2, 2, 3), number, np.uint8))


@pytest.mark.parametrize("workers", [1, 2])
def test_every_frame_has_its_own_detections_whoever_shares_the_cores(workers, monkeypatch):
    monkeypatch.setattr("persondet.video.pipeline.cpu_count", lambda: 6)
    before, predictor, fresh = torch.get_num_threads(), Numbered(workers), []
    found = detect(frames(20), predictor, 3)
    assert [(item.frame.index, item.instances) for item in found] == [(n, n) for n in range(20)]
    assert sorted(predictor.batches) == [list(range(n, min(n + 3, 20))) for n in range(0, 20, 3)]
    assert [count for _, count in predictor.threads] == [6 // workers] * workers
    thread = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert [torch.get_num_threads(), *fresh] == [before, before]


def test_frames_are_not_taken_far_ahead():
    taken, predictor = [], Numbered(3)
    predictor.together = threading.Barrier(1)  # no worker waits for another
    found = detect((taken.append(n) or frame for n, frame in enumerate(frames(40))), predictor, 2)
    next(found)
    assert len(taken) <= 2 * (3 + 1)
    found.close()
    assert threads("persondet-model") == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_detects_in_the_frames_what_a_cpu_detects(tmp_path):
    save_run(tmp_path, build_model(tiny_cfg()), tiny_cfg())
    clip = [VideoFrame(n, Fraction(n), image) for n, image in enumerate(noise(5))]
    found = []
    for device in ("cpu", "cuda"):
        predictor = Predictor.from_run(tmp_path, confidence_threshold=0.01, device=device)
        found.append([paste_regions(item.instances) for item in detect(iter(clip), predictor, 2)])
    for cpu, gpu in zip(*found, strict=True):
        strong = cpu[cpu.scores > cpu.scores.median()]
        assert len(strong) > 0
        overlaps = pairwise_iou(strong.pred_boxes, gpu.pred_boxes)
        # Of boxes with nearly the same score either may suppress the other.
        assert (overlaps.max(dim=1).values > 0.95).float().mean() > 0.9
        best = gpu.scores[overlaps.argmax(dim=1)]
        assert (best - strong.scores).abs().median() < 0.01

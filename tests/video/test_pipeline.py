"""From clip to annotated clip and records, with a predictor that needs no model."""

from __future__ import annotations

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
from tests.video.clips import (
    BrightSquares,
    noise,
    noisy_clip,
    square_frame,
    with_a_hole,
    write_clip,
)


def threads(prefix=THREAD_PREFIX):
    return [thread for thread in threading.enumerate() if thread.name.startswith(prefix)]


def test_every_frame_once_in_order_at_its_time(clip, tmp_path, predictor):
    seen = []
    output = tmp_path / "out" / "annotated.mp4"
    summary = annotate_video(
        clip, output, predictor, progress=lambda done, total: seen.append((done, total))
    )
    assert summary.frames == 10
    assert summary.damage == ""
    assert predictor.batches == [3, 3, 3, 1]
    assert seen == [(n, 10) for n in range(1, 11)]
    reader = VideoReader(output)
    assert reader.frame_rate == Fraction(30000, 1001)
    assert [f.time for f in reader] == [f.time for f in VideoReader(clip)]
    header, frames = read_records(summary.records)
    assert summary.records == tmp_path / "out" / "annotated.jsonl"
    assert (header.source, header.model, header.classes) == (clip.name, "stub.pth", ("person",))
    assert (header.width, header.height) == (96, 64)
    frames = list(frames)
    assert [frame.index for frame in frames] == list(range(10))
    for number, frame in enumerate(frames):
        x = 10 + 2 * number
        assert np.abs(np.array(frame.people[0].box) - [x, 20, x + 16, 36]).max() <= 1
        mask = frame.people[0].decode_mask(header)
        assert np.mean(mask == (square_frame(number)[:, :, 0] == 255)) > 0.99
    before, after = (next(iter(VideoReader(p))).image for p in (clip, output))
    assert np.abs(before.astype(int) - after)[18:40, 8:30].max() > 60  # something is drawn
    assert [stage.name for stage in summary.stages] == "decode infer track draw encode".split()
    assert all(0 < stage.busy <= summary.seconds for stage in summary.stages)
    assert summary.people_max == max(len(frame.people) for frame in frames)
    assert summary.people_mean == pytest.approx(np.mean([len(f.people) for f in frames]))


def test_a_part_with_a_stride_keeps_the_sources_numbers_and_begins_at_zero(
    clip, tmp_path, predictor
):
    start, end, seen = Fraction(1001 * 3, 30000), Fraction(1001 * 9, 30000), []
    summary = annotate_video(
        clip,
        tmp_path / "out.mp4",
        predictor,
        start=start,
        end=end,
        stride=2,
        max_frames=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    header, frames = read_records(summary.records)
    frames = list(frames)
    assert [frame.index for frame in frames] == [3, 5]
    assert (header.start, header.frame_rate) == (pytest.approx(float(start)), Fraction(15000, 1001))
    assert [frame.time for frame in frames] == pytest.approx([0.1001, 1001 / 6000], abs=1e-6)
    with av.open(str(summary.output)) as container:  # players show nothing before zero
        times = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    assert times == [0, Fraction(1001 * 2, 30000)]
    assert (seen, predictor.batches) == ([(1, 2), (2, 2)], [2])


def test_a_model_without_masks(clip, tmp_path):
    summary = annotate_video(clip, tmp_path / "a.mp4", BrightSquares(masks=False), max_frames=2)
    _, frames = read_records(summary.records)
    assert [person.mask for frame in frames for person in frame.people] == [None] * 4
    assert len(list(VideoReader(summary.output))) == 2


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


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"start": 60}, "no frame between"),
        ({"stride": 0}, "1 or more"),
        ({"max_frames": 0}, "1 or more"),
        ({"batch_size": -1}, "1 or more"),
    ],
)
def test_impossible_choices_are_refused_and_leave_nothing(choice, says, clip, tmp_path, predictor):
    with pytest.raises(MediaError, match=says):
        annotate_video(clip, tmp_path / "out" / "a.mp4", predictor, **choice)
    assert list((tmp_path / "out").glob("*")) == []


def test_a_predictor_that_fails_at_once_leaves_nothing(clip, tmp_path, predictor):
    predictor.detect = lambda image: 1 / 0
    with pytest.raises(ZeroDivisionError):
        annotate_video(clip, tmp_path / "out" / "a.mp4", predictor)
    assert list((tmp_path / "out").iterdir()) == []
    assert threads() == []


@pytest.mark.parametrize("stage", ["infer", "track", "draw", "encode", "caller"])
def test_whichever_stage_fails_the_frames_before_it_are_kept(
    stage, clip, tmp_path, predictor, monkeypatch
):
    broken, limit = RuntimeError(f"{stage} broke"), 6
    tracker, visualizer = PersonTracker(30.0), PersonVideoVisualizer(predictor.metadata)

    def failing(work):
        calls = iter(range(100))

        def call(*arguments):
            if next(calls) == limit:
                raise broken
            return work(*arguments)

        return call

    if stage == "infer":
        predictor.detect = failing(predictor.detect)
    elif stage == "track":
        tracker.update = failing(tracker.update)
    elif stage == "draw":
        visualizer.draw_on = failing(visualizer.draw_on)
    elif stage == "encode":
        monkeypatch.setattr(VideoWriter, "write", failing(VideoWriter.write))
    seen = []

    def progress(done, _):
        seen.append(done)
        if stage == "caller" and done == limit:
            raise broken

    with pytest.raises(RuntimeError) as caught:
        annotate_video(
            clip,
            tmp_path / "out" / "a.mp4",
            predictor,
            tracker=tracker,
            visualizer=visualizer,
            progress=progress,
        )
    assert caught.value is broken
    assert seen == list(range(1, limit + 1))
    assert threads() == []
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ["a.partial.jsonl", "a.partial.mp4"]
    kept = len(list(VideoReader(tmp_path / "out" / "a.partial.mp4")))
    _, frames = read_records(tmp_path / "out" / "a.partial.jsonl")
    indices = [frame.index for frame in frames]
    assert indices == list(range(len(indices)))
    if stage == "caller":  # some frames are on their way still
        assert limit <= kept <= len(indices) <= 10
    else:
        # The record of the frame that the encoder refused is written: records come first.
        assert (kept, len(indices)) == (limit, limit + (stage == "encode"))


def test_tracking_is_the_default_and_can_be_left_out(clip, tmp_path, predictor):
    summary = annotate_video(clip, tmp_path / "a.mp4", predictor)
    header, frames = read_records(summary.records)
    frames = list(frames)
    assert header.tracker == PersonTracker.name
    # The walking square is the first person of all frames.
    assert {frame.people[0].track_id for frame in frames} == {1}
    assert frames[-1].unique == summary.unique_people >= 1
    summary = annotate_video(clip, tmp_path / "b.mp4", predictor, tracker=None)
    header, frames = read_records(summary.records)
    assert (header.tracker, summary.unique_people) == (None, None)
    assert {(f.unique, p.track_id) for f in frames for p in f.people} == {(None, None)}


def test_a_tracker_of_ones_own_gets_every_frame_in_order(clip, tmp_path, predictor):
    class Counter:
        unique = 0

        def update(self, instances):
            self.unique += 1
            instances.ID = [self.unique] * len(instances)

    drawn = []

    class Visualizer(PersonVideoVisualizer):
        def draw_on(self, image, instances):
            drawn.append((self.unique_people, set(instances.ID)))

    visualizer = Visualizer(predictor.metadata)
    summary = annotate_video(
        clip, tmp_path / "a.mp4", predictor, tracker=Counter(), visualizer=visualizer
    )
    assert drawn == [(n, {n}) for n in range(1, 11)]
    _, frames = read_records(summary.records)
    assert [frame.people[0].track_id for frame in frames] == list(range(1, 11))
    assert summary.unique_people == 10


def sounds(path):
    with av.open(str(path)) as container:
        return len(container.streams.audio)


@pytest.mark.parametrize(
    ("choice", "kept"),
    [
        ({"stride": 2}, True),
        ({"start": 0}, True),
        ({"end": 99}, True),
        ({"max_frames": 5, "stride": 2}, True),
        ({"start": 0.1}, False),
        ({"end": 0.2}, False),
        ({"max_frames": 3}, False),
    ],
)
def test_sound_is_kept_unless_something_is_cut(choice, kept, tmp_path, predictor):
    frames = [square_frame(n) for n in range(10)]
    source = write_clip(tmp_path / "in.mp4", frames, sound=True)
    summary = annotate_video(source, tmp_path / "a.mp4", predictor, **choice)
    assert sounds(summary.output) == kept
    assert sum("sound" in note for note in summary.notes) == (not kept)


def test_sound_does_not_follow_a_clock_that_begins_again(tmp_path, predictor):
    frames = [square_frame(n % 9) for n in range(60)]
    once = write_clip(tmp_path / "once.ts", frames, sound=True)
    (tmp_path / "twice.ts").write_bytes(2 * once.read_bytes())
    summary = annotate_video(tmp_path / "twice.ts", tmp_path / "a.mp4", predictor)
    assert sounds(summary.output) == 0
    assert "clock starts again" in summary.notes[0]


def test_quality_reaches_the_encoder_and_lossless_comes_with_a_warning(tmp_path, predictor):
    clip, sizes = noisy_clip(tmp_path / "in.mp4", 8), []
    for crf in (0, 15, 40, None):
        summary = annotate_video(clip, tmp_path / f"{crf}.mp4", predictor, crf=crf)
        sizes.append(summary.output.stat().st_size)
        lossless = "High 4:4:4 Predictive"
        assert any(lossless in note for note in summary.notes) == (crf == 0)
        with av.open(str(summary.output)) as container:
            assert (container.streams.video[0].profile == lossless) == (crf == 0)
    assert sizes[0] > sizes[1] > 2 * sizes[2]


def test_damage_is_told_and_what_was_read_is_kept(tmp_path, predictor):
    whole = noisy_clip(tmp_path / "whole.avi")
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    summary = annotate_video(cut, tmp_path / "out.mp4", predictor)
    assert 10 < summary.frames < 30
    assert "cut" in summary.damage
    assert len(list(VideoReader(summary.output))) == summary.frames
    hole = with_a_hole(noisy_clip(tmp_path / "hole.mp4", 60), place=1 / 3)
    for number, choice in enumerate(({"max_frames": 35}, {"end": Fraction(35, 25)})):
        summary = annotate_video(hole, tmp_path / f"{number}.mp4", predictor, **choice)
        assert summary.damage.startswith("the clip is damaged")


def test_a_full_disk_at_the_end_keeps_a_partial_result(tmp_path, predictor, clip, monkeypatch):
    def full(*_):
        raise av.error.FFmpegError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("persondet.video.writer.remux", full)
    with pytest.raises(PartialMediaError, match="the disk is full; what was written") as caught:
        annotate_video(clip, tmp_path / "out" / "a.mp4", predictor)
    assert caught.value.exit_code == 3
    assert len(list(VideoReader(tmp_path / "out" / "a.partial.mp4"))) == 10


def test_a_clip_is_kept_if_its_mot_text_cannot_be_written(tmp_path, predictor, clip, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("persondet.video.pipeline.write_mot", refuse)
    with pytest.raises(PartialMediaError, match=r"a\.mp4 and its records are written"):
        annotate_video(clip, tmp_path / "a.mp4", predictor, save_mot=True)
    assert len(list(VideoReader(tmp_path / "a.mp4"))) == 10


def test_mot_text_has_a_line_per_person_of_each_frame(clip, tmp_path, predictor):
    annotate_video(clip, tmp_path / "a.mp4", predictor, save_mot=True)
    rows = [line.split(",") for line in (tmp_path / "a.txt").read_text().splitlines()]
    assert {row[0] for row in rows} == {str(n) for n in range(1, 11)}


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_the_title_stays_and_a_note_names_other_tracks(name, tmp_path, predictor):
    with av.open(str(tmp_path / "in.mkv"), "w") as container:
        container.metadata["title"] = "A walk"
        for _ in range(2):
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for stream in container.streams.video:
            frame = av.VideoFrame.from_ndarray(square_frame(0), format="bgr24")
            container.mux([*stream.encode(frame), *stream.encode(None)])
    summary = annotate_video(tmp_path / "in.mkv", tmp_path / name, predictor)
    assert summary.notes == ("1 further video track left out",)
    with av.open(str(summary.output)) as container:
        assert container.metadata["title"] == "A walk"


def test_real_clips(real_data, tmp_path, predictor):
    clips = [real_data / "clips" / "walk.small.mp4"]
    clips += (real_data / "roboflow-drone-person-polygons").glob("*(*).mp4")
    assert len(clips) == 2
    for clip in clips:
        summary = annotate_video(clip, tmp_path / f"{clip.stem}.mp4", predictor, max_frames=40)
        with av.open(str(summary.output)) as container:
            times = [f.pts * f.time_base for f in container.decode(video=0)]
        with VideoReader(clip) as reader:
            expected = [frame.time for frame, _ in zip(reader, range(40), strict=False)]
            tick = reader.time_base
        assert len(times) == 40
        assert max(abs(a - b) for a, b in zip(times, expected, strict=True)) <= tick / 2


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


def detected(source, predictor, size):
    return ((item.frame.index, item.instances) for item in detect(source, predictor, size))


@pytest.mark.parametrize("workers", [1, 2])
def test_every_frame_once_in_order_with_its_own_detections(workers):
    predictor = Numbered(workers)
    assert list(detected(frames(20), predictor, 3)) == [(n, n) for n in range(20)]
    assert sorted(predictor.batches) == [list(range(n, min(n + 3, 20))) for n in range(0, 20, 3)]
    assert predictor.most == workers


def test_several_forward_passes_share_the_cores(monkeypatch):
    monkeypatch.setattr("persondet.video.pipeline.cpu_count", lambda: 6)
    before, predictor, fresh = torch.get_num_threads(), Numbered(2), []
    list(detect(frames(20), predictor, 3))
    assert (predictor.intra_op, len(predictor.threads)) == ({3}, 2)
    thread = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert [torch.get_num_threads(), *fresh] == [before, before]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_comes_after_the_frames_before_it(workers):
    got = []
    with pytest.raises(KeyError, match="broken"):
        got.extend(detected(frames(50), Numbered(workers, fail_at=8), 2))
    assert got == [(n, n) for n in range(8)]
    assert threads("persondet-model") == []


def test_frames_are_not_taken_far_ahead():
    taken = []
    found = detect((taken.append(n) or frame for n, frame in enumerate(frames(40))), Numbered(3), 2)
    next(found)
    assert len(taken) <= 2 * (3 + 1)
    found.close()
    assert threads("persondet-model") == []


@pytest.mark.gpu
def test_a_gpu_detects_in_the_frames_what_a_cpu_detects(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    save_run(tmp_path, build_model(tiny_cfg()), tiny_cfg())
    clip = [VideoFrame(n, Fraction(n), image) for n, image in enumerate(noise(5))]

    def on(device):
        predictor = Predictor.from_run(tmp_path, confidence_threshold=0.01, device=device)
        found = detect(iter(clip), predictor, 2)
        return [paste_regions(item.instances).to("cpu") for item in found]

    for cpu, gpu in zip(on("cpu"), on("cuda"), strict=True):
        assert len(cpu) > 0
        strong = cpu[cpu.scores > cpu.scores.median()]
        overlaps = pairwise_iou(strong.pred_boxes, gpu.pred_boxes)
        # Of boxes with nearly the same score either may suppress the other.
        assert (overlaps.max(dim=1).values > 0.95).float().mean() > 0.9
        best = gpu.scores[overlaps.argmax(dim=1)]
        assert (best - strong.scores).abs().median() < 0.01

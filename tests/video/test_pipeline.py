"""From clip to annotated clip and records, with a predictor that needs no model."""

from __future__ import annotations

import errno
import os
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from detectron2.utils.video_visualizer import VideoVisualizer

from persondet.errors import MediaError, OutputExistsError, PartialMediaError
from persondet.inference.records import RecordsWriter, read_records
from persondet.inference.tracking import PersonTracker
from persondet.video.pipeline import annotate_video
from persondet.video.reader import VideoReader
from persondet.video.stages import THREAD_PREFIX
from persondet.video.writer import VideoWriter
from persondet.visualization.visualizer import PersonVideoVisualizer


def test_every_frame_once_in_order_at_its_time(clip, tmp_path, predictor, squares):
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
        assert np.mean(mask == (squares(number)[:, :, 0] == 255)) > 0.99
    assert summary.people_max == max(len(frame.people) for frame in frames)
    assert summary.people_mean == pytest.approx(np.mean([len(f.people) for f in frames]))


def test_something_is_drawn_on_the_frames(clip, tmp_path, predictor):
    annotate_video(clip, tmp_path / "out.mp4", predictor)
    before, after = (next(iter(VideoReader(p))).image for p in (clip, tmp_path / "out.mp4"))
    assert np.abs(before.astype(int) - after)[18:40, 8:30].max() > 60


def test_stride_and_max_frames_keep_the_sources_numbers(clip, tmp_path, predictor):
    summary = annotate_video(clip, tmp_path / "out.mp4", predictor, stride=3, max_frames=3)
    header, frames = read_records(summary.records)
    assert [frame.index for frame in frames] == [0, 3, 6]
    assert header.frame_rate == Fraction(10000, 1001)
    times = [frame.time for frame in VideoReader(summary.output)]
    assert times == [Fraction(1001 * n, 30000) for n in (0, 3, 6)]
    assert sum(predictor.batches) == 3


def test_a_model_without_masks_and_detectron2s_own_visualizer(
    clip, tmp_path, predictor_without_masks
):
    summary = annotate_video(
        clip,
        tmp_path / "out.mp4",
        predictor_without_masks,
        visualizer=VideoVisualizer(predictor_without_masks.metadata),
        max_frames=2,
    )
    _, frames = read_records(summary.records)
    assert all(person.mask is None for frame in frames for person in frame.people)
    assert len(list(VideoReader(summary.output))) == 2


def test_existing_outputs_are_refused_before_any_work(clip, tmp_path, predictor):
    for name in ("out.mp4", "out.jsonl"):
        target = tmp_path / name
        target.write_text("precious")
        with pytest.raises(OutputExistsError, match="--overwrite"):
            annotate_video(clip, tmp_path / "out.mp4", predictor)
        assert target.read_text() == "precious"
        target.unlink()
    assert predictor.batches == []
    (tmp_path / "out.mp4").write_text("old")
    annotate_video(clip, tmp_path / "out.mp4", predictor, overwrite=True)
    assert len(list(VideoReader(tmp_path / "out.mp4"))) == 10


def test_the_source_is_never_the_output(clip, tmp_path, predictor):
    link = tmp_path / "link.mp4"
    os.symlink(clip, link)
    before = clip.read_bytes()
    for output in (clip, link):
        with pytest.raises(MediaError, match="is the source itself"):
            annotate_video(clip, output, predictor, overwrite=True)
    assert clip.read_bytes() == before


def test_a_predictor_that_fails_at_once_leaves_nothing(clip, tmp_path, predictor):
    predictor._find = lambda image: 1 / 0
    with pytest.raises(ZeroDivisionError):
        annotate_video(clip, tmp_path / "out" / "a.mp4", predictor)
    assert list((tmp_path / "out").iterdir()) == []
    assert [t for t in threading.enumerate() if t.name.startswith(THREAD_PREFIX)] == []


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
        predictor._find = failing(predictor._find)
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
    assert [t for t in threading.enumerate() if t.name.startswith(THREAD_PREFIX)] == []
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


def test_what_a_failed_run_left_is_refused_then_replaced(clip, tmp_path, predictor):
    for name in ("a.partial.mp4", "a.partial.jsonl"):
        (tmp_path / name).write_text("from before")
        with pytest.raises(OutputExistsError):
            annotate_video(clip, tmp_path / "a.mp4", predictor)
        (tmp_path / name).unlink()
    (tmp_path / "a.partial.mp4").write_text("from before")
    annotate_video(clip, tmp_path / "a.mp4", predictor, overwrite=True)
    assert len(list(VideoReader(tmp_path / "a.mp4"))) == 10
    assert not (tmp_path / "a.partial.mp4").exists()


def test_what_a_killed_run_left_can_be_a_source_but_not_be_overwritten(
    tmp_path, predictor, clip_writer, squares
):
    left = clip_writer(tmp_path / "a.partial.mp4", [squares(n) for n in range(4)])
    before = left.read_bytes()
    with pytest.raises(MediaError, match="is the source itself"):
        annotate_video(left, tmp_path / "a.mp4", predictor, overwrite=True)
    assert left.read_bytes() == before


def test_start_and_end_choose_the_frames_and_the_clip_begins_at_zero(clip, tmp_path, predictor):
    start, end = Fraction(1001 * 3, 30000), Fraction(1001 * 8, 30000)
    seen = []
    summary = annotate_video(
        clip,
        tmp_path / "out.mp4",
        predictor,
        start=start,
        end=end,
        stride=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    header, frames = read_records(summary.records)
    frames = list(frames)
    assert [frame.index for frame in frames] == [3, 5, 7]
    assert header.start == pytest.approx(float(start))
    assert [frame.time for frame in frames] == pytest.approx(
        [1001 * n / 30000 for n in (3, 5, 7)], abs=1e-6
    )
    times = [frame.time for frame in VideoReader(summary.output)]
    assert times == [Fraction(1001 * n, 30000) for n in (0, 2, 4)]
    with av.open(str(summary.output)) as container:  # players show nothing before this
        assert next(container.decode(video=0)).pts == 0
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_nothing_between_start_and_end_is_said_and_leaves_nothing(clip, tmp_path, predictor):
    with pytest.raises(MediaError, match="no frame between"):
        annotate_video(clip, tmp_path / "out" / "a.mp4", predictor, start=60)
    assert list((tmp_path / "out").glob("*")) == []


def test_people_are_tracked_unless_nobody_asks(clip, tmp_path, predictor):
    summary = annotate_video(clip, tmp_path / "a.mp4", predictor)
    header, frames = read_records(summary.records)
    frames = list(frames)
    assert header.tracker == PersonTracker.name
    # The walking square is the first person of all frames.
    assert {frame.people[0].track_id for frame in frames} == {1}
    assert frames[-1].unique == summary.unique_people >= 1
    summary = annotate_video(clip, tmp_path / "b.mp4", predictor, tracker=None)
    header, frames = read_records(summary.records)
    assert header.tracker is None
    assert summary.unique_people is None
    assert all(f.unique is None for f in frames)
    assert all(p.track_id is None for f in read_records(summary.records)[1] for p in f.people)


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


def test_mot_text_on_request(clip, tmp_path, predictor):
    annotate_video(clip, tmp_path / "a.mp4", predictor)
    assert not (tmp_path / "a.txt").exists()
    annotate_video(clip, tmp_path / "b.mp4", predictor, save_mot=True)
    rows = [line.split(",") for line in (tmp_path / "b.txt").read_text().splitlines()]
    assert {row[0] for row in rows} == {str(n) for n in range(1, 11)}
    (tmp_path / "c.txt").write_text("precious")
    with pytest.raises(OutputExistsError):
        annotate_video(clip, tmp_path / "c.mp4", predictor, save_mot=True)
    assert (tmp_path / "c.txt").read_text() == "precious"


def test_where_the_time_went(clip, tmp_path, predictor):
    summary = annotate_video(clip, tmp_path / "a.mp4", predictor)
    assert [stage.name for stage in summary.stages] == [
        *("decode", "infer", "track", "draw", "encode")
    ]
    for stage in summary.stages:
        assert 0 < stage.busy <= summary.seconds
        assert 0 <= stage.waiting <= summary.seconds


def test_sound_is_kept_unless_something_is_cut(tmp_path, predictor, clip_writer, squares):
    source = clip_writer(tmp_path / "in.mp4", [squares(n) for n in range(10)], sound=True)
    whole = annotate_video(source, tmp_path / "a.mp4", predictor, stride=2)
    assert sounds(whole.output) == 1
    assert not any("sound" in note for note in whole.notes)
    for number, choice in enumerate(({"start": 0.1}, {"end": 0.2}, {"max_frames": 3})):
        part = annotate_video(source, tmp_path / f"{number}.mp4", predictor, **choice)
        assert sounds(part.output) == 0
        assert sum("sound" in note for note in part.notes) == 1


def test_the_quality_reaches_the_encoder(tmp_path, predictor, clip_writer):
    noise = np.random.default_rng(0).integers(0, 120, (8, 64, 96, 3), dtype=np.uint8)
    clip = clip_writer(tmp_path / "in.mp4", noise)
    sizes = [
        annotate_video(clip, tmp_path / f"{crf}.mp4", predictor, crf=crf).output.stat().st_size
        for crf in (15, 40)
    ]
    assert sizes[0] > 2 * sizes[1]


def test_a_cut_clip_keeps_what_was_read_and_says_so(tmp_path, predictor, clip_writer):
    noise = np.random.default_rng(0).integers(0, 120, (40, 64, 96, 3), dtype=np.uint8)
    whole = clip_writer(tmp_path / "whole.avi", noise, codec="mjpeg", pix_fmt="yuvj420p")
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    summary = annotate_video(cut, tmp_path / "out.mp4", predictor)
    assert 10 < summary.frames < 30
    assert "cut" in summary.damage
    assert len(list(VideoReader(summary.output))) == summary.frames


def test_numbers_below_one_are_refused(clip, tmp_path, predictor):
    for choice in ({"stride": 0}, {"max_frames": 0}, {"batch_size": -1}):
        with pytest.raises(MediaError, match="1 or more"):
            annotate_video(clip, tmp_path / "out.mp4", predictor, **choice)


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


def sounds(path):
    with av.open(str(path)) as container:
        return len(container.streams.audio)


@pytest.mark.parametrize(
    "choice", [{"start": 0}, {"end": 99}, {"max_frames": 1000}, {"max_frames": 5, "stride": 2}]
)
def test_sound_is_kept_where_the_chosen_part_is_the_whole(
    choice, tmp_path, predictor, clip_writer, squares
):
    source = clip_writer(tmp_path / "in.mp4", [squares(n) for n in range(10)], sound=True)
    summary = annotate_video(source, tmp_path / "a.mp4", predictor, **choice)
    assert sounds(summary.output) == 1
    assert summary.notes == ()
    assert summary.frames == (5 if "stride" in choice else 10)


def test_sound_does_not_follow_a_clock_that_begins_again(tmp_path, predictor, clip_writer, squares):
    once = clip_writer(tmp_path / "once.ts", [squares(n % 9) for n in range(60)], sound=True)
    (tmp_path / "twice.ts").write_bytes(2 * once.read_bytes())
    summary = annotate_video(tmp_path / "twice.ts", tmp_path / "a.mp4", predictor)
    assert sounds(summary.output) == 0
    assert summary.notes == (
        "the sound is left out, as the clip's clock starts again in the middle",
    )


@pytest.mark.parametrize("choice", [{"max_frames": 35}, {"end": Fraction(35, 25)}])
def test_damage_before_the_chosen_end_is_told(choice, tmp_path, predictor, clip_writer):
    noise = np.random.default_rng(0).integers(0, 120, (60, 64, 96, 3), dtype=np.uint8)
    path = clip_writer(tmp_path / "a.mp4", noise, rate=Fraction(25))
    data = path.read_bytes()
    at = len(data) // 3
    path.write_bytes(data[:at] + noise.tobytes()[: len(data) // 20] + data[at + len(data) // 20 :])
    summary = annotate_video(path, tmp_path / "out.mp4", predictor, **choice)
    assert summary.damage.startswith("the clip is damaged")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full: no disk is full here")
def test_what_a_full_disk_keeps_is_a_partial_result(tmp_path, predictor, clip, monkeypatch):
    writes = iter(range(100))

    def full(*_):
        raise av.error.FFmpegError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("persondet.video.writer.remux", full)
    with pytest.raises(PartialMediaError, match="the disk is full; what was written") as caught:
        annotate_video(clip, tmp_path / "out" / "a.mp4", predictor)
    assert caught.value.exit_code == 3
    assert len(list(VideoReader(tmp_path / "out" / "a.partial.mp4"))) == 10
    write = RecordsWriter.write

    def failing(self, frame):
        if next(writes) == 4:
            full_disk = os.open("/dev/full", os.O_WRONLY)
            os.dup2(full_disk, self._text._file.fileno())
            os.close(full_disk)
        write(self, frame)

    monkeypatch.setattr(RecordsWriter, "write", failing)
    with pytest.raises(PartialMediaError, match="what was written before stays there; free"):
        annotate_video(clip, tmp_path / "b" / "a.mp4", predictor)


def test_a_clip_whose_mot_text_cannot_be_written_is_kept(tmp_path, predictor, clip, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("persondet.video.pipeline.write_mot", refuse)
    with pytest.raises(PartialMediaError, match=r"a\.mp4 and its records are written"):
        annotate_video(clip, tmp_path / "a.mp4", predictor, save_mot=True)
    assert len(list(VideoReader(tmp_path / "a.mp4"))) == 10


def test_mot_text_of_earlier_tracks_goes_and_a_text_of_ones_own_stays(clip, tmp_path, predictor):
    annotate_video(clip, tmp_path / "a.mp4", predictor, save_mot=True)
    assert (tmp_path / "a.txt").exists()
    annotate_video(clip, tmp_path / "a.mp4", predictor, overwrite=True, max_frames=3)
    assert not (tmp_path / "a.txt").exists()
    for text in ("my notes\n", "1,1,10,10,20,20,1,1,0.8\n", ""):
        (tmp_path / "a.txt").write_text(text)
        annotate_video(clip, tmp_path / "a.mp4", predictor, overwrite=True, max_frames=3)
        assert (tmp_path / "a.txt").read_text() == text


def test_lossless_comes_with_a_warning(clip, tmp_path, predictor):
    summary = annotate_video(clip, tmp_path / "a.mp4", predictor, crf=0, max_frames=2)
    assert any("High 4:4:4 Predictive" in note for note in summary.notes)
    with av.open(str(summary.output)) as container:
        assert container.streams.video[0].profile == "High 4:4:4 Predictive"
    for crf in (None, 1):
        summary = annotate_video(clip, tmp_path / f"{crf}.mp4", predictor, crf=crf, max_frames=2)
        assert summary.notes == ()


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_the_title_stays_and_what_is_left_out_is_told(name, tmp_path, predictor, squares):
    with av.open(str(tmp_path / "in.mkv"), "w") as container:
        container.metadata["title"] = "A walk"
        for _ in range(2):
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for stream in container.streams.video:
            frame = av.VideoFrame.from_ndarray(squares(0), format="bgr24")
            container.mux([*stream.encode(frame), *stream.encode(None)])
    summary = annotate_video(tmp_path / "in.mkv", tmp_path / name, predictor)
    assert summary.notes == ("1 further picture track left out",)
    with av.open(str(summary.output)) as container:
        assert container.metadata["title"] == "A walk"

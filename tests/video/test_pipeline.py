"""From clip to annotated clip and records, with a predictor that needs no model."""

from __future__ import annotations

import os
from fractions import Fraction

import av
import numpy as np
import pytest
from detectron2.utils.video_visualizer import VideoVisualizer

from persondet.errors import MediaError, OutputExistsError
from persondet.video.io import VideoReader
from persondet.video.pipeline import annotate_video
from persondet.video.records import read_records


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


def test_a_predictor_that_fails_leaves_nothing(clip, tmp_path, predictor):
    predictor._find = lambda image: 1 / 0
    with pytest.raises(ZeroDivisionError):
        annotate_video(clip, tmp_path / "out" / "a.mp4", predictor)
    assert list((tmp_path / "out").iterdir()) == []


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


@pytest.mark.slow
def test_memory_is_flat(tmp_path, predictor, clip_writer, squares):
    import resource

    source = clip_writer(tmp_path / "long.mp4", [squares(n, 320, 192) for n in range(1500)])
    peaks = {}
    annotate_video(
        source,
        tmp_path / "out.mp4",
        predictor,
        progress=lambda done, _: peaks.setdefault(
            done, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ),
    )
    assert peaks[1500] - peaks[200] <= 20 * 1024


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

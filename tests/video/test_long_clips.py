"""What only long runs show: flat memory, every frame in its place, a kill at any moment."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from bm_scenes import write_street

from persondet.records import read_records
from persondet.video.pipeline import annotate_video
from persondet.video.reader import VideoReader
from persondet.visualization.visualizer import PersonVideoVisualizer
from tests.video.clips import BrightSquares

FPS = 25
BITS, CELL = 10, 16  # of the number painted into each frame of the looped clip
LOOP = 625
HOUR = 90_000
MOST_GROWTH_MB = 20.0
KILLS = 20


def resident_mb():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.slow
def test_memory_is_flat(tmp_path):
    source = write_street(tmp_path / "long.mp4", 1500, (320, 192))
    resident = {}
    annotate_video(
        source,
        tmp_path / "out.mp4",
        BrightSquares(),
        progress=lambda done, _: resident.setdefault(done, resident_mb()),
    )
    assert max(resident[n] for n in range(300, 1501)) - resident[299] <= MOST_GROWTH_MB


def numbered_frame(number):
    """A frame of 160 x 90 with ten black or white cells along its upper edge."""
    image = np.full((90, 160, 3), 90, np.uint8)
    for bit in range(BITS):
        image[:CELL, CELL * bit : CELL * (bit + 1)] = 255 if number >> bit & 1 else 0
    return image


def number_in(image):
    cells = image[4 : CELL - 4, : BITS * CELL].reshape(CELL - 8, BITS, CELL, 3)
    bright = cells[:, :, 4:-4].mean(axis=(0, 2, 3)) > 127
    return int(sum(1 << bit for bit in np.flatnonzero(bright)))


def write_looped_clip(path, frames):
    """Write one loop, then copy its packets again and again."""
    loop = path.with_name("loop.mp4")
    with av.open(str(loop), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"bf": "0", "crf": "18"})
        stream.width, stream.height, stream.pix_fmt = 160, 90, "yuv420p"
        for number in range(LOOP):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number), format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(loop)) as container:
        packets = [
            (bytes(p), p.pts, p.is_keyframe) for p in container.demux(video=0) if p.pts is not None
        ]
        ticks = round(1 / FPS / container.streams.video[0].time_base)
        with av.open(str(path), "w") as target:
            stream = target.add_stream_from_template(container.streams.video[0])
            for turn in range(frames // LOOP):
                for data, pts, key in packets:
                    packet = av.Packet(data)
                    packet.stream, packet.is_keyframe = stream, key
                    packet.time_base = container.streams.video[0].time_base
                    packet.pts = packet.dts = pts + turn * LOOP * ticks
                    packet.duration = ticks
                    target.mux(packet)
    return path


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_an_hour_has_every_frame_once_in_order_in_flat_memory(tmp_path):
    source = write_looped_clip(tmp_path / "hour.mp4", HOUR)
    predictor = BrightSquares()
    resident = {}

    def look(done, total):
        assert total == HOUR
        if done % 1000 == 0:
            resident[done] = resident_mb()

    summary = annotate_video(
        source,
        tmp_path / "out.mp4",
        predictor,
        visualizer=PersonVideoVisualizer(predictor.metadata, labels=False, count=False),
        save_mot=True,
        progress=look,
    )
    assert summary.frames == HOUR
    _, frames = read_records(summary.records)
    assert all(
        (frame.index, frame.time) == (number, number / FPS) for number, frame in enumerate(frames)
    )
    count = 0
    with VideoReader(summary.output) as reader:
        for frame in reader:
            assert frame.time == Fraction(frame.index, FPS)
            assert number_in(frame.image) == frame.index % LOOP
            count += 1
    assert count == HOUR
    early = HOUR // 9 // 1000 * 1000
    later = [megabytes for done, megabytes in resident.items() if done > early]
    assert max(later) - resident[early] <= MOST_GROWTH_MB


# Starts runs one after the other, each a fork of a process that has imported everything but has no
# thread yet; each reports its frames to a file, and is killed so many seconds after the first.
KILLER = """
import os, pathlib, signal, sys, time
from bm_scenes import SimulatedPredictor
from detectron2.data.catalog import Metadata
from persondet.video.pipeline import annotate_video

source, folder = sys.argv[1], pathlib.Path(sys.argv[2])
for number, seconds in enumerate(map(float, sys.argv[3:])):
    output, told = folder / f"{number}.mp4", folder / f"{number}.frames"
    child = os.fork()
    if child == 0:
        handle = os.open(told, os.O_WRONLY | os.O_CREAT)
        metadata = Metadata(name="kills", thing_classes=["person"])
        annotate_video(
            source,
            output,
            SimulatedPredictor(metadata, 0.004),
            progress=lambda done, total: os.pwrite(handle, b"%06d" % done, 0),
        )
        os._exit(0)
    while not (told.exists() and told.stat().st_size) and os.waitpid(child, os.WNOHANG)[0] == 0:
        time.sleep(0.002)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_kill_at_any_time_costs_the_last_second_at_most(tmp_path):
    size, length = (320, 192), 1000
    source = write_street(tmp_path / "street.mp4", length, size)
    moments = [f"{random.Random(seed).uniform(0.0, 8.0):.3f}" for seed in range(KILLS)]
    subprocess.run(
        [sys.executable, "-c", KILLER, source, tmp_path, *moments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},  # tests/benchmarks is on it
        check=True,
        timeout=1000,
    )
    killed = 0
    for number in range(KILLS):
        done = int((tmp_path / f"{number}.frames").read_text())
        clip, records = (
            next(
                path
                for path in (tmp_path / f"{number}{s}", tmp_path / f"{number}.partial{s}")
                if path.exists()
            )
            for s in (".mp4", ".jsonl")
        )
        if ".partial" in clip.name:
            killed += 1
        elif ".partial" not in records.name:
            assert done == length
        _, frames = read_records(records)
        written = [frame.index for frame in frames]
        assert written == list(range(len(written)))
        if done <= FPS and clip.stat().st_size == 0:
            continue  # nothing but the last second
        with VideoReader(clip) as reader:
            kept = [frame.time * FPS for frame in reader]
        # At the very end a frame may lack whose neighbours were coded before it.
        assert kept[: max(0, done - FPS)] == list(range(done - FPS))
        assert kept == sorted(set(kept))
        assert set(kept) <= set(written)
    assert killed >= KILLS // 2

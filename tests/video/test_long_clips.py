"""What only long runs show: flat memory, every frame in its place, a kill at any moment."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bm_scenes import write_street

from persondet.records import read_records
from persondet.video.pipeline import annotate_video
from persondet.video.reader import VideoReader
from persondet.video.writer import VideoWriter
from tests.video.clips import BrightSquares, square_frame

FPS = 25
MOST_GROWTH_MB = 20.0
KILLS = 20


def resident_mb():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def numbered_frame(number):
    """A frame of 160 x 96; the bits of its number are 16 cells along the lower edge."""
    image = square_frame(number, 160, 96)
    image[80:] = (20 + 100 * (number >> np.arange(16) & 1)).repeat(10)[None, :, None]
    return image


def number_in(image):
    bright = image[84:92].reshape(8, 16, 10, 3)[:, :, 3:7].mean(axis=(0, 2, 3)) > 70
    return int((bright << np.arange(16)).sum())


@pytest.mark.parametrize(
    "frames",
    [pytest.param(900, marks=pytest.mark.slow), pytest.param(60_000, marks=pytest.mark.soak)],
)
@pytest.mark.timeout(3600)
def test_every_frame_comes_once_in_order_in_flat_memory(frames, tmp_path):
    size = {"width": 160, "height": 96, "fps": FPS}
    with VideoWriter(tmp_path / "in.mp4", **size, preset="ultrafast") as writer:
        for number in range(frames):
            writer.write(numbered_frame(number))
    resident = {}
    summary = annotate_video(
        tmp_path / "in.mp4",
        tmp_path / "out.mp4",
        BrightSquares(),
        progress=lambda done, _: resident.setdefault(done // 300, resident_mb()),
    )
    assert max(resident.values()) - resident[1] <= MOST_GROWTH_MB
    records = list(read_records(summary.records)[1])
    assert len(records) == frames
    for count, (frame, record) in enumerate(zip(VideoReader(summary.output), records, strict=True)):
        assert frame.time * FPS == count
        assert (record.index, record.time) == (count, count / FPS)
        assert number_in(frame.image) == count


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
            next(tmp_path.glob(f"{number}{suffix}"), tmp_path / f"{number}.partial{suffix}")
            for suffix in (".mp4", ".jsonl")
        )
        killed += ".partial" in clip.name
        # The records get their name after the clip.
        assert ".partial" in records.name or (".partial" not in clip.name and done == length)
        written = [frame.index for frame in read_records(records)[1]]
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

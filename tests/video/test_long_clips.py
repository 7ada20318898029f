"""What only long runs show: flat memory, every frame in its place, a kill at any moment."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bm_pairs import memory_mb
from bm_scenes import write_street

from persondet.records import read_records
from persondet.video.pipeline import annotate_video
from persondet.video.reader import VideoReader
from persondet.video.writer import VideoWriter
from tests.video.clips import BrightSquares, frames_on_disk, square_frame

ROOT = Path(__file__).resolve().parents[2]
FPS = 25
MOST_GROWTH_MB = 20.0


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
        progress=lambda done, _: resident.setdefault(done // 300, memory_mb(peak=False)),
    )
    assert max(resident.values()) - resident[1] <= MOST_GROWTH_MB
    records = list(read_records(summary.records)[1])
    assert len(records) == frames
    for count, (frame, record) in enumerate(zip(VideoReader(summary.output), records, strict=True)):
        assert frame.time * FPS == count
        assert (record.index, record.time) == (count, count / FPS)
        assert number_in(frame.image) == count


KILLED = """
import sys, time
from persondet.video.pipeline import annotate_video
from tests.video.clips import BrightSquares

told = lambda done, _: print(done, flush=True) or time.sleep(0.002)
annotate_video(*sys.argv[1:], BrightSquares(), progress=told)
"""


@pytest.mark.slow
def test_a_kill_at_any_time_costs_two_frames_at_most(tmp_path):
    source = write_street(tmp_path / "street.mp4", 300, (320, 192))
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, source, tmp_path / "out.mp4"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        stdout=subprocess.PIPE,
        text=True,
    )
    done = 0
    while done < 150:
        done = int(process.stdout.readline())
    process.kill()
    done = int(([done] + process.stdout.read().split())[-1])
    process.wait()
    written = [frame.index for frame in read_records(tmp_path / "out.partial.jsonl")[1]]
    assert written == list(range(len(written)))
    kept = [time * FPS for time in frames_on_disk(tmp_path / "out.partial.mp4")]
    assert kept == list(range(len(kept)))
    assert done - 2 <= len(kept) <= len(written)
    assert not (tmp_path / "out.mp4").exists()

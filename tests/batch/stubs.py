"""Jobs without a model, also for other processes: clips of bright squares, images, loaders."""

import json
import os
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import cv2

from persondet.batch.job import annotate_folder
from persondet.batch.options import AnnotationOptions
from persondet.batch.pools import HerePool
from persondet.batch.store import Store
from persondet.batch.worker import Worker
from tests.video.clips import BrightSquares, cut, noisy_clip, square_frame, write_clip

WIDTH = 256  # x264 gives the same bytes for the same frames at multiples of it


def load():
    return BrightSquares()


class Slow(BrightSquares):
    """Hangs at clips of 64 x 48 pixels, and takes `PERSONDET_STUB_SECONDS` for any batch."""

    def predict_batch(self, images):
        time.sleep(float(os.environ.get("PERSONDET_STUB_SECONDS", "0")))
        if images[0].shape[:2] == (48, 64):
            time.sleep(1200)
        return super().predict_batch(images)


def load_slow():
    with tempfile.TemporaryDirectory() as folder:  # imports are not the first item's seconds
        clip_of(Path(folder) / "in" / "a.mp4")
        job(Path(folder) / "in", Path(folder) / "out")
    return Slow()


def clip_of(path, frames=4, *, width=WIDTH, height=64, first=0):
    images = [square_frame(first + number, width, height) for number in range(frames)]
    return write_clip(path, images, rate=Fraction(25))


def image_of(path, number=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), square_frame(number))
    return path


def mixed_folder(root):
    """Clips and images in sub-folders, good, broken and none at all."""
    clip_of(root / "x.mp4", 3)
    clip_of(root / "x.mkv", 5)
    clip_of(root / "night" / "Ünï çødé.mp4", 4, first=3)
    clip_of(root / "night" / "copy.mp4", 4, first=3)
    cut(noisy_clip(root / "cut.mkv"), 0.6)
    (root / "empty.mp4").touch()
    (root / "page.avi").write_text("<html>please sign in</html>")
    (root / "notes.txt").write_text("no clip")
    for number in range(3):
        image_of(root / "photos" / f"{number}.png", number)
    (root / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    return root


def job(source, output, *, options=None, load=load, pool=HerePool, sheet=False, **more):
    """Run a job and return its summary; `more` is for the pool."""
    overwrite, span = more.pop("overwrite", False), more.pop("span", None)
    worker = Worker(
        load,
        source := Store(source),
        output := Store(output),
        options or AnnotationOptions(),
        overwrite=overwrite,
        stills=sheet,
    )
    return annotate_folder(source, output, pool(worker, **more), contact_sheet=sheet, span=span)


def ledger(output):
    lines = (output / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["source"]: row for row in map(json.loads, lines)}


def contents(output, *, fingerprint=True):
    """The bytes of every result by its name, with or without what names the source's time."""
    found = {}
    for path in sorted(output.rglob("*")):
        name = path.relative_to(output).as_posix()
        if path.is_file() and name not in ("ledger.jsonl", "summary.csv"):
            found[name] = path.read_bytes()
            if not fingerprint and name.endswith(".jsonl"):
                first, _, rest = found[name].partition(b"\n")
                found[name] = json.dumps(json.loads(first) | {"fingerprint": None}).encode() + rest
    return found

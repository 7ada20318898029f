"""How much of the people in clips with known masks is hidden, and how much of the rest."""

import json
import tempfile
from pathlib import Path

import numpy as np
from bm_pairs import Progress, Row

from persondet.inference.predictor import Predictor
from persondet.records import decode_mask
from persondet.sample.clip import write_clip
from persondet.video.hiding import CoverTracker, covers_ahead
from persondet.video.pipeline import detect
from persondet.video.reader import VideoReader
from persondet.visualization.hiding import HIDE_THRESHOLD, HideOptions, hidden_mask

SIZE = (640, 360)
# The margins were chosen on the first three clips; the others were looked at once, afterwards.
SEEDS = (901, 902, 903, 921, 922, 923)
LEAST_HEIGHT = 24  # pixels of a person who counts


def main(
    *, run: Path, pairs: int = 10, images: int = 125, progress: Progress | None = None
) -> dict[str, Row]:
    """Render clips of unseen streets, hide their people, and count pixels.

    Args:
        run: the folder of a trained run.
        pairs: clips, at most six.
        images: frames of each clip.
        progress: called with the number of clips done and of all.
    """
    predictor = Predictor.from_run(run, least_score=HIDE_THRESHOLD)
    found: dict[str, Row] = {}
    for done, seed in enumerate(SEEDS[:pairs], start=1):
        with tempfile.TemporaryDirectory() as folder:
            clip, truth = Path(folder) / "clip.mp4", Path(folder) / "clip.json"
            write_clip(clip, truth, seed, frames=images, size=SIZE)
            people = [frame["people"] for frame in json.loads(truth.read_text())["frames"]]
            found[f"clip {seed}"] = _row(seed, _counted(predictor, clip, people))
        if progress:
            progress(done, len(SEEDS[:pairs]))
    return found


def _row(seed: int, counted: tuple[dict[int, np.ndarray], float, float]) -> Row:
    people, worst, other = counted
    hidden, pixels = np.sum(list(people.values()), axis=0)
    least = min(one[0] / one[1] for one in people.values())
    shares = {"all": hidden / pixels, "person": least, "frame": worst, "other": other}
    return {
        "what": f"clip {seed}, {len(people)} people",
        "details": f"{hidden / pixels:.2%} of all people's pixels hidden, {least:.2%} of the worst "
        f"person's, {worst:.1%} in the worst frame of one; {other:.1%} of the other pixels",
        **{name: float(share) for name, share in shares.items()},
    }


def _counted(
    predictor: Predictor, clip: Path, people: list[list[dict]]
) -> tuple[dict[int, np.ndarray], float, float]:
    """Return (hidden, all) pixels by person, the least share in a frame, and that of the rest."""
    classes = predictor.metadata.thing_classes
    width, height = SIZE
    with VideoReader(clip) as reader:
        tracker = CoverTracker(HideOptions("fill"), float(reader.frame_rate), classes)
        frames = (
            (item.frame.index, time, tracker.update(item.instances, {}, time))
            for item in detect(iter(reader), predictor, predictor.batch_size)
            for time in [float(item.frame.time)]
        )
        counts: dict[int, np.ndarray] = {}
        rest, worst = np.zeros(2), 1.0
        for index, covers in covers_ahead(frames):
            hidden, anybody = hidden_mask(covers, (height, width)), np.zeros((height, width), bool)
            for person in people[index]:
                mask = decode_mask(person["mask"]["counts"], height, width)
                anybody |= mask
                if person["box"][3] - person["box"][1] > LEAST_HEIGHT:
                    count = np.array([np.count_nonzero(mask & hidden), np.count_nonzero(mask)])
                    known = counts.setdefault(person["track_id"], np.zeros(2))
                    known += count
                    worst = min(worst, count[0] / count[1])
            rest += np.count_nonzero(hidden & ~anybody), np.count_nonzero(~anybody)
    return counts, float(worst), float(rest[0] / rest[1])

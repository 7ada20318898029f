"""How well people keep their numbers who leave the image and come back, with and without links."""

import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bm_pairs import Progress, Row

from persondet.inference.predictor import Predictor
from persondet.inference.tracking import PersonTracker, TrackScore, score_tracks
from persondet.sample.clip import write_clip
from persondet.video.pipeline import detect
from persondet.video.reader import VideoReader
from persondet.video.relinking import relinked

SIZE, FPS, SEEDS = (640, 360), 10, (911, 912, 913)


def main(
    *, run: Path, pairs: int = 10, images: int = 200, progress: Progress | None = None
) -> dict[str, Row]:
    """Render clips of unseen streets that people leave for 3 to 10 seconds; score the tracks.

    Args:
        run: the folder of a trained run.
        pairs: clips, at most three.
        images: frames of each clip, ten per second.
        progress: called with the number of clips done and of all.
    """
    predictor = Predictor.from_run(run)
    found: dict[str, Row] = {}
    for done, seed in enumerate(SEEDS[:pairs], start=1):
        with tempfile.TemporaryDirectory() as folder:
            clip, truth = Path(folder) / "clip.mp4", Path(folder) / "clip.json"
            write_clip(clip, truth, seed, frames=images, size=SIZE, fps=FPS, absences=True)
            people = [frame["people"] for frame in json.loads(truth.read_text())["frames"]]
            ours, plain = _scores(predictor, clip, people)
        found[f"clip {seed}"] = {
            "what": f"clip {seed}: IDF1, HOTA with --relink and without",
            "details": f"{ours.idf1:.1%}, {plain.idf1:.1%}; {ours.hota:.1%}, {plain.hota:.1%}",
            "idf1": [ours.idf1, plain.idf1],
            "hota": [ours.hota, plain.hota],
            "people": ours.people,
        }
        if progress:
            progress(done, len(SEEDS[:pairs]))
    return found


def _scores(
    predictor: Predictor, clip: Path, people: list[list[dict]]
) -> tuple[TrackScore, TrackScore]:
    """Return the scores of the same detections with links and without."""
    with VideoReader(clip) as reader:
        found = [item.instances for item in detect(iter(reader), predictor, predictor.batch_size)]
    kept = [one[one.scores >= predictor.confidence_threshold] for one in found]
    again = iter(found)
    detected = SimpleNamespace(
        predict_batch=lambda images: [next(again) for _ in images],
        metadata=predictor.metadata,
        model_file=predictor.model_file,
        confidence_threshold=predictor.confidence_threshold,
        batch_size=predictor.batch_size,
    )
    tracks: list[list[list[dict]]] = [[], []]
    with relinked(clip, detected) as (_, linked):
        trackers: list[Any] = [linked, PersonTracker(FPS)]
        for rows, tracker in zip(tracks, trackers, strict=True):
            for index, one in enumerate(kept):
                tracker.update(one, index / FPS)
                pairs = zip(one.pred_boxes.tensor.tolist(), one.ID, strict=True)
                rows.append([{"box": box, "track_id": track} for box, track in pairs])
    ours, plain = (score_tracks(one, people) for one in tracks)
    return ours, plain

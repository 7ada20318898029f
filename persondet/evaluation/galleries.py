"""The worst images: missed people, false alarms, poor masks.

Scoring a model draws them, because a later report may no longer have the images. `gallery.json`
lies beside them:

    {"schema": 1, "model": {...}, "threshold": 0.43, "misses": [{"file": "misses_1.jpg",
     "image": "a.jpg", "caption": "Not found: 2 of 5 people ...", "count": 2}, ...],
     "false_alarms": [...], "poor_masks": [...]}
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np

from persondet.data.image_file import read_image_file
from persondet.errors import MediaError
from persondet.evaluation.errors import KINDS, find_mistakes
from persondet.evaluation.matching import (
    IGNORED,
    UNMATCHED,
    GroundTruth,
    ImageMatches,
    Read,
    is_crowd,
)
from persondet.evaluation.predictions import Detection
from persondet.files import atomic_folder, write_json
from persondet.visualization.sheets import Shown, draw_side_by_side

logger = logging.getLogger(__name__)

LENGTH = 6  # images of each kind
POOR_MASK = 0.75  # a mask that overlaps the annotated one by less
_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 85]
_WORDS = {
    "classification": "on {} of another class",
    "localisation": "badly placed on {}",
    "both": "badly placed, and of another class",
    "duplicate": "on {} found already",
    "background": "where nobody is annotated",
}


@dataclass(frozen=True)
class _Worst:
    """An entry of a gallery: which image, what stands out on it, and what to say.

    `rank` orders the entries, the worst first; `facts` stand in `gallery.json`.
    """

    rank: tuple[float, ...]
    index: int
    caption: str
    facts: dict[str, Any]
    wrong_annotations: Sequence[int] = ()
    wrong_detections: Sequence[int] = ()
    zoom: bool = False


def write_galleries(
    folder: str | Path,
    ground_truth: GroundTruth,
    read: Read,
    images: Mapping[str, Sequence[ImageMatches]],
    files: Mapping[int, str],
    *,
    facts: Mapping[str, Any],
) -> None:
    """Write the galleries of a dataset into `folder`, in the place of earlier ones.

    Args:
        folder: gets `gallery.json` and the images that it names.
        ground_truth: of the dataset.
        read: returns all predictions on an image.
        images: of each task ("segm" may be missing) and image, the predictions that reach the
            model's threshold.
        files: image id to the path of the image. A warning names an unreadable image, and the
            gallery leaves it out.
        facts: what else `gallery.json` holds.
    """
    shown = images.get("segm", images["bbox"])
    galleries = {
        "misses": _misses(ground_truth, shown),
        "false_alarms": _false_alarms(ground_truth, shown),
        "poor_masks": _poor_masks(images["segm"], images["bbox"]) if "segm" in images else (),
    }
    with atomic_folder(folder, overwrite=True) as draft:
        content = dict(facts)
        for name, worst in galleries.items():
            content[name] = []
            for entry in sorted(worst, key=lambda one: one.rank)[:LENGTH]:
                record = ground_truth.images[entry.index]
                file = f"{name}_{len(content[name]) + 1}.jpg"
                try:
                    image = read_image_file(files[record["id"]])
                except (MediaError, KeyError) as error:
                    logger.warning("%s is left out of the gallery: %s", record["file_name"], error)
                    continue
                detections, rows = read(record["id"]), shown[entry.index].source.tolist()
                annotations = ground_truth.annotations[entry.index]
                sheet = _sheet(image, entry, annotations, {n: detections[n] for n in rows})
                if not cv2.imwrite(str(draft / file), sheet, _QUALITY):
                    raise MediaError(
                        f"{draft / file}: the image cannot be written; is the disk full?"
                    )
                told = {"file": file, "image": record["file_name"], "caption": entry.caption}
                content[name].append(told | entry.facts)
        write_json(draft / "gallery.json", content)


def _misses(ground_truth: GroundTruth, images: Sequence[ImageMatches]) -> Iterator[_Worst]:
    for index, image in enumerate(images):
        objects = np.flatnonzero(~image.crowd)
        missed = objects[~np.isin(objects, image.partner)].tolist()
        if missed:
            annotations = ground_truth.annotations[index]
            sides = sorted(float(annotations[number]["area"]) ** 0.5 for number in missed)
            caption = (
                f"Not found: {len(missed)} of {len(objects)} {_nouns(ground_truth)[1]}, "
                f"{sides[0]:.0f} to {sides[-1]:.0f} pixels large (√area; orange-red, on the left)."
            )
            rank = (-len(missed), -sum(sides))
            yield _Worst(rank, index, caption, {"count": len(missed)}, missed)


def _false_alarms(ground_truth: GroundTruth, images: Sequence[ImageMatches]) -> Iterator[_Worst]:
    for index, image in enumerate(images):
        false = np.flatnonzero(image.partner == UNMATCHED)
        if not len(false):
            continue
        kinds, counts = np.unique(find_mistakes(image).kind[false], return_counts=True)
        words = [
            f"{count} {_WORDS[KINDS[kind]].format(_nouns(ground_truth)[0])}"
            for kind, count in zip(kinds, counts, strict=True)
        ]
        caption = (
            f"False alarms: {len(false)} of {(image.partner != IGNORED).sum()} detections "
            f"(orange-red, on the right): {', '.join(words)}; the best of them scores "
            f"{image.scores[false[0]]:.2f}."
        )
        rank = (-float(image.scores[false].sum()), index)
        wrong = image.source[false].tolist()
        yield _Worst(rank, index, caption, {"count": len(false)}, wrong_detections=wrong)


def _poor_masks(masks: Sequence[ImageMatches], boxes: Sequence[ImageMatches]) -> Iterator[_Worst]:
    for index, (image, box) in enumerate(zip(masks, boxes, strict=True)):
        rows = np.flatnonzero(box.partner >= 0)
        if not len(rows):
            continue
        row = rows[np.argmin(image.iou[rows, box.partner[rows]])]
        column = int(box.partner[row])
        iou = float(image.iou[row, column])
        if iou < POOR_MASK:
            caption = (
                "The box fits and the mask does not: it overlaps the annotated one with an IoU of "
                f"{iou:.2f} (orange-red; score {image.scores[row]:.2f})."
            )
            wrong = [int(image.source[row])]
            yield _Worst((iou, index), index, caption, {"iou": iou}, [column], wrong, zoom=True)


def _sheet(
    image: np.ndarray,
    entry: _Worst,
    annotations: Sequence[Mapping[str, Any]],
    detections: Mapping[int, Detection],
) -> np.ndarray:
    """Return an image twice, annotated and found, in the colours of the entry."""
    left = [
        Shown.of(one, "crowd" if is_crowd(one) else "", wrong=n in entry.wrong_annotations)
        for n, one in enumerate(annotations)
    ]
    right = [
        Shown.of(msgspec.structs.asdict(d), f"{d.score:.2f}", wrong=n in entry.wrong_detections)
        for n, d in detections.items()
    ]
    boxes = [np.asarray(one.box) for one in (*left, *right) if one.wrong]
    around = (*np.min(boxes, axis=0)[:2].tolist(), *np.max(boxes, axis=0)[2:].tolist())
    return draw_side_by_side(image, left, right, around=around if entry.zoom else None)


def _nouns(ground_truth: GroundTruth) -> tuple[str, str]:
    people = ground_truth.class_names == ("person",)
    return ("a person", "people") if people else ("an object", "objects")

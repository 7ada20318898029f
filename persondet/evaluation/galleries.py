"""The worst images: people who were missed, false alarms, poor masks.

They are rendered when the model is scored, because a report made later, or elsewhere, may no longer
have the pictures. `gallery.json` lies beside them:

    {"schema": 1, "model": {...}, "threshold": 0.43, "misses": [{"file": "misses_1.jpg", "image": "a.jpg",
     "caption": "2 of 5 people were not found ...", "count": 2}, ...],
     "false_alarms": [...], "poor_masks": [...]}
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from persondet.data.image_file import read_picture_file
from persondet.errors import MediaError
from persondet.evaluation.errors import KINDS, find_mistakes
from persondet.evaluation.matching import (
    IGNORED,
    UNMATCHED,
    IntArray,
    Overlaps,
    Scored,
    as_rle,
    is_crowd,
)
from persondet.files import atomic_folder, write_json
from persondet.inference.masks import decode_mask
from persondet.visualization.sheets import Shown, draw_side_by_side

logger = logging.getLogger(__name__)

SCHEMA = 1
LENGTH = 6  # pictures of each kind
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
class Matched:
    """What was found of a dataset in one task, at the model's threshold.

    Attributes:
        scored: the dataset, with every prediction.
        overlaps, partners: of each image, see `persondet.evaluation.matching`, those predictions
            left out that do not reach the threshold.
        box_partners: the same for boxes, whatever the task is.
        threshold: the score that the predictions reach.
    """

    scored: Scored
    overlaps: Sequence[Overlaps]
    partners: Sequence[IntArray]
    box_partners: Sequence[IntArray]
    threshold: float


@dataclass(frozen=True)
class _Worst:
    """An entry of a gallery: which image, what stands out on it, and what to say."""

    index: int
    caption: str
    facts: dict[str, Any]
    wrong_truth: frozenset[int] = frozenset()
    wrong_found: frozenset[int] = frozenset()
    zoom: bool = False


def write_galleries(
    folder: str | Path,
    matched: Matched,
    files: Mapping[int, str],
    *,
    model: Mapping[str, Any] | None = None,
) -> None:
    """Write the galleries of a dataset into `folder`, in the place of earlier ones.

    Args:
        folder: gets `gallery.json` and the pictures that it names.
        matched: the dataset at the model's threshold.
        files: image id to the path of the picture. A picture that cannot be read is left out, with
            a warning.
        model: the record of the checkpoint; see `persondet.evaluation.analysis`.
    """
    galleries = {
        "misses": _misses(matched),
        "false_alarms": _false_alarms(matched),
        "poor_masks": _poor_masks(matched),
    }
    with atomic_folder(folder, overwrite=True) as draft:
        written = {
            name: list(_rendered(draft, name, worst, matched, files))
            for name, worst in galleries.items()
        }
        content = {
            "schema": SCHEMA,
            **({} if model is None else {"model": dict(model)}),
            "threshold": matched.threshold,
            **written,
        }
        write_json(draft / "gallery.json", content)


def _misses(matched: Matched) -> list[_Worst]:
    ranked = []
    for index, (truth, partner) in enumerate(
        zip(matched.scored.truth, matched.partners, strict=True)
    ):
        people = {n for n, one in enumerate(truth) if not is_crowd(one)}
        missed = people - set(partner.tolist())
        if missed:
            sides = sorted(float(truth[number]["area"]) ** 0.5 for number in missed)
            caption = (
                f"{_of(len(missed), len(people), _noun(matched.scored))} not found (orange-red, on "
                f"the left); {_range(sides)} pixels large (√area)."
            )
            worst = _Worst(index, caption, {"count": len(missed)}, frozenset(missed))
            ranked.append(((-len(missed), -sum(sides)), worst))
    return _first(ranked)


def _false_alarms(matched: Matched) -> list[_Worst]:
    ranked = []
    for index, (overlaps, partner) in enumerate(
        zip(matched.overlaps, matched.partners, strict=True)
    ):
        false = np.flatnonzero(partner == UNMATCHED)
        if not len(false):
            continue
        kinds = find_mistakes(overlaps, partner).kind[false]
        one = _noun(matched.scored)[0]
        words = [
            f"{count} {_WORDS[name].format(one)}"
            for number, name in enumerate(KINDS[:-1])
            if (count := int((kinds == number).sum()))
        ]
        reported = int((partner != IGNORED).sum())
        caption = (
            f"{_of(len(false), reported, ('a detection', 'detections'))} "
            f"{'a false alarm' if len(false) == 1 else 'false alarms'} (orange-red, on the right): "
            f"{', '.join(words)}; the surest has a score of "
            f"{overlaps.scores[false[0]]:.2f}."
        )
        worst = _Worst(index, caption, {"count": len(false)}, wrong_found=frozenset(false.tolist()))
        ranked.append(((-float(overlaps.scores[false].sum()), index), worst))
    return _first(ranked)


def _poor_masks(matched: Matched) -> list[_Worst]:
    if not matched.scored.has_masks:
        return []
    ranked = []
    for index, (overlaps, partner) in enumerate(
        zip(matched.overlaps, matched.box_partners, strict=True)
    ):
        rows = np.flatnonzero(partner >= 0)
        if not len(rows):
            continue
        row = int(rows[np.argmin(overlaps.iou[rows, partner[rows]])])
        column = int(partner[row])
        iou = float(overlaps.iou[row, column])
        if iou < POOR_MASK:
            caption = (
                f"The box fits and the mask does not: it overlaps the annotated one with an IoU of "
                f"{iou:.2f} (orange-red; score {overlaps.scores[row]:.2f})."
            )
            worst = _Worst(
                index, caption, {"iou": iou}, frozenset([column]), frozenset([row]), zoom=True
            )
            ranked.append(((iou, float(index)), worst))
    return _first(ranked)


def _first(ranked: Sequence[tuple[tuple[float, ...], _Worst]]) -> list[_Worst]:
    return [worst for _, worst in sorted(ranked, key=lambda entry: entry[0])[:LENGTH]]


def _rendered(
    folder: Path, name: str, worst: Iterable[_Worst], matched: Matched, files: Mapping[int, str]
) -> Iterable[dict[str, Any]]:
    for number, entry in enumerate(worst, start=1):
        image = matched.scored.images[entry.index]
        try:
            picture = read_picture_file(files[image["id"]])
        except (MediaError, KeyError) as error:
            logger.warning("%s is left out of the gallery: %s", image["file_name"], error)
            continue
        size = picture.shape[:2]
        left = _shown(matched.scored.truth[entry.index], entry.wrong_truth, size)
        kept = len(matched.overlaps[entry.index].scores)
        right = _shown(matched.scored.found[entry.index][:kept], entry.wrong_found, size)
        around = _around([one.box for one in (*left, *right) if one.wrong]) if entry.zoom else None
        sheet = draw_side_by_side(picture, left, right, around=around)
        file = f"{name}_{number}.jpg"
        if not cv2.imwrite(str(folder / file), sheet, _QUALITY):
            raise MediaError(f"{folder / file}: the picture cannot be written; is the disk full?")
        yield {"file": file, "image": image["file_name"], "caption": entry.caption, **entry.facts}


def _around(boxes: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return (*np.min(boxes, axis=0)[:2].tolist(), *np.max(boxes, axis=0)[2:].tolist())


def _shown(
    objects: Sequence[Mapping[str, Any]], wrong: frozenset[int], size: tuple[int, int]
) -> list[Shown]:
    shown = []
    for number, one in enumerate(objects):
        mask = None
        if one.get("segmentation"):
            code = as_rle(one["segmentation"], size)
            counts = code["counts"]
            mask = decode_mask(counts if isinstance(counts, str) else counts.decode(), *size)
        label = "crowd" if is_crowd(one) else f"{one['score']:.2f}" if "score" in one else ""
        shown.append(Shown(_xyxy(one["bbox"]), mask, label, number in wrong, is_crowd(one)))
    return shown


def _xyxy(bbox: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = bbox
    return (x, y, x + width, y + height)


def _noun(scored: Scored) -> tuple[str, str]:
    people = scored.class_names == ("person",)
    return ("a person", "people") if people else ("an object", "objects")


def _of(part: int, whole: int, noun: tuple[str, str]) -> str:
    """Return "2 of 5 people are", "1 of 5 people is", "The only person is"."""
    if whole == 1:
        return f"The only {noun[0].split()[-1]} is"
    return f"{part} of {whole} {noun[1]} {'is' if part == 1 else 'are'}"


def _range(values: Sequence[float]) -> str:
    low, high = round(values[0]), round(values[-1])
    return f"{low}" if low == high else f"{low} to {high}"

"""The worst images: missed people, false alarms, poor masks.

Scoring a model renders them, because a report made later, or elsewhere, may no longer have the
images. `gallery.json` lies beside them:

    {"schema": 1, "model": {...}, "threshold": 0.43, "misses": [{"file": "misses_1.jpg",
     "image": "a.jpg", "caption": "2 of 5 people were not found ...", "count": 2}, ...],
     "false_alarms": [...], "poor_masks": [...]}
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np

from persondet.data.image_file import read_image_file
from persondet.errors import MediaError
from persondet.evaluation.errors import KINDS, find_mistakes
from persondet.evaluation.ground_truth import GroundTruth, is_crowd
from persondet.evaluation.matching import IGNORED, UNMATCHED, ImageMatches, Read
from persondet.files import atomic_folder, write_json
from persondet.visualization.sheets import Shown, draw_side_by_side, segmentation_to_mask

logger = logging.getLogger(__name__)

SCHEMA = 1
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
class Matched:
    """What the predictions on a dataset found in one task, at the model's threshold.

    Attributes:
        ground_truth: of the dataset.
        read: returns all predictions on an image.
        images: of each image those predictions that reach the threshold.
        box_images: the same for boxes, whatever the task is.
        has_masks: whether masks are compared.
        threshold: the least score.
    """

    ground_truth: GroundTruth
    read: Read
    images: Sequence[ImageMatches]
    box_images: Sequence[ImageMatches]
    has_masks: bool
    threshold: float


@dataclass(frozen=True)
class _Worst:
    """An entry of a gallery: which image, what stands out on it, and what to say."""

    index: int
    caption: str
    facts: dict[str, Any]
    wrong_annotations: frozenset[int] = frozenset()
    wrong_detections: frozenset[int] = frozenset()
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
        folder: gets `gallery.json` and the images that it names.
        matched: the dataset at the model's threshold.
        files: image id to the path of the image. A warning names an unreadable image, and the
            gallery leaves it out.
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
    for index, image in enumerate(matched.images):
        objects = set(np.flatnonzero(~image.crowd).tolist())
        missed = objects - set(image.partner.tolist())
        if missed:
            annotations = matched.ground_truth.annotations[index]
            sides = sorted(float(annotations[number]["area"]) ** 0.5 for number in missed)
            caption = (
                f"{_of(len(missed), len(objects), _noun(matched.ground_truth))} not found "
                f"(orange-red, on the left); {_range(sides)} pixels large (√area)."
            )
            worst = _Worst(index, caption, {"count": len(missed)}, frozenset(missed))
            ranked.append(((-len(missed), -sum(sides)), worst))
    return _first(ranked)


def _false_alarms(matched: Matched) -> list[_Worst]:
    ranked = []
    for index, image in enumerate(matched.images):
        false = np.flatnonzero(image.partner == UNMATCHED)
        if not len(false):
            continue
        kinds = find_mistakes(image).kind[false]
        one = _noun(matched.ground_truth)[0]
        words = [
            f"{count} {_WORDS[name].format(one)}"
            for number, name in enumerate(KINDS[:-1])
            if (count := int((kinds == number).sum()))
        ]
        reported = int((image.partner != IGNORED).sum())
        caption = (
            f"{_of(len(false), reported, ('a detection', 'detections'))} "
            f"{'a false alarm' if len(false) == 1 else 'false alarms'} (orange-red, on the right): "
            f"{', '.join(words)}; the best of them scores {image.scores[false[0]]:.2f}."
        )
        worst = _Worst(
            index,
            caption,
            {"count": len(false)},
            wrong_detections=frozenset(image.source[false].tolist()),
        )
        ranked.append(((-float(image.scores[false].sum()), index), worst))
    return _first(ranked)


def _poor_masks(matched: Matched) -> list[_Worst]:
    if not matched.has_masks:
        return []
    ranked = []
    for index, (image, boxes) in enumerate(zip(matched.images, matched.box_images, strict=True)):
        rows = np.flatnonzero(boxes.partner >= 0)
        if not len(rows):
            continue
        row = int(rows[np.argmin(image.iou[rows, boxes.partner[rows]])])
        column = int(boxes.partner[row])
        iou = float(image.iou[row, column])
        if iou < POOR_MASK:
            caption = (
                "The box fits and the mask does not: it overlaps the annotated one with an IoU of "
                f"{iou:.2f} (orange-red; score {image.scores[row]:.2f})."
            )
            worst = _Worst(
                index,
                caption,
                {"iou": iou},
                frozenset([column]),
                frozenset([int(image.source[row])]),
                zoom=True,
            )
            ranked.append(((iou, float(index)), worst))
    return _first(ranked)


def _first(ranked: Sequence[tuple[tuple[float, ...], _Worst]]) -> list[_Worst]:
    return [worst for _, worst in sorted(ranked, key=lambda entry: entry[0])[:LENGTH]]


def _rendered(
    folder: Path, name: str, worst: Iterable[_Worst], matched: Matched, files: Mapping[int, str]
) -> Iterable[dict[str, Any]]:
    for number, entry in enumerate(worst, start=1):
        record = matched.ground_truth.images[entry.index]
        try:
            image = read_image_file(files[record["id"]])
        except (MediaError, KeyError) as error:
            logger.warning("%s is left out of the gallery: %s", record["file_name"], error)
            continue
        size = image.shape[:2]
        annotations = matched.ground_truth.annotations[entry.index]
        left = [
            _shown(one, size, "crowd" if is_crowd(one) else "", wrong=n in entry.wrong_annotations)
            for n, one in enumerate(annotations)
        ]
        detections = matched.read(record["id"])
        right = [
            _shown(
                msgspec.structs.asdict(detections[n]),
                size,
                f"{detections[n].score:.2f}",
                wrong=n in entry.wrong_detections,
            )
            for n in matched.images[entry.index].source.tolist()
        ]
        around = _around([one.box for one in (*left, *right) if one.wrong]) if entry.zoom else None
        sheet = draw_side_by_side(image, left, right, around=around)
        file = f"{name}_{number}.jpg"
        if not cv2.imwrite(str(folder / file), sheet, _QUALITY):
            raise MediaError(f"{folder / file}: the image cannot be written; is the disk full?")
        yield {"file": file, "image": record["file_name"], "caption": entry.caption, **entry.facts}


def _around(boxes: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return (*np.min(boxes, axis=0)[:2].tolist(), *np.max(boxes, axis=0)[2:].tolist())


def _shown(one: Mapping[str, Any], size: tuple[int, int], label: str, *, wrong: bool) -> Shown:
    x, y, width, height = one["bbox"]
    mask = segmentation_to_mask(one.get("segmentation"), *size)
    return Shown((x, y, x + width, y + height), mask, label, wrong, is_crowd(one))


def _noun(ground_truth: GroundTruth) -> tuple[str, str]:
    people = ground_truth.class_names == ("person",)
    return ("a person", "people") if people else ("an object", "objects")


def _of(part: int, whole: int, noun: tuple[str, str]) -> str:
    """Return "2 of 5 people are", "1 of 5 people is", "The only person is"."""
    if whole == 1:
        return f"The only {noun[0].split()[-1]} is"
    return f"{part} of {whole} {noun[1]} {'is' if part == 1 else 'are'}"


def _range(values: Sequence[float]) -> str:
    low, high = round(values[0]), round(values[-1])
    return f"{low}" if low == high else f"{low} to {high}"

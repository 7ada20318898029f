"""Which prediction found which annotated object: the greedy matching of the COCO evaluation.

Everything that explains a score (curves, kinds of mistakes, galleries) starts from here, and from
two files alone: the ground truth and the predictions, both in COCO's format. No model is needed,
and no drawing threshold is known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pycocotools.mask as mask_util

from persondet.evaluation.predictions import PredictionReader

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Objects = Sequence[Mapping[str, Any]]

UNMATCHED, IGNORED = -1, -2


@dataclass(frozen=True)
class Scored:
    """Ground truth and predictions of a dataset, image by image.

    Attributes:
        images: the records of the ground truth, by rising id.
        class_names: by class number: the categories of the ground truth in the order of their ids.
        truth: one list of COCO annotations per image, crowd regions among them.
        found: one list of COCO predictions per image, by falling score; of equal scores the one
            that stands first in the file comes first. Of a file they are read at each asking.
        has_masks: whether masks are predicted and annotated, so that they can be compared.
    """

    images: list[dict[str, Any]]
    class_names: tuple[str, ...]
    truth: list[list[dict[str, Any]]]
    found: Sequence[list[dict[str, Any]]]
    has_masks: bool

    @property
    def people(self) -> int:
        """Number of annotated objects, crowd regions left out."""
        return sum(not is_crowd(one) for annotations in self.truth for one in annotations)


@dataclass(frozen=True)
class Overlaps:
    """How the D predictions of one image overlap its G annotations, in one task.

    Attributes:
        scores: float64, (D,), falling, 0..1.
        found_class, truth_class: int64, (D,) and (G,), class numbers.
        crowd: bool, (G,): regions with more people than anyone counted.
        iou: float64, (D, G), 0..1; for a crowd region the share of the prediction inside it.
    """

    scores: FloatArray
    found_class: IntArray
    truth_class: IntArray
    crowd: BoolArray
    iou: FloatArray

    @property
    def same_class(self) -> BoolArray:
        """Whether prediction and annotation are of one class: bool, (D, G)."""
        return self.found_class[:, None] == self.truth_class[None, :]


def read_scored(truth_file: str | Path, predictions_file: str | Path, *, masks: bool) -> Scored:
    """Read the ground truth and the predictions of a dataset.

    Args:
        truth_file: COCO json as the evaluator reads it.
        predictions_file: COCO results; a file that is not there holds no predictions.
        masks: whether the model predicts masks.
    """
    coco = json.loads(Path(truth_file).read_text(encoding="utf-8"))
    images, numbers = _images(coco), _class_numbers(coco)
    found = PredictionReader(predictions_file, [image["id"] for image in images], numbers)
    return _scored(coco, found, masks=masks and found.have_masks)


def gather(coco: Mapping[str, Any], predictions: Objects, *, masks: bool) -> Scored:
    """Return what a COCO dict and COCO predictions hold, by image.

    As in pycocotools, what is of no known image or category plays no part.
    """
    found = _by_image(predictions, _images(coco), _class_numbers(coco))
    for one_image in found:
        one_image.sort(key=lambda prediction: -prediction["score"])
    have_masks = all(one.get("segmentation") for one_image in found for one in one_image)
    return _scored(coco, found, masks=masks and have_masks)


def _scored(
    coco: Mapping[str, Any], found: Sequence[list[dict[str, Any]]], *, masks: bool
) -> Scored:
    images = _images(coco)
    truth = _by_image(coco["annotations"], images, _class_numbers(coco))
    return Scored(
        images=images,
        class_names=tuple(str(category["name"]) for category in _categories(coco)),
        truth=truth,
        found=found,
        has_masks=masks
        and all(one.get("segmentation") for one_image in truth for one in one_image),
    )


def _images(coco: Mapping[str, Any]) -> list[dict[str, Any]]:
    unique = {image["id"]: image for image in coco["images"]}
    return sorted(unique.values(), key=lambda image: image["id"])


def _categories(coco: Mapping[str, Any]) -> list[dict[str, Any]]:
    return sorted(coco["categories"], key=lambda category: category["id"])


def _class_numbers(coco: Mapping[str, Any]) -> dict[int, int]:
    return {category["id"]: index for index, category in enumerate(_categories(coco))}


def _by_image(
    objects: Objects, images: Objects, numbers: Mapping[int, int]
) -> list[list[dict[str, Any]]]:
    place = {image["id"]: index for index, image in enumerate(images)}
    sorted_in: list[list[dict[str, Any]]] = [[] for _ in images]
    for one in objects:
        if one["image_id"] in place and one["category_id"] in numbers:
            entry = {**one, "class": numbers[one["category_id"]]}
            sorted_in[place[one["image_id"]]].append(entry)
    return sorted_in


def is_crowd(annotation: Mapping[str, Any]) -> bool:
    """Return whether an annotation is a crowd region: its people are neither counted nor missed."""
    return bool(annotation.get("iscrowd", 0))


def measure_overlaps(scored: Scored, task: str) -> list[Overlaps]:
    """Return the overlaps of every image, in the order of `scored.images`.

    Args:
        scored: the dataset.
        task: "bbox" or "segm".

    Source: `pycocotools.mask.iou`, which the COCO evaluation uses.
    """
    return [
        Overlaps(
            scores=np.array([one["score"] for one in found], np.float64),
            found_class=np.array([one["class"] for one in found], np.int64),
            truth_class=np.array([one["class"] for one in truth], np.int64),
            crowd=np.array([is_crowd(one) for one in truth], np.bool_),
            iou=_iou(found, truth, task, (image["height"], image["width"])),
        )
        for image, truth, found in zip(scored.images, scored.truth, scored.found, strict=True)
    ]


def _iou(found: Objects, truth: Objects, task: str, size: tuple[int, int]) -> FloatArray:
    if not found or not truth:
        return np.zeros((len(found), len(truth)))
    crowd = [int(is_crowd(one)) for one in truth]
    sides: list[Any]
    if task == "bbox":
        sides = [np.array([one["bbox"] for one in side], np.float64) for side in (found, truth)]
    else:
        sides = [[as_rle(one["segmentation"], size) for one in side] for side in (found, truth)]
    return np.asarray(mask_util.iou(*sides, crowd), np.float64).reshape(len(found), len(truth))


def as_rle(segmentation: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Return a COCO segmentation (polygons, or a run-length code) as a compressed code.

    Args:
        segmentation: in pixels of the image.
        size: height and width of the image.
    """
    if isinstance(segmentation, Mapping):
        if isinstance(segmentation["counts"], list):
            return dict(mask_util.frPyObjects(dict(segmentation), *size))
        return dict(segmentation)
    return dict(mask_util.merge(mask_util.frPyObjects(segmentation, *size)))


def match(overlaps: Overlaps, iou: float = 0.5) -> IntArray:
    """Match the predictions of one image to its annotations of the same class.

    The surest prediction chooses first, and takes the annotation that it overlaps most and nobody
    took. One that finds none left and lies in a crowd region is ignored.

    Args:
        overlaps: of one image.
        iou: the least overlap that counts, 0..1.

    Returns: int64, (D,): the number of the annotation, `UNMATCHED`, or `IGNORED`.

    Source: `pycocotools.cocoeval.COCOeval.evaluateImg`, to the choice between equal overlaps.
    """
    partner = np.full(len(overlaps.scores), UNMATCHED, np.int64)
    least = min(iou, 1 - 1e-10)
    candidate = overlaps.same_class & (overlaps.iou >= least)
    free = ~overlaps.crowd
    for row in np.flatnonzero(candidate.any(axis=1)):
        open_to_it = np.flatnonzero(candidate[row] & free)
        if len(open_to_it):
            values = overlaps.iou[row, open_to_it]
            best = open_to_it[len(values) - 1 - int(np.argmax(values[::-1]))]
            partner[row] = best
            free[best] = False
        elif (candidate[row] & overlaps.crowd).any():
            partner[row] = IGNORED
    return partner

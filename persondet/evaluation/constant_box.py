"""What a detector scores that looks at no image: the same box every time.

A score means little without it. Where every image shows one person in the middle, the constant
box finds many of them; a model that does not beat it has learned the photographer's habit.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from detectron2.structures import BoxMode
from pycocotools.coco import COCO

from persondet.evaluation.ground_truth import GroundTruth
from persondet.evaluation.matching import match
from persondet.evaluation.metrics import STANDARD_LIMIT, coco_metrics
from persondet.evaluation.predictions import Detection

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def median_boxes(dicts: Iterable[Mapping[str, Any]]) -> dict[int, tuple[float, np.ndarray]]:
    """Return for each class the share of annotations that are of it, and its median box.

    Args:
        dicts: Detectron2's standard dataset dicts; crowds are left out.

    Returns: contiguous class number → (share, box); the box is float64 (4,), XYXY, each corner
    the median of the annotations' corners, as shares of the image's width and height.
    """
    boxes: dict[int, list[np.ndarray]] = {}
    for record in dicts:
        size = np.array([record["width"], record["height"]] * 2, np.float64)
        for annotation in record.get("annotations", ()):
            if not annotation.get("iscrowd", 0):
                box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
                boxes.setdefault(annotation["category_id"], []).append(np.asarray(box) / size)
    total = sum(len(found) for found in boxes.values())
    return {
        number: (len(found) / total, np.median(found, axis=0))
        for number, found in sorted(boxes.items())
    }


def constant_box_scores(
    training: Iterable[Mapping[str, Any]],
    json_file: str | Path,
    category_ids: Sequence[int],
    *,
    masks: bool,
) -> dict[str, dict[str, float]]:
    """Score the median box of the training annotations, predicted once on every image.

    With several classes each has its own box, scored by its share; the mask is the filled box.

    Args:
        training: standard dicts of the training split.
        json_file: COCO ground truth of the split to score, as `COCOEvaluator` reads it.
        category_ids: the json's category id of each contiguous class.
        masks: score the masks too.

    Returns: `{"bbox": {"AP": …, "AP50": …, …}, "segm": {…}}`, 0 to 100; NaN where no
    annotation has a size. Empty when the training split has no annotation.
    """
    boxes = median_boxes(training)
    if not boxes:
        return {}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints that it reads
        ground_truth = GroundTruth(COCO(str(json_file)))
    images = {image["id"]: image for image in ground_truth.images}

    def read(image_id: int) -> list[Detection]:
        return [
            _prediction(images[image_id], category_ids[number], share, box, masks=masks)
            for number, (share, box) in boxes.items()
        ]

    scores = {}
    for task in ("bbox", "segm") if masks and ground_truth.has_masks else ("bbox",):
        matches = match(ground_truth, read, task, STANDARD_LIMIT)
        metrics = coco_metrics(matches, None)
        scores[task] = {name: metrics[name] for name in METRICS}
    return scores


def _prediction(
    image: Mapping[str, Any], category: int, share: float, box: np.ndarray, *, masks: bool
) -> Detection:
    height, width = image["height"], image["width"]
    x0, y0, x1, y1 = (box * ([width, height] * 2)).tolist()
    mask = None
    if masks:
        outline = [[x0, y0, x1, y0, x1, y1, x0, y1]]
        mask = mask_util.merge(mask_util.frPyObjects(outline, height, width))
    return Detection(image["id"], category, [x0, y0, x1 - x0, y1 - y0], share, mask)

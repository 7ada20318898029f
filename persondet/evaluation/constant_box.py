"""What a detector scores that looks at no picture: the same box every time.

A score means little without it. Where every picture shows one person in the middle, the constant
box finds many of them; a model that does not beat it has learned the photographer's habit.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from detectron2.structures import BoxMode
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

# The first numbers of `COCOeval.stats`, in their order.
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def median_boxes(dicts: Iterable[Mapping[str, Any]]) -> dict[int, tuple[float, np.ndarray]]:
    """Return for each class the share of annotations that are of it, and its median box.

    Args:
        dicts: Detectron2's standard dataset dicts; crowds are left out.

    Returns: contiguous class number → (share, box); the box is float64 (4,), XYXY, each corner
    the median of the annotations' corners, as shares of the picture's width and height.
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
    """Score the median box of the training annotations, predicted once on every picture.

    With several classes each has its own box, scored by its share; the mask is the filled box.

    Args:
        training: standard dicts of the training split.
        json_file: COCO ground truth of the split to score, as `COCOEvaluator` reads it.
        category_ids: the json's category id of each contiguous class.
        masks: score the masks too.

    Returns: `{"bbox": {"AP": …, "AP50": …, …}, "segm": {…}}`, 0 to 100, by pycocotools; NaN where
    the ground truth has no example of a size. Empty when the training split has no annotation.
    """
    boxes = median_boxes(training)
    # pycocotools prints its progress and its table.
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(json_file))
        predictions = [
            _prediction(image, category_ids[number], share, box, masks=masks)
            for image in truth.dataset["images"]
            for number, (share, box) in boxes.items()
        ]
        if not predictions:
            return {}
        detections = truth.loadRes(predictions)
        scores = {}
        for task in ("bbox", "segm") if masks else ("bbox",):
            evaluation = COCOeval(truth, detections, task)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            scores[task] = {
                name: float(value) * 100 if value >= 0 else math.nan
                for name, value in zip(METRICS, evaluation.stats, strict=False)
            }
    return scores


def _prediction(
    image: Mapping[str, Any], category: int, share: float, box: np.ndarray, *, masks: bool
) -> dict[str, Any]:
    size = np.array([image["width"], image["height"]] * 2, np.float64)
    x0, y0, x1, y1 = (box * size).tolist()
    found: dict[str, Any] = {
        "image_id": image["id"],
        "category_id": category,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "score": share,
    }
    if masks:
        outline = [[x0, y0, x1, y0, x1, y1, x0, y1]]
        height, width = image["height"], image["width"]
        found["segmentation"] = mask_util.merge(mask_util.frPyObjects(outline, height, width))
    return found

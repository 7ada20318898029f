"""Random annotations and predictions in COCO's format, and what plain pycocotools makes of them."""

import contextlib
import copy
import io
import math
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from persondet.evaluation.ground_truth import GroundTruth
from persondet.evaluation.matching import match
from persondet.evaluation.metrics import coco_metrics
from persondet.evaluation.predictions import PredictionFile

HEIGHT, WIDTH = 40, 50
Coco = dict[str, Any]
Records = list[dict[str, Any]]


def random_scene(rng, *, images, classes, most):
    """Return ground truth with crowds and empty images, and predictions with ties and many of a
    kind.

    Args:
        most: predictions on an image.
    """
    ids = [2 * number + 1 for number in range(classes)]
    coco = {
        "info": {},
        "images": [
            {"id": 7 * (images - n), "file_name": "", "height": HEIGHT, "width": WIDTH}
            for n in range(images)
        ],
        "categories": [{"id": number, "name": f"class {number}"} for number in ids],
        "annotations": [],
    }
    found = []
    for image in coco["images"]:
        own = [_annotation(rng, image["id"], int(rng.choice(ids))) for _ in range(rng.integers(6))]
        for annotation in own:
            annotation["id"] = len(coco["annotations"]) + 1
            coco["annotations"].append(annotation)
        for _ in range(rng.integers(most + 1)):
            box = _box(rng)
            if own and rng.random() < 0.8:
                box = np.array(own[rng.integers(len(own))]["bbox"])
                box = np.maximum(box + rng.integers(-1, 2, 4) * (rng.random() < 0.6), [0, 0, 1, 1])
            score = float(rng.choice([0.1, 0.3, 0.5, 0.9, rng.random()]))
            found.append(
                {
                    "image_id": image["id"],
                    "category_id": int(rng.choice(ids)),
                    "bbox": box.tolist(),
                    "score": score,
                    "segmentation": _runs(box),
                }
            )
    return coco, found


def perfect(coco):
    """Return a prediction for each annotation that is no crowd: the annotation itself."""
    return [
        {
            "image_id": one["image_id"],
            "category_id": one["category_id"],
            "bbox": one["bbox"],
            "score": 0.5,
            "segmentation": _runs(np.array(one["bbox"])),
        }
        for one in coco["annotations"]
        if not one["iscrowd"]
    ]


def indexed(coco):
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO()
        api.dataset = copy.deepcopy(coco)
        api.createIndex()
    return api


def matches_of(coco, found, task, limit=100):
    """Return our matches, by way of the file of predictions."""
    truth = GroundTruth(indexed(coco))
    with PredictionFile() as file:
        for image_id in {record["image_id"] for record in found}:
            file.add(image_id, [r for r in found if r["image_id"] == image_id])
        return match(truth, file.read, task, limit)


def our_metrics(coco, found, task, limit=100):
    names = [category["name"] for category in coco["categories"]]
    return coco_metrics(matches_of(coco, found, task, limit), names, limit=limit)


def plain_evaluation(coco, found, task, limit=100):
    """Return what `COCOeval` accumulates: `precision`, `recall`; `found` is not empty."""
    records = copy.deepcopy(found)
    if task == "segm":
        sizes = {image["id"]: (image["height"], image["width"]) for image in coco["images"]}
        for record in records:  # as Detectron2 does: sizes are those of the masks
            record.pop("bbox")
            if isinstance(record["segmentation"], list):
                runs = coco_mask.frPyObjects(record["segmentation"], *sizes[record["image_id"]])
                record["segmentation"] = coco_mask.merge(runs)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = indexed(coco)
        plain = COCOeval(truth, truth.loadRes(records), task)
        plain.params.maxDets = [1, 10, 100, *([limit] if limit > 100 else [])]
        plain.evaluate()
        plain.accumulate()
    return dict(plain.eval)


def plain_precision(coco, found, task):
    """Return pycocotools' precision (IoUs, recalls, classes), -1 without ground truth."""
    return np.asarray(plain_evaluation(coco, found, task)["precision"][..., 0, 2])


def plain_metrics(coco, found, task, limit=100):
    """Return our metrics by `pycocotools.cocoeval.COCOeval`; `found` is not empty."""
    evaluation = plain_evaluation(coco, found, task, limit)
    precision, recall = evaluation["precision"], evaluation["recall"]
    metrics = {
        "AP": _mean(precision[..., 0, 2]),
        "AP50": _mean(precision[0, ..., 0, 2]),
        "AP75": _mean(precision[5, ..., 0, 2]),
        "APs": _mean(precision[..., 1, 2]),
        "APm": _mean(precision[..., 2, 2]),
        "APl": _mean(precision[..., 3, 2]),
        "AR": _mean(recall[..., 0, 2]),
    }
    for number, category in enumerate(coco["categories"]):
        metrics[f"AP-{category['name']}"] = _mean(precision[:, :, number, 0, 2])
    if limit > 100:
        metrics[f"AP@{limit}"] = _mean(precision[..., 0, 3])
    return metrics


def _mean(values):
    known = values[values > -1]
    return float(known.mean()) * 100 if known.size else math.nan


def _box(rng):
    size = rng.integers(1, 30, 2)
    corner = rng.integers(0, np.array([WIDTH, HEIGHT]) - size + 1)
    return np.concatenate((corner, size)).astype(float)


def _annotation(rng, image_id, category_id):
    box = _box(rng)
    crowd = rng.random() < 0.2
    x, y, w, h = box.tolist()
    outline = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": box.tolist(),
        # All three sizes, whatever the image's.
        "area": float(w * h * rng.choice([1, 50, 400])),
        "segmentation": _runs(box) if crowd else outline,
        "iscrowd": int(crowd),
    }


def _runs(box):
    x, y, w, h = box.tolist()
    outline = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    runs = coco_mask.merge(coco_mask.frPyObjects(outline, HEIGHT, WIDTH))
    return {"size": [HEIGHT, WIDTH], "counts": runs["counts"].decode()}

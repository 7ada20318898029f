"""Annotations and predictions made of rectangles, and what plain pycocotools makes of them."""

import contextlib
import copy
import io
import math

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from persondet.evaluation.matching import GroundTruth, match
from persondet.evaluation.predictions import PredictionFile


def outline(box):
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def person(box, category=1, *, crowd=0, area=None):
    area = box[2] * box[3] if area is None else area
    known = {"category_id": category, "bbox": list(box), "area": area, "iscrowd": crowd}
    return known | {"segmentation": outline(box)}


def found(box, score, category=1, *, mask=None):
    """A predicted rectangle; `mask`: another one is its mask."""
    known = {"category_id": category, "bbox": list(box), "score": score}
    return known | {"segmentation": outline(mask or box)}


def scene(truth, predictions, *, classes=("person",), size=(200, 100)):
    """A COCO dict and COCO results, one image of `size` (width, height) per list of `truth`."""
    images = [
        {"id": 10 + n, "file_name": f"{n}.jpg", "width": size[0], "height": size[1]}
        for n in range(len(truth))
    ]
    coco = {
        "info": {},
        "images": images[::-1],
        "categories": [{"id": n, "name": name} for n, name in enumerate(classes, start=1)],
        "annotations": [{**a, "image_id": 10 + n} for n, row in enumerate(truth) for a in row],
    }
    for number, annotation in enumerate(coco["annotations"], start=1):
        annotation["id"] = number
    results = [{**one, "image_id": 10 + n} for n, row in enumerate(predictions) for one in row]
    return coco, results


def random_scene(rng, *, images, classes, most):
    truth, predictions = [], []

    def annotated():
        box, category = _box(rng), int(rng.integers(classes)) + 1
        area = float(box[2] * box[3] * rng.choice([1, 50, 400]))  # all sizes, whatever the image's
        return person(box.tolist(), category, crowd=int(rng.random() < 0.2), area=area)

    for _ in range(images):
        own, here = [annotated() for _ in range(rng.integers(6))], []
        for _ in range(rng.integers(most + 1)):
            box = _box(rng)
            if own and rng.random() < 0.8:
                box = np.array(own[rng.integers(len(own))]["bbox"])
                box = np.maximum(box + rng.integers(-1, 2, 4) * (rng.random() < 0.6), [0, 0, 1, 1])
            score = float(rng.choice([0.1, 0.3, 0.5, 0.9, rng.random()]))
            here.append(found(box.tolist(), score, int(rng.integers(classes)) + 1))
        truth.append(own)
        predictions.append(here)
    names = [f"class {number}" for number in range(classes)]
    return scene(truth, predictions, classes=names, size=(50, 40))


def _box(rng):
    size = rng.integers(1, 30, 2)
    corner = rng.integers(0, np.array([50, 40]) - size + 1)
    return np.concatenate((corner, size)).astype(float)


def indexed(coco):
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO()
        api.dataset = copy.deepcopy(coco)
        api.createIndex()
    return api


def reader(results):
    file = PredictionFile()
    for image_id in {record["image_id"] for record in results}:
        file.add(image_id, [r for r in results if r["image_id"] == image_id])
    return file.read


def matches_of(coco, results, task, limit=100):
    return match(GroundTruth(indexed(coco)), reader(results), task, limit)


def plain_evaluation(coco, results, task, limit=100):
    """Return precision (IoUs, recalls, classes, areas, limits) and recall by `COCOeval`."""
    records, truth = copy.deepcopy(results), indexed(coco)
    for record in records if task == "segm" else ():
        del record["bbox"]  # as Detectron2 does: sizes are those of the masks
        image = truth.imgs[record["image_id"]]
        runs = coco_mask.frPyObjects(record["segmentation"], image["height"], image["width"])
        record["segmentation"] = coco_mask.merge(runs)
    with contextlib.redirect_stdout(io.StringIO()):
        plain = COCOeval(truth, truth.loadRes(records), task)
        plain.params.maxDets = [1, 10, 100, *([limit] if limit > 100 else [])]
        plain.evaluate()
        plain.accumulate()
    return plain.eval["precision"], plain.eval["recall"]


def plain_metrics(coco, results, task, limit=100):
    """Return our metrics by plain pycocotools; `results` are not empty."""
    precision, recall = plain_evaluation(coco, results, task, limit)
    parts = {
        "AP": precision[..., 0, 2],
        "AP50": precision[0, ..., 0, 2],
        "AP75": precision[5, ..., 0, 2],
        **{f"AP{size}": precision[..., n, 2] for n, size in enumerate("sml", start=1)},
        "AR": recall[..., 0, 2],
        **{f"AP-{c['name']}": precision[:, :, n, 0, 2] for n, c in enumerate(coco["categories"])},
        **({f"AP@{limit}": precision[..., 0, 3]} if limit > 100 else {}),
    }
    known = {name: values[values > -1] for name, values in parts.items()}
    return {name: float(v.mean()) * 100 if v.size else math.nan for name, v in known.items()}

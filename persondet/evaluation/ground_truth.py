"""The annotations of a dataset beside the predictions on it, image by image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as engine
from pycocotools.coco import COCO

from persondet.errors import DatasetError
from persondet.evaluation.image_matches import Found, Pair, Truth
from persondet.evaluation.predictions import Detection

Read = Callable[[int], Sequence[Detection]]


class CocoTruth:
    """COCO's ground truth, ready to be compared with.

    Annotations of categories that the file does not list are left out, as pycocotools does. Their
    ids play no part, so that an annotation with the id 0, which pycocotools takes for none, counts.

    Args:
        coco: the ground truth.
        image_ids: the images to score; None: all.

    Attributes:
        image_ids: rising.
        category_ids: rising.
        people: number of annotations that are not crowds.
        has_masks: whether the annotations have masks.

    Raises: DatasetError: when some annotations have a mask and others have none.
    """

    def __init__(self, coco: COCO, image_ids: Sequence[int] | None = None) -> None:
        self._images: Mapping[int, Mapping[str, Any]] = coco.imgs
        self.image_ids = sorted(set(coco.imgs if image_ids is None else image_ids))
        self.category_ids = sorted(coco.cats)
        known = set(self.category_ids)
        self._annotations: dict[int, list[dict[str, Any]]] = {
            image_id: [a for a in coco.imgToAnns.get(image_id, ()) if a["category_id"] in known]
            for image_id in self.image_ids
        }
        everything = [a for found in self._annotations.values() for a in found]
        self.people = sum(not a.get("iscrowd", 0) for a in everything)
        without = [a for a in everything if not a.get("segmentation")]
        self.has_masks = not everything or len(without) < len(everything)
        if without and self.has_masks:
            raise DatasetError(
                f"the ground truth: annotation {without[0]['id']} has no mask, and others have one; "
                f"{len(without)} are like it; give each a mask, or none."
            )

    def pairs(self, read: Read, task: str, limit: int) -> Iterator[Pair]:
        """Yield what is there and what was found, by image and class; where nothing is, nothing.

        Args:
            read: returns the predictions on an image.
            task: `bbox` or `segm`.
            limit: how many predictions of a class on an image count, those with the best scores.
        """
        for number, image_id in enumerate(self.image_ids):
            truth: dict[int, list[dict[str, Any]]] = {}
            for annotation in self._annotations[image_id]:
                truth.setdefault(annotation["category_id"], []).append(annotation)
            found: dict[int, list[Detection]] = {}
            for detection in read(image_id):
                found.setdefault(detection.category_id, []).append(detection)
            for category, category_id in enumerate(self.category_ids):
                if category_id in truth or category_id in found:
                    yield Pair(
                        number,
                        category,
                        self._truth(truth.get(category_id, ()), self._images[image_id], task),
                        _found(found.get(category_id, ()), task, limit),
                    )

    def _truth(
        self, annotations: Sequence[dict[str, Any]], image: Mapping[str, Any], task: str
    ) -> Truth:
        if task == "bbox":
            shapes = [annotation["bbox"] for annotation in annotations]
        else:
            size = image["width"], image["height"]
            shapes = [engine.segmToRle(a["segmentation"], *size) for a in annotations]
        return Truth(
            shapes,
            np.array([annotation["area"] for annotation in annotations], np.float64),
            np.array([annotation.get("iscrowd", 0) for annotation in annotations], np.bool_),
        )


def _found(detections: Sequence[Detection], task: str, limit: int) -> Found:
    scores = np.array([detection.score for detection in detections], np.float64)
    order = np.argsort(-scores, kind="mergesort")[:limit]
    kept = [detections[index] for index in order]
    if task == "bbox":
        shapes: list[Any] = [detection.bbox for detection in kept]
        areas = np.array([box[2] * box[3] for box in shapes], np.float64)
    else:
        shapes = [detection.segmentation for detection in kept]
        areas = np.asarray(engine.area(shapes) if shapes else (), np.float64)
    return Found(shapes, areas, scores[order])

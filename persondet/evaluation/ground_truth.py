"""The annotations of a dataset as an evaluation needs them, image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from faster_coco_eval.core import mask as engine
from pycocotools.coco import COCO

from persondet.errors import DatasetError

Annotation = dict[str, Any]


class GroundTruth:
    """COCO's ground truth, ready to be compared with predictions.

    As in pycocotools, annotations of categories that the file does not list play no part. Their
    ids play none either, so an annotation with the id 0, which pycocotools skips, counts.

    Args:
        coco: the ground truth.
        image_ids: the images to score; None: all.

    Attributes:
        images: COCO's records, by rising id.
        category_ids: rising; the place of an id is the number of its class.
        class_names: by class number.
        annotations: one list of COCO annotations per image, crowd regions among them.
        objects: number of annotations that are not crowd regions.
        has_masks: whether the annotations have masks.

    Raises: DatasetError: when some annotations have a mask and others have none.
    """

    def __init__(self, coco: COCO, image_ids: Sequence[int] | None = None) -> None:
        ids = sorted(set(coco.imgs if image_ids is None else image_ids))
        self.images: list[Mapping[str, Any]] = [coco.imgs[image_id] for image_id in ids]
        self.category_ids = sorted(coco.cats)
        self.class_names = tuple(str(coco.cats[i].get("name", i)) for i in self.category_ids)
        self.class_of = {category: number for number, category in enumerate(self.category_ids)}
        self.annotations: list[list[Annotation]] = [
            [a for a in coco.imgToAnns.get(image_id, ()) if a["category_id"] in self.class_of]
            for image_id in ids
        ]
        everything = [a for annotations in self.annotations for a in annotations]
        self.objects = sum(not is_crowd(a) for a in everything)
        without = [a for a in everything if not a.get("segmentation")]
        self.has_masks = not everything or len(without) < len(everything)
        if without and self.has_masks:
            raise DatasetError(
                f"the ground truth: annotation {without[0]['id']} has no mask, and others have "
                f"one; {len(without)} are like it; give each a mask, or none."
            )

    def classes(self, number: int) -> npt.NDArray[np.int64]:
        """Return the class number of each annotation of an image: int64, (G,)."""
        return np.array(
            [self.class_of[a["category_id"]] for a in self.annotations[number]], np.int64
        )

    def crowds(self, number: int) -> npt.NDArray[np.bool_]:
        """Return which annotations of an image are crowd regions: bool, (G,)."""
        return np.array([is_crowd(a) for a in self.annotations[number]], np.bool_)

    def shapes(self, number: int, task: str) -> list[Any]:
        """Return the boxes (XYWH_ABS, pixels) or run-length codes of an image's annotations."""
        if task == "bbox":
            return [a["bbox"] for a in self.annotations[number]]
        size = self.images[number]["width"], self.images[number]["height"]
        return [run_lengths(a["segmentation"], *size) for a in self.annotations[number]]


def is_crowd(annotation: Mapping[str, Any]) -> bool:
    """Return whether an annotation is a crowd region: nobody counts or misses its objects."""
    return bool(annotation.get("iscrowd", 0))


def run_lengths(segmentation: Any, width: int, height: int) -> dict[str, Any]:
    """Return a COCO segmentation (polygons, or a run-length code) as a compressed code.

    Args:
        segmentation: in pixels of the image.
        width, height: of the image.
    """
    if isinstance(segmentation, Mapping) and not isinstance(segmentation["counts"], list):
        return dict(segmentation)
    return dict(engine.segmToRle(segmentation, width, height))

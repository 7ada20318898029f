"""The stock side of the mapper benchmark: Albumentations in Detectron2 as it is usually written.

Detectron2, Albumentations, PyTorch and NumPy only; nothing of this project.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any

import albumentations as A
import numpy as np
import torch
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, polygons_to_bitmask


def resize_and_flip(size: int, max_size: int) -> DatasetMapper:
    """Return Detectron2's own mapper with its own default training augmentation."""
    return DatasetMapper(
        is_train=True,
        augmentations=[T.ResizeShortestEdge([size], max_size, "choice"), T.RandomFlip()],
        image_format="BGR",
        use_instance_mask=True,
        instance_mask_format="polygon",
    )


class RasterisingMapper:
    """Rasterise every polygon, let Albumentations move all the masks, resize, hand out `BitMasks`.

    Args:
        entries: the pipeline as its YAML says it: a list of names or of `{name: arguments}`.
        size: the shorter side of the result, pixels.
        max_size: what its longer side never exceeds, pixels.
        min_visibility: share of its area that a box must keep.
    """

    def __init__(
        self, entries: Sequence[Any], *, size: int, max_size: int, min_visibility: float
    ) -> None:
        self.augmentation = A.Compose(
            [_transform(entry) for entry in entries],
            bbox_params=A.BboxParams(
                "pascal_voc",
                label_fields=["labels"],
                min_visibility=min_visibility,
                min_width=1.0,
                min_height=1.0,
                clip=True,
            ),
        )
        self.resize = T.ResizeShortestEdge([size], max_size, "choice")

    def __call__(self, dataset_dict: dict[str, Any], seed: int) -> dict[str, Any]:
        """Return the sample of a standard dataset dict; its random decisions follow from `seed`."""
        dataset_dict = copy.deepcopy(dataset_dict)
        image = utils.read_image(dataset_dict["file_name"], format="RGB")
        utils.check_image_size(dataset_dict, image)
        height, width = image.shape[:2]
        people = [one for one in dataset_dict.pop("annotations") if not one["iscrowd"]]
        boxes = [BoxMode.convert(one["bbox"], one["bbox_mode"], BoxMode.XYXY_ABS) for one in people]
        masks = [
            polygons_to_bitmask(one["segmentation"], height, width).astype(np.uint8)
            for one in people
        ]
        rng = np.random.default_rng(seed)
        self.augmentation.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        changed = self.augmentation(
            image=image, masks=masks, bboxes=boxes, labels=list(range(len(people)))
        )
        image = np.ascontiguousarray(changed["image"])
        resize = self.resize.get_transform(image)
        image = resize.apply_image(image)
        kept = [int(label) for label in changed["labels"]]
        masks = [resize.apply_segmentation(changed["masks"][label]) for label in kept]
        instances = Instances((image.shape[0], image.shape[1]))
        stacked = np.stack(masks) if masks else np.zeros((0, *image.shape[:2]), np.uint8)
        instances.gt_masks = BitMasks(torch.from_numpy(stacked))
        boxes = resize.apply_box(np.asarray(changed["bboxes"], np.float64).reshape(-1, 4))
        instances.gt_boxes = Boxes(torch.as_tensor(boxes, dtype=torch.float32))
        classes = [people[label]["category_id"] for label in kept]
        instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
        if kept:
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        dataset_dict["instances"] = utils.filter_empty_instances(instances)
        dataset_dict["image"] = torch.as_tensor(
            np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1))
        )
        return dataset_dict


def _transform(entry: Any) -> Any:
    name, arguments = (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))
    arguments = dict(arguments or {})
    if "transforms" in arguments:
        arguments["transforms"] = [_transform(inner) for inner in arguments["transforms"]]
    tuples = {
        key: tuple(value) if isinstance(value, list) and key != "transforms" else value
        for key, value in arguments.items()
    }
    return getattr(A, name)(**tuples)

"""The dataset mapper: from a dataset dict to a training sample.

Only this file touches training pixels."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from typing import Any

import albumentations as A
import cv2
import numpy as np
import numpy.typing as npt
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks, polygons_to_bitmask
from torch.utils.data import get_worker_info

from persondet.data.augmentation import build_augmentation, keeps_straight_lines, without_boxes
from persondet.data.geometry import (
    InstanceShapes,
    Mask,
    Shape,
    bent,
    clipped,
    projected,
    resized_image,
    resized_mask,
    to_channels,
)
from persondet.data.image_file import read_rgb
from persondet.data.shapes import FloatArray, extent, projective_matrix
from persondet.errors import ConfigError

logger = logging.getLogger(__name__)

Seed = int | Sequence[int]


class AlbumentationsDatasetMapper:
    """Reads one image, augments it with Albumentations, and keeps its objects in step.

    The image is read as Detectron2 reads it (EXIF orientation applied), augmented in RGB, resized
    by its shorter side, and handed out in `image_format`. Annotations are changed by the same
    geometry: as polygons while every transform keeps straight lines straight, as rasters otherwise
    and for RLE. With augmentation, boxes are recomputed from what remains visible of the mask.
    Crowd annotations are left out, as Detectron2 does in training.

    Example:
        >>> mapper = AlbumentationsDatasetMapper(augmentation=build_augmentation("street"))
        >>> sample = mapper(DatasetCatalog.get("person_train")[0])
        >>> sample["image"].dtype, len(sample["instances"].gt_boxes) > 0
        (torch.uint8, True)
    """

    @configurable
    def __init__(
        self,
        *,
        augmentation: A.Compose | None = None,
        min_sizes: Sequence[int] = (800,),
        max_size: int = 1333,
        size_sampling: str = "choice",
        image_format: str = "BGR",
        with_annotations: bool = True,
        use_masks: bool = True,
        mask_format: str = "polygon",
        min_visibility: float = 0.0,
        min_box_size: float = 0.0,
        exact_pixels: bool = False,
    ) -> None:
        """Set the mapper up by plain arguments; `AlbumentationsDatasetMapper(cfg)` reads a config.

        Args:
            augmentation: from `build_augmentation`; None: images are only resized.
            min_sizes: short side in pixels; one of them (`size_sampling="choice"`) or any between
                the two (`"range"`) per image; 0 leaves the size alone.
            max_size: the longer side never exceeds this many pixels.
            image_format: `"BGR"` or `"RGB"`, channel order of the result.
            with_annotations: False leaves `instances` out, as for evaluation.
            use_masks: give `gt_masks`.
            mask_format: `"polygon"` gives `PolygonMasks` wherever the geometry allows it,
                `"bitmask"` always `BitMasks`.
            min_visibility: share of its area (of the mask's, where there is one) that an
                annotation must keep.
            min_box_size: pixels that the shorter side of a box must have in the result.
            exact_pixels: resize as Detectron2 does to the bit, see `resized_image`; for evaluation.

        Raises: ConfigError: when a value is none of those.
        """
        if image_format not in ("BGR", "RGB"):
            raise ConfigError(f"INPUT.FORMAT is {image_format!r}; use 'BGR' or 'RGB'.")
        if mask_format not in ("polygon", "bitmask"):
            raise ConfigError(f"INPUT.MASK_FORMAT is {mask_format!r}; use 'polygon' or 'bitmask'.")
        fits = {"choice": len(min_sizes) > 0, "range": len(min_sizes) == 2}
        if not fits.get(size_sampling):
            raise ConfigError(
                f"INPUT.MIN_SIZE_TRAIN_SAMPLING is {size_sampling!r} with sizes "
                f"{tuple(min_sizes)}; use 'choice' with one or more sizes, or 'range' with two."
            )
        self.augmentation = augmentation
        self.straight = augmentation is not None and keeps_straight_lines(augmentation)
        self._pipeline = None if augmentation is None else without_boxes(augmentation)
        self.min_sizes = tuple(min_sizes)
        self.max_size = max_size
        self.size_sampling = size_sampling
        self.image_format = image_format
        self.with_annotations = with_annotations
        self.use_masks = use_masks
        self.mask_format = mask_format
        self.min_visibility = min_visibility
        self.min_box_size = min_box_size
        self.exact_pixels = exact_pixels

    @classmethod
    def from_config(
        cls, cfg: CfgNode, is_train: bool = True, *, with_annotations: bool | None = None
    ) -> dict[str, Any]:
        """Translate a config: training augments and resizes at random, otherwise test size only.

        `with_annotations` defaults to `is_train`; a validation loss takes False and True.
        """
        keys = cfg.INPUT.ALBUMENTATIONS
        arguments: dict[str, Any] = {
            "image_format": cfg.INPUT.FORMAT,
            "use_masks": cfg.MODEL.MASK_ON,
            "mask_format": cfg.INPUT.MASK_FORMAT,
            "with_annotations": is_train if with_annotations is None else with_annotations,
        }
        if not is_train:
            return arguments | {
                "min_sizes": (cfg.INPUT.MIN_SIZE_TEST,),
                "max_size": cfg.INPUT.MAX_SIZE_TEST,
                "exact_pixels": True,
            }
        sizes = cfg.INPUT.MIN_SIZE_TRAIN
        return arguments | {
            "augmentation": build_augmentation(
                keys.PIPELINE, min_visibility=keys.MIN_VISIBILITY, min_box_size=1.0
            ),
            "min_sizes": (sizes,) if isinstance(sizes, int) else tuple(sizes),
            "max_size": cfg.INPUT.MAX_SIZE_TRAIN,
            "size_sampling": cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING,
            "min_visibility": keys.MIN_VISIBILITY,
            "min_box_size": keys.MIN_BOX_SIZE,
        }

    def __call__(self, dataset_dict: dict[str, Any], seed: Seed | None = None) -> dict[str, Any]:
        """Map one standard dataset dict (not modified) to a model input.

        Args:
            dataset_dict: with `file_name`, `height`, `width`, `image_id`, and `annotations`.
            seed: all randomness of this sample follows from it (a number or several); None takes
                it from numpy's global random state.

        Returns:
            `image`: uint8, (3, H, W), in `image_format`; `height`, `width` of the file;
            `image_id`, `file_name`; and, with annotations, `instances` of the transformed image:
            `gt_boxes` (XYXY_ABS), `gt_classes`, and `gt_masks` when masks are used, all three also
            present, and empty, when nobody is in the image.

        Raises: DatasetError: when the image cannot be read or its size is not the json's, or an
            annotation lacks the mask that training needs.
        """
        if get_worker_info() is not None and cv2.getNumThreads() > 1:
            # Workers are the parallelism; OpenCV's threads, forked along, could hang or compete.
            cv2.setNumThreads(0)
        image = read_rgb(dataset_dict)
        if seed is None:
            seed = np.random.randint(2**31)  # noqa: NPY002 - the state that loader workers seed
        rng = np.random.default_rng(seed)
        shapes = None
        if self.with_annotations:
            bends = self.augmentation is not None and not self.straight
            size = (image.shape[0], image.shape[1])
            shapes = InstanceShapes.of(dataset_dict, size, use_masks=self.use_masks, raster=bends)
        if self.augmentation is not None:
            image, shapes = self._augment(image, shapes, rng)
        size = self._output_size(image.shape[0], image.shape[1], rng)
        kept = ("file_name", "height", "width", "image_id")
        sample = {key: dataset_dict[key] for key in kept if key in dataset_dict}
        image = resized_image(image, size, exact=self.exact_pixels)
        sample["image"] = to_channels(image, self.image_format)
        if shapes is not None:
            sample["instances"] = self._instances(shapes, size)
        return sample

    def _augment(
        self, image: npt.NDArray[np.uint8], shapes: InstanceShapes | None, rng: np.random.Generator
    ) -> tuple[npt.NDArray[np.uint8], InstanceShapes | None]:
        assert self._pipeline is not None
        # One stream for all transforms: seeding each alike would make their decisions agree.
        self._pipeline.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        height, width = image.shape[:2]
        inputs: dict[str, Any] = {"image": image}
        if "bboxes" in self._pipeline.processors:
            boxes = np.zeros((0, 4)) if shapes is None else clipped(shapes.boxes, height, width)
            inputs |= {"bboxes": boxes, "instance_indices": np.arange(len(boxes))}
        rasters = [] if shapes is None else shapes.rasters
        if rasters or not self.straight:
            # CropNonEmptyMaskIfExists asks for one even where nobody has any.
            inputs["masks"] = rasters or [np.zeros((height, width), np.uint8)]
        probe = _probe_points(width, height)
        if self.straight:
            inputs["keypoints"] = probe - 0.5  # Albumentations counts from pixel centres
        result = self._pipeline(**inputs)
        image = np.ascontiguousarray(result["image"])
        if shapes is None:
            return image, None
        masks, (height, width) = result.get("masks", []), image.shape[:2]
        if self.straight:
            moved = np.asarray(result["keypoints"], np.float64) + 0.5
            matrix = projective_matrix(probe, moved)
            return image, projected(shapes, matrix, masks, height, width)
        kept = np.asarray(result["instance_indices"]).astype(int)
        return image, bent(shapes, masks, result["bboxes"], kept, (height, width))

    def _output_size(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
        if self.size_sampling == "range":
            size = int(rng.integers(self.min_sizes[0], self.min_sizes[1] + 1))
        else:
            size = self.min_sizes[int(rng.integers(len(self.min_sizes)))]
        if size == 0:
            return height, width
        return ResizeShortestEdge.get_output_shape(height, width, size, self.max_size)

    def _instances(self, shapes: InstanceShapes, size: tuple[int, int]) -> Instances:
        """Resize the shapes to `size` (height, width), and build what models train on.

        Returns: `gt_boxes`, `gt_classes` and, with masks, `gt_masks`: `PolygonMasks` where every
        mask is one and the format is polygon, else `BitMasks` of the final size.
        """
        height, width = size
        scale = np.array([width / shapes.width, height / shapes.height])
        whole_boxes = clipped(shapes.boxes * np.tile(scale, 2), height, width)
        classes: list[int] = []
        boxes: list[FloatArray] = []
        masks: list[Shape] = []
        for index, mask in enumerate(shapes.masks):
            box = whole_boxes[index]
            if mask is not None:
                mask, around = _resized(mask, size, scale)
                if around is None:
                    continue
                box = box if self.augmentation is None else around
            too_small = min(box[2] - box[0], box[3] - box[1]) < max(self.min_box_size, 1e-5)
            if too_small or shapes.visible[index] < self.min_visibility:
                continue
            classes.append(shapes.classes[index])
            boxes.append(box)
            masks.append(mask)
        instances = Instances((height, width))
        instances.gt_boxes = Boxes(torch.from_numpy(np.array(boxes, np.float32).reshape(-1, 4)))
        instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
        polygons = [mask for mask in masks if isinstance(mask, list)]
        if self.use_masks and self.mask_format == "polygon" and len(polygons) == len(masks):
            instances.gt_masks = PolygonMasks(
                [[p.reshape(-1) for p in parts] for parts in polygons]
            )
        elif self.use_masks:
            bits = np.zeros((len(masks), height, width), bool)
            for raster, mask in zip(bits, masks, strict=True):
                if isinstance(mask, list):
                    raster[:] = polygons_to_bitmask([p.reshape(-1) for p in mask], height, width)
                elif mask is not None:
                    raster[:] = mask
            instances.gt_masks = BitMasks(torch.from_numpy(bits))
        return instances


def _probe_points(width: int, height: int) -> FloatArray:
    """Return the centres of the corner pixels, (4, 2); their new places give the whole matrix."""
    left, top, right, bottom = 0.5, 0.5, max(width - 0.5, 1.5), max(height - 0.5, 1.5)
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def _resized(
    mask: list[FloatArray] | Mask, size: tuple[int, int], scale: FloatArray
) -> tuple[Shape, FloatArray | None]:
    """Return a mask in the final image, and the box around it; None when nothing is left."""
    if isinstance(mask, list):
        parts = [part * scale for part in mask]
        return parts, extent(parts) if parts else None
    raster = resized_mask(mask, size)
    x, y, w, h = cv2.boundingRect(raster)
    return raster, np.array([x, y, x + w, y + h], np.float64) if w else None

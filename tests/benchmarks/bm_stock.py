"""The other side of the benchmarks: Detectron2 as its users write it, with nothing of this project.

The startup benchmark runs this file as a script:
`python bm_stock.py CONFIG JSON IMAGES OUTPUT MARKER`. What Detectron2's own train_net does not
import (Albumentations, the visualizer) the functions that need it import themselves.
"""

from __future__ import annotations

import copy
import itertools
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.data.datasets import load_coco_json, register_coco_instances
from detectron2.engine import (
    DefaultPredictor,
    DefaultTrainer,
    SimpleTrainer,
    default_argument_parser,
    default_setup,
    hooks,
    launch,
)
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling import build_model
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.solver import build_optimizer
from detectron2.structures import BitMasks, BoxMode, Instances, polygons_to_bitmask

Predict = Callable[[np.ndarray], dict[str, Any]]


def build_stock_trainer(
    cfg: CfgNode, weights: dict[str, torch.Tensor], batch: list[dict[str, Any]]
) -> SimpleTrainer:
    """Build what Detectron2's `DefaultTrainer` would train with, in float32, on one batch."""
    model = build_model(cfg)
    model.load_state_dict(weights)
    return SimpleTrainer(model, itertools.repeat(batch), build_optimizer(cfg, model))


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

    `entries` is the pipeline as its YAML says it: a list of names or of `{name: arguments}`.
    """

    def __init__(
        self, entries: Sequence[Any], *, size: int, max_size: int, min_visibility: float
    ) -> None:
        import albumentations as A

        keep = {"min_visibility": min_visibility, "min_width": 1.0, "min_height": 1.0, "clip": True}
        boxes = A.BboxParams("pascal_voc", label_fields=["labels"], **keep)
        self.augmentation = A.Compose([_transform(A, e) for e in entries], bbox_params=boxes)
        self.resize = T.ResizeShortestEdge([size], max_size, "choice")

    def __call__(self, dataset_dict: dict[str, Any], seed: int) -> dict[str, Any]:
        """Return the sample of a standard dataset dict; its random decisions follow from `seed`."""
        dataset_dict = copy.deepcopy(dataset_dict)
        image = utils.read_image(dataset_dict["file_name"], format="RGB")
        utils.check_image_size(dataset_dict, image)
        people = [one for one in dataset_dict.pop("annotations") if not one["iscrowd"]]
        boxes = [BoxMode.convert(one["bbox"], one["bbox_mode"], BoxMode.XYXY_ABS) for one in people]
        masks = [
            polygons_to_bitmask(one["segmentation"], *image.shape[:2]).astype(np.uint8)
            for one in people
        ]
        rng = np.random.default_rng(seed)
        self.augmentation.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        labels = list(range(len(people)))
        changed = self.augmentation(image=image, masks=masks, bboxes=boxes, labels=labels)
        image = np.ascontiguousarray(changed["image"])
        resize = self.resize.get_transform(image)
        image = resize.apply_image(image)
        kept = [int(label) for label in changed["labels"]]
        masks = [resize.apply_segmentation(changed["masks"][label]) for label in kept]
        stacked = np.stack(masks) if masks else np.zeros((0, *image.shape[:2]), np.uint8)
        instances = Instances(image.shape[:2])
        instances.gt_masks = BitMasks(torch.from_numpy(stacked))
        instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        classes = [people[label]["category_id"] for label in kept]
        instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
        dataset_dict["instances"] = utils.filter_empty_instances(instances)
        pixels = np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1))
        dataset_dict["image"] = torch.as_tensor(pixels)
        return dataset_dict


def _transform(A: Any, entry: Any) -> Any:
    name, arguments = (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))
    ready = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in (arguments or {}).items()
    }
    if "transforms" in ready:
        ready["transforms"] = [_transform(A, inner) for inner in ready["transforms"]]
    return getattr(A, name)(**ready)


def register(name: str, json_file: str) -> None:
    """Register a COCO json whose images nobody reads."""
    register_coco_instances(name, {}, json_file, "")
    load_coco_json(json_file, "", name)  # the evaluator needs its category ids


def build_stock_evaluator(name: str, output_dir: str) -> COCOEvaluator:
    """Return the evaluator that every Detectron2 training builds, without its optional C++ part."""
    return COCOEvaluator(
        name, ("bbox", "segm"), distributed=False, output_dir=output_dir, use_fast_impl=False
    )


def build_stock_predictor(cfg: CfgNode, score_threshold: float) -> DefaultPredictor:
    """Return Detectron2's predictor, which drops detections below the threshold."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = score_threshold
    return DefaultPredictor(cfg)


def stock_paste(result: Instances) -> Instances:
    """Return a raw result (`pred_masks` (N, 1, 28, 28)) with masks of the whole image."""
    return detector_postprocess(result, *result.image_size)


def stock_draw(visualizer: Any, image: np.ndarray, people: Instances) -> np.ndarray:
    """Return a frame, uint8 (H, W, 3) BGR, with its people drawn in."""
    frame = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    drawn = visualizer.draw_instance_predictions(frame, people.to("cpu"))
    return cv2.cvtColor(drawn.get_image(), cv2.COLOR_RGB2BGR)


def stock_annotate(
    source: str, target: str, predict: Predict, metadata: Any, max_frames: int
) -> list[Instances]:
    """Annotate a clip frame by frame, as Detectron2's demo does; return the people of each frame.

    `target` is an .mp4 of the codec `mp4v`, the best that pip's OpenCV can write.
    """
    from detectron2.utils.video_visualizer import VideoVisualizer

    clip = cv2.VideoCapture(source)
    size = (int(clip.get(cv2.CAP_PROP_FRAME_WIDTH)), int(clip.get(cv2.CAP_PROP_FRAME_HEIGHT)))
    code = cv2.VideoWriter_fourcc(*"mp4v")  # type: ignore[attr-defined]
    writer = cv2.VideoWriter(target, code, clip.get(cv2.CAP_PROP_FPS), size)
    visualizer = VideoVisualizer(metadata)
    found: list[Instances] = []
    while len(found) < max_frames:
        read, image = clip.read()
        if not read:
            break
        found.append(predict(image)["instances"])
        writer.write(stock_draw(visualizer, image, found[-1]))
    clip.release()
    writer.release()
    return found


def train(config: str, output: str, marker: str) -> None:
    """Train as Detectron2's train_net does; write `marker` as soon as the first step is done."""
    cfg = get_cfg()
    cfg.merge_from_file(config)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST, cfg.OUTPUT_DIR = ("startup_train",), (), output
    default_setup(cfg, default_argument_parser().parse_args([]))
    trainer = DefaultTrainer(cfg)
    trainer.resume_or_load(resume=False)
    after = hooks.CallbackHook(after_step=lambda _: Path(marker).write_text("first step\n"))
    trainer.register_hooks([after])
    trainer.train()


if __name__ == "__main__":
    config_file, json_file, images, folder, marker_file = sys.argv[1:]
    register_coco_instances("startup_train", {}, json_file, images)
    launch(train, 1, args=(config_file, folder, marker_file))

"""The other side of the benchmarks: Detectron2 as its users write it, without this project."""

import itertools
import random
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.data.datasets import load_coco_json, register_coco_instances
from detectron2.engine import DefaultPredictor, SimpleTrainer
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.structures import BitMasks, Instances

Predict = Callable[[np.ndarray], dict[str, Any]]


def build_stock_trainer(
    cfg: CfgNode, weights: dict[str, torch.Tensor], batch: list[dict[str, Any]]
) -> SimpleTrainer:
    """Build what Detectron2's `DefaultTrainer` would train with, in float32, on one batch."""
    model = build_model(cfg)
    model.load_state_dict(weights)
    return SimpleTrainer(model, itertools.repeat(batch), build_optimizer(cfg, model))


def resize_and_flip() -> DatasetMapper:
    """Return Detectron2's own mapper with its defaults: resize to 800 pixels, flip, polygons."""
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = True
    return DatasetMapper(cfg)


class RasterisingMapper:
    """Rasterise every polygon, let Albumentations move all the masks, resize, hand out `BitMasks`.

    `augmentation`: an `A.Compose` whose boxes carry their numbers in `instance_indices`.
    """

    def __init__(self, augmentation: Any, *, size: int, max_size: int) -> None:
        self.augmentation = augmentation
        self.resize = T.ResizeShortestEdge([size], max_size, "choice")

    def __call__(self, dataset_dict: dict[str, Any], seed: int) -> dict[str, Any]:
        """Return the sample of a standard dataset dict; its random decisions follow from `seed`."""
        image = utils.read_image(dataset_dict["file_name"], format="RGB")
        utils.check_image_size(dataset_dict, image)
        people = [one for one in dataset_dict["annotations"] if not one["iscrowd"]]
        given = utils.annotations_to_instances(people, image.shape[:2], "bitmask")
        rng = np.random.default_rng(seed)
        self.augmentation.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        changed = self.augmentation(
            image=image,
            masks=[mask.numpy().astype(np.uint8) for mask in given.gt_masks],
            bboxes=given.gt_boxes.tensor.tolist(),
            instance_indices=list(range(len(people))),
        )
        resize = self.resize.get_transform(changed["image"])
        image = resize.apply_image(np.ascontiguousarray(changed["image"]))
        kept = [int(index) for index in changed["instance_indices"]]
        masks = [resize.apply_segmentation(changed["masks"][index]) for index in kept]
        stacked = np.stack(masks) if masks else np.zeros((0, *image.shape[:2]), np.uint8)
        instances = Instances(image.shape[:2], gt_classes=given.gt_classes[kept])
        instances.gt_masks = BitMasks(torch.from_numpy(stacked))
        instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        pixels = torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1)))
        instances = utils.filter_empty_instances(instances)
        return {**dataset_dict, "image": pixels, "instances": instances}


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


def stock_draw(visualizer: Any, image: np.ndarray, people: Instances) -> np.ndarray:
    """Return a frame, uint8 (H, W, 3) BGR, with its people drawn in."""
    frame = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    drawn = visualizer.draw_instance_predictions(frame, people.to("cpu"))
    return cv2.cvtColor(drawn.get_image(), cv2.COLOR_RGB2BGR)


def stock_annotate(
    source: str, target: str, predict: Predict, metadata: Any, max_frames: int
) -> None:
    """Annotate a clip frame by frame, as Detectron2's demo does.

    `target` is an .mp4 of the codec `mp4v`, the best that pip's OpenCV can write.
    """
    from detectron2.utils.video_visualizer import VideoVisualizer

    clip = cv2.VideoCapture(source)
    size = [int(clip.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
    code = cv2.VideoWriter_fourcc(*"mp4v")  # type: ignore[attr-defined]
    writer = cv2.VideoWriter(target, code, clip.get(cv2.CAP_PROP_FPS), size)
    visualizer = VideoVisualizer(metadata)
    for _ in range(max_frames):
        read, image = clip.read()
        if not read:
            break
        writer.write(stock_draw(visualizer, image, predict(image)["instances"]))
    clip.release()
    writer.release()

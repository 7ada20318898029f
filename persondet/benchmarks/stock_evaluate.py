"""The stock side of the evaluation benchmark: Detectron2's own evaluator with pycocotools.

Detectron2 and PyTorch only; nothing of this project.
"""

from __future__ import annotations

from detectron2.data.datasets import load_coco_json, register_coco_instances
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances


def register(name: str, json_file: str) -> None:
    """Register a COCO json of which nobody reads the pictures."""
    register_coco_instances(name, {}, json_file, "")
    load_coco_json(json_file, "", name)  # the evaluator needs its category ids


def build_stock_evaluator(name: str, output_dir: str) -> COCOEvaluator:
    """Return the evaluator that every Detectron2 training builds, without its optional C++ part."""
    return COCOEvaluator(
        name,
        tasks=("bbox", "segm"),
        distributed=False,
        output_dir=output_dir,
        use_fast_impl=False,
    )


def stock_postprocess(result: Instances, height: int, width: int) -> Instances:
    """Paste the masks of a raw result into the whole picture, as `GeneralizedRCNN` does."""
    return detector_postprocess(result, height, width)

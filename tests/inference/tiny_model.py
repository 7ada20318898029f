"""A tiny Mask R-CNN with random weights, saved as a run."""

from pathlib import Path

import torch
from detectron2.config import CfgNode

from persondet.checkpoint import SafeDetectionCheckpointer
from persondet.engine import load_cfg

CONFIG = (
    Path(__file__).resolve().parents[2]
    / "configs/quick_schedules/person_mask_rcnn_R_18_FPN_instant_test.yaml"
)

# Of a ResNet-18 (11 million parameters) the random numbers alone take a quarter of a second.
NARROW = """MODEL.RESNETS.DEPTH 50 MODEL.RESNETS.STEM_OUT_CHANNELS 8
    MODEL.RESNETS.RES2_OUT_CHANNELS 16 MODEL.RESNETS.WIDTH_PER_GROUP 4""".split()


def tiny_cfg(classes: int = 1) -> CfgNode:
    cfg = load_cfg(CONFIG, ["MODEL.DEVICE", "cpu", "SOLVER.AMP.ENABLED", "False", *NARROW])
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = classes
    return cfg


def save_run(folder: Path, model: torch.nn.Module, cfg: CfgNode, name: str = "person") -> Path:
    carried = {"config": cfg.dump(), "class_names": [name]}
    checkpointer = SafeDetectionCheckpointer(model, str(folder), carried=carried)
    checkpointer.save_model("model_best", iteration=1)
    return folder

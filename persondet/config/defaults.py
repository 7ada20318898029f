"""Every config key that persondet adds to Detectron2's, with its default.

`0`, `""` and `()` mean off, or "follows from the rest".
"""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.config import get_cfg as get_detectron2_cfg


def get_cfg() -> CfgNode:
    """Return a fresh config with Detectron2's defaults and ours."""
    cfg = get_detectron2_cfg()
    add_persondet_config(cfg)
    return cfg


def add_persondet_config(cfg: CfgNode) -> None:
    """Add persondet's keys to `cfg`, in place.

    Example:
        >>> cfg = detectron2.config.get_cfg()
        >>> add_persondet_config(cfg)
        >>> cfg.INPUT.ALBUMENTATIONS.PIPELINE
        'street'
    """
    # "cuda" where a GPU can be used, else "cpu"; or any device that torch knows.
    cfg.MODEL.DEVICE = "auto"

    cfg.DATASETS.ROBOFLOW = CfgNode()
    # Export folder with train/, valid/ and test/; empty: $DETECTRON2_DATASETS/<NAME>.
    cfg.DATASETS.ROBOFLOW.ROOT = ""
    # Registers <NAME>_train, <NAME>_valid and <NAME>_test.
    cfg.DATASETS.ROBOFLOW.NAME = "person"
    # Keep these classes, in this order; empty: all but Roboflow's grouping categories.
    # MODEL.ROI_HEADS.NUM_CLASSES follows from it.
    cfg.DATASETS.ROBOFLOW.CLASSES = ()
    # "auto", "polygon", "bitmask", "box" (fill the box), or "none".
    cfg.DATASETS.ROBOFLOW.MASKS = "auto"
    # Datasets for the validation loss, the periodic AP and the choice of the best model. Empty:
    # the export's valid split. DATASETS.TEST is read for the final number only.
    cfg.DATASETS.VAL = ()

    cfg.INPUT.ALBUMENTATIONS = CfgNode()
    # A name in configs/augmentations/, a YAML file, or "none".
    cfg.INPUT.ALBUMENTATIONS.PIPELINE = "street"
    # A box that keeps less than this share of its area is dropped, with its mask.
    cfg.INPUT.ALBUMENTATIONS.MIN_VISIBILITY = 0.2
    # A box whose shorter side is below this many pixels is dropped, with its mask.
    cfg.INPUT.ALBUMENTATIONS.MIN_BOX_SIZE = 2.0

    cfg.MODEL.FREEZE = CfgNode()
    # Modules to freeze beside MODEL.BACKBONE.FREEZE_AT, by name or shell pattern,
    # e.g. ("proposal_generator", "backbone.fpn_*").
    cfg.MODEL.FREEZE.MODULES = ()
    cfg.MODEL.TIMM = CfgNode()
    # The timm model that MODEL.BACKBONE.NAME "build_timm_fpn_backbone" builds, with or without the
    # tag of its weights, e.g. "tf_efficientnet_lite0". MODEL.WEIGHTS "timm://<name>" are its
    # weights; INPUT.FORMAT, MODEL.PIXEL_MEAN and MODEL.PIXEL_STD must be those it learnt with.
    cfg.MODEL.TIMM.NAME = ""
    # Its batch norm: "FrozenBN" keeps statistics and weights, "BN" trains them. FREEZE_AT freezes
    # that of its stages in any case.
    cfg.MODEL.TIMM.NORM = "FrozenBN"
    # Convolutions in channels-last memory format: faster on CPUs and on tensor cores.
    cfg.MODEL.CHANNELS_LAST = True

    # Passes over the training images; sets MAX_ITER, STEPS, WARMUP_ITERS, the evaluations and the
    # checkpoints from the size of the dataset. 0: those keys as they are.
    cfg.SOLVER.EPOCHS = 0
    # BASE_LR is meant for so many images a step; with another IMS_PER_BATCH the rate is scaled in
    # proportion (Goyal et al., 2017). 0: BASE_LR as it is.
    cfg.SOLVER.REFERENCE_IMS_PER_BATCH = 0
    # "SGD" or "AdamW".
    cfg.SOLVER.OPTIMIZER = "SGD"
    # Learning rate of the backbone relative to the heads.
    cfg.SOLVER.BACKBONE_LR_FACTOR = 1.0
    # Mixed precision is on, in the type that DTYPE says.
    cfg.SOLVER.AMP.ENABLED = True
    # "float32", "bfloat16", "float16", or "auto": what the device does best.
    cfg.SOLVER.AMP.DTYPE = "auto"
    cfg.SOLVER.BEST_CHECKPOINT = CfgNode()
    # What makes a model the best on the validation split; "auto": segm/AP with masks, else bbox/AP.
    cfg.SOLVER.BEST_CHECKPOINT.METRIC = "auto"
    # "max" or "min".
    cfg.SOLVER.BEST_CHECKPOINT.MODE = "max"
    cfg.SOLVER.EARLY_STOPPING = CfgNode()
    # Stop after so many evaluations without improvement of BEST_CHECKPOINT.METRIC; 0: never.
    cfg.SOLVER.EARLY_STOPPING.PATIENCE = 0
    # What counts as improvement, in points of AP.
    cfg.SOLVER.EARLY_STOPPING.MIN_DELTA = 0.1
    # How many of the newest periodic checkpoints stay; best and final are never removed.
    cfg.SOLVER.CHECKPOINT_KEEP = 3

    # Iterations between evaluations on the validation split (Detectron2's key; its default is off).
    cfg.TEST.EVAL_PERIOD = 500
    cfg.TEST.VAL_LOSS = CfgNode()
    # Follow loss and accuracy on the validation split, as often as the AP.
    cfg.TEST.VAL_LOSS.ENABLED = True
    # 0: every validation image; n: the first n times SOLVER.IMS_PER_BATCH, on any number of ranks.
    cfg.TEST.VAL_LOSS.MAX_BATCHES = 0
    # Seeds the proposal samplers, so that the same weights give the same loss twice.
    cfg.TEST.VAL_LOSS.SEED = 0

    # Columns and rows of overlapping tiles that the detector sees beside the whole image, as in
    # (2, 2): finds small people on wide shots, at the price of a forward pass per tile. (): off.
    cfg.TEST.TILES = ()

    # Iterations between rows of the event log (metrics.json, TensorBoard, the printed line).
    cfg.LOG_PERIOD = 20

    cfg.VISUALIZATION = CfgNode()
    # Detections below this score are not drawn; 0: the threshold in the checkpoint, else 0.5.
    cfg.VISUALIZATION.SCORE_THRESH = 0.0

    cfg.VIDEO = CfgNode()
    # Frames per forward pass; 0: chosen by device.
    cfg.VIDEO.BATCH_SIZE = 0
    # Annotate every n-th frame.
    cfg.VIDEO.STRIDE = 1

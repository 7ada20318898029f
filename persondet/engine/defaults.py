"""The one road from the command line to a checked, frozen config and registered data."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

from persondet.checkpoint.model_file import check_weights
from persondet.config import check_cfg, get_cfg, merge_opts, merge_yaml
from persondet.data.findings import CODES
from persondet.data.register import (
    RoboflowDatasets,
    epoch_size,
    is_registered,
    register_roboflow_coco,
)
from persondet.engine.console import start_logging, stop_logging
from persondet.engine.run_folder import refuse_used_folder
from persondet.errors import ConfigError, DatasetError, PersondetError
from persondet.files import make_folder, write_text
from persondet.modeling.backbones import check_backbone
from persondet.modeling.precision import resolve_device
from persondet.solver.schedule import resolve_schedule

if TYPE_CHECKING:
    import argparse

logger = logging.getLogger(__name__)


def load_cfg(config_file: str | Path = "", opts: Sequence[str] = ()) -> CfgNode:
    """Return the config of a YAML file and overrides, checked; nothing is registered or frozen.

    Raises: ConfigError: in one sentence, when a file, key or value cannot be used.
    """
    cfg = get_cfg()
    if config_file:
        merge_yaml(cfg, config_file)
    merge_opts(cfg, opts)
    check_cfg(cfg)
    check_device(cfg)
    return cfg


def setup(args: argparse.Namespace) -> CfgNode:
    """Merge and check the config, register the datasets, prepare the run folder, seed, freeze.

    Every rank of a run calls this: the catalogs live in each process.

    Args:
        args: with `config_file` and `opts`; `eval_only`, `resume` and `overwrite` where the
            command has them.

    Returns: the frozen config; `DATASETS.*`, `MODEL.ROI_HEADS.NUM_CLASSES`, `INPUT.MASK_FORMAT`
    and `MODEL.DEVICE` are filled in. What was asked for is in `OUTPUT_DIR/config.yaml`.

    Raises: PersondetError: in one sentence; the run folder is as it was, but for `log.txt`.

    Example:
        >>> opts = ["DATASETS.ROBOFLOW.ROOT", "datasets/person", "OUTPUT_DIR", "output/setup"]
        >>> config = "configs/sample_mask_rcnn_R_18_FPN.yaml"
        >>> cfg = setup(Namespace(config_file=config, opts=opts, quiet=True))
        >>> cfg.DATASETS.TRAIN, cfg.MODEL.ROI_HEADS.NUM_CLASSES
        (('person_train',), 1)
    """
    cfg = load_cfg(args.config_file, args.opts)
    training = not getattr(args, "eval_only", False)
    resume = getattr(args, "resume", False)
    # Everything that can be refused is refused before the run folder is touched.
    check_export(cfg)
    check_backbone(cfg)
    overwrite = getattr(args, "overwrite", False)
    if training:
        refuse_used_folder(cfg.OUTPUT_DIR, resume=resume, overwrite=overwrite)
    if cfg.MODEL.WEIGHTS and not resume:
        check_weights(cfg.MODEL.WEIGHTS, cfg)
    verbosity = int(getattr(args, "verbose", False)) - int(getattr(args, "quiet", False))
    with _nothing_left_by_a_refusal(cfg.OUTPUT_DIR):
        start_logging(cfg.OUTPUT_DIR, verbosity=verbosity, rank=comm.get_rank())
        datasets = register_datasets(cfg)
        if training and not cfg.DATASETS.TRAIN:
            missing = CODES["train-missing"]
            raise DatasetError(
                f"{export_root(cfg)}: {missing.meaning}; use --eval-only, or divide it with "
                f"tools/prepare_dataset.py {missing.remedy}."
            )
        if training and datasets is not None and not datasets.annotation_counts.get("train", 1):
            raise DatasetError(
                f"{export_root(cfg)}: the train split has no annotation that can be used, so there "
                "is nothing to learn; see tools/prepare_dataset.py check."
            )
    if training:
        schedule = resolve_schedule(cfg, epoch_size(cfg))
        for sentence in schedule.warnings:
            logger.warning(sentence)
        for sentence in schedule.facts:
            logger.info(sentence)
    if comm.is_main_process() and not Path(cfg.OUTPUT_DIR, "config.yaml").exists():
        write_text(Path(cfg.OUTPUT_DIR) / "config.yaml", config_text(cfg))
    if training and not cfg.DATASETS.VAL:
        logger.warning(
            "No validation split: no validation loss and AP, and the best model is the last."
        )
    cfg.MODEL.DEVICE = resolve_device(cfg.MODEL.DEVICE)
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + comm.get_rank())
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    cfg.freeze()
    return cfg


@contextmanager
def _nothing_left_by_a_refusal(output_dir: str) -> Iterator[None]:
    """Make the run folder, and remove it when the block raises and it was not there before."""
    existed = Path(output_dir).exists()
    comm.synchronize()  # no rank makes what another one has yet to look at
    make_folder(output_dir)
    try:
        yield
    except PersondetError:
        stop_logging()
        if not existed and comm.is_main_process():
            shutil.rmtree(output_dir, ignore_errors=True)
        raise


def config_text(cfg: CfgNode) -> str:
    """Return the config as YAML for another machine: the device that `auto` chose is `auto`."""
    cfg = cfg.clone()
    cfg.defrost()
    if resolve_device("auto") == cfg.MODEL.DEVICE:
        cfg.MODEL.DEVICE = "auto"
    return str(cfg.dump())


def export_root(cfg: CfgNode) -> Path:
    """Return the export folder: `DATASETS.ROBOFLOW.ROOT`, or the default below the datasets."""
    if cfg.DATASETS.ROBOFLOW.ROOT:
        return Path(cfg.DATASETS.ROBOFLOW.ROOT).expanduser()
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets")) / cfg.DATASETS.ROBOFLOW.NAME


def check_export(cfg: CfgNode) -> None:
    """Refuse an export folder that is not there, where the config needs one.

    Raises: DatasetError: naming the folder and the key to set.
    """
    if uses_export(cfg) and not export_root(cfg).is_dir():
        raise DatasetError(
            f"{export_root(cfg)}: there is no such export folder; set DATASETS.ROBOFLOW.ROOT to a "
            "Roboflow COCO export with train/, valid/ and test/."
        )


def register_datasets(cfg: CfgNode) -> RoboflowDatasets | None:
    """Register the export, and fill in the keys that follow from it, in place.

    Raises: DatasetError: when the export cannot be used. ConfigError: when the config asks for
    masks that the export does not have.
    """
    if not uses_export(cfg):
        return None
    keys = cfg.DATASETS.ROBOFLOW
    datasets = register_roboflow_coco(
        keys.NAME,
        export_root(cfg),
        classes=tuple(keys.CLASSES),
        masks=keys.MASKS,
        output_dir=cfg.OUTPUT_DIR,
    )
    for key, split in (("TRAIN", "train"), ("VAL", "valid"), ("TEST", "test")):
        if not cfg.DATASETS[key] and split in datasets.names:
            cfg.DATASETS[key] = (datasets.names[split],)
    _check_registered(cfg, datasets)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(datasets.classes)
    cfg.MODEL.RETINANET.NUM_CLASSES = len(datasets.classes)
    if cfg.MODEL.MASK_ON and not datasets.has_masks:
        raise ConfigError(
            f"{export_root(cfg)}: has boxes and no masks, and MODEL.MASK_ON is True; use "
            "configs/person_faster_rcnn_R_50_FPN.yaml, or set DATASETS.ROBOFLOW.MASKS to box to "
            "fill the boxes."
        )
    if datasets.mask_format:
        cfg.INPUT.MASK_FORMAT = datasets.mask_format
    return datasets


def check_device(cfg: CfgNode) -> None:
    """Refuse a GPU that is not there.

    Raises: ConfigError: naming the key.
    """
    if cfg.MODEL.DEVICE == "auto":
        return
    try:
        device = torch.device(cfg.MODEL.DEVICE)
        found = device.type != "cuda" or (device.index or 0) < torch.cuda.device_count()
    except RuntimeError:
        found = False
    if not found:
        raise ConfigError(
            f"config: MODEL.DEVICE is {cfg.MODEL.DEVICE!r}, and torch finds no such device on this "
            "machine; use 'auto', 'cpu' or 'cuda'."
        )


def uses_export(cfg: CfgNode) -> bool:
    """Return whether a dataset of the config comes from the export, not from elsewhere."""
    named = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.VAL, *cfg.DATASETS.TEST)
    ours = f"{cfg.DATASETS.ROBOFLOW.NAME}_"
    return bool(
        cfg.DATASETS.ROBOFLOW.ROOT or not named or any(name.startswith(ours) for name in named)
    )


def _check_registered(cfg: CfgNode, datasets: RoboflowDatasets) -> None:
    ours = f"{cfg.DATASETS.ROBOFLOW.NAME}_"
    known = set(datasets.names.values())
    for key in ("TRAIN", "VAL", "TEST"):
        for name in cfg.DATASETS[key]:
            if not is_registered(name) or (name.startswith(ours) and name not in known):
                raise DatasetError(
                    f"{export_root(cfg)}: DATASETS.{key} names {name}, and the export has only "
                    f"{', '.join(sorted(known))}; name one of them, or () for the export's own."
                )

"""The stock side of the startup benchmark: a training as Detectron2's own train_net starts it.

Detectron2 and the standard library only. It is run as a script:
`python stock_startup.py CONFIG JSON IMAGES OUTPUT MARKER`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.data.datasets import register_coco_instances
from detectron2.engine import (
    DefaultTrainer,
    default_argument_parser,
    default_setup,
    hooks,
    launch,
)
from detectron2.evaluation import COCOEvaluator, verify_results
from detectron2.utils import comm


class Trainer(DefaultTrainer):
    """Detectron2's trainer with its evaluator of COCO scores."""

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None
    ) -> COCOEvaluator:
        """Return the evaluator of a dataset."""
        return COCOEvaluator(dataset_name, output_dir=output_folder or cfg.OUTPUT_DIR)


def setup(args: Any) -> CfgNode:
    """Return the config, after Detectron2's own preparations."""
    cfg = get_cfg()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    default_setup(cfg, args)
    return cfg


def main(args: Any, marker: str) -> Any:
    """Train, or evaluate alone; write `marker` as soon as the first step is done."""
    cfg = setup(args)
    if args.eval_only:
        model = Trainer.build_model(cfg)
        checkpointer = DetectionCheckpointer(model, save_dir=cfg.OUTPUT_DIR)
        checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
        scores = Trainer.test(cfg, model)
        if comm.is_main_process():
            verify_results(cfg, scores)
        return scores
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    trainer.register_hooks([hooks.CallbackHook(after_step=lambda _: _mark(marker))])
    return trainer.train()


def _mark(marker: str) -> None:
    Path(marker).write_text("first step\n", encoding="utf-8")


if __name__ == "__main__":
    config, json_file, images, output, marker_file = sys.argv[1:]
    register_coco_instances("startup_train", {}, json_file, images)
    arguments = default_argument_parser().parse_args(
        ["--config-file", config]
        + ["DATASETS.TRAIN", "('startup_train',)", "DATASETS.TEST", "()", "OUTPUT_DIR", output]
    )
    launch(
        main,
        arguments.num_gpus,
        num_machines=arguments.num_machines,
        machine_rank=arguments.machine_rank,
        dist_url=arguments.dist_url,
        args=(arguments, marker_file),
    )

"""The trainer: which parts work together, and in which order the hooks run. Wiring only."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase, TrainerBase, create_ddp_model, hooks
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import build_model
from detectron2.utils import comm
from torch import nn

from persondet.checkpoint import SafeDetectionCheckpointer
from persondet.data.build import (
    build_test_loader,
    build_train_loader,
    build_validation_loss_loader,
)
from persondet.data.register import class_names
from persondet.engine.defaults import config_text
from persondet.engine.hooks import BestCheckpointHook, EventWriterHook, ValidationLossHook
from persondet.engine.train_step import AutocastTrainer
from persondet.errors import ConfigError, PersondetError
from persondet.evaluation import build_evaluator, evaluate
from persondet.files import write_text
from persondet.modeling.freeze import freeze_from_cfg, parameter_table
from persondet.modeling.precision import (
    autocast,
    keep_boxes_exact,
    resolve_dtype,
    set_memory_format,
)
from persondet.solver.build import build_optimizer

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """`DefaultTrainer` with Albumentations, layer freezing, and an eye on the validation split.

    Validation loss, validation AP and the best model come from `DATASETS.VAL`; `DATASETS.TEST` is
    read by `test` alone, which nothing calls during training.

    Args:
        cfg: from `persondet.engine.setup`.
    """

    def __init__(self, cfg: CfgNode) -> None:
        # DefaultTrainer's constructor builds its own step and checkpointer; ours take their place.
        TrainerBase.__init__(self)
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        self.cfg = cfg
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        self._trainer = AutocastTrainer(
            create_ddp_model(model, broadcast_buffers=False),
            data_loader,
            optimizer,
            dtype=resolve_dtype(cfg),
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = SafeDetectionCheckpointer(
            model,
            cfg.OUTPUT_DIR,
            carried={
                "config": config_text(cfg),
                "class_names": list(class_names(cfg.DATASETS.TRAIN[0])),
            },
            trainer=weakref.proxy(self),
        )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        table = parameter_table(model)
        logger.info("Parameters:\n%s", table)
        if comm.is_main_process():
            write_text(Path(cfg.OUTPUT_DIR) / "parameters.txt", table + "\n")
        logger.info("Computing in %s on %s", resolve_dtype(cfg), cfg.MODEL.DEVICE)
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[HookBase | None]:
        """Return the hooks in their order, which matters.

        Timing and rate first; validation before the writers, so that its numbers are in the row;
        the periodic checkpoint before the evaluation, so that a failing evaluation costs nothing;
        the best model after the evaluation that chooses it.
        """
        cfg = self.cfg
        period = cfg.TEST.EVAL_PERIOD
        validated: list[HookBase] = []
        if cfg.DATASETS.VAL:
            if cfg.TEST.VAL_LOSS.ENABLED:
                validated.append(self._validation_loss_hook())
            validated.append(hooks.EvalHook(period, self._evaluate_validation))
        saved: list[HookBase] = []
        last: list[HookBase] = []
        if comm.is_main_process():
            saved.append(
                hooks.PeriodicCheckpointer(
                    self.checkpointer,
                    cfg.SOLVER.CHECKPOINT_PERIOD,
                    max_to_keep=cfg.SOLVER.CHECKPOINT_KEEP,
                )
            )
            if cfg.DATASETS.VAL:
                last.append(
                    BestCheckpointHook(
                        self.checkpointer,
                        metric=best_metric(cfg),
                        mode=cfg.SOLVER.BEST_CHECKPOINT.MODE,
                        period=period,
                        datasets=tuple(cfg.DATASETS.VAL),
                    )
                )
            last.append(EventWriterHook(self.build_writers, cfg.LOG_PERIOD, period))
        return [hooks.IterationTimer(), hooks.LRScheduler(), *saved, *validated, *last]

    def train(self) -> None:
        """Train; what a person can mend stops it with one sentence and no traceback.

        Raises: ConfigError: when the loss is no longer finite. DatasetError: when an image cannot
        be read.
        """
        log = logging.getLogger("detectron2.engine.train_loop")
        log.addFilter(_without_mendable)
        try:
            super().train()
        except FloatingPointError as error:
            raise ConfigError(
                f"training diverged at iteration {self.iter}: the loss is not finite; lower "
                f"SOLVER.BASE_LR ({self.cfg.SOLVER.BASE_LR} now), or start from trained weights."
            ) from error
        finally:
            log.removeFilter(_without_mendable)

    def _validation_loss_hook(self) -> ValidationLossHook:
        cfg = self.cfg
        return ValidationLossHook(
            {name: partial(build_validation_loss_loader, cfg, name) for name in cfg.DATASETS.VAL},
            period=cfg.TEST.EVAL_PERIOD,
            max_batches=cfg.TEST.VAL_LOSS.MAX_BATCHES,
            seed=cfg.TEST.VAL_LOSS.SEED,
            autocast=lambda: autocast(cfg),
        )

    def _evaluate_validation(self) -> dict[str, Any]:
        results = evaluate(self.cfg, self.model, self.cfg.DATASETS.VAL, self.build_test_loader)
        self._last_eval_results = results
        return results

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Build the model, freeze what the config names, and set its memory format."""
        model = keep_boxes_exact(freeze_from_cfg(cfg, build_model(cfg)))
        return set_memory_format(cfg, model)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """Build `SOLVER.OPTIMIZER` over the trainable parameters."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Iterable[list[dict[str, Any]]]:
        """Build the loader of `DATASETS.TRAIN` with the Albumentations mapper."""
        return build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable[list[dict[str, Any]]]:
        """Build the loader of a dataset for inference."""
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """Build the COCO evaluator of a dataset."""
        return build_evaluator(cfg, dataset_name)

    @classmethod
    def test(
        cls, cfg: CfgNode, model: nn.Module, evaluators: list[DatasetEvaluator] | None = None
    ) -> dict[str, Any]:
        """Evaluate `model` on `DATASETS.TEST`; see `persondet.evaluation.evaluate`.

        Args:
            evaluators: instead of ours, one for each dataset.
        """
        if evaluators is not None:
            return super().test(cfg, model, evaluators)
        return evaluate(cfg, model, cfg.DATASETS.TEST, cls.build_test_loader)


def _without_mendable(record: logging.LogRecord) -> bool:
    # Detectron2 logs a traceback of whatever ends the loop; the sentence is printed by the tool.
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, PersondetError | FloatingPointError)


def best_metric(cfg: CfgNode) -> str:
    """Return the scalar that chooses the best model: `segm/AP` with masks, else `bbox/AP`."""
    if cfg.SOLVER.BEST_CHECKPOINT.METRIC != "auto":
        return cfg.SOLVER.BEST_CHECKPOINT.METRIC
    return "segm/AP" if cfg.MODEL.MASK_ON else "bbox/AP"

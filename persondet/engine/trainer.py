"""The trainer: which parts work together, and in which order the hooks run. Wiring only."""

from __future__ import annotations

import inspect
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
from detectron2.utils.events import EventWriter
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from persondet.checkpoint import SafeDetectionCheckpointer
from persondet.data.loaders import (
    TrainLoader,
    build_test_loader,
    build_train_loader,
    build_validation_loss_loader,
)
from persondet.data.register import class_names, epoch_size
from persondet.engine.console import current_console, event_writers
from persondet.engine.defaults import config_text
from persondet.engine.hooks import (
    BestCheckpointHook,
    EarlyStoppingHook,
    EventWriterHook,
    PeriodicCheckpointHook,
    ProgressHook,
    StopTraining,
    best_metric,
)
from persondet.engine.launch import is_lost_peer
from persondet.engine.resumption import Interruption, RunState, restore_log
from persondet.engine.train_step import AutocastTrainer, memory_in_one_sentence, memory_shortage
from persondet.engine.validation import ValidationImagesHook, ValidationLossHook, undisturbed
from persondet.errors import InterruptedRun, PersondetError, TrainingError
from persondet.evaluation import build_evaluator, evaluate
from persondet.files import write_json, write_text
from persondet.modeling import freeze
from persondet.modeling.cpu import accelerate
from persondet.modeling.precision import autocast, resolve_dtype, set_memory_format
from persondet.solver.optimizer import build_optimizer, settings_of

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """`DefaultTrainer` with Albumentations, layer freezing, and an eye on the validation split.

    Validation loss, validation AP and the best model come from `DATASETS.VAL`; `DATASETS.TEST` is
    read by `test` alone, which nothing calls during training.

    Args:
        cfg: from `persondet.engine.setup`.

    Example:
        >>> trainer = Trainer(cfg)
        >>> trainer.resume_or_load(resume=False)
        >>> results = trainer.train()
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
            data_parallel(model), data_loader, optimizer, dtype=resolve_dtype(cfg)
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
        self.run_state = RunState(cfg, data_loader.seed)
        self.interruption = Interruption()
        table = freeze.parameter_table(model, optimizer)
        logger.info("Parameters:\n%s", table)
        if comm.is_main_process():
            tables = f"{table}\n\n{freeze.tensor_table(model, optimizer)}\n"
            write_text(Path(cfg.OUTPUT_DIR) / "parameters.txt", tables)
            parts = freeze.parameter_records(model, optimizer)
            write_json(Path(cfg.OUTPUT_DIR) / "parameters.json", {"schema": 1, "parts": parts})
        logger.info("Computing in %s on %s", resolve_dtype(cfg), cfg.MODEL.DEVICE)
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[HookBase | None]:
        """Return the hooks in their order, which matters.

        Timing and rate first; validation before the writers, so that its numbers are in the row;
        the best model after the evaluation that chooses it. The periodic checkpoint goes before an
        evaluation, which may fail: what comes after it is what a resume begins with
        (`before_train`).
        """
        cfg, is_main = self.cfg, comm.is_main_process()
        period = cfg.TEST.EVAL_PERIOD
        self._checkpoints = PeriodicCheckpointHook(
            self.checkpointer,
            period=cfg.SOLVER.CHECKPOINT_PERIOD,
            keep=cfg.SOLVER.CHECKPOINT_KEEP,
            run_state=lambda: self.run_state.state_dict(self.storage),
            interruption=self.interruption,
        )
        built = [hooks.IterationTimer(), hooks.LRScheduler(), self._checkpoints]
        if cfg.DATASETS.VAL:
            score = {
                "metric": best_metric(cfg),
                "mode": cfg.SOLVER.BEST_CHECKPOINT.MODE,
                "period": period,
                "datasets": tuple(cfg.DATASETS.VAL),
            }
            if cfg.TEST.VAL_LOSS.ENABLED:
                built.append(self._validation_loss_hook())
            built.append(hooks.EvalHook(period, self._evaluate_validation))
            if is_main:
                built += [
                    ValidationImagesHook(cfg),
                    BestCheckpointHook(self.checkpointer, **score),
                ]
            stopping = cfg.SOLVER.EARLY_STOPPING
            if stopping.PATIENCE:
                patience = {"patience": stopping.PATIENCE, "min_delta": stopping.MIN_DELTA}
                built.append(EarlyStoppingHook(**patience, **score))
        if is_main:
            progress = ProgressHook(
                cfg.LOG_PERIOD,
                batch_size=cfg.SOLVER.IMS_PER_BATCH,
                epoch_size=epoch_size(cfg),
                console=current_console(),
            )
            built += [progress, EventWriterHook(self.build_writers, cfg.LOG_PERIOD, period)]
        return built

    def resume_or_load(self, resume: bool = True) -> None:
        """Go on from the newest whole checkpoint in `OUTPUT_DIR`, else start from `MODEL.WEIGHTS`.

        Raises: CheckpointError: when no checkpoint there can be loaded, or when it belongs to other
        classes or other data.
        """
        give_settings_back = settings_of(self.optimizer, self.scheduler)
        rest = self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        path = self.checkpointer.resumed_from
        if path is None:
            if resume:
                logger.warning("%s: nothing to resume; a new run starts.", self.cfg.OUTPUT_DIR)
            report, model = self.checkpointer.key_report, self.checkpointer.model
            if warning := freeze.frozen_at_random(model, report.fitting if report else ()):
                logger.warning(warning)
            return
        give_settings_back()
        self.start_iter = self.iter + 1
        self.run_state.take_up(rest, str(path), self.checkpointer.facts.config)
        if self.run_state.seed != self._trainer.data_loader.seed:
            build = partial(build_train_loader, self.cfg, seed=self.run_state.seed)
            self._trainer.reset_data_loader(build)
        self._trainer.data_loader.start_at(self.start_iter)

    def before_train(self) -> None:
        """Take up the log and the random states of a resumed run, and finish its last step."""
        restore_log(self.storage, self.run_state.resumed.get("log", {}))
        super().before_train()
        self.run_state.restore_random_state()
        if self.run_state.redo:
            self.iter = self.storage.iter = self.start_iter - 1
            for hook in self._hooks[self._hooks.index(self._checkpoints) + 1 :]:
                hook.after_step()

    def train(self) -> None:
        """Train; what a person can mend stops it with one sentence and no traceback.

        Raises: TrainingError: when a loss is not finite, memory is short, or no object reached the
        model. DatasetError: when an image cannot be read. InterruptedRun: on Ctrl-C or SIGTERM,
        with a checkpoint saved.
        """
        log = logging.getLogger("detectron2.engine.train_loop")
        log.addFilter(_without_mendable)
        try:
            with self.interruption, memory_in_one_sentence(self.cfg, training=True):
                super().train()
        except StopTraining:
            # The steps that are done are the whole run from here on, with its last checkpoint.
            self.max_iter, self.iter = self.iter, self.iter - 1
            self._checkpoints.save("model_final", step_is_complete=True)
        except FloatingPointError as error:
            # The step speaks for itself; this is the forward pass on validation images.
            raise TrainingError(
                f"training diverged at iteration {self.iter}: the boxes that it predicts on the "
                f"validation images are NaN; lower SOLVER.BASE_LR ({self.cfg.SOLVER.BASE_LR} now)."
            ) from error
        finally:
            log.removeFilter(_without_mendable)
        objects = comm.all_gather(self._trainer.data_loader.objects)  # None: nobody counted
        if 0 in objects and not any(objects):
            raise TrainingError(
                "no object reached the model in the whole training, so it learned none; look at "
                "INPUT.ALBUMENTATIONS (MIN_VISIBILITY, MIN_BOX_SIZE, crops) and the train split's "
                "annotations (`python tools/prepare_dataset.py check`)."
            )
        if self.interruption.agreed():
            raise InterruptedRun(
                "interrupted when the training had ended, before its model is scored"
            )

    def _validation_loss_hook(self) -> ValidationLossHook:
        cfg = self.cfg
        return ValidationLossHook(
            {name: partial(build_validation_loss_loader, cfg, name) for name in cfg.DATASETS.VAL},
            period=cfg.TEST.EVAL_PERIOD,
            seed=cfg.TEST.VAL_LOSS.SEED,
            autocast=lambda: autocast(cfg),
        )

    def build_writers(self) -> list[EventWriter]:
        """Return the writers of files; the printed line is `ProgressHook`'s."""
        return event_writers(self.cfg.OUTPUT_DIR, start=self.start_iter - self.run_state.redo)

    def _evaluate_validation(self) -> dict[str, Any]:
        with undisturbed(self.model) as model:
            names, loader = self.cfg.DATASETS.VAL, self.build_test_loader
            results = evaluate(self.cfg, model, names, loader, intervals=False)
        self._last_eval_results = results
        return results

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Build the model, freeze what the config names, and set its memory format."""
        model = freeze.freeze_from_cfg(cfg, build_model(cfg))
        if not cfg.MODEL.WEIGHTS:
            freeze.normalise_random_backbone(model)
        model = accelerate(model)
        return set_memory_format(cfg, model)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """Build `SOLVER.OPTIMIZER` over the trainable parameters."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> TrainLoader:
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
    known = isinstance(error, PersondetError | FloatingPointError | StopTraining)
    return not known and memory_shortage(error) is None and not is_lost_peer(error)


def data_parallel(model: nn.Module) -> nn.Module:
    """Let `model` average its gradients over all ranks; one rank alone keeps it as it is.

    Detectron2's `create_ddp_model` hands each rank its GPU; on the CPU there is none to hand out.
    Batch-norm statistics stay each rank's own, as in Detectron2.
    """
    if comm.get_world_size() == 1:
        return model
    # PyTorch has renamed it, and warns of the old name.
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    on_gpu = next(model.parameters()).is_cuda
    devices = {} if on_gpu else {"device_ids": None}
    return create_ddp_model(model, **{name: False}, **devices)

"""Loss and accuracy on the validation split, beside the training ones."""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn

logger = logging.getLogger(__name__)

# What Detectron2's heads write into the event storage during a training-mode pass and a reader
# compares between the splits.
ACCURACIES = (
    "fast_rcnn/cls_accuracy",
    "fast_rcnn/fg_cls_accuracy",
    "fast_rcnn/false_negative",
    "mask_rcnn/accuracy",
    "mask_rcnn/false_positive",
    "mask_rcnn/false_negative",
)
_BATCH_NORM = nn.modules.batchnorm._BatchNorm


class ValidationLossHook(HookBase):
    """Compute `val/total_loss`, `val/loss_*` and the `val/` accuracies every `period` iterations.

    Args:
        loaders: dataset name → a callable that returns training-style batches (with "instances")
            of the whole split, in a fixed order and without augmentation.
        period: iterations between passes; the last iteration always gets one. 0: that one alone.
        max_batches: 0: every batch.
        seed: seeds the samplers of proposals, so that the same weights give the same loss twice.
        autocast: returns the context of the forward pass.

    With one dataset the scalars are `val/x`; with several, `val/<dataset>/x`.
    """

    def __init__(
        self,
        loaders: Mapping[str, Callable[[], Iterable[list[dict[str, Any]]]]],
        *,
        period: int,
        max_batches: int = 0,
        seed: int = 0,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self._loaders = dict(loaders)
        self._period = period
        self._max_batches = max_batches
        self._seed = seed
        self._autocast = autocast

    def after_step(self) -> None:
        """Run when a period ends; the last iteration is left to `after_train`."""
        step = self.trainer.iter + 1
        if self._period > 0 and step % self._period == 0 and step != self.trainer.max_iter:
            self._run()

    def after_train(self) -> None:
        """Run once more when training came to its end."""
        if self.trainer.iter >= self.trainer.max_iter:
            self._run()

    def _run(self) -> None:
        for name, build_loader in self._loaders.items():
            batches: Iterable[list[dict[str, Any]]] = build_loader()
            if self._max_batches:
                batches = itertools.islice(batches, self._max_batches)
            scalars = validation_scalars(
                self.trainer.model, batches, seed=self._seed, autocast=self._autocast
            )
            prefix = "val/" if len(self._loaders) == 1 else f"val/{name}/"
            self.trainer.storage.put_scalars(
                smoothing_hint=False, **{prefix + key: value for key, value in scalars.items()}
            )
            if "total_loss" in scalars:
                logger.info("Validation loss on %s: %.4f", name, scalars["total_loss"])
        comm.synchronize()


def validation_scalars(
    model: nn.Module,
    batches: Iterable[list[dict[str, Any]]],
    *,
    seed: int = 0,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> dict[str, float]:
    """Return the mean losses and accuracies of `model` over `batches`, weighted by images.

    The model, its batch-norm statistics, the live event storage and every random state are left
    as they were. Over several ranks the mean is taken over all of their images.

    Args:
        model: a Detectron2 model that returns a dict of losses in training mode.
        batches: lists of dicts as a training mapper returns them, with "instances".
        seed: the samplers of proposals are seeded anew with it for each batch.
        autocast: returns the context of the forward pass.

    Returns: scalars by name, with `total_loss`; empty when there are no images.
    """
    sums: dict[str, float] = defaultdict(float)
    weights: dict[str, float] = defaultdict(float)
    with _training_mode_without_traces(model), EventStorage() as private:
        for number, batch in enumerate(batches):
            torch.manual_seed(seed + number)
            private.iter = number
            with torch.no_grad(), autocast():
                losses = model(batch)
            values = {name: float(loss) for name, loss in losses.items()}
            values["total_loss"] = sum(values.values())
            latest = private.latest()
            values |= {
                name: latest[name][0]
                for name in ACCURACIES
                if name in latest and latest[name][1] == number
            }
            for name, value in values.items():
                sums[name] += value * len(batch)
                weights[name] += len(batch)
    return _mean_over_ranks(sums, weights)


def _mean_over_ranks(sums: dict[str, float], weights: dict[str, float]) -> dict[str, float]:
    gathered = comm.all_gather((dict(sums), dict(weights)))
    names = dict.fromkeys(name for part, _ in gathered for name in part)
    return {
        name: sum(part.get(name, 0.0) for part, _ in gathered)
        / sum(part.get(name, 0.0) for _, part in gathered)
        for name in names
    }


@contextmanager
def _training_mode_without_traces(model: nn.Module) -> Iterator[None]:
    # Losses exist in training mode only, and training-mode batch norm would learn from the
    # validation images: its layers alone go to eval mode.
    modes = {module: module.training for module in model.modules()}
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    try:
        model.train()
        for module in modes:
            if isinstance(module, _BATCH_NORM):
                module.eval()
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode

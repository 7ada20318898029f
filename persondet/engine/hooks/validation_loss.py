"""Loss and accuracy on the validation split, beside the training ones."""

from __future__ import annotations

import itertools
import logging
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn

from persondet.engine.undisturbed import BATCH_NORM, undisturbed

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


class ValidationLossHook(HookBase):
    """Compute `val/total_loss`, `val/loss_*` and the `val/` accuracies every `period` iterations.

    Args:
        loaders: dataset name → a callable that returns training-style batches (with "instances")
            of the whole split, in a fixed order and without augmentation.
        period: iterations between passes; the last iteration always gets one. 0: that one alone.
        max_batches: 0: every batch; else how many of each rank.
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
            with undisturbed(self.trainer.model) as model:
                batches: Iterable[list[dict[str, Any]]] = build_loader()
                if self._max_batches:
                    batches = itertools.islice(batches, self._max_batches)
                scalars = validation_scalars(
                    model, batches, seed=self._seed, autocast=self._autocast
                )
            # NaN is not JSON, and no point of a curve.
            finite = {key: value for key, value in scalars.items() if math.isfinite(value)}
            prefix = "val/" if len(self._loaders) == 1 else f"val/{name}/"
            self.trainer.storage.put_scalars(
                smoothing_hint=False, **{prefix + key: value for key, value in finite.items()}
            )
            if not scalars:
                logger.warning("%s has no image: there is no validation loss.", name)
            elif "total_loss" in finite:
                logger.info("Validation loss on %s: %.4f", name, finite["total_loss"])
        comm.synchronize()


def validation_scalars(
    model: nn.Module,
    batches: Iterable[list[dict[str, Any]]],
    *,
    seed: int = 0,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> dict[str, float]:
    """Return the mean over all images of the losses and accuracies of `model`.

    Each image is a batch of its own, and its samplers of proposals are seeded by `seed` and its
    `image_id`: Detectron2 normalises a loss over its batch, so that any other way the number would
    depend on the batch size and on the number of ranks. Over several ranks the mean is that of all
    of their images, to the bit whoever had which.

    The model, its batch-norm statistics, the live event storage and every random state are left
    as they were.

    Args:
        model: a Detectron2 model that returns a dict of losses in training mode.
        batches: lists of dicts as a training mapper returns them, with "instances"; this rank's
            share of the images, which may be empty. How they are grouped plays no part.
        seed: seeds the samplers of proposals.
        autocast: returns the context of the forward pass.

    Returns: scalars by name, with `total_loss`; an accuracy is the mean over the images that have
    one. Empty when no rank has an image.
    """
    found: dict[str, list[float]] = {}
    with undisturbed(model) as inner, EventStorage() as private:
        _training_mode_but_batch_norm(inner)
        for number, image in enumerate(itertools.chain.from_iterable(batches)):
            torch.manual_seed(zlib.crc32(f"{seed}/{image.get('image_id', number)}".encode()))
            private.iter = number
            with torch.no_grad(), autocast():
                losses = inner([image])
            for name, value in _scalars(losses, private):
                found.setdefault(name, []).append(value)
                if not math.isfinite(value):
                    where = image.get("file_name", f"image {number}")
                    logger.warning("Validation: %s is %s on %s.", name, value, where)
    return _mean_over_ranks(found)


def _scalars(losses: dict[str, torch.Tensor], private: EventStorage) -> Iterator[tuple[str, float]]:
    values = {name: float(loss) for name, loss in losses.items()}
    yield from values.items()
    yield "total_loss", sum(values.values())
    latest = private.latest()
    for name in ACCURACIES:
        if name in latest and latest[name][1] == private.iter:
            yield name, float(latest[name][0])


def _mean_over_ranks(found: dict[str, list[float]]) -> dict[str, float]:
    gathered = comm.all_gather(found)
    means = {}
    for name in dict.fromkeys(name for part in gathered for name in part):
        values = [value for part in gathered for value in part.get(name, ())]
        # fsum is exact: neither the order of the images nor their ranks can be told from it.
        exact = all(map(math.isfinite, values))
        means[name] = math.fsum(values) / len(values) if exact else math.nan
    return means


def _training_mode_but_batch_norm(model: nn.Module) -> None:
    # Losses exist in training mode only, and training-mode batch norm would learn from the
    # validation images: its layers alone go to eval mode.
    model.train()
    for module in model.modules():
        if isinstance(module, BATCH_NORM):
            module.eval()

"""The validation split during training: loss and accuracy, images for TensorBoard.

`undisturbed` lets a hook run the model in the middle of training without leaving a trace.
"""

from __future__ import annotations

import itertools
import logging
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from persondet.data.image_file import read_image_file
from persondet.data.register import class_names, ground_truth
from persondet.engine.hooks import PeriodHook
from persondet.engine.resumption import random_states_kept
from persondet.errors import PersondetError
from persondet.evaluation.predictions import FILE_NAME, Detection, read_predictions
from persondet.results import DEFAULT_THRESHOLD
from persondet.visualization.sheets import Shown, draw_side_by_side, evenly_spaced

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


@dataclass(eq=False)
class ValidationLossHook(PeriodHook):
    """Compute `val/total_loss`, `val/loss_*` and the `val/` accuracies every `period` iterations.

    Args:
        loaders: dataset name → a callable that returns training-style batches (with "instances")
            of the whole split, in a fixed order and without augmentation.
        seed: seeds the samplers of proposals, so that the same weights give the same loss twice.
        autocast: returns the context of the forward pass.

    `period` is that of `PeriodHook`: the last iteration always gets a pass. With one dataset the
    scalars are `val/x`; with several, `val/<dataset>/x`.

    Example:
        >>> mapper, records = AlbumentationsDatasetMapper(), DatasetCatalog.get("person_valid")
        >>> loaders = {"person_valid": lambda: ([mapper(record)] for record in records)}
        >>> trainer.register_hooks([ValidationLossHook(loaders, period=500)])
    """

    loaders: Mapping[str, Callable[[], Iterable[list[dict[str, Any]]]]]
    _: KW_ONLY
    seed: int = 0
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    def at_period(self, iteration: int) -> None:
        """Put the losses and accuracies into the event storage; all ranks call this."""
        for name, build_loader in self.loaders.items():
            with undisturbed(self.trainer.model) as model:
                scalars = validation_scalars(
                    model, build_loader(), seed=self.seed, autocast=self.autocast
                )
            # NaN is not JSON, and no point of a curve.
            finite = {key: value for key, value in scalars.items() if math.isfinite(value)}
            prefix = "val/" if len(self.loaders) == 1 else f"val/{name}/"
            self.trainer.storage.put_scalars(
                smoothing_hint=False, **{prefix + key: value for key, value in finite.items()}
            )
            logger.info("Validation loss on %s: %.4f", name, finite.get("total_loss", math.nan))
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
        # Losses exist in training mode only, and training-mode batch norm would learn from the
        # validation images: its layers alone go to eval mode.
        inner.train()
        for module in inner.modules():
            if isinstance(module, BATCH_NORM):
                module.eval()
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


TAG = "val/pictures"
IMAGES_SHOWN = 4
PANEL = (308, 308)  # pixels of a side; the event file grows by every image of every evaluation


class ValidationImagesHook(PeriodHook):
    """Put the same few validation images into the event storage after each evaluation.

    Annotated on the left, found on the right. What was found is read from the file that the
    evaluator has just written: there is no second forward pass, no draw of a random number, and no
    scalar. Its place is between the evaluation and the writers, on the main process.

    Args:
        cfg: the images are of the first validation set; below `VISUALIZATION.SCORE_THRESH` (0 to 1)
            nothing is drawn.
    """

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__(period=cfg.TEST.EVAL_PERIOD)
        name = cfg.DATASETS.VAL[0]
        everything = get_detection_dataset_dicts((name,), filter_empty=False)
        annotated = [record for record in everything if record.get("annotations")]
        self._records = evenly_spaced(annotated or everything, IMAGES_SHOWN)
        self._predictions = Path(cfg.OUTPUT_DIR) / "inference" / name / FILE_NAME
        self._threshold = cfg.VISUALIZATION.SCORE_THRESH or DEFAULT_THRESHOLD
        self._class_names = class_names(name)
        self._numbers = {category: n for n, category in enumerate(ground_truth(name)[1])}

    def at_period(self, iteration: int) -> None:
        """Put the images into the event storage."""
        try:
            found = read_predictions(self._predictions, (r["image_id"] for r in self._records))
            for number, record in enumerate(self._records, start=1):
                image = self._draw(record, found[record["image_id"]])
                rgb = np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1))
                self.trainer.storage.put_image(f"{TAG}/{number}", rgb)
        except (PersondetError, OSError, ValueError, KeyError, cv2.error) as error:
            # They are for looking at; no training ends for want of them.
            logger.warning("There are no validation images of this evaluation: %s", error)

    def _draw(self, record: Mapping[str, Any], detections: Sequence[Detection]) -> np.ndarray:
        """Return an image twice, side by side: uint8, (H, W, 3), BGR."""
        image = read_image_file(record["file_name"])
        annotated = [
            Shown.of(one, self._class_names[one["category_id"]])
            for one in record.get("annotations", ())
        ]
        shown = [
            Shown.of(
                msgspec.structs.asdict(one),
                f"{self._class_names[self._numbers[one.category_id]]} {one.score:.0%}",
            )
            for one in sorted(detections, key=lambda one: one.score)
            if one.score >= self._threshold
        ]
        return draw_side_by_side(image, annotated, shown, panel=PANEL)


# Learns from what it sees in training mode.
BATCH_NORM = nn.modules.batchnorm._BatchNorm


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[nn.Module]:
    """Give back every random state, and each module's training or eval mode, when the block ends.

    A data loader draws its workers' seed from torch's random state when it is iterated, and
    Detectron2's `inference_context` puts modules that were in eval mode into training mode: either
    would make a training with validation differ from one without. The random states are those of
    Python, numpy, torch on the CPU, and torch on the model's GPUs.

    The ranks look at one model: batch-norm statistics, which each rank gathers by itself, are those
    of rank 0 inside the block.

    Yields: the model that `DistributedDataParallel` wraps, or `model` itself: ranks may have
    different numbers of images to look at, so no pass here may wait for another rank.
    """
    modes = {module: module.training for module in model.modules()}
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    own_statistics = _take_statistics_of_rank_0(inner) if inner is not model else {}
    try:
        with random_states_kept(), torch.random.fork_rng(devices=devices):
            yield inner
    finally:
        for buffer, own in own_statistics.items():
            buffer.copy_(own)
        for module, mode in modes.items():
            module.training = mode


def _take_statistics_of_rank_0(model: nn.Module) -> dict[torch.Tensor, torch.Tensor]:
    """Overwrite the statistics of `model`'s batch norm by rank 0's, and return what they were."""
    own: dict[torch.Tensor, torch.Tensor] = {}
    for module in model.modules():
        if isinstance(module, BATCH_NORM):
            for buffer in module.buffers(recurse=False):
                own[buffer] = buffer.clone()
                dist.broadcast(buffer, src=0)
    return own

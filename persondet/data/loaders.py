"""The data loaders for training, evaluation and the validation loss.

Training reads an endless stream of batches. A resumed run enters it at any batch."""

from __future__ import annotations

import itertools
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, get_detection_dataset_dicts
from detectron2.data.build import trivial_batch_collator
from detectron2.data.samplers import (
    InferenceSampler,
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from persondet.data.dataset_mapper import AlbumentationsDatasetMapper
from persondet.errors import ConfigError, DatasetError


class SeededSamples(Dataset[dict[str, Any]]):
    """Mapped samples whose randomness follows from (seed, position in the stream) alone.

    Neither the number of loader workers nor what was loaded before changes a sample.
    """

    def __init__(
        self, dicts: Dataset[dict[str, Any]], mapper: AlbumentationsDatasetMapper, seed: int
    ) -> None:
        """Map the standard dicts of `dicts` by `mapper`."""
        self.dicts = dicts
        self.mapper = mapper
        self.seed = seed

    def __getitem__(self, where: StreamIndex) -> dict[str, Any]:
        """Return the sample of dataset index `where[1]` at stream position `where[0]`."""
        position, index = where
        return self.mapper(self.dicts[index], seed=(self.seed, position))


class TrainLoader(DataLoader[dict[str, Any]]):
    """The endless training loader; see `build_train_loader`.

    Attributes:
        seed: what the order and every sample follow from, together with the position.
    """

    def __init__(self, samples: SeededSamples, batches: StreamBatches, **options: Any) -> None:
        """Load the `batches` of `samples`; `options` are those of torch's `DataLoader`."""
        super().__init__(samples, batch_sampler=batches, **options)
        self.seed = samples.seed
        self._batches = batches

    def start_at(self, batch: int) -> None:
        """Begin the next iteration at this batch of the stream (on this rank), not at the first."""
        self._batches.start = batch


def build_train_loader(cfg: CfgNode, *, seed: int | None = None) -> TrainLoader:
    """Build the endless training loader of `cfg.DATASETS.TRAIN`.

    Batches are lists of model inputs (see `AlbumentationsDatasetMapper`), `SOLVER.IMS_PER_BATCH`
    over all ranks. With `SEED` >= 0 the order and every sample follow from it, whatever
    `DATALOADER.NUM_WORKERS` is.

    Args:
        cfg: the config.
        seed: instead of `SEED`; a resumed run that began with a random one goes on with that.

    Raises:
        DatasetError: when no training image is left.
        ConfigError: when the batch cannot be shared by the ranks, or the sampler is not supported.
    """
    world_size = comm.get_world_size()
    batch_size = cfg.SOLVER.IMS_PER_BATCH
    if batch_size < 1 or batch_size % world_size:
        raise ConfigError(
            f"SOLVER.IMS_PER_BATCH is {batch_size}, which {world_size} processes cannot share; "
            f"use a multiple of {world_size}."
        )
    dicts = _dataset_dicts(cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS)
    if seed is None:
        seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    stream = PositionSampler(
        _training_sampler(cfg, dicts, seed), rank=comm.get_rank(), world_size=world_size
    )
    grouping = cfg.DATALOADER.ASPECT_RATIO_GROUPING
    batches = StreamBatches(
        stream,
        batch_size // world_size,
        is_wide=[record["width"] > record["height"] for record in dicts] if grouping else None,
    )
    samples = SeededSamples(
        DatasetFromList(dicts, copy=False), AlbumentationsDatasetMapper(cfg, is_train=True), seed
    )
    return TrainLoader(samples, batches, **_loading(cfg, persistent=True))


def build_test_loader(
    cfg: CfgNode, dataset_name: str, *, batch_size: int = 1
) -> DataLoader[dict[str, Any]]:
    """Build the evaluation loader: every image once, at test size, without annotations.

    The inputs equal those of Detectron2's own test loader; an unreadable image is a `DatasetError`
    that names it. Ranks share the images.
    """
    mapper = AlbumentationsDatasetMapper(cfg, is_train=False)
    return _sequential_loader(cfg, dataset_name, mapper, batch_size)


def build_validation_loss_loader(cfg: CfgNode, dataset_name: str) -> DataLoader[dict[str, Any]]:
    """Build the loader of the validation loss: inputs as in training, but nothing random.

    Every image once and in order (those without annotations included), at test size, without
    augmentation, with `instances`; `SOLVER.IMS_PER_BATCH` images a batch over all ranks, which
    share the images. The last batch may be smaller. With `TEST.VAL_LOSS.MAX_BATCHES` the first so
    many times `SOLVER.IMS_PER_BATCH` images, whatever the number of ranks.
    """
    mapper = AlbumentationsDatasetMapper(cfg, is_train=False, with_annotations=True)
    batch_size = max(1, cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size())
    most = cfg.TEST.VAL_LOSS.MAX_BATCHES * cfg.SOLVER.IMS_PER_BATCH or None
    return _sequential_loader(cfg, dataset_name, mapper, batch_size, most=most)


def _sequential_loader(
    cfg: CfgNode,
    dataset_name: str,
    mapper: AlbumentationsDatasetMapper,
    batch_size: int,
    *,
    most: int | None = None,
) -> DataLoader[dict[str, Any]]:
    dicts = _dataset_dicts((dataset_name,), filter_empty=False)[:most]
    return DataLoader(
        _Unseeded(DatasetFromList(dicts, copy=False), mapper),
        batch_size=batch_size,
        sampler=InferenceSampler(len(dicts)),
        **_loading(cfg, persistent=False),
    )


def _loading(cfg: CfgNode, *, persistent: bool) -> dict[str, Any]:
    """Return the options of `DataLoader` that say how, and not what, is loaded."""
    on_gpu = cfg.MODEL.DEVICE.startswith("cuda")
    workers = cfg.DATALOADER.NUM_WORKERS
    return {
        "num_workers": workers,
        "collate_fn": trivial_batch_collator,
        "worker_init_fn": _leave_interrupts_to_the_trainer,
        "persistent_workers": persistent and workers > 0,
        # In a process that was spawned, as ranks are, the default is to spawn: each worker would
        # import PyTorch anew.
        "multiprocessing_context": "fork" if workers and sys.platform == "linux" else None,
        # A GPU that waits costs more than the memory of a few batches.
        "prefetch_factor": (4 if on_gpu else 2) if workers else None,
        "pin_memory": on_gpu,
        # A loader draws a seed when it is iterated. From a generator of its own: the model's
        # random numbers shall not depend on how often something is loaded.
        "generator": torch.Generator().manual_seed(0),
    }


def _leave_interrupts_to_the_trainer(_: int) -> None:
    # Ctrl-C reaches every process of the terminal; the trainer still wants its batch.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Unseeded(Dataset[dict[str, Any]]):
    """Mapped samples in which nothing is random."""

    def __init__(self, dicts: Dataset[dict[str, Any]], mapper: AlbumentationsDatasetMapper) -> None:
        self.dicts = dicts
        self.mapper = mapper

    def __len__(self) -> int:
        return len(self.dicts)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.mapper(self.dicts[index], seed=0)


def _dataset_dicts(names: tuple[str, ...], *, filter_empty: bool) -> list[dict[str, Any]]:
    if not names:
        raise ConfigError("DATASETS.TRAIN is empty; set DATASETS.ROBOFLOW.ROOT to an export.")
    try:
        dicts = get_detection_dataset_dicts(tuple(names), filter_empty=filter_empty)
    except AssertionError as error:
        raise DatasetError(
            f"{', '.join(names)}: no image with annotations is left ({error}); check the classes, "
            "or set DATALOADER.FILTER_EMPTY_ANNOTATIONS to False."
        ) from None
    return list(dicts)


def _training_sampler(cfg: CfgNode, dicts: list[dict[str, Any]], seed: int) -> Sampler[int]:
    name = cfg.DATALOADER.SAMPLER_TRAIN
    if name == "TrainingSampler":
        return TrainingSampler(len(dicts), seed=seed)
    if name == "RepeatFactorTrainingSampler":
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            dicts, cfg.DATALOADER.REPEAT_THRESHOLD
        )
        return RepeatFactorTrainingSampler(factors, seed=seed)
    if name == "RandomSubsetTrainingSampler":
        ratio = cfg.DATALOADER.RANDOM_SUBSET_RATIO
        subset_seed = int(np.random.default_rng(seed).integers(2**31))
        return RandomSubsetTrainingSampler(
            len(dicts), ratio, seed_shuffle=seed, seed_subset=subset_seed
        )
    raise ConfigError(
        f"DATALOADER.SAMPLER_TRAIN is {name!r}; use TrainingSampler, RepeatFactorTrainingSampler "
        "or RandomSubsetTrainingSampler."
    )


StreamIndex = tuple[int, int]


class PositionSampler(Sampler[StreamIndex]):
    """Number the indices of a training sampler by their position in the stream of all ranks."""

    def __init__(self, sampler: Sampler[int], *, rank: int = 0, world_size: int = 1) -> None:
        """Wrap `sampler`, which yields every `world_size`-th index of the stream, from `rank`."""
        self.sampler = sampler
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[StreamIndex]:
        """Yield (position in the stream, index into the dataset)."""
        positions = itertools.count(self.rank, self.world_size)
        return zip(positions, (int(index) for index in self.sampler), strict=False)


class StreamBatches(Sampler[list[StreamIndex]]):
    """Batches of a stream, the same from any start on.

    What a batch holds is decided by the sizes in the dataset, before any image is read. To begin
    at batch k is to count the first k batches and drop them, which takes microseconds each.

    Attributes:
        start: the number of the first batch that an iteration yields.
    """

    def __init__(
        self, stream: PositionSampler, batch_size: int, *, is_wide: Sequence[bool] | None = None
    ) -> None:
        """Divide `stream` into batches of `batch_size`.

        Args:
            stream: yields (position, dataset index); the batches of this rank.
            batch_size: images per batch.
            is_wide: for each dataset index whether the image is wider than high; a batch then
                holds images of one kind, in the order in which Detectron2's
                `AspectRatioGroupedDataset` completes them. None: one after the other.
        """
        self.stream = stream
        self.batch_size = batch_size
        self.is_wide = is_wide
        self.start = 0

    def __iter__(self) -> Iterator[list[StreamIndex]]:
        """Yield batches of (position in the stream, index into the dataset)."""
        return itertools.islice(self._batches(), self.start, None)

    def _batches(self) -> Iterator[list[StreamIndex]]:
        waiting: tuple[list[StreamIndex], list[StreamIndex]] = ([], [])
        for where in self.stream:
            kind = waiting[self.is_wide is not None and self.is_wide[where[1]]]
            kind.append(where)
            if len(kind) == self.batch_size:
                batch = kind[:]
                kind.clear()
                yield batch

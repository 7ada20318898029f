"""Loaders: training, evaluation, and the validation loss."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetFromList,
    build_detection_test_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.build import build_batch_data_loader
from detectron2.data.common import ToIterableDataset
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


def build_train_loader(cfg: CfgNode) -> DataLoader[list[dict[str, Any]]]:
    """Build the endless training loader of `cfg.DATASETS.TRAIN`.

    Batches are lists of model inputs (see `AlbumentationsDatasetMapper`), `SOLVER.IMS_PER_BATCH`
    over all ranks. With `SEED` >= 0 the order and every sample follow from it, whatever
    `DATALOADER.NUM_WORKERS` is.

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
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    sampler = PositionSampler(
        _training_sampler(cfg, dicts, seed), rank=comm.get_rank(), world_size=world_size
    )
    samples = SeededSamples(
        DatasetFromList(dicts, copy=False), AlbumentationsDatasetMapper(cfg, is_train=True), seed
    )
    grouping = cfg.DATALOADER.ASPECT_RATIO_GROUPING
    # Workers take turns: image by image where the batches are put together after them, else batch
    # by batch. Either way the order is that of the sampler.
    stream = ToIterableDataset(
        samples, sampler, shard_chunk_size=1 if grouping else batch_size // world_size
    )
    return build_batch_data_loader(
        stream,
        None,
        batch_size,
        aspect_ratio_grouping=grouping,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )


def build_test_loader(
    cfg: CfgNode, dataset_name: str, *, batch_size: int = 1
) -> DataLoader[list[dict[str, Any]]]:
    """Build the evaluation loader: every image once, at test size, without annotations.

    The inputs equal those of Detectron2's own test loader; an unreadable image is a `DatasetError`
    that names it. Ranks share the images.
    """
    mapper = AlbumentationsDatasetMapper(cfg, is_train=False)
    return _sequential_loader(cfg, dataset_name, mapper, batch_size)


def build_validation_loss_loader(
    cfg: CfgNode, dataset_name: str
) -> DataLoader[list[dict[str, Any]]]:
    """Build the loader of the validation loss: inputs as in training, but nothing random.

    Every image once and in order (those without annotations included), at test size, without
    augmentation, with `instances`; `SOLVER.IMS_PER_BATCH` images a batch over all ranks, which
    share the images. The last batch may be smaller.
    """
    mapper = AlbumentationsDatasetMapper(cfg, is_train=False, with_annotations=True)
    batch_size = max(1, cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size())
    return _sequential_loader(cfg, dataset_name, mapper, batch_size)


def _sequential_loader(
    cfg: CfgNode, dataset_name: str, mapper: AlbumentationsDatasetMapper, batch_size: int
) -> DataLoader[list[dict[str, Any]]]:
    dicts = _dataset_dicts((dataset_name,), filter_empty=False)
    return build_detection_test_loader(
        dicts,
        mapper=_Unseeded(mapper),
        sampler=InferenceSampler(len(dicts)),
        batch_size=batch_size,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )


class _Unseeded:
    """A mapper that draws nothing from the global random state."""

    def __init__(self, mapper: AlbumentationsDatasetMapper) -> None:
        self.mapper = mapper

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        return self.mapper(dataset_dict, seed=0)


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

"""The data loaders for training, evaluation and the validation loss.

Training reads an endless stream of batches. A resumed run enters it at any batch, and
`DatasetState` says whether the datasets are still those it began with."""

from __future__ import annotations

import hashlib
import itertools
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
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
from persondet.text import listed

StreamIndex = tuple[int, int]
"""Position in the training stream of all ranks, and index into the dataset."""


class MappedSamples(Dataset[dict[str, Any]]):
    """Mapped samples whose randomness follows from (seed, position in the stream) alone.

    Neither the number of loader workers nor what was loaded before changes a sample.
    """

    def __init__(
        self, dicts: list[dict[str, Any]], mapper: AlbumentationsDatasetMapper, seed: int = 0
    ) -> None:
        """Map the standard dicts of `dicts` by `mapper`."""
        self.dicts = DatasetFromList(dicts, copy=False)
        self.mapper = mapper
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dicts)

    def __getitem__(self, where: StreamIndex | int) -> dict[str, Any]:
        """Return the sample of a dataset index; a number alone stands at the stream's beginning."""
        position, index = where if isinstance(where, tuple) else (0, where)
        return self.mapper(self.dicts[index], seed=(self.seed, position))


class TrainLoader(DataLoader[dict[str, Any]]):
    """The endless training loader; see `build_train_loader`.

    Attributes:
        seed: what the order and every sample follow from, together with the position.
        objects: how many instances it has given so far; None: no batch yet.
    """

    def __init__(self, samples: MappedSamples, batches: StreamBatches, **options: Any) -> None:
        """Load the `batches` of `samples`; `options` are those of torch's `DataLoader`."""
        super().__init__(samples, batch_sampler=batches, **options)
        self.seed = samples.seed
        self.objects: int | None = None
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Iterate over batches, which are lists of model inputs."""
        for batch in super().__iter__():
            self.objects = (self.objects or 0) + sum(len(one["instances"]) for one in batch)
            yield batch

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
    wide = [record["width"] > record["height"] for record in dicts]
    batches = StreamBatches(
        _training_sampler(cfg, dicts, seed),
        batch_size // world_size,
        is_wide=wide if cfg.DATALOADER.ASPECT_RATIO_GROUPING else None,
        rank=comm.get_rank(),
        world_size=world_size,
    )
    samples = MappedSamples(dicts, AlbumentationsDatasetMapper(cfg, is_train=True), seed)
    return TrainLoader(samples, batches, **_loading(cfg, persistent=True))


def build_test_loader(cfg: CfgNode, dataset_name: str) -> DataLoader[dict[str, Any]]:
    """Build the evaluation loader: every image once, at test size, without annotations.

    The inputs equal those of Detectron2's own test loader; an unreadable image is a `DatasetError`
    that names it. Ranks share the images.
    """
    return _sequential_loader(cfg, dataset_name, 1)


def build_validation_loss_loader(cfg: CfgNode, dataset_name: str) -> DataLoader[dict[str, Any]]:
    """Build the loader of the validation loss: inputs as in training, but nothing random.

    Every image once and in order (those without annotations included), at test size, without
    augmentation, with `instances`; `SOLVER.IMS_PER_BATCH` images a batch over all ranks, which
    share the images. The last batch may be smaller. With `TEST.VAL_LOSS.MAX_BATCHES` the first so
    many times `SOLVER.IMS_PER_BATCH` images, whatever the number of ranks.
    """
    batch_size = max(1, cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size())
    most = cfg.TEST.VAL_LOSS.MAX_BATCHES * cfg.SOLVER.IMS_PER_BATCH or None
    return _sequential_loader(cfg, dataset_name, batch_size, most=most, with_annotations=True)


def _sequential_loader(
    cfg: CfgNode,
    dataset_name: str,
    batch_size: int,
    *,
    most: int | None = None,
    with_annotations: bool = False,
) -> DataLoader[dict[str, Any]]:
    mapper = AlbumentationsDatasetMapper(cfg, is_train=False, with_annotations=with_annotations)
    dicts = _dataset_dicts((dataset_name,), filter_empty=False)[:most]
    return DataLoader(
        MappedSamples(dicts, mapper),
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


class StreamBatches(Sampler[list[StreamIndex]]):
    """Batches of a stream, the same from any start on.

    What a batch holds is decided by the sizes in the dataset, before any image is read. To begin
    at batch k is to count the first k batches and drop them, which takes microseconds each.

    Attributes:
        start: the number of the first batch that an iteration yields.
    """

    def __init__(
        self,
        sampler: Iterable[int],
        batch_size: int,
        *,
        is_wide: Sequence[bool] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Divide a stream of dataset indices into batches of `batch_size`.

        Args:
            sampler: yields every `world_size`-th index of the stream of all ranks, from `rank`.
            batch_size: images per batch, on this rank.
            is_wide: for each dataset index whether the image is wider than high; a batch then
                holds images of one kind, in the order in which Detectron2's
                `AspectRatioGroupedDataset` completes them. None: one after the other.
            rank, world_size: of this process.
        """
        self.sampler, self.batch_size, self.is_wide = sampler, batch_size, is_wide
        self.rank, self.world_size = rank, world_size
        self.start = 0

    def __iter__(self) -> Iterator[list[StreamIndex]]:
        """Yield batches of (position in the stream, index into the dataset)."""
        return itertools.islice(self._batches(), self.start, None)

    def _batches(self) -> Iterator[list[StreamIndex]]:
        waiting: tuple[list[StreamIndex], list[StreamIndex]] = ([], [])
        positions = itertools.count(self.rank, self.world_size)
        for position, index in zip(positions, self.sampler, strict=False):
            kind = waiting[self.is_wide is not None and self.is_wide[index]]
            kind.append((position, int(index)))
            if len(kind) == self.batch_size:
                batch = kind[:]
                kind.clear()
                yield batch


@dataclass(frozen=True)
class DatasetState:
    """The images of a dataset in order, with a digest of each.

    Attributes:
        annotations: how many there are.
        names: file name of each image, without its folder: a dataset may move.
        digests: of each image's size and annotations, 16 hexadecimal digits.
    """

    annotations: int
    names: list[str]
    digests: list[str]

    @classmethod
    def of(cls, dicts: Sequence[Mapping[str, Any]]) -> DatasetState:
        """Return the state of Detectron2's standard dicts."""
        return cls(
            annotations=sum(len(record.get("annotations", ())) for record in dicts),
            names=[Path(record["file_name"]).name for record in dicts],
            digests=[_digest(record) for record in dicts],
        )

    def difference(self, now: DatasetState) -> str:
        """Return how `now` differs from this one, as half a sentence; empty when it does not."""
        if self == now:
            return ""
        ours = dict(zip(self.names, self.digests, strict=True))
        theirs = dict(zip(now.names, now.digests, strict=True))
        lists = {
            "missing": [name for name in ours if name not in theirs],
            "new": [name for name in theirs if name not in ours],
            "changed": [name for name in ours if theirs.get(name, ours[name]) != ours[name]],
        }
        found = "; ".join(f"{kind}: {listed(names)}" for kind, names in lists.items() if names)
        return (
            f"had {len(self.names)} images and {self.annotations} annotations, and has "
            f"{len(now.names)} and {now.annotations} now; {found or 'their order is another'}"
        )


def _digest(record: Mapping[str, Any]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    digest.update(f"{record.get('width')}x{record.get('height')}".encode())
    for annotation in record.get("annotations", ()):
        numbers = (annotation["category_id"], annotation.get("iscrowd", 0), *annotation["bbox"])
        digest.update(np.asarray(numbers, np.float64).tobytes())
        mask = annotation.get("segmentation")
        if isinstance(mask, dict):
            counts = mask["counts"]
            digest.update(counts if isinstance(counts, bytes) else str(counts).encode())
        elif mask:
            for polygon in mask:
                digest.update(np.asarray(polygon, np.float64).tobytes())
                digest.update(b"|")
    return digest.hexdigest()

"""Loaders: what comes out, in which order, and that it does not depend on the workers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog, build_detection_test_loader
from detectron2.data.common import AspectRatioGroupedDataset
from detectron2.data.samplers import TrainingSampler
from hypothesis import given
from hypothesis import strategies as st

from persondet.config import get_cfg
from persondet.data.loaders import (
    PositionSampler,
    StreamBatches,
    build_test_loader,
    build_train_loader,
    build_validation_loss_loader,
)
from persondet.data.register import register_roboflow_coco
from persondet.errors import ConfigError, DatasetError


@pytest.fixture
def cfg(tiny_export: Path, tmp_path: Path) -> Iterator[CfgNode]:
    datasets = register_roboflow_coco("loaded", tiny_export, output_dir=tmp_path)
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = (datasets.names["train"],)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (48, 64, 80), 120
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 50, 120
    cfg.INPUT.ALBUMENTATIONS.PIPELINE = "light"
    cfg.MODEL.MASK_ON = True
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.SEED = 42
    yield cfg
    for name in datasets.names.values():
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
            MetadataCatalog.pop(name, None)


def _take(loader: Any, count: int) -> list[list[dict[str, Any]]]:
    return list(itertools.islice(iter(loader), count))


def _same(first: list[list[dict[str, Any]]], second: list[list[dict[str, Any]]]) -> bool:
    samples = [list(itertools.chain.from_iterable(batches)) for batches in (first, second)]
    return len(samples[0]) == len(samples[1]) and all(
        one["file_name"] == other["file_name"]
        and torch.equal(one["image"], other["image"])
        and torch.equal(one["instances"].gt_boxes.tensor, other["instances"].gt_boxes.tensor)
        for one, other in zip(*samples, strict=True)
    )


def test_training_batches(cfg: CfgNode) -> None:
    for batch in _take(build_train_loader(cfg), 3):
        assert len(batch) == 2
        for sample in batch:
            assert set(sample) == {
                *("file_name", "height", "width", "image_id", "image", "instances")
            }
            assert sample["image"].dtype == torch.uint8
            assert sample["instances"].has("gt_masks")
            assert len(sample["instances"]) > 0


@pytest.mark.parametrize("grouping", [True, False])
def test_trap_12_the_stream_follows_from_the_seed_whatever_the_workers(
    cfg: CfgNode, grouping: bool
) -> None:
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = grouping
    alone = _take(build_train_loader(cfg), 6)
    torch.manual_seed(123)  # the global state must not matter
    assert _same(alone, _take(build_train_loader(cfg), 6))
    cfg.DATALOADER.NUM_WORKERS = 2
    assert _same(alone, _take(build_train_loader(cfg), 6))
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SEED = 43
    assert not _same(alone, _take(build_train_loader(cfg), 6))


@pytest.mark.parametrize("workers", [0, 2])
def test_trap_13_an_image_that_cannot_be_read_stops_the_stream_with_its_path(
    cfg: CfgNode, export_writer: Callable[..., None], tmp_path: Path, workers: int
) -> None:
    export_writer(tmp_path / "own")
    register_roboflow_coco("loaded", tmp_path / "own", output_dir=tmp_path)
    (picture,) = (tmp_path / "own" / "train").glob("scene_0_*.jpg")
    picture.write_bytes(picture.read_bytes()[:500])
    cfg.DATALOADER.NUM_WORKERS = workers
    with pytest.raises(DatasetError, match="the image cannot be read") as caught:
        _take(build_train_loader(cfg), 9)
    assert str(picture) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_that_starts_later_goes_on_with_the_same_batches(
    cfg: CfgNode, workers: int
) -> None:
    all_of_them = _take(build_train_loader(cfg), 9)
    cfg.DATALOADER.NUM_WORKERS = workers
    loader = build_train_loader(cfg)
    loader.start_at(5)
    assert _same(all_of_them[5:], _take(loader, 4))


def test_loading_draws_no_random_number_of_the_model(cfg: CfgNode) -> None:
    for build in (
        build_train_loader,
        lambda cfg: build_validation_loss_loader(cfg, "loaded_valid"),
    ):
        state = torch.get_rng_state()
        _take(build(cfg), 2)
        assert torch.equal(torch.get_rng_state(), state)


@given(
    wide=st.lists(st.booleans(), min_size=1, max_size=9),
    batch_size=st.integers(1, 4),
    seed=st.integers(0, 9),
    start=st.integers(0, 30),
)
def test_batches_are_those_of_detectron2s_grouping_from_any_start(
    wide: list[bool], batch_size: int, seed: int, start: int
) -> None:
    def stream() -> PositionSampler:
        return PositionSampler(TrainingSampler(len(wide), seed=seed))

    sizes = [{"width": 1 + is_wide, "height": 1} for is_wide in wide]
    dicts = [sizes[index] | {"at": (at, index)} for at, index in itertools.islice(stream(), 300)]
    stock = AspectRatioGroupedDataset(dicts, batch_size)
    expected = [[sample["at"] for sample in batch] for batch in stock][start:]
    ours = StreamBatches(stream(), batch_size, is_wide=wide)
    ours.start = start
    assert list(itertools.islice(ours, len(expected))) == expected
    assert list(itertools.islice(ours, len(expected))) == expected  # it can be iterated again


def test_a_late_start_reads_nothing_before_it() -> None:
    def sampler() -> Iterator[int]:
        yield from itertools.cycle(range(7))

    batches = StreamBatches(PositionSampler(sampler()), 2)  # type: ignore[arg-type]
    batches.start = 20_000
    assert next(iter(batches)) == [(40_000, 40_000 % 7), (40_001, 40_001 % 7)]


def test_one_image_is_augmented_anew_each_time(cfg: CfgNode) -> None:
    batches = _take(build_train_loader(cfg), 9)
    by_name: dict[str, list[torch.Tensor]] = {}
    for sample in itertools.chain.from_iterable(batches):
        by_name.setdefault(sample["file_name"], []).append(sample["image"])
    images = max(by_name.values(), key=len)
    assert len(images) >= 3
    assert len({tuple(image.flatten().tolist()) for image in images}) >= 2


def test_positions_of_several_ranks_are_those_of_one_stream() -> None:
    def ranked(rank: int) -> list[tuple[int, int]]:
        indices: Any = range(10 * rank, 10 * rank + 3)
        return list(PositionSampler(indices, rank=rank, world_size=2))

    assert ranked(0) == [(0, 0), (2, 1), (4, 2)]
    assert ranked(1) == [(1, 10), (3, 11), (5, 12)]


def test_trap_14_images_without_people_are_kept_on_request(cfg: CfgNode) -> None:
    cfg.INPUT.ALBUMENTATIONS.PIPELINE = "crowd"
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = True
    names = {s["file_name"] for batch in _take(build_train_loader(cfg), 15) for s in batch}
    assert len(names) == 5
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    samples = [s for batch in _take(build_train_loader(cfg), 15) for s in batch]
    assert len({sample["file_name"] for sample in samples}) == 6
    empty = [sample["instances"] for sample in samples if not len(sample["instances"])]
    assert empty
    assert all(instances.has("gt_masks") for instances in empty)


def test_the_validation_loss_sees_every_image_once_and_the_same_twice(cfg: CfgNode) -> None:
    cfg.INPUT.ALBUMENTATIONS.PIPELINE = "street"
    loader = build_validation_loss_loader(cfg, "loaded_train")
    first, second = list(loader), list(loader)
    assert [len(batch) for batch in first] == [2, 2, 2]
    assert [s["image_id"] for batch in first for s in batch] == list(range(6))
    assert _same(first, second)
    assert len(first[-1][-1]["instances"]) == 0
    for sample in itertools.chain.from_iterable(first):
        assert sample["image"].shape == (3, 50, 75)
        assert sample["instances"].image_size == (50, 75)


def test_the_test_loader_equals_detectron2s(cfg: CfgNode) -> None:
    ours = list(build_test_loader(cfg, "loaded_test"))
    stock = list(build_detection_test_loader(cfg, "loaded_test"))
    assert len(ours) == len(stock) == 3
    for (one,), (other,) in zip(ours, stock, strict=True):
        assert torch.equal(one.pop("image"), other.pop("image"))
        assert one == other


def test_datasets_without_a_person_or_a_name_are_refused(
    cfg: CfgNode, export_writer: Callable[..., None], tmp_path: Path
) -> None:
    export_writer(tmp_path / "one", {"train": 1, "valid": 2})
    register_roboflow_coco("loaded", tmp_path / "one", output_dir=tmp_path)
    with pytest.raises(DatasetError, match="no image with annotations is left"):
        build_train_loader(cfg)
    cfg.DATALOADER.SAMPLER_TRAIN = "WeightedTrainingSampler"
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    with pytest.raises(ConfigError, match=r"SAMPLER_TRAIN is 'WeightedTrainingSampler'"):
        build_train_loader(cfg)
    cfg.DATASETS.TRAIN = ()
    with pytest.raises(ConfigError, match=r"DATASETS\.TRAIN is empty"):
        build_train_loader(cfg)
    cfg.SOLVER.IMS_PER_BATCH = 0
    with pytest.raises(ConfigError, match=r"IMS_PER_BATCH is 0"):
        build_train_loader(cfg)


@pytest.mark.parametrize("name", ["RepeatFactorTrainingSampler", "RandomSubsetTrainingSampler"])
def test_other_samplers_are_seeded_too(cfg: CfgNode, name: str) -> None:
    cfg.DATALOADER.SAMPLER_TRAIN = name
    cfg.DATALOADER.RANDOM_SUBSET_RATIO = 0.5
    cfg.DATALOADER.REPEAT_THRESHOLD = 0.5
    assert _same(_take(build_train_loader(cfg), 3), _take(build_train_loader(cfg), 3))

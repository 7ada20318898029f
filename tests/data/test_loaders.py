"""Loaders: what comes out, in which order, and that it does not depend on the workers."""

import copy
import itertools
import traceback
from collections import Counter

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog, build_detection_test_loader
from detectron2.data.common import AspectRatioGroupedDataset
from detectron2.data.samplers import TrainingSampler
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.config import get_cfg
from persondet.data.loaders import (
    DatasetState,
    StreamBatches,
    build_test_loader,
    build_train_loader,
    build_validation_loss_loader,
)
from persondet.data.register import register_roboflow_coco
from persondet.errors import ConfigError, DatasetError


@pytest.fixture
def cfg(tiny_export, tmp_path):
    datasets = register_roboflow_coco("loaded", tiny_export, output_dir=tmp_path)
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = (datasets.names["train"],)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (24, 32, 40), 60
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


def _take(loader, count):
    """The samples of `count` batches."""
    return list(itertools.chain.from_iterable(itertools.islice(iter(loader), count)))


def _same(first, second):
    return len(first) == len(second) and all(
        one["file_name"] == other["file_name"]
        and torch.equal(one["image"], other["image"])
        and torch.equal(one["instances"].gt_boxes.tensor, other["instances"].gt_boxes.tensor)
        for one, other in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("grouping", [True, False])
def test_trap_12_the_stream_follows_from_the_seed_whatever_the_workers_and_the_start(cfg, grouping):
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = grouping
    state = torch.get_rng_state()
    alone = _take(build_train_loader(cfg), 8)
    assert torch.equal(torch.get_rng_state(), state)  # the model's random numbers are its own
    torch.manual_seed(123)  # and the other way round
    cfg.DATALOADER.NUM_WORKERS = 2
    loader = build_train_loader(cfg)
    assert _same(alone, _take(loader, 8))
    loader.start_at(3)
    assert _same(alone[6:], _take(loader, 5))
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SEED = 43
    assert not _same(alone, _take(build_train_loader(cfg), 8))
    images = {(sample["file_name"], sample["image"].numpy().tobytes()) for sample in alone}
    times = Counter(name for name, _ in images)
    assert max(times.values()) >= 3  # one image is augmented anew each time


@pytest.mark.parametrize("workers", [0, 2])
def test_trap_13_an_image_that_cannot_be_read_stops_the_stream(
    cfg, export_writer, tmp_path, workers
):
    export_writer(tmp_path / "own")
    register_roboflow_coco("loaded", tmp_path / "own", output_dir=tmp_path)
    (image,) = (tmp_path / "own" / "train").glob("scene_0_*.jpg")
    image.write_bytes(image.read_bytes()[:500])
    cfg.DATALOADER.NUM_WORKERS = workers
    with pytest.raises(DatasetError, match="the image cannot be read") as caught:
        _take(build_train_loader(cfg), 9)
    assert str(image) in str(caught.value) and "\n" not in str(caught.value)
    # Left to the garbage collector, the loader in these frames waits ten seconds for its workers.
    traceback.clear_frames(caught.tb)


@settings(max_examples=40)
@given(
    wide=st.lists(st.booleans(), min_size=1, max_size=9),
    batch_size=st.integers(1, 4),
    seed=st.integers(0, 9),
    start=st.integers(0, 12),
    rank=st.integers(0, 2),
)
def test_batches_are_those_of_detectron2s_grouping_from_any_start(
    wide, batch_size, seed, start, rank
):
    indices = list(itertools.islice(TrainingSampler(len(wide), seed=seed), 150))[rank::3]
    sizes = [{"width": 1 + is_wide, "height": 1} for is_wide in wide]
    dicts = [sizes[index] | {"at": (rank + 3 * n, index)} for n, index in enumerate(indices)]
    stock = AspectRatioGroupedDataset(dicts, batch_size)
    expected = [[sample["at"] for sample in batch] for batch in stock][start:]
    ours = StreamBatches(indices, batch_size, is_wide=wide, rank=rank, world_size=3)
    ours.start = start
    assert list(ours) == expected
    assert list(ours) == expected  # it can be iterated again


def test_trap_14_images_without_people_are_kept_on_request(cfg):
    for filtered, count in ((True, 5), (False, 6)):
        cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = filtered
        samples = _take(build_train_loader(cfg), 6)
        assert len({sample["file_name"] for sample in samples}) == count
        empty = [sample["instances"] for sample in samples if not len(sample["instances"])]
        assert bool(empty) != filtered and all(found.has("gt_masks") for found in empty)


def test_the_validation_loss_sees_every_image_once_and_the_same_twice(cfg):
    cfg.INPUT.ALBUMENTATIONS.PIPELINE = "street"
    loader = build_validation_loss_loader(cfg, "loaded_train")
    first, second = list(loader), list(loader)
    assert [len(batch) for batch in first] == [2, 2, 2]
    samples = _take(first, 3)
    assert [sample["image_id"] for sample in samples] == list(range(6))
    assert _same(samples, _take(second, 3))
    assert len(samples[-1]["instances"]) == 0
    assert {tuple(sample["image"].shape) for sample in samples} == {(3, 50, 75)}


def test_the_test_loader_equals_detectron2s(cfg):
    ours = list(build_test_loader(cfg, "loaded_test"))
    stock = list(build_detection_test_loader(cfg, "loaded_test"))
    assert len(ours) == len(stock) == 3
    for (one,), (other,) in zip(ours, stock, strict=True):
        assert torch.equal(one.pop("image"), other.pop("image"))
        assert one == other


def test_datasets_without_a_person_or_a_name_are_refused(cfg, export_writer, tmp_path):
    export_writer(tmp_path / "one", {"train": 1, "valid": 2})
    register_roboflow_coco("loaded", tmp_path / "one", output_dir=tmp_path)
    with pytest.raises(DatasetError, match="no image with annotations is left"):
        build_train_loader(cfg)
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    for section, key, value in (
        (cfg.DATALOADER, "SAMPLER_TRAIN", "WeightedTrainingSampler"),
        (cfg.DATASETS, "TRAIN", ()),
        (cfg.SOLVER, "IMS_PER_BATCH", 0),
    ):
        section[key] = value
        with pytest.raises(ConfigError, match=key):
            build_train_loader(cfg)


@pytest.mark.parametrize("name", ["RepeatFactorTrainingSampler", "RandomSubsetTrainingSampler"])
def test_other_samplers_are_seeded_too(cfg, name):
    cfg.DATALOADER.SAMPLER_TRAIN = name
    cfg.DATALOADER.RANDOM_SUBSET_RATIO = cfg.DATALOADER.REPEAT_THRESHOLD = 0.5
    assert _same(_take(build_train_loader(cfg), 3), _take(build_train_loader(cfg), 3))


def _records():
    rle = {"size": [6, 9], "counts": b"01"}
    polygon = {"bbox": [1, 2, 3, 4], "category_id": 0, "iscrowd": 0, "segmentation": [[1.0] * 6]}
    crowd = {"bbox": [0, 0, 2, 2], "category_id": 0, "iscrowd": 1, "segmentation": rle}
    record = {"width": 9, "height": 6, "annotations": [polygon, crowd]}
    return [copy.deepcopy(record) | {"file_name": f"/data/{name}.jpg"} for name in "abc"]


def test_what_a_dataset_lost_and_gained_is_named_and_moving_it_changes_nothing():
    state = DatasetState.of(_records())
    moved = [record | {"file_name": f"/else{record['file_name']}"} for record in _records()]
    assert state.difference(DatasetState.of(moved)) == ""
    other = [*_records()[1:], _records()[0] | {"file_name": "d.jpg", "annotations": []}]
    assert state.difference(DatasetState.of(other)) == (
        "had 3 images and 6 annotations, and has 3 and 4 now; missing: a.jpg; new: d.jpg"
    )
    assert state.difference(DatasetState.of(_records()[::-1])).endswith("their order is another")


def test_each_change_of_an_image_is_noticed():
    for change in (
        lambda record: record.update(width=8),
        lambda record: record["annotations"].pop(),
        lambda record: record["annotations"][0].update(bbox=[1, 2, 3, 4.5]),
        lambda record: record["annotations"][0]["segmentation"][0].append(2.0),
        lambda record: record["annotations"][1]["segmentation"].update(counts=b"02"),
    ):
        other = _records()
        change(other[1])
        difference = DatasetState.of(_records()).difference(DatasetState.of(other))
        assert difference.endswith("changed: b.jpg")

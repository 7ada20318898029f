"""The mapper benchmark, end to end with few pictures; timing is not judged here."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from persondet.benchmarks.export import SIZE, write_export
from persondet.benchmarks.mapper import benchmark_mapper
from persondet.benchmarks.stock_mapper import RasterisingMapper, resize_and_flip
from persondet.data.register import load_dataset_dicts


@pytest.mark.slow
def test_the_mapper_benchmark_measures_and_compares():
    threads = torch.get_num_threads()
    told = []
    found = benchmark_mapper(pairs=1, images=1, progress=lambda *step: told.append(step))
    assert told[-1] == (12, 12)
    assert torch.get_num_threads() == threads
    for name in ("street", "geometry", "flip"):
        one = found[name]
        assert one["ratio"] == pytest.approx(
            one["first_images_per_second"] / one["second_images_per_second"]
        )
        assert len(one["first_seconds"]) == len(one["second_seconds"]) == one["pairs"] == 1
    for name in ("street", "geometry"):
        # Only the same random decisions put the outlines of two mappers in the same place.
        assert found[name]["people"] >= 8
        assert found[name]["boundary_mean"] < 0.7
        assert found[name]["boundary_within_1"] > 0.9
    assert "boundary_mean" not in found["flip"]


def test_the_stock_mappers_do_the_work(tmp_path):
    write_export(tmp_path, {"train": 1})
    train = tmp_path / "train"
    (picture,) = load_dataset_dicts(train / "_annotations.coco.json", train)
    mapper = RasterisingMapper(
        [{"HorizontalFlip": {"p": 1.0}}], size=360, max_size=1333, min_visibility=0.2
    )
    raster = mapper(picture, 0)
    assert raster["image"].shape == (3, 360, 640)
    flipped = sorted(
        (SIZE[0] - one["bbox"][0] - one["bbox"][2]) / 2 for one in picture["annotations"]
    )
    boxes = raster["instances"].gt_boxes.tensor.numpy()
    np.testing.assert_allclose(sorted(boxes[:, 0]), flipped, atol=1.5)
    stock = resize_and_flip(360, 1333)(picture)
    assert stock["image"].shape == (3, 360, 640)
    assert len(stock["instances"]) == len(raster["instances"]) == len(picture["annotations"])


def test_the_same_counts_give_the_same_export(tmp_path):
    for name in ("one", "two"):
        write_export(tmp_path / name, {"train": 1, "valid": 1})
    one, two = (
        {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*.*")}
        for name in ("one", "two")
    )
    assert one == two and len(one) == 4

"""Run-length encoded masks of an unknown hand: told good from bad without the C code's help."""

from __future__ import annotations

from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persondet.data.inspect.shapes import compressed_rle, rle_fault


@pytest.mark.parametrize(
    ("rle", "fault"),
    [
        ({"size": [80, 100], "counts": [10, 5, 7985]}, ""),
        ({"size": [80, 100], "counts": [8001]}, "rle-invalid"),
        ({"size": [80, 100], "counts": [10, -5, 7995]}, "rle-invalid"),
        ({"size": [80, 100], "counts": [10.0, 7990]}, "rle-invalid"),
        ({"size": [80, 100], "counts": []}, "rle-invalid"),
        ({"size": [80, 100], "counts": "00"}, "rle-invalid"),
        ({"size": [80, 100], "counts": "o" * 40}, "rle-invalid"),
        ({"size": [80, 100], "counts": "\xff\xff"}, "rle-invalid"),
        ({"size": [80, 100], "counts": ""}, "rle-invalid"),
        ({"size": [80, 100]}, "rle-invalid"),
        ({"size": "80x100", "counts": [8000]}, "rle-invalid"),
        ({}, "rle-invalid"),
        ({"size": [100, 80], "counts": [10, 5, 7985]}, "rle-size"),
        ({"size": [80, 100], "counts": [8000]}, "rle-empty"),
        ({"size": [80, 100], "counts": [4000, 0, 4000]}, "rle-empty"),
    ],
)
def test_what_is_wrong_is_named(rle: Any, fault: str) -> None:
    assert rle_fault(rle, 100, 80) == fault


@pytest.mark.parametrize("height", [40, 160])
def test_the_runs_of_another_image_do_not_fill_this_one(height: int) -> None:
    mask = np.zeros((height, 100), np.uint8)
    mask[5:15, 20:40] = 1
    counts = mask_util.encode(np.asfortranarray(mask))["counts"].decode()
    assert rle_fault({"size": [80, 100], "counts": counts}, 100, 80) == "rle-invalid"


@given(st.lists(st.integers(1, 70), min_size=1, max_size=40))
def test_compressed_runs_are_understood_as_pycocotools_writes_them(runs: list[int]) -> None:
    counts = [*runs, 8000 - sum(runs)]
    lists = {"size": [80, 100], "counts": counts}
    rle = mask_util.frPyObjects(lists, 80, 100)
    texts = {"size": [80, 100], "counts": rle["counts"].decode()}
    assert rle_fault(texts, 100, 80) == rle_fault(lists, 100, 80) == ""
    assert compressed_rle(lists) == texts
    assert compressed_rle(texts) is texts
    shortened = {"size": [80, 100], "counts": texts["counts"][:-1]}
    assert rle_fault(shortened, 100, 80) == "rle-invalid"

"""Boxes and masks of one annotation, and the fast look that must agree with the close one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persondet.data.inspect.annotations import outline_crosses, screen_polygons
from persondet.data.inspect.shapes import inspect_box, inspect_segmentation, mask_area, mask_areas

SQUARE = [10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]
BOW_TIE = [10.0, 10.0, 30.0, 30.0, 30.0, 10.0, 10.0, 30.0]
NAN = math.nan


@pytest.mark.parametrize(
    ("box", "code", "usable"),
    [
        ([10, 10, 20, 20], "", [10, 10, 20, 20]),
        ([0, 0, 100, 80], "", [0, 0, 100, 80]),
        ([10, 10, 20, 1.5], "box-tiny", [10, 10, 20, 1.5]),
        ([-0.5, 0, 10, 10], "box-outside-slightly", [0, 0, 9.5, 10]),
        ([-0.51, 0, 10, 10], "box-outside", [0, 0, 9.49, 10]),
        ([90, 70, 10.4, 10.5], "box-outside-slightly", [90, 70, 10, 10]),
        ([90, 70, 10.6, 10], "box-outside", [90, 70, 10, 10]),
        ([90.0, 70, 10.0000000001, 10], "", [90.0, 70, 10.0000000001, 10]),
        ([100, 10, 5, 5], "box-outside", None),
        ([10, 10, 0, 5], "box-zero", None),
        ([10, 10, 5, -1], "box-negative", None),
        ([NAN, 1, 2, 3], "box-invalid", None),
        ([1, 2, math.inf, 3], "box-invalid", None),
        ([1, 2, 3], "box-invalid", None),
        ([1, 2, True, 3], "box-invalid", None),
        (["1", 2, 3, 4], "box-invalid", None),
        ([10**400, 0, 1, 1], "box-invalid", None),
        (None, "box-invalid", None),
    ],
)
def test_boxes(box: Any, code: str, usable: Any) -> None:
    found, result = inspect_box(box, 100, 80)
    assert found == code
    assert result == (pytest.approx(usable) if usable else None)
    if not code:
        assert result is box


@pytest.mark.parametrize(
    ("segmentation", "codes", "usable"),
    [
        ([SQUARE], set(), [SQUARE]),
        (None, set(), []),
        ([], set(), []),
        (SQUARE, {"polygon-flat"}, [SQUARE]),
        (SQUARE[:-1], {"polygon-flat", "polygon-odd"}, []),
        ([[]], {"polygon-empty"}, []),
        ([SQUARE, []], {"polygon-empty"}, [SQUARE]),
        ([[1, 1, 2, 2, 3, 3]], {"polygon-empty"}, []),
        ([[5, 5] * 4], {"polygon-empty"}, []),
        ([BOW_TIE], set(), [BOW_TIE]),
        ([[1, 2, 3, 4]], {"polygon-short"}, []),
        ([SQUARE[:-1]], {"polygon-odd"}, []),
        ([SQUARE[:-1] + [NAN]], {"polygon-invalid"}, []),
        ([["a"] * 6, SQUARE], {"polygon-invalid"}, [SQUARE]),
        ([[10**400, 1, 2, 3, 4, 5]], {"polygon-invalid"}, []),
        ([None], {"polygon-invalid"}, []),
        ("mask", {"mask-invalid"}, []),
        (7, {"mask-invalid"}, []),
        ([[-0.4, 0, 10, 0, 10, 10]], {"polygon-outside-slightly"}, None),
        ([[-9, 0, 10, 0, 10, 10]], {"polygon-outside"}, None),
        ([[-9, 0, -1, 0, -1, 10]], {"polygon-outside"}, []),
        ({"size": [80, 100], "counts": [8000]}, {"rle-empty"}, []),
    ],
)
def test_masks(segmentation: Any, codes: set[str], usable: Any) -> None:
    found, result = inspect_segmentation(segmentation, 100, 80)
    assert found == codes
    if usable is not None:
        assert result == usable
    else:
        points = np.asarray(result).reshape(-1, 2)
        assert points.min() >= 0
        assert (points.max(axis=0) <= (100, 80)).all()
    assert inspect_segmentation(result, 100, 80) == (set(), result)


numbers = st.one_of(st.integers(-3, 103), st.floats(-3, 103), st.sampled_from([NAN, 10**400, "1"]))
parts = st.one_of(st.lists(numbers, max_size=9), st.sampled_from([SQUARE, BOW_TIE, None, 3]))


@given(st.lists(st.one_of(st.lists(parts, max_size=3), parts), min_size=1, max_size=6))
def test_the_fast_look_clears_nothing_that_the_close_look_faults(segmentations: list[Any]) -> None:
    screen = screen_polygons(segmentations, [(100, 80)] * len(segmentations))
    for index, segmentation in enumerate(segmentations):
        codes, usable = inspect_segmentation(segmentation, 100, 80)
        if screen.faultless[index]:
            assert not codes
            assert usable is segmentation
            assert screen.crosses[index] == outline_crosses(segmentation)


def test_the_fast_look_measures_and_sees_crossings() -> None:
    clover = [10.0, 10.0, 40.0, 10.0, 40.0, 40.0, 20.0, 0.0]
    screen = screen_polygons(
        [[SQUARE], [SQUARE, [50, 50, 60, 50, 60, 60]], [clover], None, [[0, 0, 5, 0, 5, 101]]],
        [(100, 80)] * 5,
    )
    assert screen.faultless.tolist() == [True, True, True, False, False]
    assert screen.area[:2].tolist() == [400, 450]
    assert screen.crosses.tolist() == [False, False, True, False, False]
    assert outline_crosses([BOW_TIE])
    touching = [0, 0, 10, 0, 10, 10, 5, 0, 0, 10]  # comes back to its own edge in one point
    assert not outline_crosses([touching])


@given(st.integers(0, 2**32 - 1))
def test_areas_of_many_equal_those_one_by_one_and_the_decoded_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = [((80, 100), (50, 60))[rng.integers(2)] for _ in range(8)]
    masks: list[Any] = [
        [rng.uniform(0, 50, 8).tolist() for _ in range(rng.integers(1, 3))] for _ in sizes
    ]
    masks[3] = {"size": list(sizes[3]), "counts": [5, 20, sizes[3][0] * sizes[3][1] - 25]}
    areas = mask_areas(masks, sizes)
    for mask, size, area in zip(masks, sizes, areas, strict=True):
        assert area == mask_area(mask, *size)
        rle = mask_util.frPyObjects(mask, *size)
        merged = mask_util.merge(rle) if isinstance(mask, list) else rle
        assert area == np.asarray(mask_util.decode(merged)).sum()


def test_areas_of_more_than_pycocotools_counts_at_once() -> None:
    squares = [[SQUARE]] * 300
    assert mask_areas(squares, [(80, 100)] * 300) == [400.0] * 300

"""Masks in their rectangle equal masks in the whole image."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco_mask

from persondet.inference.masks import decode_mask, encode_mask, mask_extent

MASKS = arrays.arrays(
    bool, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=st.booleans()
)
BOXES = st.none() | arrays.arrays(
    np.float64, 4, elements=st.floats(-30, 60) | st.just(float("nan"))
)


@given(MASKS, BOXES)
def test_the_encoding_is_that_of_pycocotools_wherever_the_box_is(mask, box):
    expected = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    encoded = encode_mask(mask, box)
    assert encoded == {"size": list(mask.shape), "counts": expected["counts"].decode()}
    assert np.array_equal(decode_mask(encoded["counts"], *mask.shape), mask)


@given(MASKS, BOXES)
def test_the_extent_holds_the_mask(mask, box):
    x0, y0, x1, y1 = mask_extent(mask, box)
    assert 0 <= x0 <= x1 <= mask.shape[1]
    assert 0 <= y0 <= y1 <= mask.shape[0]
    assert mask[y0:y1, x0:x1].sum() == mask.sum()
    if box is None and mask.any():
        part = mask[y0:y1, x0:x1]
        assert part[0].any() and part[-1].any() and part[:, 0].any() and part[:, -1].any()

"""Masks of single objects: their rectangle, and COCO's run-length encoding.

A mask is `bool, (H, W)`; a box is 4 numbers, XYXY_ABS, pixels. People cover a small part of a
image, so everything here works on the mask's own rectangle.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask


def mask_extent(mask: np.ndarray, box: np.ndarray | None = None) -> tuple[int, int, int, int]:
    """Return (x0, y0, x1, y1), whole pixels, of a rectangle that holds all of a mask.

    Args:
        mask: bool, (H, W).
        box: where the mask is expected; when it is right, the rest of the image is only counted.

    Returns: the rectangle, x1 and y1 excluded; (0, 0, 0, 0) for an empty mask.
    """
    height, width = mask.shape
    total = np.count_nonzero(mask)
    if total == 0:
        return (0, 0, 0, 0)
    if box is not None and np.isfinite(box).all():
        x0, y0 = (max(0, int(v) - 2) for v in box[:2])
        x1, y1 = (
            max(0, min(limit, int(v) + 3))
            for v, limit in zip(box[2:], (width, height), strict=True)
        )
        if np.count_nonzero(mask[y0:y1, x0:x1]) == total:
            return (x0, y0, x1, y1)
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def encode_mask(mask: np.ndarray, box: np.ndarray | None = None) -> dict[str, Any]:
    """Return COCO's compressed run-length encoding of a mask.

    Equals `pycocotools.mask.encode` of the whole mask, at the cost of its rectangle.

    Args:
        mask: bool, (H, W).
        box: where the mask is expected, see `mask_extent`.

    Returns: `{"size": [H, W], "counts": str}`, ready for JSON.
    """
    height, width = mask.shape
    x0, y0, x1, y1 = mask_extent(mask, box)
    return encode_region(mask[y0:y1, x0:x1], x0, y0, height, width)


def encode_region(region: np.ndarray, x0: int, y0: int, height: int, width: int) -> dict[str, Any]:
    """Return COCO's compressed run-length encoding of a mask of which only a rectangle is given.

    Equals `pycocotools.mask.encode` of the whole mask, at the cost of the rectangle.

    Args:
        region: bool, (h, w); around it the mask is empty.
        x0, y0: column and row of the whole mask where the rectangle begins, pixels.
        height, width: of the whole mask, pixels.

    Returns: `{"size": [height, width], "counts": str}`, ready for JSON.
    """
    rows, columns = region.shape
    # Runs go down the columns. A row of zeros below the rectangle ends each run in its column.
    pixels = np.zeros(columns * (rows + 1) + 1, np.bool_)
    pixels[1:].reshape(columns, rows + 1)[:, :rows] = region.T
    column, row = np.divmod(np.flatnonzero(pixels[1:] != pixels[:-1]), rows + 1)
    borders = (column + x0) * height + (row + y0)
    if rows == height:  # a run may go on in the next column: it ends where another begins
        joined = np.flatnonzero(borders[1:-1:2] == borders[2::2]) * 2 + 1
        borders = np.delete(borders, np.concatenate((joined, joined + 1)))
    runs = np.diff(np.concatenate(([0], borders, [height * width]))).tolist()
    if len(runs) > 1 and runs[-1] == 0:
        runs.pop()
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


def decode_mask(counts: str, height: int, width: int) -> np.ndarray:
    """Return the mask, bool (height, width), of COCO's compressed run-length `counts`."""
    rle = {"size": [height, width], "counts": counts.encode("ascii")}
    return coco_mask.decode(rle).astype(bool)

"""Decoded pictures as upright BGR arrays: colour conversion and rotation metadata."""

from __future__ import annotations

import struct

import av
import numpy as np

Matrix = tuple[int, int, int, int]
# Rows (x', y') of a display matrix that changes nothing; QuickTime File Format, "Matrices".
UPRIGHT: Matrix = (1, 0, 0, 1)
_UNSPECIFIED_COLORSPACE = 2


def bgr_array(frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
    """Return a picture, uint8 (height, width, 3) BGR, as coded: not turned yet.

    A picture of another size is scaled. Where the clip does not say which colours it means, they
    are those of players: BT.709 from 720 lines on, else BT.601.
    """
    colorspace = None
    if frame.colorspace == _UNSPECIFIED_COLORSPACE:
        colorspace = "ITU709" if height >= 720 else "ITU601"
    return frame.to_ndarray(width=width, height=height, format="bgr24", src_colorspace=colorspace)


def display_matrix(frame: av.VideoFrame) -> Matrix:
    """Return (a, b, c, d), each -1, 0 or 1, of x' = a·x + c·y, y' = b·x + d·y.

    Angles between the quarter turns, which no camera writes, are rounded to them.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return UPRIGHT
    a, b, _, c, d = struct.unpack("=5i", bytes(data)[:20])  # type: ignore[call-overload]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return (-1 if a < 0 else 1, 0, 0, -1 if d < 0 else 1)
    return (0, -1 if b < 0 else 1, -1 if c < 0 else 1, 0)


def apply_display_matrix(image: np.ndarray, matrix: Matrix) -> np.ndarray:
    """Turn and mirror (H, W, 3) as `display_matrix` says; the result is contiguous."""
    a, b, c, d = matrix
    if a == 0:
        image = image.transpose(1, 0, 2)
    if (a or c) < 0:
        image = image[:, ::-1]
    if (d or b) < 0:
        image = image[::-1]
    return np.ascontiguousarray(image)

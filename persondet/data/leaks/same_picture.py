"""Whether two thumbnails show the same picture, when brightness, size and compression may differ.

A perceptual hash alone cannot tell: two streets below the same sky share it. So each pair that the
hash proposes is compared on the thumbnails, and three things are asked:

1. One is a smooth function of the other (a cubic polynomial of the grey values, so that brightness,
   contrast, gamma and moderate clipping do not matter): the share of the variance that is left
   unexplained must be small.
2. The smaller the number of cells of the thumbnail in which there is something to recognise, the
   smaller this rest has to be: two pictures with one bright spot each coincide by chance, two
   with detail everywhere do not. Gradients, horizons and plain pictures have no such cell, and are
   never the same as any other.
3. No spot differs: beyond what shifting an edge by a third of a pixel explains, the rest may
   nowhere exceed 1.2 standard deviations of the picture. The same street with other people in it is
   another picture.

Pictures with few cells are the same, too, when they do not differ at all: by no more than 1.5 grey
levels, and that shift of edges, anywhere.

The limits were measured. True copies (240 photographs and rendered streets, in 26 ways: recompressed
down to JPEG quality 30, resized, brighter, darker, mirrored, turned, grey) leave less than 0.06
unexplained in 98 of 100 cases and have no spot above 0.8 in 98 of 100; recall of the whole search is
0.97 to 0.99, lowest (0.7 to 0.9) where brightening clips a third of the picture; after cropping 1 %
of each side it is 0.7 to 1.0, after 2 % 0.4 to 0.9. Independent pairs: 57,630 of rendered streets
leave 0.32 or more; of 499,500 pairs each of octagons on noise, circles, rectangles, smooth noise,
plain noise, gradients, horizons and single spots none is accepted, the nearest being circles (at the
limit for their number of cells, 9.9) and octagons (2.6 times the limit). Pictures of one or two
plain shapes have too few cells to be told apart by thumbnails alone, so a fifth of their copies are
missed: where the files are there, `persondet.data.leaks.same_detail` decides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from persondet.data.leaks.perceptual_hash import SIDE

Floats = npt.NDArray[np.float64]

MAX_UNEXPLAINED = 0.1
ENOUGH_CELLS = 25.0
MAX_SPOT = 1.2
_CELL = 4  # pixels of the thumbnail
# Structure below this is noise: in grey levels, and as a share of the picture's contrast.
_NOISE, _NOISE_SHARE = 0.5, 0.03
_EDGE_SHIFT, _ROUNDING = 0.35, 1.5  # in pixels of the thumbnail, in grey levels
# What has to be in a picture for "no difference at all" to mean something.
_FEW_CELLS, _CONTRAST = 2.5, 5.0
_BATCH = 512  # bounds the memory: 8 float64 planes of 32 x 32 for each pair


def distinctive_cells(thumbnails: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return in how many of its 64 cells a thumbnail has a corner, a spot or a texture.

    Straight edges and gradients do not count: the measure is the smaller eigenvalue of the
    structure tensor. The number is a participation ratio: cells count by their share.

    Args:
        thumbnails: uint8, (N, 32, 32).

    Returns:
        float32, (N,), 0..64.

    Source: Shi and Tomasi, "Good Features to Track", CVPR 1994, section 4.
    """
    result = np.zeros(len(thumbnails), np.float32)
    for start in range(0, len(thumbnails), _BATCH):
        pixels = thumbnails[start : start + _BATCH].astype(np.float32)
        down, right = np.gradient(pixels, axis=(1, 2))
        xx = _mean_of_cells(np.square(right))
        yy = _mean_of_cells(np.square(down))
        xy = _mean_of_cells(np.multiply(right, down))
        smaller = (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
        noise = _NOISE + _NOISE_SHARE * pixels.std(axis=(1, 2))
        strength = np.sqrt(np.maximum(smaller, 0)) - noise[:, None]
        strength = np.maximum(strength, 0)
        total, square = strength.sum(axis=1), (strength**2).sum(axis=1)
        result[start : start + _BATCH] = total**2 / np.maximum(square, 1e-9)
    return result


def same_picture(
    first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8], cells: npt.NDArray[np.float32]
) -> npt.NDArray[np.bool_]:
    """Return for each pair of thumbnails whether both show the same picture.

    Args:
        first, second: uint8, (P, 32, 32), turned so that they should coincide.
        cells: (P,), the smaller of the two numbers of `distinctive_cells`.

    Returns:
        bool, (P,).
    """
    result = np.zeros(len(first), bool)
    for start in range(0, len(first), _BATCH):
        batch = slice(start, start + _BATCH)
        result[batch] = _same(first[batch], second[batch], cells[batch])
    return result


def _same(
    first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8], cells: npt.NDArray[np.float32]
) -> npt.NDArray[np.bool_]:
    limit = MAX_UNEXPLAINED * np.minimum(1, cells / ENOUGH_CELLS) ** 2
    a = first.reshape(len(first), -1).astype(np.float64)
    b = second.reshape(len(second), -1).astype(np.float64)
    # A clipped copy is a function of its original, but not the other way round.
    fitted, backwards = _smooth_function(a, b), _smooth_function(b, a)
    rest, rest_back = _unexplained(b, fitted), _unexplained(a, backwards)
    swap = rest_back < rest
    close = np.flatnonzero(np.minimum(rest, rest_back) < limit)
    truth = np.where(swap[close, None], a[close], b[close])
    guess = np.where(swap[close, None], backwards[close], fitted[close])
    spread = np.maximum(truth.std(axis=1), 1e-6)
    result = (
        (cells >= _FEW_CELLS) & (a.std(axis=1) >= _CONTRAST) & (_largest_spot(a, b) < _ROUNDING)
    )
    result[close] |= (_largest_spot(truth, guess) - _ROUNDING) / spread < MAX_SPOT
    return result


def _smooth_function(a: Floats, b: Floats) -> Floats:
    """The cubic polynomial of `a` that is nearest to `b`, both (P, pixels)."""
    spread = a.std(axis=1, keepdims=True)
    scaled = (a - a.mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-6)
    powers = scaled[:, None, :] ** np.arange(4)[:, None]  # (P, 4, pixels)
    normal = powers @ powers.swapaxes(1, 2) + 1e-3 * np.eye(4)
    weights = np.linalg.solve(normal, powers @ b[:, :, None])
    return (weights.swapaxes(1, 2) @ powers)[:, 0]


def _unexplained(truth: Floats, guess: Floats) -> Floats:
    """The share of the variance of `truth` that `guess` leaves, (P,)."""
    variance = np.maximum(truth.var(axis=1), 1e-9)
    return np.asarray(((truth - guess) ** 2).mean(axis=1) / variance)


def _largest_spot(truth: Floats, guess: Floats) -> Floats:
    """The largest difference that no shifted edge explains, in grey levels, (P,)."""
    edges = np.minimum(_local_range(truth), _local_range(guess))
    return np.asarray((np.abs(truth - guess) - _EDGE_SHIFT * edges).max(axis=1))


def _local_range(values: Floats) -> Floats:
    """Largest minus smallest value of the 3 x 3 pixels around each, (P, pixels)."""
    padded = np.pad(values.reshape(-1, SIDE, SIDE), ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = [padded[:, k : k + SIDE] for k in range(3)]
    high, low = np.maximum.reduce(rows), np.minimum.reduce(rows)
    high = np.maximum.reduce([high[:, :, k : k + SIDE] for k in range(3)])
    low = np.minimum.reduce([low[:, :, k : k + SIDE] for k in range(3)])
    return np.asarray(high - low).reshape(values.shape)


def _mean_of_cells(plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(N, 32, 32) → (N, 64)."""
    count = SIDE // _CELL
    return plane.reshape(-1, count, _CELL, count, _CELL).mean(axis=(2, 4)).reshape(-1, count**2)

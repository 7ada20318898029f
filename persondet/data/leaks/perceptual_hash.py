"""A picture in short: a 64-bit hash of its coarse structure, and the picture in 32 x 32 pixels.

The hash says which pictures are worth comparing, the thumbnail whether they are the same (see
`persondet.data.leaks.near_identical`).
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

SIDE = 32
_FREQUENCIES = 8
# A coefficient counts as positive above this: a multiple of the rounding of the thumbnail, or a
# share of all coefficients. Without it, the bits of a symmetric picture would be rounding noise.
_ROUNDING, _SHARE = 1.0, 0.04


def picture_signature(
    grey: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint8]]:
    """Return the perceptual hashes of a picture turned and mirrored in 8 ways, and its thumbnail.

    A bit of the hash is the sign of one of the 8 x 8 lowest frequencies of the thumbnail's discrete
    cosine transform. Turning or mirroring only swaps and negates those, so that
    `picture_signature(turned(grey, k))[0][0] == picture_signature(grey)[0][k]` up to rounding.

    Args:
        grey: the picture, uint8, (H, W), 0..255, at least one pixel.

    Returns:
        hashes: uint64, (8,), in the order of `turned`; [0] is the picture itself.
        thumbnail: uint8, (32, 32): the picture reduced without regard to its aspect.

    Raises: ValueError: when `grey` is not of two dimensions, or is empty.

    Source: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010,
    section 3.2, with the sign in place of the comparison with the median.
    """
    if grey.ndim != 2 or grey.size == 0:
        raise ValueError(f"a grey picture has the shape (H, W), not {grey.shape}")
    thumbnail = np.asarray(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)
    return thumbnail_hashes(thumbnail), thumbnail


def thumbnail_hashes(thumbnail: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Return the hashes (uint64, (8,)) of a thumbnail (uint8, (32, 32)); see `picture_signature`."""
    spectrum = _COSINES @ thumbnail.astype(np.float32) @ _COSINES.T
    spectrum[0, 0] = 0  # the brightness says nothing
    threshold = max(_ROUNDING, _SHARE * float(np.linalg.norm(spectrum)))
    both = np.stack([spectrum, spectrum.T])  # (2, 8, 8): as it is, and transposed
    bits = (both[:, None] * _MIRRORINGS > threshold).reshape(8, 64)
    return np.packbits(bits.take(_DEAL, axis=1), axis=1).view(np.uint64)[:, 0]


def turned(pixels: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """Return a picture (..., H, W) turned and mirrored in one of the 8 ways, as a view.

    Args:
        pixels: any array whose last two axes are rows and columns.
        orientation: 0..7: transposed first if 4 or more, then mirrored left to right if odd, then
            top to bottom if bit 1 is set.
    """
    if orientation & 4:
        pixels = pixels.swapaxes(-1, -2)
    if orientation & 1:
        pixels = pixels[..., ::-1]
    if orientation & 2:
        pixels = pixels[..., ::-1, :]
    return pixels


def _cosines() -> npt.NDArray[np.float32]:
    """The first 8 rows of the orthonormal DCT-II matrix of 32 points, (8, 32)."""
    angles = np.pi / SIDE * np.outer(np.arange(_FREQUENCIES), np.arange(SIDE) + 0.5)
    rows = np.cos(angles) * np.sqrt(2 / SIDE)
    rows[0] /= np.sqrt(2)
    return rows.astype(np.float32)


def _mirrorings() -> npt.NDArray[np.float32]:
    """The signs by which each mirroring multiplies the frequencies, (4, 8, 8)."""
    alternate = (-1.0) ** np.arange(_FREQUENCIES)
    ones = np.ones(_FREQUENCIES)
    return np.stack(
        [
            np.outer(alternate if way & 2 else ones, alternate if way & 1 else ones)
            for way in range(4)
        ]
    ).astype(np.float32)


# Low and high frequencies are dealt out to the four bands of 16 bits, of which the search needs one
# to agree: a band of high frequencies alone would agree for all pictures without detail.
_BY_FREQUENCY = np.argsort(np.add.outer(np.arange(8), np.arange(8)).ravel(), kind="stable")
_DEAL = _BY_FREQUENCY.reshape(16, 4).T.ravel()
_COSINES = _cosines()
_MIRRORINGS = _mirrorings()

"""An image in short: a 64-bit hash of its coarse structure, and the image in 64 x 64 pixels.

The hash says which images are worth comparing, the thumbnail whether they show the same (see
`persondet.data.leaks.verification`). Both leave out uniform bars at the borders: letterboxed images
share their bars, which would make strangers look alike.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

SIDE = 64  # of the thumbnail; the hash sees it at half this size
_FREQUENCIES = 8
# A coefficient counts as positive above this share of all of them. Without it, the bits of a
# symmetric image would be rounding noise.
_SHARE = 0.04
_UNIFORM, _EDGE = 12, 16  # grey levels: what compression does to a bar, what ends it


def image_signature(grey: Bytes) -> tuple[npt.NDArray[np.uint64], Bytes]:
    """Return the perceptual hashes of an image turned and mirrored in 8 ways, and its thumbnail.

    A bit of the hash is the sign of one of the 8 x 8 lowest frequencies of the discrete cosine
    transform. Turning or mirroring only swaps and negates those, so that
    `image_signature(turned(grey, k))[0][0] == image_signature(grey)[0][k]` up to rounding.

    Args:
        grey: the image, uint8, (H, W), 0..255, at least one pixel.

    Returns:
        hashes: uint64, (8,), in the order of `turned`; [0] is the image itself.
        thumbnail: uint8, (64, 64): the image without bars, reduced without regard to its aspect.

    Raises: ValueError: when `grey` is not of two dimensions, or is empty.

    Source: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010,
    section 3.2, with the sign in place of the comparison with the median.
    """
    if grey.ndim != 2 or grey.size == 0:
        raise ValueError(f"a grey image has the shape (H, W), not {grey.shape}")
    content = without_bars(grey)
    way = cv2.INTER_AREA if min(content.shape) >= SIDE else cv2.INTER_LINEAR
    thumbnail = np.asarray(cv2.resize(content, (SIDE, SIDE), interpolation=way), np.uint8)
    return _hashes(thumbnail), thumbnail


def turned(pixels: Bytes, orientation: int) -> Bytes:
    """Return an image (..., H, W) turned and mirrored in one of the 8 ways, as a view.

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


def without_bars(grey: Bytes) -> Bytes:
    """Return an image (H, W) without uniform bars along its borders, as a view.

    A bar ends all along its edge. A plain sky or floor ends here and there, and stays.
    """
    for _ in range(2):  # once for rows, once for columns
        start = _bar(grey)
        grey = grey[start : len(grey) - _bar(grey[::-1])].T
    return grey


def _bar(rows: Bytes) -> int:
    """The number of first rows that form a bar, less than half of all; 0 when there is none."""
    if np.ptp(rows[0]) > 2 * _UNIFORM:
        return 0  # most images: nothing more to do
    level = float(np.median(rows[0]))
    differs = np.abs(rows - np.float32(level))
    inside = differs.max(axis=1) > _UNIFORM
    length = int(inside.argmax())
    # Two rows further on: resizing and compression blur the edge.
    beyond = min(length + 2, len(rows) - 1)
    ends = length and (differs[beyond] > _EDGE).mean() > 0.5
    return length + 1 if ends and 2 * (length + 1) < len(rows) else 0


def _hashes(thumbnail: Bytes) -> npt.NDArray[np.uint64]:
    spectrum = _COSINES @ thumbnail.astype(np.float32) @ _COSINES.T
    spectrum[0, 0] = 0  # the brightness says nothing
    threshold = max(1.0, _SHARE * float(np.linalg.norm(spectrum)))
    both = np.stack([spectrum, spectrum.T])  # (2, 8, 8): as it is, and transposed
    bits = both[:, None] * _MIRRORINGS > threshold
    return np.packbits(bits.reshape(8, 64), axis=1).view(np.uint64)[:, 0]


# The first 8 rows of the orthonormal DCT-II matrix of 64 points, (8, 64).
_COSINES = cv2.dct(np.eye(SIDE, dtype=np.float32), flags=cv2.DCT_ROWS).T[:_FREQUENCIES]
_ALTERNATE = np.where(np.arange(_FREQUENCIES) % 2, -1.0, 1.0).astype(np.float32)
# The signs by which each mirroring multiplies the frequencies, (4, 8, 8).
_MIRRORINGS = np.stack(
    [np.outer(_ALTERNATE ** (way >> 1), _ALTERNATE ** (way & 1)) for way in range(4)]
)

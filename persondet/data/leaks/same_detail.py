"""Whether two pictures are the same, seen larger than a thumbnail.

Two thumbnails with one bright spot each look alike by chance; the pictures behind them do not. Of a
copy, the fine detail (edges, texture, even noise) is where it is in the original; of an independent
picture it is not. So both are brought to 160 x 160 grey pixels, and after a monotone curve of the
grey values is fitted (brightness, contrast, gamma, clipping) and small shifts and crops are undone,
five things are asked:

1. Little is left unexplained: at most `MAX_UNEXPLAINED` of the variance.
2. There is enough to recognise: detail in several tiles of the picture.
3. The detail correlates, in each of four bands of frequency, on average over the tiles that have
   any: little in the finest, which JPEG and resizing take away, nearly fully in the coarse ones.
4. Where both have texture, it is the same: noise of a camera or a pattern is in no other picture.
5. No spot differs, beyond what shifting an edge by half a pixel explains: the same street with
   other people in it is another picture.

The less there is to recognise, the smaller the rest and the largest spot have to be.

Source of the alignment: Lucas and Kanade, "An Iterative Image Registration Technique with an
Application to Stereo Vision", IJCAI 1981; of the bands: Burt and Adelson, "The Laplacian Pyramid as
a Compact Image Code", IEEE Transactions on Communications 31 (4), 1983.
"""

from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

LARGE_SIDE = 160
MAX_UNEXPLAINED = 0.15
MIN_DETAILED_TILES, MIN_TILES_ALIGNED, ENOUGH_TILES = 4.0, 90.0, 80.0
MIN_CORRELATIONS = (0.12, 0.7, 0.88, 0.9)
"""Of each band, the finest first."""
MIN_TEXTURE, MIN_TEXTURE_ALIGNED = 0.08, 0.25
"""The median correlation of the finest band, where at least `_TEXTURED` tiles have it in both."""
_TEXTURED, _TEXTURED_ALIGNED = 20, 60
_CERTAIN_SPOT = 1.4
_CERTAINLY_BELOW = (0.6, 0.8)  # of the two coarse bands
MAX_SPOT = 1.0
_ROUNDING = 1.5  # grey levels that compression may change anywhere
_TILE = 10  # pixels of the band's own size
_NOISE, _STRONG = 0.7, 6.0  # grey levels: no detail below, no more weight above
_EDGE_SHIFT, _SPOT = 0.5, (5, 5)
_NEIGHBOURS = np.array([1, 2, 3, 4, 5, 4, 3, 2, 1], float)  # weights of grey levels near one
_HALF = (LARGE_SIDE // 2, LARGE_SIDE // 2)
_BLURS, _MARGIN = (4.0, 4.0, 3.0, 2.0, 1.5, 1.0, 1.0), 5  # pixels of the half size
# Of the side, shift and stretch: cropping 2 % changes 0.02; more is no crop, but a wrong fit.
_MOST_CHANGE = 0.04
_HOPELESS = 0.6  # unexplained without alignment: not worth aligning


class Agreement:
    """How far two pictures agree; what is dearer to know is found when it is asked for.

    Attributes:
        unexplained: the share of the variance that no curve of the grey values explains, when
            noise is blurred away.
        spot: the largest difference of 5 x 5 pixels, in standard deviations.
    """

    def __init__(self, first: Bytes, second: Bytes) -> None:
        """Compare two pictures, uint8, (160, 160), as they are; symmetric."""
        # A clipped copy is a function of its original, but not the other way round.
        ways = [(_toned(a, b), b.astype(np.float32)) for a, b in _both(first, second)]
        rests = [_unexplained(guess, truth) for guess, truth in ways]
        self._first, self._second = first, second
        self._guess, self._truth = guess, truth = ways[int(rests[1] < rests[0])]
        self.unexplained = min(rests)
        edges = np.minimum(_range(guess), _range(truth))
        excess = np.maximum(np.abs(guess - truth) - _EDGE_SHIFT * edges, 0)
        largest = float(cv2.blur(excess, _SPOT).max()) - _ROUNDING
        self.spot = largest / max(float(truth.std()), 1.0)

    @cached_property
    def _bands(self) -> tuple[float, tuple[float, ...]]:
        return _of_bands(self._guess, self._truth)

    @property
    def tiles(self) -> float:
        """How many tiles have detail, in the three finest bands together."""
        return self._bands[0]

    @property
    def correlations(self) -> tuple[float, ...]:
        """Of the detail, in each band; 1 where there is none."""
        return self._bands[1]

    @cached_property
    def _textures(self) -> Floats:
        return _texture(self._first.astype(np.float32), self._second.astype(np.float32))

    @property
    def textured(self) -> int:
        """How many tiles have detail of the finest band in both pictures."""
        return len(self._textures)

    @property
    def texture(self) -> float:
        """The median of its correlation over these; 0 when there is none."""
        return float(np.median(self._textures)) if self.textured else 0.0

    @property
    def same(self) -> bool:
        """Whether both are the same picture."""
        if self.unexplained >= MAX_UNEXPLAINED or self.spot >= MAX_SPOT:
            return False  # before what is dearer is asked
        few = min(1, max(0.08, (self.tiles / ENOUGH_TILES) ** 2))
        return (
            self.unexplained < MAX_UNEXPLAINED * few
            and self.spot < MAX_SPOT * min(1, max(0.4, self.tiles / ENOUGH_TILES))
            and not self._other_texture
            and self.tiles >= MIN_DETAILED_TILES
            and all(c > least for c, least in zip(self.correlations, MIN_CORRELATIONS, strict=True))
        )

    @property
    def same_aligned(self) -> bool:
        """Whether both are the same, when four numbers were fitted to make them so.

        Any two pictures of one disc can be aligned: there has to be more to recognise.
        """
        rich = self.tiles >= MIN_TILES_ALIGNED
        rich |= self.textured >= _TEXTURED_ALIGNED and self.texture >= MIN_TEXTURE_ALIGNED
        return self.same and rich

    @property
    def different(self) -> bool:
        """Whether both are certainly not the same; a picture may be neither."""
        return (
            self.spot >= _CERTAIN_SPOT
            or self._other_texture
            or any(
                c < least for c, least in zip(self.correlations[2:], _CERTAINLY_BELOW, strict=True)
            )
        )

    @property
    def _other_texture(self) -> bool:
        return self.textured >= _TEXTURED and self.texture < MIN_TEXTURE


def large_grey(grey: Bytes) -> Bytes:
    """Return a grey picture (H, W), uint8, as (160, 160), reduced without regard to its aspect."""
    shrinks = min(grey.shape) >= LARGE_SIDE
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(grey, (LARGE_SIDE, LARGE_SIDE), interpolation=way), np.uint8)


def same_detail(first: Bytes, second: Bytes, *, aligning: bool = True) -> bool | None:
    """Return whether two pictures, uint8, (160, 160), turned alike, are the same picture.

    Returns None when they agree, but have too little detail to tell, or lost it: smooth pictures of
    which one is clipped. Without `aligning`, a cropped copy is not recognised.
    """
    upright = Agreement(first, second)
    if upright.same:
        return True
    aligned = align(first, second) if aligning and upright.unexplained < _HOPELESS else None
    if aligned is not None and Agreement(aligned, second).same_aligned:
        return True
    return False if upright.different else None


def align(first: Bytes, second: Bytes) -> Bytes | None:
    """Return `first` shifted and stretched onto `second`, or None when no small change does it."""
    change = np.zeros(4)  # right, down: shift and stretch at the border, in shares of the side
    source, target = (cv2.resize(p, _HALF, interpolation=cv2.INTER_AREA) for p in (first, second))
    # Coarse to fine: a fit sees as far as its blur.
    for sigma in _BLURS:
        moved = _moved(np.asarray(source, np.uint8), change)
        guess = _toned(moved, np.asarray(target, np.uint8))
        # Out of place, the curve flattens, and with it the slopes that the fit divides by.
        guess *= float(target.std()) / max(float(guess.std()), 1.0)
        guess = _blurred(guess, sigma)
        truth = _blurred(target.astype(np.float32), sigma)
        rest = (truth - truth.mean()) - (guess - guess.mean())
        middle = (guess + truth) / 2
        right = cv2.Sobel(middle, -1, 1, 0, scale=0.125)
        down = cv2.Sobel(middle, -1, 0, 1, scale=0.125)
        line = np.linspace(-1, 1, len(guess), dtype=np.float32)
        parts = np.stack([right, right * line, down, down * line[:, None]])
        inner = slice(_MARGIN, -_MARGIN)
        flat = parts[:, inner, inner].reshape(4, -1)
        normal = flat @ flat.T + 1e-3 * flat.shape[1] * np.eye(4)
        change += np.linalg.solve(normal, flat @ rest[inner, inner].ravel()) / len(guess)
        if np.abs(change).max() > _MOST_CHANGE:
            return None
    return _moved(first, change)


def _moved(pixels: Bytes, change: npt.NDArray[np.float64]) -> Bytes:
    """A picture shifted and stretched: from where each pixel is taken, see `align`."""
    side = len(pixels)
    line = np.linspace(-1, 1, side)
    x, y = (
        (np.arange(side) + (shift + stretch * line) * side).astype(np.float32)
        for shift, stretch in change.reshape(2, 2)
    )
    across, along = np.meshgrid(x, y)
    edge = cv2.BORDER_REPLICATE
    return np.asarray(cv2.remap(pixels, across, along, cv2.INTER_LINEAR, borderMode=edge), np.uint8)


def _both(first: Bytes, second: Bytes) -> tuple[tuple[Bytes, Bytes], tuple[Bytes, Bytes]]:
    return (first, second), (second, first)


def _toned(source: Bytes, target: Bytes) -> Floats:
    """`source` through the monotone curve of grey values that comes nearest to `target`.

    The curve at each level is a line fitted to the pixels of nearly that level.
    """
    levels = np.arange(256.0)
    flat = source.ravel()
    count = np.bincount(flat, minlength=256)
    total = np.bincount(flat, target.ravel(), 256)
    sums = [
        np.convolve(values, _NEIGHBOURS, "same")
        for values in (count, count * levels, count * levels**2, total, total * levels)
    ]
    there = sums[0] > 0
    weight, level, square, value, product = (values[there] for values in sums)
    level, square, value, product = (v / weight for v in (level, square, value, product))
    slope = np.clip((product - level * value) / (square - level**2 + 1), 0, 4)
    curve = np.interp(levels, levels[there], value + slope * (levels[there] - level))
    rising, falling = np.maximum.accumulate(curve), np.minimum.accumulate(curve[::-1])[::-1]
    return ((rising + falling) / 2).astype(np.float32)[source]


def _unexplained(guess: Floats, truth: Floats) -> float:
    guess, truth = _blurred(guess, 1.5), _blurred(truth, 1.5)  # without the noise of both
    return float(((guess - truth) ** 2).mean() / max(float(truth.var()), 1e-6))


def _of_bands(guess: Floats, truth: Floats) -> tuple[float, tuple[float, ...]]:
    """The number of detailed tiles, and the correlation in each band."""
    tiles, correlations = 0.0, []
    for band in range(len(MIN_CORRELATIONS)):
        low_guess = _blurred(guess, 1.5)
        low_truth = _blurred(truth, 1.5)
        one, other = guess - low_guess, truth - low_truth
        mine, yours = _tile_means(one * one), _tile_means(other * other)
        strength = np.sqrt(np.maximum(mine, yours))
        # Weak detail in one of them alone may be noise, or what compression took away.
        strength = np.maximum(np.sqrt(np.minimum(mine, yours)), strength - _STRONG)
        weight = np.maximum(np.minimum(strength, _STRONG) - _NOISE, 0)
        number = float(weight.sum()) ** 2 / max(float((weight**2).sum()), 1e-6)
        alike = _tile_means(one * other) / np.sqrt(mine * yours + 1e-9)
        enough = number >= 1
        correlations.append(float((weight * alike).sum() / weight.sum()) if enough else 1.0)
        if band < 3:
            tiles += number
        guess, truth = low_guess[::2, ::2], low_truth[::2, ::2]
    return tiles, tuple(correlations)


def _texture(first: Floats, second: Floats) -> Floats:
    """The correlation of the finest band in tiles where both have detail.

    Of the pictures as they are: a curve fitted between two kinds of noise flattens one.
    """
    one, other = first - _blurred(first, 1.5), second - _blurred(second, 1.5)
    mine, yours = _tile_means(one * one), _tile_means(other * other)
    alike = _tile_means(one * other) / np.sqrt(mine * yours + 1e-9)
    return alike[np.minimum(mine, yours) > _NOISE**2]


def _blurred(plane: Floats, sigma: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma), np.float32)


def _tile_means(plane: Floats) -> Floats:
    """(S, S) → (S / 10, S / 10)."""
    count = len(plane) // _TILE
    return np.asarray(plane.reshape(count, _TILE, count, _TILE).mean(axis=(1, 3)))


def _range(plane: Floats) -> Floats:
    """Largest minus smallest value of the 3 x 3 pixels around each."""
    around = np.ones((3, 3), np.uint8)
    return np.asarray(cv2.dilate(plane, around) - cv2.erode(plane, around), np.float32)

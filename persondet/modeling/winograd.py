"""3 x 3 convolutions with a quarter of the multiplications: Winograd's F(4 x 4, 3 x 3).

A tile of 4 x 4 outputs takes 36 products per pair of channels instead of 144. The products are
matrix multiplications of (tiles, channels) by (channels, channels), which use a processor to the
full; what goes before and after is small where there are many channels. Values differ from those
of a direct convolution by a few units in the sixth digit.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, with the
points 0, 1, -1, 2, -2 and infinity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F

_TILE, _TAPS = 4, 3  # outputs of a tile and taps of a kernel, down and across
_REACH = _TILE + _TAPS - 1  # inputs of a tile
_INPUT = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
_KERNEL: list[list[float]] = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
]
_OUTPUT = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
_FEWEST_CHANNELS = 128  # below, going there and back costs what is saved
_FEWEST_TILES = 64
# On the way back both gradients share a transformation.
_FEWEST_CHANNELS_BACK, _FEWEST_TILES_BACK = 96, 256
_TILES_AT_ONCE = 512  # so that they stay in a cache


def pays(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Return whether convolving x (N, C, H, W) with weight (O, C, 3, 3) this way is faster."""
    tiles, waste = _tiles_of(x)
    return min(weight.shape[:2]) >= _FEWEST_CHANNELS and tiles >= _FEWEST_TILES and waste < 1.5


def pays_back(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Return whether both gradients are found faster this way behind a direct convolution."""
    tiles, waste = _tiles_of(x)
    channels = min(weight.shape[:2])
    return channels >= _FEWEST_CHANNELS_BACK and tiles >= _FEWEST_TILES_BACK and waste < 1.1


def _tiles_of(x: torch.Tensor) -> tuple[int, float]:
    """Return how many tiles a map has, and how much larger than the map they are."""
    images, _, height, width = x.shape
    one = -(-height // _TILE) * -(-width // _TILE)
    return images * one, one * _TILE**2 / (height * width)


def convolve(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *, keep: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Convolve with a stride of 1 and a padding of 1, outside of autograd.

    Args:
        x: float32 (N, C, H, W); weight: float32 (O, C, 3, 3); bias: float32 (O,); keep: return the
            transformed tiles of x where they are few, for the way back.

    Returns: float32 (N, O, H, W), channels-last in memory; float32 (36, tiles, C) or None.
    """
    images, _, height, width = x.shape
    outputs = len(weight)
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    kernels, back = _kernels(weight), _both(_OUTPUT)
    whole = (images, outputs, rows * _TILE, columns * _TILE)
    y = torch.empty(whole, dtype=x.dtype, memory_format=torch.channels_last)
    maps = y.permute(0, 2, 3, 1)
    kept = None
    for first, last in _chunks(x):
        tiles = _input_tiles(x, first, last)
        kept = tiles if keep and last - first == rows else None
        products = torch.bmm(tiles, kernels).flatten(1)
        done = (back @ products).view(_TILE, _TILE, images, last - first, columns, outputs)
        place = maps[:, first * _TILE : last * _TILE]
        place = place.view(images, last - first, _TILE, columns, _TILE, outputs)
        place.copy_(done.permute(2, 3, 0, 4, 1, 5))
    if bias is not None:
        maps += bias
    if whole[2:] == (height, width):
        return y, kept  # no view of another tensor, so that it may be changed in place
    return y[:, :, :height, :width].contiguous(memory_format=torch.channels_last), kept


def gradients(
    gradient: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    *,
    kept: torch.Tensor | None = None,
    needed: Sequence[bool] = (True, True),
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return the gradients of x (N, C, H, W) and weight (O, C, 3, 3), each if it is needed.

    Both come from the products' gradient, whose tiles do not overlap.

    Args:
        gradient: float32 (N, O, H, W), of the result; kept: as `convolve` returned it.
    """
    images, channels, height, width = x.shape
    outputs, rows, columns = len(weight), -(-height // _TILE), -(-width // _TILE)
    kernels, there = _kernels(weight).transpose(1, 2), _both(_OUTPUT).t().contiguous()
    back = _both(_INPUT).t().contiguous()
    # With the border of one pixel, and room for the last tiles' reach.
    bordered = x.new_zeros(images, rows + 1, _TILE, columns + 1, _TILE, channels)
    summed = x.new_zeros(_REACH**2, channels, outputs)
    maps, over = gradient.permute(0, 2, 3, 1), _REACH - _TILE
    for first, last in _chunks(x):
        part = maps[:, first * _TILE : last * _TILE]
        part = F.pad(part, (0, 0, 0, -width % _TILE, 0, (last - first) * _TILE - part.shape[1]))
        part = part.view(images, last - first, _TILE, columns, _TILE, outputs)
        part = part.permute(2, 4, 0, 1, 3, 5).reshape(_TILE**2, -1)
        products = (there @ part).view(_REACH**2, -1, outputs)
        if needed[1]:
            tiles = _input_tiles(x, first, last) if kept is None else kept
            summed.baddbmm_(tiles.transpose(1, 2), products)
        if needed[0]:
            found = (back @ torch.bmm(products, kernels).flatten(1)).view(
                _REACH, _REACH, images, last - first, columns, channels
            )
            found = found.permute(2, 3, 0, 4, 1, 5)
            bordered[:, first:last, :, :-1] += found[:, :, :_TILE, :, :_TILE]
            bordered[:, first + 1 : last + 1, :over, :-1] += found[:, :, _TILE:, :, :_TILE]
            bordered[:, first:last, :, 1:, :over] += found[:, :, :_TILE, :, _TILE:]
            bordered[:, first + 1 : last + 1, :over, 1:, :over] += found[:, :, _TILE:, :, _TILE:]
    of_x = of_weight = None
    if needed[0]:
        bordered = bordered.view(images, (rows + 1) * _TILE, (columns + 1) * _TILE, channels)
        of_x = bordered[:, 1 : height + 1, 1 : width + 1].contiguous().permute(0, 3, 1, 2)
    if needed[1]:
        of_weight = (_both(_KERNEL).t() @ summed.flatten(1)).view(_TAPS, _TAPS, channels, outputs)
        of_weight = of_weight.permute(3, 2, 0, 1)
    return of_x, of_weight


def _kernels(weight: torch.Tensor) -> torch.Tensor:
    """Return the transformed kernels (36, C, O)."""
    outputs, channels = weight.shape[:2]
    taps = weight.permute(2, 3, 1, 0).reshape(_TAPS**2, -1)
    return (_both(_KERNEL) @ taps).view(-1, channels, outputs)


def _both(matrix: Sequence[Sequence[float]]) -> torch.Tensor:
    """Return the matrix that transforms a flattened tile down and across."""
    one = torch.tensor(matrix, dtype=torch.float32)
    return torch.kron(one, one)


def _chunks(x: torch.Tensor) -> Iterator[tuple[int, int]]:
    """Yield (first row of tiles, row behind the last)."""
    images, _, height, width = x.shape
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    step = max(1, _TILES_AT_ONCE // (images * columns))
    for first in range(0, rows, step):
        yield first, min(rows, first + step)


def _input_tiles(x: torch.Tensor, first: int, last: int) -> torch.Tensor:
    """Return the transformed tiles (36, tiles, C) of some rows of tiles."""
    channels, width = x.shape[1], x.shape[3]
    top, bottom = first * _TILE - 1, last * _TILE + 1
    part = x.permute(0, 2, 3, 1)[:, max(top, 0) : bottom]
    below = bottom - max(top, 0) - part.shape[1]
    part = F.pad(part, (0, 0, 1, 1 + -width % _TILE, max(-top, 0), below))
    part = part.unfold(1, _REACH, _TILE).unfold(2, _REACH, _TILE)
    part = part.permute(4, 5, 0, 1, 2, 3).reshape(_REACH**2, -1)
    return (_both(_INPUT) @ part).view(_REACH**2, -1, channels)

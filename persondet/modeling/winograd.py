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
_TILES_AT_ONCE = 512  # so that they stay in a cache


def pays(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Return whether convolving x (N, C, H, W) with weight (O, C, 3, 3) this way is faster."""
    images, _, height, width = x.shape
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    return (
        min(weight.shape[:2]) >= _FEWEST_CHANNELS
        and images * rows * columns >= _FEWEST_TILES
        and rows * columns * _TILE**2 < 1.5 * height * width
    )


def convolve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Convolve with a stride of 1 and a padding of 1, outside of autograd.

    Args:
        x: float32 (N, C, H, W); weight: float32 (O, C, 3, 3); bias: float32 (O,).

    Returns: float32 (N, O, H, W), channels-last in memory.
    """
    images, channels, height, width = x.shape
    outputs = len(weight)
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    kernels = _both(_KERNEL) @ weight.permute(2, 3, 1, 0).reshape(_TAPS**2, -1)
    kernels = kernels.view(-1, channels, outputs)
    back = _both(_OUTPUT)
    whole = (images, outputs, rows * _TILE, columns * _TILE)
    y = torch.empty(whole, dtype=x.dtype, memory_format=torch.channels_last)
    maps = y.permute(0, 2, 3, 1)
    for first, last, tiles in _input_tiles(x):
        products = torch.bmm(tiles, kernels).flatten(1)
        done = (back @ products).view(_TILE, _TILE, images, last - first, columns, outputs)
        place = maps[:, first * _TILE : last * _TILE]
        place = place.view(images, last - first, _TILE, columns, _TILE, outputs)
        place.copy_(done.permute(2, 3, 0, 4, 1, 5))
    if bias is not None:
        maps += bias
    if whole[2:] == (height, width):
        return y  # no view of another tensor, so that it may be changed in place
    return y[:, :, :height, :width].contiguous(memory_format=torch.channels_last)


def weight_gradient(x: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Return the gradient (O, C, 3, 3) of the weights that convolved x (N, C, H, W).

    Args:
        gradient: float32 (N, O, H, W), of the result.
    """
    images, channels, _, width = x.shape
    outputs, columns = gradient.shape[1], -(-width // _TILE)
    there = _both(_OUTPUT).t().contiguous()
    summed = x.new_zeros(_REACH**2, channels, outputs)
    maps = gradient.permute(0, 2, 3, 1)
    for first, last, tiles in _input_tiles(x):
        part = maps[:, first * _TILE : last * _TILE]
        part = F.pad(part, (0, 0, 0, -width % _TILE, 0, (last - first) * _TILE - part.shape[1]))
        part = part.view(images, last - first, _TILE, columns, _TILE, outputs)
        part = part.permute(2, 4, 0, 1, 3, 5).reshape(_TILE**2, -1)
        summed.baddbmm_(tiles.transpose(1, 2), (there @ part).view(_REACH**2, -1, outputs))
    kernels = _both(_KERNEL).t() @ summed.flatten(1)
    return kernels.view(_TAPS, _TAPS, channels, outputs).permute(3, 2, 0, 1)


def _both(matrix: Sequence[Sequence[float]]) -> torch.Tensor:
    """Return the matrix that transforms a flattened tile down and across."""
    one = torch.tensor(matrix, dtype=torch.float32)
    return torch.kron(one, one)


def _input_tiles(x: torch.Tensor) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Yield (first row of tiles, row behind the last, transformed tiles (36, tiles, C))."""
    images, channels, height, width = x.shape
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    there, maps = _both(_INPUT), x.permute(0, 2, 3, 1)
    step = max(1, _TILES_AT_ONCE // (images * columns))
    for first in range(0, rows, step):
        last = min(rows, first + step)
        top, bottom = first * _TILE - 1, last * _TILE + 1
        part = maps[:, max(top, 0) : bottom]
        below = bottom - max(top, 0) - part.shape[1]
        part = F.pad(part, (0, 0, 1, 1 + -width % _TILE, max(-top, 0), below))
        part = part.unfold(1, _REACH, _TILE).unfold(2, _REACH, _TILE)
        part = part.permute(4, 5, 0, 1, 2, 3).reshape(_REACH**2, -1)
        yield first, last, (there @ part).view(_REACH**2, -1, channels)

"""Many small pictures on one: tiles in a grid, each with a caption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from persondet.errors import MediaError
from persondet.files import atomic_path
from persondet.visualization.drawing import FONT, contrasting

BACKGROUND = (245, 245, 245)
MARGIN = 8
CAPTION_HEIGHT = 22
CAPTION_SCALE = 0.45


def contact_sheet(
    tiles: Sequence[np.ndarray],
    captions: Sequence[str],
    *,
    columns: int,
    tile_size: tuple[int, int] = (320, 240),
    background: tuple[int, int, int] = BACKGROUND,
) -> np.ndarray:
    """Return `tiles` in rows of `columns`, each letterboxed and with its caption below.

    Args:
        tiles: images, uint8, (H, W, 3), BGR, of any size, at least one.
        captions: one text per tile; a longer one than its tile is cut off with "...".
        columns: tiles per row, at least 1.
        tile_size: (width, height) in pixels that each image is fitted into, keeping its shape.
        background: BGR colour around the tiles.

    Returns:
        The sheet, uint8, (H, W, 3), BGR.

    Raises: ValueError: when there is no tile, or not one caption per tile.
    """
    if not tiles or len(tiles) != len(captions) or columns < 1:
        raise ValueError(
            f"cannot lay out {len(tiles)} tiles with {len(captions)} captions in {columns} columns"
        )
    width, height = tile_size
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    cell_width, cell_height = width + MARGIN, height + CAPTION_HEIGHT + MARGIN
    shape = (rows * cell_height + MARGIN, columns * cell_width + MARGIN, 3)
    sheet = np.full(shape, background, dtype=np.uint8)
    for index, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        row, column = divmod(index, columns)
        x, y = MARGIN + column * cell_width, MARGIN + row * cell_height
        sheet[y : y + height, x : x + width] = letterbox(tile, tile_size, background=background)
        cv2.putText(
            sheet,
            _shortened(caption, width),
            (x, y + height + CAPTION_HEIGHT - 7),
            FONT,
            CAPTION_SCALE,
            contrasting(background),
            1,
            cv2.LINE_AA,
        )
    return sheet


def write_sheet(path: str | Path, sheet: np.ndarray) -> Path:
    """Write a picture (uint8, (H, W, 3), BGR) whole or not at all, and return its path.

    Raises: MediaError: when OpenCV cannot write the format that the name ends in.
    """
    with atomic_path(path) as temporary:
        if not cv2.imwrite(str(temporary), sheet):
            raise MediaError(f"{path}: the picture cannot be written; end its name in .png.")
    return Path(path)


def letterbox(
    image: np.ndarray,
    size: tuple[int, int],
    *,
    background: tuple[int, int, int] = BACKGROUND,
) -> np.ndarray:
    """Return `image` (uint8, (H, W, 3), BGR) fitted into the middle of `size` (width, height).

    The shape of the picture is kept; `background` (BGR) fills what it leaves free.
    """
    height, width = image.shape[:2]
    factor = min(size[0] / width, size[1] / height)
    fitted = (max(1, round(width * factor)), max(1, round(height * factor)))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    canvas = np.full((size[1], size[0], 3), background, dtype=np.uint8)
    x, y = (size[0] - fitted[0]) // 2, (size[1] - fitted[1]) // 2
    canvas[y : y + fitted[1], x : x + fitted[0]] = cv2.resize(image, fitted, interpolation=method)
    return canvas


def _shortened(text: str, width: int) -> str:
    """Return `text`, or its beginning and "...", so that it is at most `width` pixels wide."""
    if cv2.getTextSize(text, FONT, CAPTION_SCALE, 1)[0][0] <= width:
        return text
    while text and cv2.getTextSize(text + "...", FONT, CAPTION_SCALE, 1)[0][0] > width:
        text = text[:-1]
    return text + "..."

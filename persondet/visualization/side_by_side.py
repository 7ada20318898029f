"""Ground truth beside prediction: the same picture twice, with what is wrong standing out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from persondet.visualization.contact_sheet import BACKGROUND, MARGIN
from persondet.visualization.drawing import (
    FONT,
    PALETTE,
    Color,
    contrasting,
    draw_box,
    draw_label,
    draw_mask,
)

# Colour-blind readers tell these two apart; width and label say the same once more.
RIGHT, WRONG, CROWD = PALETTE[1], PALETTE[5], (150, 150, 150)
PANEL = (632, 480)  # the most pixels of one side: width, height
ENLARGED = 4.0  # times, at most
_HEADER = 26


@dataclass(frozen=True)
class Shown:
    """One object of a panel.

    Attributes:
        box: XYXY_ABS, pixels of the picture.
        mask: bool, (H, W) of the picture, or None.
        label: written beside it; empty: nothing.
        wrong: whether it stands out.
        crowd: whether it is a region of people whom nobody counted.
    """

    box: Sequence[float]
    mask: np.ndarray | None = None
    label: str = ""
    wrong: bool = False
    crowd: bool = False


def draw_side_by_side(
    image: np.ndarray,
    left: Sequence[Shown],
    right: Sequence[Shown],
    *,
    titles: tuple[str, str] = ("annotated", "found"),
    around: Sequence[float] | None = None,
) -> np.ndarray:
    """Return one picture with two panels, at most 1,280 pixels wide.

    Args:
        image: uint8, (H, W, 3), BGR.
        left, right: what is drawn on each panel.
        titles: written above the panels.
        around: box (XYXY_ABS, pixels) to cut out with as much again around it; default: all.

    Returns: uint8, (H, W, 3), BGR.
    """
    window = _window(image, around)
    panels = [_panel(image, objects, window) for objects in (left, right)]
    height, width = panels[0].shape[:2]
    sheet = np.full((height + _HEADER, 2 * width + 2 * MARGIN, 3), BACKGROUND, dtype=np.uint8)
    for number, (panel, title) in enumerate(zip(panels, titles, strict=True)):
        x = number * (width + 2 * MARGIN)
        sheet[_HEADER:, x : x + width] = panel
        position, ink = (x + 2, _HEADER - 8), contrasting(BACKGROUND)
        cv2.putText(sheet, title, position, FONT, 0.5, ink, 1, cv2.LINE_AA)
    return sheet


def _window(image: np.ndarray, around: Sequence[float] | None) -> tuple[int, int, int, int]:
    height, width = image.shape[:2]
    if around is None:
        return 0, 0, width, height
    x0, y0, x1, y1 = around
    margin = max(x1 - x0, y1 - y0) / 2 + 8
    return (
        int(np.clip(x0 - margin, 0, width - 1)),
        int(np.clip(y0 - margin, 0, height - 1)),
        int(np.clip(np.ceil(x1 + margin), 1, width)),
        int(np.clip(np.ceil(y1 + margin), 1, height)),
    )


def _panel(
    image: np.ndarray, objects: Sequence[Shown], window: tuple[int, int, int, int]
) -> np.ndarray:
    x0, y0, x1, y1 = window
    factor = min(PANEL[0] / (x1 - x0), PANEL[1] / (y1 - y0), ENLARGED)
    size = (max(1, round((x1 - x0) * factor)), max(1, round((y1 - y0) * factor)))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    panel = cv2.resize(image[y0:y1, x0:x1], size, interpolation=method)
    # What is wrong is drawn last, on top.
    visible = [shown for shown in objects if _meets(shown.box, window)]
    ordered = sorted(visible, key=lambda shown: (shown.wrong, not shown.crowd))
    for shown in ordered:
        if shown.mask is not None:
            part = shown.mask[y0:y1, x0:x1].astype(np.uint8)
            mask = cv2.resize(part, size, interpolation=cv2.INTER_NEAREST)
            draw_mask(panel, mask, _color(shown), alpha=0.25)
    scaled = [((np.asarray(s.box, np.float64) - [x0, y0, x0, y0]) * factor, s) for s in ordered]
    for box, shown in scaled:
        draw_box(panel, box, _color(shown), width=2 if shown.wrong else 1)
    for box, shown in scaled:
        if shown.label:
            draw_label(panel, shown.label, (box[0], box[1]), _color(shown))
    return panel


def _meets(box: Sequence[float], window: tuple[int, int, int, int]) -> bool:
    return box[0] < window[2] and box[2] > window[0] and box[1] < window[3] and box[3] > window[1]


def _color(shown: Shown) -> Color:
    return WRONG if shown.wrong else CROWD if shown.crowd else RIGHT

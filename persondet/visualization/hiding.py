"""Hiding people in images: where each of them is, and what their pixels become.

A `Cover` is what hides one person: the mask, and a margin around it. Where the mask head is in
doubt, the cover is larger rather than smaller. What is painted holds no detail finer than an eighth
of the person's height, whatever the style: `pixelate` shows the means of such cells, `blur` the
same means with soft transitions, and `fill` nothing.

Masks are `bool, (h, w)`, images `uint8, (H, W, 3), BGR`, lengths pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from persondet.inference.masks import (
    ROI_FIELD,
    THRESHOLD,
    RegionMasks,
    mask_extent,
    paste_masks,
    region_masks_of,
)

if TYPE_CHECKING:  # resampling needs PyTorch; painting does not
    from detectron2.structures import Instances

STYLES, PARTS = ("pixelate", "blur", "fill"), ("person", "head")
HIDE_THRESHOLD = 0.05
"""Detections are hidden from this score on: a false alarm costs some street, a miss a face."""
FILL = (0, 0, 0)
_CELLS = 8  # per height of a person, at most
_MARGIN = 0.1  # around a mask, in heights of the person
_MASK_SHARE = 0.1  # a pixel is hidden from this probability on
_LEAST_MASK = 0.25  # share of its box; a mask that covers less is not believed, and the box counts


@dataclass(frozen=True)
class HideOptions:
    """How to hide people.

    style: one of `STYLES`; part: one of `PARTS`; threshold: detections are hidden from this score
    on; exempt: numbers of the tracks that stay visible; masks: keep masks in the records.
    """

    style: str
    part: str = "person"
    threshold: float = HIDE_THRESHOLD
    exempt: tuple[int, ...] = ()
    masks: bool = False


@dataclass(frozen=True)
class Cover:
    """What hides one person in one frame.

    region: bool, (h, w); corner: (x0, y0) of its rectangle in the image; height: of the person,
    which the cells follow; margin: to grow the region by; at_edge: whether the image cuts the
    person off; shown: True for a person who stays visible, None where a frame alone does not tell.
    """

    region: np.ndarray = field(repr=False)
    corner: tuple[int, int]
    height: float
    margin: float
    at_edge: bool = False
    shown: bool | None = False

    def between(self, other: Cover, share: float) -> Cover:
        """Return the cover at `share` (0 to 1) of the way to a later one: both, moved there."""
        ours, theirs = self.region, other.region
        start = [a + share * (b - a) for a, b in zip(self.corner, other.corner, strict=True)]
        size = [a + share * (b - a) for a, b in zip(ours.shape, theirs.shape, strict=True)]
        height, width = (max(1, round(length)) for length in size)
        both = [cv2.resize(one.astype(np.uint8), (width, height)) for one in (ours, theirs)]
        return Cover(
            region=np.maximum(*both) > 0,
            corner=(round(start[0]), round(start[1])),
            height=max(self.height, other.height),
            margin=max(self.margin, other.margin),
            at_edge=self.at_edge or other.at_edge,
            shown=self.shown if self.shown == other.shown else None,
        )

    def widened(self, by: float) -> Cover:
        """Return the cover with `by` more pixels of margin."""
        return replace(self, margin=self.margin + by)

    def grown(self, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
        """Return region and corner with the margin, inside an image of `size` (H, W)."""
        reach = math.ceil(self.margin)
        (x0, y0), (rows, columns) = self.corner, self.region.shape
        away = np.pad(self.region, reach, constant_values=False)
        if reach and away.any():
            distance = cv2.distanceTransform((~away).astype(np.uint8), cv2.DIST_L2, 3)
            away = distance <= self.margin
        left, top = max(0, x0 - reach), max(0, y0 - reach)
        right, bottom = min(size[1], x0 + columns + reach), min(size[0], y0 + rows + reach)
        inside = away[
            top - y0 + reach : max(top, bottom) - y0 + reach,
            left - x0 + reach : max(left, right) - x0 + reach,
        ]
        return inside, (left, top)


def covers_of(instances: Instances, part: str = "person") -> list[Cover]:
    """Return what hides each detection of an image.

    Args:
        instances: on the CPU, with `pred_boxes` (XYXY_ABS, pixels) and masks in any of the fields
            that `persondet.inference.masks` names; without masks the boxes are covered.
        part: one of `PARTS`. The head is the upper fifth of a person, or more where the box is
            wide, as it is of somebody near or sitting.
    """
    boxes = instances.pred_boxes.tensor
    masks: RegionMasks | None
    if instances.has(ROI_FIELD):
        likely = instances.get(ROI_FIELD).tensor * (THRESHOLD / _MASK_SHARE)
        masks = paste_masks(likely, boxes, instances.image_size)
    else:
        masks = region_masks_of(instances)
    height, width = instances.image_size
    covers = []
    for k, (x0, y0, x1, y1) in enumerate(boxes.clamp(min=0).nan_to_num().tolist()):
        left, top = min(math.floor(x0), width), min(math.floor(y0), height)
        right, bottom = min(math.ceil(x1), width), min(math.ceil(y1), height)
        region, corner = np.ones((max(0, bottom - top), max(0, right - left)), bool), (left, top)
        if masks is not None and masks.regions[k].sum() >= _LEAST_MASK * region.size:
            region, corner = masks.regions[k], masks.corners[k]
        if part == "head":
            rows = math.ceil(max(0.2 * (y1 - y0), 0.6 * (x1 - x0)))
            region, corner = _head(region, corner, rows)
        # Of somebody who is seen in part the head is larger than a seventh of the box.
        tall = max(y1 - y0, _CELLS / 4 * (x1 - x0))
        margin = max(2.0, _MARGIN * tall)
        # The lower edge counts not: whoever is cut off there is near, and easily detected.
        at_edge = x0 <= margin or y0 <= margin or x1 >= width - margin
        covers.append(Cover(region, corner, tall, margin, at_edge))
    return covers


def _head(
    region: np.ndarray, corner: tuple[int, int], rows: int
) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the rectangle around the upper `rows` of a mask."""
    x0, y0, x1, y1 = mask_extent(region)
    x0, y0, x1, y1 = mask_extent(region[y0 : min(y1, y0 + rows)]) if x1 else (0, 0, 0, 0)
    top = mask_extent(region)[1]
    return np.ones((y1 - y0, x1 - x0), bool), (corner[0] + x0, corner[1] + top + y0)


def hide(image: np.ndarray, covers: Iterable[Cover], style: str) -> None:
    """Hide people in an image, in place.

    Args:
        image: uint8, (H, W, 3), BGR, contiguous.
        covers: as of `covers_of`. Whoever is `shown` is not hidden by somebody unsure (None).
        style: one of `STYLES`.
    """
    original = image.copy()
    # Where two overlap, the coarser cells stay: finer ones would show the nearer person's face.
    covers = list(covers)
    for cover in sorted(covers, key=lambda one: one.height):
        if cover.shown:
            continue
        region, (x, y) = cover.grown((image.shape[0], image.shape[1]))
        if not region.size:
            continue
        place = slice(y, y + region.shape[0]), slice(x, x + region.shape[1])
        coarse = _coarse(original[place], math.ceil(max(4.0, cover.height / _CELLS)), style)
        cv2.copyTo(coarse, region.view(np.uint8), image[place])
    visible = _visible_mask(covers, (image.shape[0], image.shape[1]))
    if visible is not None:
        image[visible] = original[visible]


def _visible_mask(covers: Sequence[Cover], size: tuple[int, int]) -> np.ndarray | None:
    """Return where somebody is who stays visible, before all that is unsure, behind all others."""
    if not any(cover.shown for cover in covers):
        return None
    own = hidden_mask([replace(one, shown=False, margin=0.0) for one in covers if one.shown], size)
    visible: np.ndarray = own & ~hidden_mask([c for c in covers if c.shown is False], size)
    return visible


def _coarse(pixels: np.ndarray, cell: int, style: str) -> np.ndarray:
    """Return an image without any detail smaller than `cell` pixels."""
    if style == "fill":
        return np.full_like(pixels, FILL)
    height, width = pixels.shape[:2]
    size = max(1, width // cell), max(1, height // cell)
    means = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    soft = cv2.INTER_LINEAR if style == "blur" else cv2.INTER_NEAREST
    return np.ascontiguousarray(cv2.resize(means, (width, height), interpolation=soft))


def hidden_mask(covers: Iterable[Cover], size: tuple[int, int]) -> np.ndarray:
    """Return which pixels of an image of `size` (H, W) covers hide: bool, (H, W)."""
    covers, hidden = list(covers), np.zeros(size, bool)
    for cover in covers:
        if cover.shown:
            continue
        region, (x, y) = cover.grown(size)
        hidden[y : y + region.shape[0], x : x + region.shape[1]] |= region
    visible = _visible_mask(covers, size)
    return hidden if visible is None else hidden & ~visible

"""Labels: what they say, how they look, and where they go.

Text is sharp at any size, on a plate that sets it off. A label lies near its box, inside the image,
on no other label. The best place of every single frame would make labels jump: a label keeps its
place while that is free, follows its box without its tremble, and moves only when a better place
has been free for a while. Its numbers do not change with every frame either.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from detectron2.structures import Instances
from PIL import Image, ImageDraw, ImageFont

from persondet.text import one_line
from persondet.visualization.drawing import Color, contrasting


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return Pillow's own font: no file to look for, the same on every machine."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


@lru_cache(maxsize=256)
def text_coverage(text: str, size: int) -> np.ndarray:
    """Return how much of each pixel the letters cover: uint8, (H, W), 0..255.

    All texts of one size have the same height, so that plates line up. `size` is in pixels.
    """
    font = _font(size)
    ascent, descent = font.getmetrics()
    image = Image.new("L", (max(1, round(font.getlength(text))), ascent + descent))
    ImageDraw.Draw(image).text((0, ascent), text, fill=255, font=font, anchor="ls")
    coverage = np.array(image)
    coverage.flags.writeable = False
    return coverage


def plate_size(text: str, size: int) -> tuple[int, int]:
    """Return the (width, height) in pixels of the plate that `draw_plate` draws."""
    height, width = text_coverage(text, size).shape
    return width + 2 * _margin(size), height


def _margin(size: int) -> int:
    """Return the pixels left and right of the text."""
    return max(2, size // 4)


def draw_plate(
    image: np.ndarray, text: str, corner: tuple[int, int], size: int, color: Color, alpha: float = 1
) -> None:
    """Write `text` on a plate, in place; what lies outside the image is cut off.

    Args:
        image: uint8, (H, W, 3), BGR.
        text: one line.
        corner: (x, y) of the plate's upper left corner, pixels.
        size: of the font, pixels.
        color: BGR of the plate; the letters are black or white.
        alpha: 1 opaque, 0 no plate at all.
    """
    plate, letters = _plate(text, size, color)
    height, width = letters.shape
    x, y = corner
    x0, y0 = max(0, x), max(0, y)
    x1, y1 = min(image.shape[1], x + width), min(image.shape[0], y + height)
    if x0 >= x1 or y0 >= y1:
        return
    seen = (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))
    below = image[y0:y1, x0:x1]
    share = alpha + (1 - alpha) * letters[seen][:, :, None]
    below[:] = np.round(below + share * (plate[seen] - below.astype(np.float32)))


def draw_label(
    image: np.ndarray,
    text: str,
    position: Sequence[float] | np.ndarray,
    color: Color,
    *,
    size: int = 13,
) -> None:
    """Write `text` on a plate above `position` (x, y), pixels, moved to stay inside the image.

    Args:
        image: uint8, (H, W, 3), BGR; drawn on in place.
        text, size, color: as of `draw_plate`.
        position: where the plate's lower left corner goes if there is room.
    """
    width, height = plate_size(text, size)
    x = min(max(0.0, position[0]), max(0, image.shape[1] - width))
    y = min(max(0.0, position[1] - height), max(0, image.shape[0] - height))
    draw_plate(image, text, (int(x), int(y)), size, color)


@lru_cache(maxsize=256)
def _plate(text: str, size: int, color: Color) -> tuple[np.ndarray, np.ndarray]:
    """Return an opaque plate, uint8 (H, W, 3), and how much of it letters are, float32 (H, W)."""
    width, height = plate_size(text, size)
    margin = _margin(size)
    letters = np.zeros((height, width), np.float32)
    letters[:, margin : width - margin] = text_coverage(text, size) / np.float32(255)
    ground, ink = (np.array(bgr, np.float32) for bgr in (color, contrasting(color)))
    return np.round(ground + letters[:, :, None] * (ink - ground)).astype(np.uint8), letters


Rectangle = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels; x1 and y1 are excluded
Size = tuple[int, int]  # width, height in pixels
_Obstacles = tuple[np.ndarray, np.ndarray]  # heads, and what is occupied: rectangles, (N, 4)

# Frames that a better place must have been free before a label moves there, or appears again.
SETTLED = 25
# Frames for which the place of a person who is not seen is remembered.
REMEMBERED = 12
# A label stays where it is while its box moves by less than this share of the label's height.
SLACK = 0.1
# The upper part of a box, where the head is: labels lie elsewhere if they can.
HEAD = 0.2


@dataclass
class _Label:
    """A label of an earlier frame.

    since, last: frames when first and last seen; free, clear: for how many frames each choice has
    been free, and has hidden no head besides; choice: its version and spot as one number, None when
    it found no place; corner: (x, y) of the plate.
    """

    since: int
    last: int
    free: np.ndarray
    clear: np.ndarray
    choice: int | None = None
    corner: np.ndarray = field(default_factory=lambda: np.zeros(2))


class LabelLayout:
    """Places the labels of a clip frame by frame; of a single image with its only call."""

    def __init__(self) -> None:
        """Start without memory."""
        self._labels: dict[Hashable, _Label] = {}
        self._frame = 0

    def place(
        self,
        keys: Sequence[Hashable],
        boxes: np.ndarray,
        sizes: Sequence[Sequence[Size]],
        image: Size,
        taken: Sequence[Rectangle] = (),
    ) -> list[tuple[int, int, tuple[int, int]]]:
        """Find the places of one frame's labels. One that finds none is left out.

        Those that were seen before choose first, the others in the order of the input: hand them
        in order of importance. No two of the rectangles share a pixel, taken ones included.

        Args:
            keys: who each label belongs to, the same in every frame.
            boxes: (N, 4), XYXY_ABS, pixels.
            sizes: for each label its versions, the best first: all have the same number.
            image: its size.
            taken: rectangles that are occupied already.

        Returns: number in the input, version and corner (upper left, pixels) of each label.
        """
        self._frame += 1
        known = [self._labels.get(key) for key in keys]
        shown = [label is not None and label.choice is not None for label in known]
        since = [label.since if label else 0 for label in known]
        order = sorted(range(len(keys)), key=lambda i: (not shown[i], since[i], i))
        heads = _heads(boxes, margin=2 + SLACK * max((size[0][1] for size in sizes), default=0))
        occupied = np.reshape(np.array(taken, np.float64), (-1, 4))
        placements = []
        for i in order:
            plates = np.array(sizes[i], np.float64)
            label = self._settle(keys[i], boxes[i], plates, image, (heads, occupied))
            if label.choice is None:
                continue
            version = label.choice // SPOTS
            x, y = (int(value) for value in np.round(label.corner))
            width, height = sizes[i][version]
            occupied = np.vstack([occupied, (x, y, x + width, y + height)])
            placements.append((i, version, (x, y)))
        forgotten = self._frame - REMEMBERED
        self._labels = {key: one for key, one in self._labels.items() if one.last >= forgotten}
        return placements

    def _settle(
        self, key: Hashable, box: np.ndarray, sizes: np.ndarray, image: Size, around: _Obstacles
    ) -> _Label:
        """Decide where one label goes, and remember it."""
        plates = np.repeat(sizes, SPOTS, axis=0)
        room = np.maximum(np.array(image) - plates, -1)
        corners = np.minimum(np.maximum(_spots(box, sizes), 0), np.maximum(room, 0))
        nothing = np.zeros(len(plates), np.int64)
        label = self._labels.setdefault(key, _Label(self._frame, 0, nothing, nothing))
        now = label.choice
        if now is not None:
            slack = SLACK * plates[now, 1]
            held = np.minimum(np.maximum(label.corner, corners[now] - slack), corners[now] + slack)
            corners[now] = np.minimum(np.maximum(held, 0), np.maximum(room[now], 0))
        free: np.ndarray = (room >= 0).all(axis=1) & ~_touches(corners, plates, around[1])
        hides = _touches(corners, plates, around[0])
        label.free = (label.free + 1) * free
        label.clear = (label.clear + 1) * (free & ~hides)
        if now is None and label.last:
            label.choice = _first(label.clear >= SETTLED, label.free >= SETTLED)
        elif now is None or not free[now]:
            label.choice = _first(free & ~hides, free)
        else:
            better: np.ndarray = label.clear >= SETTLED
            if now not in np.flatnonzero(hides):
                better[now:] = False
            label.choice = _first(better) if better.any() else now
        label.last = self._frame
        if label.choice is not None:
            label.corner = corners[label.choice]
        return label


def _first(*wishes: np.ndarray) -> int | None:
    """Return the first choice of the first wish that has any; None if none has."""
    return next((int(np.argmax(wish)) for wish in wishes if wish.any()), None)


def _touches(corners: np.ndarray, plates: np.ndarray, obstacles: np.ndarray) -> np.ndarray:
    """Return which of K plates shares a pixel with any of the obstacles, (M, 4): bool, (K,)."""
    low = np.round(corners)
    x0, y0 = low.T[:, :, None]
    x1, y1 = (low + plates).T[:, :, None]
    left, top, right, bottom = obstacles.T
    touched: np.ndarray = (x0 < right) & (x1 > left) & (y0 < bottom) & (y1 > top)
    return np.asarray(touched.any(axis=1))


def _heads(boxes: np.ndarray, margin: float) -> np.ndarray:
    """Return the upper part of each box, (N, 4), without its outermost `margin` pixels."""
    heads = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    heads[:, 3] = heads[:, 1] + HEAD * (heads[:, 3] - heads[:, 1])
    return heads + np.array([margin, margin, -margin, -margin])


# Where a label's upper left corner may be, the best first, as shares of x0, y0, x1, y1 of its box
# and of its width and height.
_PLACES = np.array(
    [
        [[1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, -1]],  # above, on the box's edge
        [[0, 0, 1, 0, -1, 0], [0, 1, 0, 0, 0, -1]],
        [[1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0]],  # inside, at the top
        [[1, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0]],  # below
        [[0, 0, 1, 0, -1, 0], [0, 0, 0, 1, 0, 0]],
        [[0, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0]],  # beside
        [[1, 0, 0, 0, -1, 0], [0, 1, 0, 0, 0, 0]],
        [[1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, -2]],  # a line higher
        [[1, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, -1]],  # inside, at the bottom
        [[0, 0, 1, 0, 0, 0], [0, 0.5, 0, 0.5, 0, -0.5]],  # beside, half way down
    ]
)
SPOTS = len(_PLACES)


def _spots(box: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the corners to try for each size in turn: float64, (S * SPOTS, 2)."""
    corners: np.ndarray = np.concatenate([_PLACES @ np.append(box, size) for size in sizes])
    return corners


# A score on a label stays until the real one is this far away.
SCORE_SLACK = 0.025
LONGEST_NAME = 24  # letters of a class name
_PEOPLE = frozenset({"person", "people", "pedestrian", "human"})


class ShownScores:
    """The scores as they are shown: they change when there is something to tell.

    A model's score trembles by a point or two from frame to frame; digits that do cannot be read.
    """

    def __init__(self) -> None:
        """Start without memory."""
        self._shown: dict[Hashable, float] = {}

    def update(self, keys: Sequence[Hashable], scores: Sequence[float] | np.ndarray) -> list[float]:
        """Return the score to show for each person; `keys` say who, the same in every frame.

        Args:
            keys: who each score belongs to.
            scores: 0..1; none is shown more than `SCORE_SLACK` away from what it is.
        """
        shown = []
        for key, score in zip(keys, scores, strict=True):
            before = self._shown.get(key, np.inf)
            shown.append(before if abs(before - score) <= SCORE_SLACK else float(score))
        self._shown = dict(zip(keys, shown, strict=True))
        return shown


def label_texts(
    predictions: Instances, classes: Sequence[str] | None, scores: Sequence[float] | None = None
) -> list[tuple[str, str]]:
    """Return the text of each instance's label, and a short one for where there is no room.

    "#track class score" and "#track"; without tracks "class score" and "score".

    Args:
        predictions: `pred_classes [scores] [ID]`.
        classes: the class names by number.
        scores: to show instead of those of the predictions.
    """
    if scores is None and predictions.has("scores"):
        scores = predictions.scores.tolist()
    texts = []
    for i, number in enumerate(predictions.pred_classes.tolist()):
        name = one_line(number if classes is None else classes[number], LONGEST_NAME)
        track = f"#{int(predictions.ID[i])}" if predictions.has("ID") else ""
        score = "" if scores is None else f"{scores[i]:.0%}"
        texts.append((" ".join(filter(None, (track, name, score))), track or score or name))
    return texts


def count_text(in_view: int, unique: int | None, classes: Sequence[str]) -> str:
    """Return how many are in view, and so far if that is known: "5 people in view · 12 so far".

    Args:
        in_view, unique: numbers of people.
        classes: the class names; other things than people are not called so.
    """
    people = {str(name).lower() for name in classes} <= _PEOPLE
    noun = ("person " if in_view == 1 else "people ") if people else ""
    return f"{in_view} {noun}in view" + ("" if unique is None else f" · {unique} so far")

"""The lens: an open aperture draws the street softly and pale, and people stand out from it."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from persondet.sample.paint import Image, Sprite

BLUR = 2.0  # pixels at a frame height of 360
STREET_COLOUR, STREET_CONTRAST = 0.38, 0.52  # shares that remain
THING_COLOUR, THING_CONTRAST = 0.4, 0.62
MIDDLE = 128.0  # grey level that contrast is taken around


def out_of_focus(image: Image) -> Image:
    """Return the empty street as an open aperture shows it: uint8, (H, W, 3), BGR."""
    soft = cv2.GaussianBlur(image, (0, 0), BLUR * image.shape[0] / 360.0)
    return _paler(soft, np.full_like(soft, 255), STREET_COLOUR, STREET_CONTRAST)


def pale(sprite: Sprite) -> Sprite:
    """Return the sprite of a thing with quieter colours; its outline stays as it is."""
    bgr, alpha = np.ascontiguousarray(sprite.bgra[:, :, :3]), sprite.bgra[:, :, 3]
    quiet = _paler(bgr, cv2.merge([alpha] * 3), THING_COLOUR, THING_CONTRAST)
    return replace(sprite, bgra=np.dstack([quiet, alpha]))


def _paler(image: Image, cover: Image, colour: float, contrast: float) -> Image:
    # Sprites are premultiplied, so the middle grey counts as far as they cover.
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    mixed = cv2.addWeighted(image, colour, grey, 1.0 - colour, 0.0)
    return cv2.addWeighted(mixed, contrast, cover, (1.0 - contrast) * MIDDLE / 255.0, 0.0)

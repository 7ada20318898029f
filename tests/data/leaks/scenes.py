"""Images for the tests of leaks: invented scenes, and what copying does to an image."""

import cv2
import numpy as np


def scene(rng, size=(160, 120)):
    """An image (H, W, 3), uint8, with light and shade, boxes and discs, and a little noise."""
    width, height = size
    coarse = rng.integers(40, 200, (7, 9, 3), dtype=np.uint8)
    pixels = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    for _ in range(int(rng.integers(4, 9))):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        color = [int(value) for value in rng.integers(0, 256, 3)]
        if rng.random() < 0.5:
            cv2.circle(pixels, (x, y), int(rng.integers(5, 20)), color, -1)
        else:
            w, h = int(rng.integers(8, 40)), int(rng.integers(8, 40))
            cv2.rectangle(pixels, (x, y), (x + w, y + h), color, -1)
    return np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)


def octagons(rng, size=(320, 240)):
    """One to three bright octagons on dark noise: what few, plain shapes are."""
    pixels = rng.integers(60, 90, (size[1], size[0], 3), dtype=np.uint8)
    angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for _ in range(int(rng.integers(1, 4))):
        half = rng.uniform((10, 20), (16, 34))
        points = rng.uniform(half, np.array(size) - half) + half * circle
        cv2.fillPoly(pixels, [points.astype(np.int32)], rng.integers(170, 255, 3).tolist())
    return pixels


def jpeg(pixels, quality):
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def light(pixels, factor, offset):
    return np.clip(pixels.astype(float) * factor + offset, 0, 255).astype(np.uint8)


def resized(pixels, x, y):
    return cv2.resize(pixels, None, fx=x, fy=y, interpolation=cv2.INTER_AREA)


def grey(pixels):
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)


COPIES = {
    "recompressed": lambda p: jpeg(p, 30),
    "half the size": lambda p: jpeg(resized(p, 0.5, 0.5), 90),
    "another aspect": lambda p: jpeg(resized(p, 0.8, 1.2), 90),
    "brighter": lambda p: jpeg(light(p, 1.25, 0), 90),
    "brighter, clipped": lambda p: jpeg(light(p, 1, 60), 90),
    "darker": lambda p: jpeg(light(p, 0.6, 0), 90),
    "less contrast": lambda p: jpeg(light(p, 0.6, 50), 90),
    "more contrast": lambda p: jpeg(light(p, 1.4, -50), 90),
    "mirrored": lambda p: jpeg(p[:, ::-1].copy(), 90),
    "upside down": lambda p: jpeg(p[::-1].copy(), 90),
    "turned": lambda p: jpeg(np.rot90(p).copy(), 90),
    "turned back": lambda p: jpeg(np.rot90(p, 3).copy(), 90),
    "grey": lambda p: jpeg(np.dstack([grey(p)] * 3), 90),
    "everything": lambda p: jpeg(light(resized(p[:, ::-1], 0.6, 0.6), 1.2, -10), 40),
}

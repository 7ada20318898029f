"""The promise of the search: copies are found, independent images raise no alarm."""

from __future__ import annotations

import numpy as np
import pytest

from persondet.data.leaks.find import NEAR_IDENTICAL, ExportImage, find_leaks
from persondet.data.leaks.hashing import image_signature
from tests.data.leaks.scenes import COPIES, grey, octagons, plain_shapes, scene

pytestmark = pytest.mark.slow


def seen(split: str, name: str, pixels: np.ndarray) -> ExportImage:
    return ExportImage(split, f"{split}-{name}.png", b"", *image_signature(grey(pixels)))


@pytest.mark.parametrize("make", [scene, octagons, plain_shapes])
def test_copies_are_found_and_nothing_else(make):
    rng = np.random.default_rng(21)
    images, planted = [], set()
    for number in range(1000):
        image = make(rng)
        images.append(seen("train" if number % 2 else "test", f"{number}", image))
        if number % 2 and number < 20 * len(COPIES):
            copy = list(COPIES)[number // 2 % len(COPIES)]
            images.append(seen("test", f"copy{number}", COPIES[copy](image)))
            planted.add((images[-1].file_name, images[-2].file_name))
    leaks = find_leaks(images).kinds[NEAR_IDENTICAL]
    found = {(leak.file_name, leak.partner) for leak in leaks}
    assert found <= planted
    assert len(found) >= 0.95 * len(planted)

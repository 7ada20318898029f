"""The promise of the search: copies are found, independent pictures raise no alarm."""

from __future__ import annotations

import numpy as np
import pytest

from persondet.data.leaks.find import NEAR_IDENTICAL, Picture, find_leaks
from persondet.data.leaks.hashing import picture_signature
from tests.data.leaks.scenes import COPIES, grey, octagons, plain_shapes, scene

pytestmark = pytest.mark.slow


def seen(split: str, name: str, pixels: np.ndarray) -> Picture:
    return Picture(split, f"{split}-{name}.png", b"", *picture_signature(grey(pixels)))


@pytest.mark.parametrize("make", [scene, octagons, plain_shapes])
def test_copies_are_found_and_nothing_else(make):
    rng = np.random.default_rng(21)
    pictures, planted = [], set()
    for number in range(1000):
        picture = make(rng)
        pictures.append(seen("train" if number % 2 else "test", f"{number}", picture))
        if number % 2 and number < 20 * len(COPIES):
            copy = list(COPIES)[number // 2 % len(COPIES)]
            pictures.append(seen("test", f"copy{number}", COPIES[copy](picture)))
            planted.add((pictures[-1].file_name, pictures[-2].file_name))
    leaks = find_leaks(pictures).kinds[NEAR_IDENTICAL]
    found = {(leak.file_name, leak.partner) for leak in leaks}
    assert found <= planted
    assert len(found) >= 0.95 * len(planted)

"""The promise of the search, by files: copies are found, independent pictures raise no alarm."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from persondet.data.leaks.find import NEAR_IDENTICAL, Picture, find_leaks
from persondet.data.leaks.perceptual_hash import picture_signature
from tests.data.leaks.scenes import COPIES, grey, octagons, plain_shapes, scene

pytestmark = pytest.mark.slow


def written(folder: Path, split: str, name: str, pixels: np.ndarray) -> Picture:
    path = folder / f"{split}-{name}.png"
    cv2.imwrite(str(path), pixels)
    return Picture(split, path.name, b"", *picture_signature(grey(pixels)), path)


@pytest.mark.parametrize("make", [scene, octagons, plain_shapes])
def test_copies_are_found_and_nothing_else(tmp_path: Path, make):
    rng = np.random.default_rng(21)
    pictures, planted = [], set()
    for number in range(1000):
        picture = make(rng)
        pictures.append(written(tmp_path, "train" if number % 2 else "test", f"{number}", picture))
        if number % 2 and number < 20 * len(COPIES):
            copy = list(COPIES)[number // 2 % len(COPIES)]
            pictures.append(written(tmp_path, "test", f"copy{number}", COPIES[copy](picture)))
            planted.add((pictures[-1].file_name, pictures[-2].file_name))
    leaks = find_leaks(pictures).kinds[NEAR_IDENTICAL]
    found = {(leak.file_name, leak.partner) for leak in leaks}
    assert found <= planted
    assert len(found) >= 0.95 * len(planted)

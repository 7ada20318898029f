from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from persondet.data.leaks import close_look
from persondet.data.leaks.close_look import CloseLook
from persondet.data.leaks.perceptual_hash import turned
from tests.data.leaks.scenes import light, scene


def write(path: Path, pixels: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), pixels)
    return path


@pytest.mark.parametrize("orientation", range(8))
def test_the_first_picture_is_turned_onto_the_second(tmp_path: Path, orientation: int):
    picture = scene(np.random.default_rng(orientation), (320, 240))
    planes = turned(np.moveaxis(picture, 2, 0), orientation)
    copy = np.ascontiguousarray(np.moveaxis(planes, 0, 2))
    look = CloseLook([write(tmp_path / "a.jpg", picture), write(tmp_path / "b.jpg", copy)])
    assert look(0, 1, orientation)
    assert not look(0, 1, orientation ^ 3)


def test_what_cannot_be_read_cannot_be_told(tmp_path: Path):
    picture = write(tmp_path / "a.jpg", scene(np.random.default_rng(0)))
    (tmp_path / "b.jpg").write_bytes(b"nothing")
    (tmp_path / "c.jpg").write_bytes(picture.read_bytes()[:900])
    look = CloseLook([picture, tmp_path / "b.jpg", tmp_path / "c.jpg", tmp_path / "none", None])
    assert look(0, 0, 0)
    assert (
        [look(0, k, 0) for k in range(1, 5)] == [look(k, 0, 0) for k in range(1, 5)] == [None] * 4
    )


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif"])
def test_pictures_of_other_formats(tmp_path: Path, name: str):
    picture = scene(np.random.default_rng(1))
    other = write(tmp_path / "b.png", light(picture, 0.8, 20))
    assert CloseLook([write(tmp_path / name, picture), other])(0, 1, 0)


def test_only_the_last_pictures_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(close_look, "_KEPT", 2)
    rng = np.random.default_rng(2)
    paths = [write(tmp_path / f"{k}.png", scene(rng)) for k in range(3)]
    look = CloseLook(paths)
    assert not look(0, 1, 0)
    for path in paths[:2]:
        path.unlink()
    assert look(0, 0, 0)  # kept
    assert not look(0, 2, 0)  # 1 is forgotten
    assert look(0, 0, 0) and look(1, 0, 0) is None

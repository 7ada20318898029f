"""Decoding: the pixels of Detectron2's reader, whatever the file, and no broken one slips through."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data.detection_utils import read_image
from PIL import Image

from persondet.data import image_file
from persondet.data.image_file import read_image_file, read_rgb
from persondet.errors import DatasetError


def _picture() -> Image.Image:
    rows, columns = np.mgrid[:44, :60]
    noise = np.random.default_rng(0).integers(0, 30, (44, 60, 3))
    pixels = np.dstack([rows * 4, columns * 3, rows + columns]) + noise
    return Image.fromarray(pixels.astype(np.uint8))


def _jpeg(**options: Any) -> bytes:
    stream = io.BytesIO()
    _picture().save(stream, "JPEG", **options)
    return stream.getvalue()


def _turned() -> Any:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


JPEGS = {
    "baseline": {"quality": 85},
    "progressive": {"quality": 85, "progressive": True},
    "full colour": {"quality": 95, "subsampling": 0},
    "restarts": {"quality": 75, "restart_marker_rows": 1},
    "turned": {"quality": 85, "exif": _turned()},
}


@pytest.mark.parametrize("name", JPEGS)
def test_pixels_equal_those_of_detectron2(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(_jpeg(**JPEGS[name]))
    found = read_rgb({"file_name": str(path)})
    np.testing.assert_array_equal(found, read_image(str(path), "RGB"))
    assert found.flags.c_contiguous
    assert found.flags.writeable


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "1", "LA"])
def test_other_modes_equal_detectron2_too(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode in ("L", "CMYK") else "a.png")
    _picture().convert(mode).save(path)
    np.testing.assert_array_equal(read_rgb({"file_name": str(path)}), read_image(str(path), "RGB"))


def test_grey_of_16_bits_keeps_its_shades(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    shades = np.arange(44 * 60, dtype=np.uint16).reshape(44, 60) * 24
    Image.fromarray(shades).save(path)
    found = read_rgb({"file_name": str(path)})
    np.testing.assert_array_equal(found, np.dstack([shades >> 8] * 3))
    np.testing.assert_array_equal(found, read_image_file(path))


def test_a_plain_jpeg_takes_the_fast_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(_jpeg())
    monkeypatch.delattr(image_file, "convert_PIL_to_numpy")
    assert read_rgb({"file_name": str(path)}).shape == (44, 60, 3)


@pytest.mark.parametrize("progressive", [False, True])
def test_trap_13_a_jpeg_cut_anywhere_is_named(tmp_path: Path, progressive: bool) -> None:
    data = _jpeg(quality=60, progressive=progressive)
    path = tmp_path / "cut.jpg"
    for length in (*range(0, len(data) - 20, 23), *range(len(data) - 20, len(data))):
        path.write_bytes(data[:length])
        with pytest.raises(DatasetError, match=r"cut\.jpg: the image cannot be read"):
            read_rgb({"file_name": str(path)})


def test_what_is_no_image_is_said_without_addresses(tmp_path: Path) -> None:
    path = tmp_path / "page.jpg"
    path.write_text("<html>")
    with pytest.raises(DatasetError, match=r"\(it is no image of a known format\)"):
        read_rgb({"file_name": str(path)})

"""Decoding: the pixels of Detectron2's reader in 8 bits, and no broken file slips through."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from detectron2.data.detection_utils import read_image
from PIL import Image

from persondet.data import image_file
from persondet.data.image_file import eight_bit, read_image_file, read_rgb
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


SHADES = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1390


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_of_16_bits_is_read_as_colours_of_16_bits_are(suffix: str, tmp_path: Path) -> None:
    grey, colours = tmp_path / f"grey.{suffix}", tmp_path / "colours.png"
    cv2.imwrite(str(grey), SHADES)
    cv2.imwrite(str(colours), np.dstack([SHADES] * 3))
    read = read_image_file(grey)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, np.dstack([SHADES >> 8] * 3))
    np.testing.assert_array_equal(read, read_image_file(colours))


def test_the_order_of_bytes_makes_no_difference() -> None:
    image = Image.frombytes("I;16B", (8, 6), SHADES.astype(">u2").tobytes())
    np.testing.assert_array_equal(np.asarray(eight_bit(image)), SHADES >> 8)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]]), [0, 128, 255]),
        (np.array([[0.0, 100.0, 255.0]]), [0, 100, 255]),
        (np.array([[0.0, 25700.0, 65535.0]]), [0, 100, 255]),
        (np.array([[0.0, 1e6, 2e6]]), [0, 128, 255]),
        (np.array([[-3.0, np.nan, np.inf, 1.0]]), [0, 0, 0, 255]),
        (np.array([[0, 1, 255]], np.int32), [0, 1, 255]),
        (np.array([[-5, 25700, 65535]], np.int32), [0, 100, 255]),
        (np.zeros((1, 2), np.int32), [0, 0]),
    ],
)
def test_grey_of_32_bits_has_the_white_that_its_pixels_suggest(
    pixels: np.ndarray, expected: list[int], tmp_path: Path
) -> None:
    kind = np.float32 if pixels.dtype.kind == "f" else np.int32
    Image.fromarray(pixels.astype(kind)).save(tmp_path / "a.tif")
    read = read_image_file(tmp_path / "a.tif")
    assert read[0].tolist() == [[value] * 3 for value in expected]


def test_other_images_are_left_alone() -> None:
    for mode in ("L", "RGB", "RGBA", "P", "1", "CMYK", "LA"):
        image = Image.new(mode, (3, 2))
        assert eight_bit(image) is image

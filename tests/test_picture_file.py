"""An image file's pixels in 8 bits, whatever the file's own."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from persondet.data.image_file import eight_bit, read_image_file

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

"""Decoding: the pixels of Detectron2's reader in 8 bits, and no broken file slips through."""

import cv2
import numpy as np
import pytest
from detectron2.data.detection_utils import read_image
from PIL import Image

from persondet.data import image_file
from persondet.data.check.images import decode_splits, read_headers
from persondet.data.image_file import eight_bit, read_image_file, read_rgb
from persondet.errors import DatasetError, MediaError

ROWS, COLUMNS = np.mgrid[:44, :60]
NOISE = np.random.default_rng(0).integers(0, 30, (44, 60, 3))
PIXELS = (np.dstack([ROWS * 4, COLUMNS * 3, ROWS + COLUMNS]) + NOISE).astype(np.uint8)
IMAGE = Image.fromarray(PIXELS)
TURNED = Image.Exif()
TURNED[0x0112] = 6


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("a.jpg", "RGB", {"quality": 85, "progressive": True}),
        ("a.jpg", "RGB", {"quality": 95, "subsampling": 0}),
        ("a.jpg", "RGB", {"quality": 75, "restart_marker_rows": 1}),
        ("a.jpg", "RGB", {"quality": 85, "exif": TURNED}),
        *(("a.jpg", mode, {}) for mode in ("RGB", "L", "CMYK")),
        *(("a.png", mode, {}) for mode in ("RGBA", "P", "1", "LA")),
    ],
)
def test_pixels_equal_those_of_detectron2(tmp_path, name, mode, options):
    path = tmp_path / name
    IMAGE.convert(mode).save(path, **options)
    found = read_rgb({"file_name": str(path)})
    np.testing.assert_array_equal(found, read_image(str(path), "RGB"))
    np.testing.assert_array_equal(read_image_file(path), read_image(str(path), "BGR"))
    assert found.flags.c_contiguous and found.flags.writeable


def test_a_turned_tiff_is_turned_once(tmp_path):
    IMAGE.save(tmp_path / "a.tif", exif=TURNED)
    found = read_rgb({"file_name": str(tmp_path / "a.tif")})
    np.testing.assert_array_equal(found, np.rot90(PIXELS, -1))


def test_trap_13_a_jpeg_cut_anywhere_is_named(tmp_path):
    path = tmp_path / "cut.jpg"
    IMAGE.save(path, quality=60, progressive=True)
    data = path.read_bytes()
    for length in (*range(0, len(data) - 9, 60), *range(len(data) - 9, len(data))):
        path.write_bytes(data[:length])
        with pytest.raises(DatasetError, match=r"cut\.jpg: the image cannot be read"):
            read_rgb({"file_name": str(path)})
        with pytest.raises(MediaError, match=r"cut\.jpg: the image cannot be read"):
            read_image_file(path)
    path.write_text("<html>")
    with pytest.raises(DatasetError, match=r"\(it is no image of a known format\)"):
        read_rgb({"file_name": str(path)})


SHADES = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1390


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_of_16_bits_is_read_as_colours_of_16_bits_are(suffix, tmp_path):
    grey, colours = tmp_path / f"grey.{suffix}", tmp_path / "colours.png"
    cv2.imwrite(str(grey), SHADES)
    cv2.imwrite(str(colours), np.dstack([SHADES] * 3))
    read = read_image_file(grey)
    np.testing.assert_array_equal(read, np.dstack([SHADES >> 8] * 3))
    np.testing.assert_array_equal(read, read_image_file(colours))
    np.testing.assert_array_equal(read, read_rgb({"file_name": str(grey)}))
    other_order = Image.frombytes("I;16B", (8, 6), SHADES.astype(">u2").tobytes())
    np.testing.assert_array_equal(np.asarray(eight_bit(other_order)), SHADES >> 8)


@pytest.mark.parametrize(("bits", "white"), [(8, 255), (10, 1023), (12, 4000), (14, 9000)])
def test_grey_that_uses_fewer_bits_is_scaled(bits, white, tmp_path, caplog):
    image_file._say_scaled.cache_clear()
    cv2.imwrite(str(tmp_path / "a.png"), np.array([[0, white]], np.uint16))
    for _ in range(2):
        read = read_image_file(tmp_path / "a.png")[0, :, 0].tolist()
    assert read == [0, white * 256 >> bits]
    assert caplog.text.count(f"do not use them all: white is {2**bits - 1} of 65535.") == 1
    facts = decode_splits({"train": tmp_path}, {"train": ["a.png"]})["train"]["a.png"]
    assert facts.detail == f"white is {2**bits - 1} of 65535"
    assert facts.thumbnail.max() == white * 256 >> bits


@pytest.mark.parametrize(("white", "told"), [(1.0, ""), (0.4, ""), (255.0, "white is 255")])
def test_grey_of_floats_has_1_for_white_and_65535_is_not_spoken_of(white, told, tmp_path, caplog):
    image_file._say_scaled.cache_clear()
    Image.fromarray(np.array([[0, white]], np.float32)).save(tmp_path / "a.tif")
    read_image_file(tmp_path / "a.tif")
    assert bool(told) == (told in caplog.text and caplog.text != "")
    facts = decode_splits({"train": tmp_path}, {"train": ["a.tif"]})["train"]["a.tif"]
    assert facts.detail == told


def test_an_heic_file_names_the_package_that_reads_it(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(12))
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    with pytest.raises(MediaError, match=r"a\.heic: .* `pip install pi-heif`"):
        read_image_file(tmp_path / "a.heic")
    assert "pi-heif" in read_headers(tmp_path, ["a.heic"])["a.heic"].detail


@pytest.mark.parametrize("suffix", [".avif", ".gif", ".jp2"])
def test_other_types_that_pillow_reads_are_read(suffix, tmp_path):
    IMAGE.save(tmp_path / f"a{suffix}")
    assert (
        np.abs(read_image_file(tmp_path / f"a{suffix}") - PIXELS[..., ::-1].astype(int)).mean() < 9
    )


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 25700.0, 65535.0]], np.float32), [0, 100, 255]),
        (np.array([[-3.0, np.nan, np.inf, 1.0]], np.float32), [0, 0, 0, 255]),
        (np.array([[0, 1, 255]], np.int32), [0, 1, 255]),
        (np.array([[-5, 25700, 65535]], np.int32), [0, 100, 255]),
    ],
)
def test_grey_of_32_bits_has_the_white_that_its_pixels_suggest(pixels, expected, tmp_path):
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    read = read_image_file(tmp_path / "a.tif")
    assert read[0].tolist() == [[value] * 3 for value in expected]

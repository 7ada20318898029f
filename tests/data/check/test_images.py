"""Image files: what training can read, and nothing else, is without a problem."""

import hashlib
import io
import multiprocessing
import os
import random
import signal
import time
import warnings

import numpy as np
import pytest
from detectron2.data.detection_utils import _apply_exif_orientation, convert_PIL_to_numpy
from PIL import Image

from persondet.data.check.images import decode_splits, read_headers
from persondet.data.leaks.hashing import image_signature
from tests.data.exports import in_this_process


def decode_images(folder, names, **options):
    return decode_splits({"one": folder}, {"one": names}, **options)["one"]


def picture(size=(96, 64), mode="RGB", seed=0):
    """An image with broad shapes and fine noise, of the given PIL mode."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size)
    noise = rng.integers(-9, 9, (size[1], size[0], 3))
    pixels = np.clip(np.asarray(coarse).astype(int) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def saved(image, kind="JPEG", **options):
    whole = io.BytesIO()
    image.save(whole, kind, **options)
    return whole.getvalue()


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def both(folder, *names):
    with in_this_process(), warnings.catch_warnings(action="ignore"):
        headers, facts = read_headers(folder, names), decode_images(folder, names, workers=1)
    assert list(headers) == list(facts) == list(dict.fromkeys(names))
    return headers, facts


def strictly_readable(path):
    """The shape that training sees: Detectron2's `read_image` after a load.

    `read_image` alone swallows what loading some broken PNGs raises, and turns a TIFF twice.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            image.load()
            return convert_PIL_to_numpy(_apply_exif_orientation(image), "BGR").shape
    except Exception:
        return None


def test_the_facts_of_a_good_image(tmp_path):
    image, name = picture((400, 300), "L"), "ein Bild – ä.png"
    image.save(tmp_path / name)
    (tmp_path / "sub").mkdir()
    picture((40, 30)).save(tmp_path / "sub" / "b.jpg", exif=exif(6))
    headers, facts = both(tmp_path, name, "sub/b.jpg")
    plain, turned = facts.values()
    assert (plain.problem, plain.width, plain.height, plain.orientation) == ("", 400, 300, 1)
    assert (turned.width, turned.height, turned.orientation) == (40, 30, 6)
    hashes, thumbnail = image_signature(np.asarray(image))
    assert (plain.hashes == hashes).all() and (plain.thumbnail == thumbnail).all()
    assert plain.digest == hashlib.sha256((tmp_path / name).read_bytes()).digest()
    assert headers["sub/b.jpg"].upright_size == turned.upright_size == (30, 40)
    assert headers[name].digest == b"" and headers[name].hashes is None


def test_every_kind_of_image_has_the_size_that_training_sees(tmp_path):
    wide = picture((96, 64))
    for orientation in range(1, 9):
        for suffix in ("jpg", "png", "tif", "webp"):
            wide.save(tmp_path / f"{orientation}.{suffix}", exif=exif(orientation))
    tags = [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"", b"Exif\0\0"]
    for number, raw in enumerate([*tags, *map(exif, (0, 9, 65535))]):
        wide.save(tmp_path / f"broken EXIF {number}.jpg", exif=raw)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "F"):
        image = wide if mode in ("P", "RGB", "RGBA", "CMYK") else wide.convert("L")
        suffix = "tif" if mode in ("CMYK", "I", "F") else "png"
        image.convert(mode).save(tmp_path / f"{mode}.{suffix}")
    Image.new("I;16", (96, 64), 999).save(tmp_path / "I;16.png")
    wide.convert("P").save(tmp_path / "clear.png", transparency=b"\0\x80\xff")
    frames = [picture(seed=seed) for seed in range(3)]
    for suffix in ("gif", "tif", "webp", "png"):
        frames[0].save(tmp_path / f"frames.{suffix}", save_all=True, append_images=frames[1:])
    wide.convert("CMYK").save(tmp_path / "cmyk.jpg")
    wide.save(tmp_path / "no suffix", "BMP")
    names = sorted(os.listdir(tmp_path))
    headers, facts = both(tmp_path, *names)
    for name in names:
        shape = strictly_readable(tmp_path / name)
        assert shape is not None, name
        assert not facts[name].problem and facts[name].hashes.shape == (8,), facts[name]
        assert headers[name].upright_size == facts[name].upright_size == shape[1::-1], name


def test_all_images_of_the_real_collection(real_data):
    folder = real_data / "bad-images"
    names = sorted(path.name for path in folder.iterdir())
    headers, facts = both(folder, *names)
    for name, fact in facts.items():
        shape = strictly_readable(folder / name)
        assert (fact.problem == "") == (shape is not None), (name, fact)
        if shape:
            assert fact.upright_size == headers[name].upright_size == shape[1::-1], name
    problems = {name: fact.problem for name, fact in facts.items() if fact.problem}
    cut = (
        "broken.png broken_data_stream.png truncated_end_chunk.png truncated_image.png "
        "truncated_jpeg.jpg ultrahdr.jpg"
    ).split()
    assert problems == {
        "LICENSE.pillow": "image-unreadable",
        **dict.fromkeys(cut, "image-truncated"),
    }


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {}),
        ("L", {"progressive": True}),
        ("CMYK", {"restart_marker_blocks": 3}),
        ("RGB", {"kind": "PNG"}),
        ("L", {"kind": "PNG", "interlace": 1}),
    ],
)
def test_a_file_that_is_cut_anywhere_is_truncated(tmp_path, mode, options):
    data = saved(picture((200, 144), mode), **options)
    rng = random.Random(3)
    cuts = [3, 9, *rng.sample(range(2, len(data)), 30), *range(len(data) - 12, len(data))]
    for cut in cuts:
        (tmp_path / f"{cut}.jpg").write_bytes(data[:cut])
    for name, fact in both(tmp_path, *{f"{cut}.jpg" for cut in cuts})[1].items():
        # A PNG may lack the check sum of its last chunk: Pillow does not read it.
        if strictly_readable(tmp_path / name) is None:
            assert fact.problem == "image-truncated", (name, len(data), fact)
        else:
            assert "kind" in options and fact.problem == "" and int(name[:-4]) > len(data) - 25


def test_names_that_lead_out_of_the_folder_and_what_is_no_image(tmp_path):
    folder = tmp_path / "train"
    (folder / "folder.jpg").mkdir(parents=True)
    picture().save(tmp_path / "out.jpg")
    picture().save(folder / "in.jpg")
    links = {"link out.jpg": tmp_path / "out.jpg", "link in.jpg": "in.jpg", "up": tmp_path}
    links |= {"gone.jpg": "nowhere.jpg", "circle.jpg": "circle.jpg"}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "pipe.jpg")
    contents = {"empty.jpg": "", "text.jpg": "<html>"}
    contents["program.jpg"] = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    for name, text in contents.items():
        (folder / name).write_text(text)
    outside = ["/etc/hostname", "../out.jpg", "link out.jpg", "up/out.jpg", "", "a/../../out.jpg"]
    outside += ["C:\\x.jpg", "..\\out.jpg", "nul\0.jpg", "half \ud800.jpg", str(folder / "in.jpg")]
    missing = ["gone.jpg", "in.jpg/x.jpg", "x" * 300 + ".jpg", "no/such.jpg"]
    none = ["circle.jpg", "folder.jpg", "pipe.jpg", *contents]
    for found in both(folder, *outside, *missing, *none, "link in.jpg"):
        assert {found[name].problem for name in outside} == {"file-name-outside"}
        assert not any(found[name].digest for name in outside)
        assert found["link out.jpg"].detail == "a link in it leads out of the folder"
        assert found["../out.jpg"].detail == "it leads out of the folder"
        assert {found[name].problem for name in missing} == {"file-missing"}
        assert {found[name].problem for name in none} == {"image-unreadable"}, found
        assert found["link in.jpg"].problem == ""
        assert "empty" in found["empty.jpg"].detail and "0x" not in found["text.jpg"].detail


# Worker processes

NAMES = [f"{number}.jpg" for number in range(33)]  # the last of them is a batch by itself


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """33 images. A file that begins with an order crashes, hangs or dies once in its worker."""
    for number, name in enumerate(NAMES):
        picture(seed=number).save(tmp_path / name)
    whole = Image.open

    def obey(file):
        file.seek(0)
        order = file.read(5)
        file.seek(0)
        if order == b"crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if order == b"sleep":
            time.sleep(600)
        mark = tmp_path / "mark"
        if order == b"once!" and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(file)

    monkeypatch.setattr(Image, "open", obey)
    return tmp_path


@pytest.mark.parametrize(
    ("order", "detail"),
    # A worker that is killed once costs nothing: the second one reads the file.
    [
        (b"crash", "SIGSEGV"),
        pytest.param(b"sleep", "too long", marks=pytest.mark.slow),
        (b"once!", "no image of a known format"),
    ],
)
def test_a_file_that_ends_its_worker_costs_only_itself(folder, order, detail):
    for name in ("7.jpg", "32.jpg"):
        (folder / name).write_bytes(order)
    seen = []
    found = decode_images(
        folder, NAMES, workers=2, patience=0.7, progress=lambda *done: seen.append(done)
    )
    assert list(found) == NAMES
    assert {name for name in NAMES if found[name].problem} == {"7.jpg", "32.jpg"}
    assert found["7.jpg"].problem == "image-unreadable"
    assert detail in found["7.jpg"].detail
    assert seen == [(done, 33) for done in range(1, 34)]


def test_nothing_is_left_running_when_the_caller_stops(folder):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode_images(folder, NAMES, workers=2, progress=stop)
    assert multiprocessing.active_children() == []
    assert decode_images(folder, []) == read_headers(folder, []) == {}

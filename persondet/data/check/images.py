"""Looking at the image files of an export: can training read them, how large and how turned are
they, and what do they look like in short.

The judge is what training reads with: Pillow, fully, and Detectron2's way with EXIF.

Does a JPEG or PNG file end before its own structure does? For files that no decoder opens.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import re
import stat
import warnings
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from persondet.data.check.worker_processes import PATIENCE, results_of_processes
from persondet.data.inspect.images import ImageFacts
from persondet.data.leaks.hashing import picture_signature
from persondet.environment import Progress
from persondet.errors import DatasetError
from persondet.files import leads_out, path_inside

_ORIENTATION = 0x0112
_ORIENTATIONS: dict[Any, int] = {number: number for number in range(2, 9)}
# The shorter side in pixels down to which a JPEG is decoded: the signature needs 32.
_DRAFT_SIDE = 128
_TAIL = 1 << 16
_EXIF_IN_PNG = (b"eXIf", b"Raw profile type exif")
_SAME_AS_RGB = ("L", "RGB")
_HEADERS_BETWEEN_REPORTS = 500


def read_headers(
    folder: str | Path, names: Iterable[str], *, progress: Progress | None = None
) -> dict[str, ImageFacts]:
    """Return what the headers of image files say, without decoding a pixel.

    Args:
        folder: the split's folder.
        names: file names relative to it, as the json has them: anything may stand there.
        progress: called with (done, all).

    Returns:
        dict from name to facts with problem, size and orientation: a file that is cut behind its
        header has no problem here.
    """
    names = list(dict.fromkeys(names))
    root = _Folder(folder)
    found: dict[str, ImageFacts] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on files that it reads all the same
        for done, name in enumerate(names, start=1):
            found[name] = _look(root, name, decode=False)
            if progress is not None and done % _HEADERS_BETWEEN_REPORTS == 0:
                progress(done, len(names))
    if progress is not None:
        progress(len(names), len(names))
    return found


def decode_images(
    folder: str | Path,
    names: Iterable[str],
    *,
    workers: int = 0,
    patience: float = PATIENCE,
    progress: Progress | None = None,
) -> dict[str, ImageFacts]:
    """Read image files as training does, in parallel, and return all facts about them.

    A file that crashes its decoder, or keeps it busy for ever, is `image-unreadable`.

    Args:
        folder: the split's folder.
        names: file names relative to it, as the json has them: anything may stand there.
        workers: processes; 0: one per core.
        patience: seconds that one file may take.
        progress: called with (done, all), from the thread that calls.

    Returns:
        dict from name to facts, in the order of `names`; a file with a problem has the digest of
        its bytes where these could be read, but no signature.
    """
    found = decode_splits(
        {"": folder}, {"": names}, workers=workers, patience=patience, progress=progress
    )
    return found[""]


def decode_splits(
    folders: Mapping[str, str | Path],
    names: Mapping[str, Iterable[str]],
    *,
    workers: int = 0,
    patience: float = PATIENCE,
    progress: Progress | None = None,
) -> dict[str, dict[str, ImageFacts]]:
    """Do as `decode_images` for several folders at once, with the same processes.

    Args:
        folders: split to its folder.
        names: split to file names relative to its folder.
        workers, patience, progress: see `decode_images`.

    Returns:
        dict from split to dict from name to facts, in the order of `names`.
    """
    tasks = {
        f"{split}\0{name}": (split, name)
        for split, own in names.items()
        for name in dict.fromkeys(own)
    }
    found: dict[str, ImageFacts] = {}
    roots = {split: _Folder(folder) for split, folder in folders.items()}
    look = functools.partial(_look_up, roots, tasks)
    results = results_of_processes(look, list(tasks), _lost, workers=workers, patience=patience)
    with closing(results):  # type: ignore[type-var]
        for key, facts in results:
            found[key] = facts
            if progress is not None:
                progress(len(found), len(tasks))
    ordered: dict[str, dict[str, ImageFacts]] = {split: {} for split in names}
    for key, (split, name) in tasks.items():
        ordered[split][name] = found[key]
    return ordered


def _look_up(
    roots: Mapping[str, _Folder], tasks: Mapping[str, tuple[str, str]], key: str
) -> ImageFacts:
    split, name = tasks[key]
    return _look(roots[split], name, decode=True)


def _lost(reason: str) -> ImageFacts:
    return ImageFacts("image-unreadable", reason)


class _Problem(Exception):
    """A file that cannot be used."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code, self.detail = code, detail


class _Folder:
    """A folder out of which no name leads."""

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder)
        self._inside: set[str] = {""}

    def open(self, name: str) -> BinaryIO:
        """Open a regular file of the folder for reading.

        Raises: _Problem: when the name leads out of the folder, or there is no such file.
        """
        try:
            return self._open(name)
        except DatasetError:
            raise _Problem("file-name-outside", "it leads out of the folder") from None
        except (FileNotFoundError, NotADirectoryError):
            raise _Problem("file-missing", "there is no such file") from None
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
            if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
                raise _Problem("file-missing", "the name is too long for a file") from None
            text = getattr(error, "strerror", None) or "links in a circle"
            raise _Problem("image-unreadable", text.lower()) from None

    def _open(self, name: str) -> BinaryIO:
        # path_inside resolves every link, which takes longer than reading a header. A plain name
        # needs that once for its sub-folder, and for itself only when it is a link.
        parent = name.rpartition("/")[0]
        if leads_out(name):
            raise _Problem("file-name-outside", "it leads out of the folder")
        if parent not in self._inside:
            path_inside(self.path, parent)
            self._inside.add(parent)
        # A pipe with an image's name must not block.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            number = os.open(self.path / name, flags | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            number = os.open(path_inside(self.path, name), flags)
        file = os.fdopen(number, "rb", closefd=True) if _is_file(number) else None
        if file is None:
            os.close(number)
            raise OSError(errno.EINVAL, "it is a folder or a device, not a file")
        return file


def _is_file(number: int) -> bool:
    return stat.S_ISREG(os.fstat(number).st_mode)


def _look(root: _Folder, name: str, *, decode: bool) -> ImageFacts:
    """Return the facts about one file: of its header, or of all that is in it."""
    digest = b""
    try:
        with root.open(name) as file:
            if decode:
                warnings.simplefilter("ignore")  # in a process of its own
                digest = hashlib.file_digest(file, "sha256").digest()  # type: ignore[arg-type]
            return _read(file, digest, decode)
    except _Problem as problem:
        return ImageFacts(problem.code, problem.detail, digest=digest)


def _read(file: BinaryIO, digest: bytes, decode: bool) -> ImageFacts:
    # Whatever Pillow raises for a stranger's file (it is far more than OSError), training stops at.
    try:
        with Image.open(file) as image:
            if image.format == "EPS":
                raise _Problem("image-unreadable", "it is PostScript, which is a program")
            width, height = image.size
            orientation = 1
            if image.format == "TIFF" or not decode:
                orientation = _orientation_of_header(image, file)
            if image.format == "TIFF" and orientation > 4:
                width, height = height, width  # Pillow announces the size after turning
            if not decode:
                return ImageFacts("", "", width, height, orientation)
            # A draft skips transforms and colours, but reads all of the compressed stream and so
            # stops at what a full load stops at.
            image.draft("L", (_DRAFT_SIDE, _DRAFT_SIDE))
            image.load()
            if image.format != "TIFF":  # which Pillow has turned by now
                orientation = _orientation(image)
            pixels = image if image.mode in _SAME_AS_RGB else image.convert("RGB")
            grey = np.asarray(pixels.convert("L"))
    except _Problem:
        raise
    except Exception as error:
        raise _Problem(*_diagnosis(file, error)) from error
    hashes, thumbnail = picture_signature(grey)
    return ImageFacts("", "", width, height, orientation, digest, hashes, thumbnail)


def _orientation(image: Image.Image) -> int:
    """Return EXIF's orientation as Detectron2's `read_image` takes it; broken EXIF turns nothing."""
    try:
        exif = image.getexif()
    except Exception:  # as `read_image`
        return 1
    return _ORIENTATIONS.get(exif.get(_ORIENTATION), 1)


def _orientation_of_header(image: Image.Image, file: BinaryIO) -> int:
    if image.format != "PNG" or "exif" in image.info:
        return _orientation(image)
    # For EXIF behind the pixels, `getexif` decodes a PNG: only where there is some.
    position = file.tell()
    file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
    tail = file.read(_TAIL)
    file.seek(position)
    if any(mark in tail for mark in _EXIF_IN_PNG):
        return _orientation(image)
    try:
        return _ORIENTATIONS.get(Image.Image.getexif(image).get(_ORIENTATION), 1)
    except Exception:  # as `read_image`
        return 1


def _diagnosis(file: BinaryIO, error: Exception) -> tuple[str, str]:
    """Return the code of what is wrong with a file that Pillow cannot read, and a few words."""
    if isinstance(error, Image.DecompressionBombError):
        pixels = re.search(r"\((\d+) pixels\)", str(error))
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return "image-too-large", f"{pixels[1] if pixels else 'too many'} pixels; at most {most}"
    if isinstance(error, MemoryError):
        return "image-too-large", "there is not enough memory for it"
    words = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        words = "no image that Pillow knows"  # its own words hold an address in memory
    try:
        if not os.fstat(file.fileno()).st_size:
            return "image-unreadable", "the file is empty"
        cut = ends_early(file)
    except OSError as reading:
        return "image-unreadable", str(reading.strerror).lower()
    if cut or "truncated" in words.lower():
        return "image-truncated", words
    return "image-unreadable", words


_JPEG = b"\xff\xd8"
_PNG = b"\x89PNG\r\n\x1a\n"
_START_OF_SCAN = 0xDA
_SEGMENTS = 100_000
# Markers of a JPEG without a length behind them: fill bytes, TEM, RST, SOI and EOI.
_BARE = frozenset({0xFF, 0x01, *range(0xD0, 0xDA)})


def ends_early(file: BinaryIO) -> bool:
    """Return whether a file begins as JPEG or PNG and ends in the middle of a segment or chunk.

    The coded pixels of a JPEG are not looked at: its decoder knows. What is no JPEG or PNG, or is
    not built like one, does not end early: it is broken.

    Args:
        file: open for reading; it is left at any position.

    Raises: OSError: when the file cannot be read.
    """
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    head = file.read(len(_PNG))
    if head == _PNG:
        return _png_ends_early(file, size)
    if head[:2] == _JPEG:
        file.seek(2)
        return _jpeg_ends_early(file, size)
    return len(head) > 0 and _PNG.startswith(head)


def _png_ends_early(file: BinaryIO, size: int) -> bool:
    """Walk over the chunks: length (4 bytes), type (4 letters), data, check sum (4 bytes)."""
    for _ in range(_SEGMENTS):
        chunk = file.read(8)
        if len(chunk) < 8:
            return True
        if not chunk[4:].isalpha():
            return False
        if file.seek(int.from_bytes(chunk[:4]) + 4, os.SEEK_CUR) > size:
            return True
        if chunk[4:] == b"IEND":
            return False
    return False


def _jpeg_ends_early(file: BinaryIO, size: int) -> bool:
    """Walk over the segments before the pixels: FF, marker, length with itself (2 bytes), data."""
    for _ in range(_SEGMENTS):
        marker = file.read(2)
        if len(marker) < 2:
            return True
        if marker[0] != 0xFF or marker[1] == _START_OF_SCAN:
            return False
        if marker[1] == 0xFF:
            file.seek(-1, os.SEEK_CUR)
        elif marker[1] not in _BARE:
            length = file.read(2)
            if len(length) < 2 or file.seek(int.from_bytes(length) - 2, os.SEEK_CUR) > size:
                return True
    return False

"""Check the image files of an export: can training read them, how large are they, how turned?

Pillow judges, as it does in training: each file is decoded fully, and EXIF turns it the way
Detectron2 does. Worker processes decode, so a file that crashes its decoder costs nothing else.
"""

from __future__ import annotations

import errno
import faulthandler
import hashlib
import multiprocessing
import os
import re
import signal
import stat
import sys
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from persondet.data.inspect.images import ImageFacts
from persondet.data.leaks.hashing import image_signature
from persondet.environment import Progress, cpu_count
from persondet.errors import DatasetError
from persondet.files import leads_out, path_inside

_ORIENTATION = 0x0112
_ORIENTATIONS: dict[Any, int] = {number: number for number in range(2, 9)}
# The shorter side in pixels down to which a JPEG is decoded: the signature needs 32.
_DRAFT_SIDE = 128
_TAIL = 1 << 16
_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_EXIF_IN_PNG = (b"eXIf", b"Raw profile type exif")
_SAME_AS_RGB = ("L", "RGB")

PATIENCE = 60.0
"""Seconds that decoding one file may take."""
_BATCH = 16  # files that a worker decodes in one go
_BATCHES_AHEAD = 8  # submitted for each worker: bounds the memory


def read_headers(folder: str | Path, names: Iterable[str]) -> dict[str, ImageFacts]:
    """Read the headers of image files, without decoding a pixel.

    Args:
        folder: the split's folder.
        names: file names relative to it, as the json has them; any text is allowed.

    Returns:
        dict from name to facts with problem, size and orientation. A file that ends after its
        header shows no problem here.
    """
    root = _Folder(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on files that it reads all the same
        return {name: _look(root, name, decode=False) for name in dict.fromkeys(names)}


def decode_splits(
    folders: Mapping[str, str | Path],
    names: Mapping[str, Iterable[str]],
    *,
    workers: int = 0,
    patience: float = PATIENCE,
    progress: Progress | None = None,
) -> dict[str, dict[str, ImageFacts]]:
    """Decode the images of several splits as training does, in parallel; return all facts.

    A file that crashes its decoder or exceeds `patience` is `image-unreadable`.

    Args:
        folders: split to its folder.
        names: split to file names relative to its folder, as the json has them; any text is
            allowed.
        workers: processes; 0: one per core.
        patience: seconds that one file may take.
        progress: called with (done, all), from the thread that calls.

    Returns:
        dict from split to dict from name to facts, in the order of `names`. A file with a problem
        has no signature; it has a digest if its bytes could be read.
    """
    roots = {split: _Folder(folder) for split, folder in folders.items()}
    unique = {split: list(dict.fromkeys(own)) for split, own in names.items()}
    tasks = [(roots[split], name) for split, own in unique.items() for name in own]
    facts: list[ImageFacts] = []
    with closing(_decoded(tasks, workers or cpu_count(), patience)) as results:
        for fact in results:
            facts.append(fact)
            if progress is not None:
                progress(len(facts), len(tasks))
    remaining = iter(facts)
    return {split: {name: next(remaining) for name in own} for split, own in unique.items()}


_Task = tuple["_Folder", str]


def _decoded(
    tasks: Sequence[_Task], workers: int, patience: float
) -> Generator[ImageFacts, None, None]:
    """Yield the facts about each file, in order, from worker processes.

    When a worker dies or takes too long, each file of its batch is decoded once more by itself.
    A file that fails by itself too is `image-unreadable`.
    """
    if not tasks:
        return
    # Loaded here, because training registers datasets with `read_headers` alone.
    from pebble import ProcessExpired, ProcessPool

    # A fork starts in milliseconds, a new interpreter in half a second. Forked workers must not
    # wait for threads of this process: Pillow and NumPy do not.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    starts = range(0, len(tasks), _BATCH)
    batches = (tasks[start : start + _BATCH] for start in starts)
    workers = min(workers, len(starts))
    pool = ProcessPool(max_workers=workers, initializer=_silence, context=context)
    waiting: deque[tuple[Sequence[_Task], Any]] = deque()

    def submit(batch: Sequence[_Task]) -> Any:
        return pool.schedule(_decode_batch, args=(batch,), timeout=patience)

    try:
        while True:
            while len(waiting) < workers * _BATCHES_AHEAD and (batch := next(batches, None)):
                waiting.append((batch, submit(batch)))
            if not waiting:
                return
            batch, future = waiting.popleft()
            try:
                yield from future.result()
            except (ProcessExpired, TimeoutError):
                for task in batch:
                    try:
                        yield from submit([task]).result()
                    except (ProcessExpired, TimeoutError) as error:
                        yield ImageFacts("image-unreadable", _reason(error))
    finally:
        pool.stop()
        pool.join()


def _reason(error: Exception) -> str:
    """Return a few words on how a worker ended."""
    if isinstance(error, TimeoutError):
        return "reading it takes too long"
    code = getattr(error, "exitcode", 0)
    how = signal.Signals(-code).name if code < 0 else f"code {code}"
    return f"reading it ends the process ({how})"


def _silence() -> None:
    """Let a worker write nothing to standard error: neither C libraries nor crash reports."""
    faulthandler.disable()
    warnings.simplefilter("ignore")
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)


def _decode_batch(batch: Sequence[_Task]) -> list[ImageFacts]:
    return [_look(root, name, decode=True) for root, name in batch]


class _Problem(Exception):
    """A file that training cannot use."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code, self.detail = code, detail


class _Folder:
    """A folder that opens only files inside it."""

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
                digest = hashlib.file_digest(file, "sha256").digest()  # type: ignore[arg-type]
            return _read(file, digest, decode)
    except _Problem as problem:
        return ImageFacts(problem.code, problem.detail, digest=digest)


def _read(file: BinaryIO, digest: bytes, decode: bool) -> ImageFacts:
    # Training stops at whatever Pillow raises for a file, and that is far more than OSError.
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
            # A draft skips transforms and colours but reads the whole compressed stream: it fails
            # where a full load fails.
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
    hashes, thumbnail = image_signature(grey)
    return ImageFacts("", "", width, height, orientation, digest, hashes, thumbnail)


def _orientation(image: Image.Image) -> int:
    """Return EXIF's orientation as Detectron2's `read_image` does; broken EXIF turns nothing."""
    try:
        exif = image.getexif()
    except Exception:  # as `read_image`
        return 1
    return _ORIENTATIONS.get(exif.get(_ORIENTATION), 1)


def _orientation_of_header(image: Image.Image, file: BinaryIO) -> int:
    if image.format != "PNG" or "exif" in image.info:
        return _orientation(image)
    # `getexif` decodes a whole PNG to find EXIF behind the pixels. Look first whether it has any.
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
        cut = _ends_early(file)
    except OSError as reading:
        return "image-unreadable", str(reading.strerror).lower()
    if cut or "truncated" in words.lower():
        return "image-truncated", words
    return "image-unreadable", words


def _ends_early(file: BinaryIO) -> bool:
    """Return whether a file begins as a JPEG or PNG and lacks what ends one.

    Raises: OSError: when the file cannot be read.
    """
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    head = file.read(len(_PNG))
    file.seek(-min(16, size), os.SEEK_END)
    tail = file.read()
    if head[:2] == _JPEG:
        return b"\xff\xd9" not in tail
    if head == _PNG:
        return b"IEND" not in tail
    return len(head) > 0 and _PNG.startswith(head)

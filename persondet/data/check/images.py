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
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from persondet.data.image_file import eight_bit, grey_scaled, white_of, why_unknown
from persondet.data.inspect.images import ImageFacts
from persondet.data.leaks.hashing import image_signature
from persondet.environment import Progress, cpu_count
from persondet.files import leads_out

_ORIENTATION = 0x0112
# The shorter side in pixels down to which a JPEG is decoded: the signature needs 32.
_DRAFT_SIDE = 128
_TAIL = 1 << 16
_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_EXIF_IN_PNG = (b"eXIf", b"Raw profile type exif")

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
    root = os.path.realpath(folder)
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
    tasks = [(split, name) for split, own in names.items() for name in dict.fromkeys(own)]
    roots = {split: os.path.realpath(folder) for split, folder in folders.items()}
    facts: dict[str, dict[str, ImageFacts]] = {split: {} for split in names}
    files = [(roots[split], name) for split, name in tasks]
    with closing(_decoded(files, workers or cpu_count(), patience)) as results:
        for done, ((split, name), fact) in enumerate(zip(tasks, results, strict=True), start=1):
            facts[split][name] = fact
            if progress is not None:
                progress(done, len(tasks))
    return facts


_Task = tuple[str, str]  # folder, with its links resolved, and file name


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
    batches = [tasks[start : start + _BATCH] for start in range(0, len(tasks), _BATCH)]
    workers = min(workers, len(batches))
    pool = ProcessPool(max_workers=workers, initializer=_silence, context=context)
    waiting: deque[tuple[Sequence[_Task], Any]] = deque()

    def submit(batch: Sequence[_Task]) -> Any:
        return pool.schedule(_decode_batch, args=(batch,), timeout=patience)

    def results(batch: Sequence[_Task], future: Any, *, again: bool = True) -> Iterator[ImageFacts]:
        try:
            yield from future.result()
        except (ProcessExpired, TimeoutError) as error:
            if not again:
                yield ImageFacts("image-unreadable", _reason(error))
            for task in batch if again else ():
                yield from results([task], submit([task]), again=False)

    try:
        for batch in batches:
            waiting.append((batch, submit(batch)))
            if len(waiting) == workers * _BATCHES_AHEAD:
                yield from results(*waiting.popleft())
        while waiting:
            yield from results(*waiting.popleft())
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


def _open(root: str, name: str) -> BinaryIO:
    """Open a regular file of a folder, whose links are resolved, for reading.

    Raises: _Problem: when the name leads out of the folder, or there is no such file.
    """
    path = Path(os.path.realpath(f"{root}/{name}")) if not leads_out(name) else Path("/")
    if not path.is_relative_to(root):
        what = "it" if leads_out(name) else "a link in it"
        raise _Problem("file-name-outside", f"{what} leads out of the folder")
    try:
        # A pipe with an image's name must not block.
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        missing = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
        code = "file-missing" if missing else "image-unreadable"
        raise _Problem(code, str(error.strerror).lower()) from None
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise _Problem("image-unreadable", "it is a folder or a device, not a file")
    return os.fdopen(number, "rb")


def _look(root: str, name: str, *, decode: bool) -> ImageFacts:
    """Return the facts about one file: of its header, or of all that is in it."""
    digest = b""
    try:
        with _open(root, name) as file:
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
                whole = image.format != "PNG" or _has_late_exif(image, file)
                orientation = _orientation(image, whole=whole)
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
            white = white_of(image)
            pixels = image if image.mode in ("L", "RGB") else eight_bit(image).convert("RGB")
            grey = np.asarray(pixels.convert("L"))
    except _Problem:
        raise
    except Exception as error:
        raise _Problem(*_diagnosis(file, error)) from error
    hashes, thumbnail = image_signature(grey)
    scaled = "" if white is None else grey_scaled(image.mode, white)
    return ImageFacts("", scaled, width, height, orientation, digest, hashes, thumbnail)


def _orientation(image: Image.Image, *, whole: bool = True) -> int:
    """Return EXIF's orientation as Detectron2's `read_image` does; broken EXIF turns nothing."""
    try:
        # A PNG decodes all of it to find EXIF behind the pixels.
        exif = image.getexif() if whole else Image.Image.getexif(image)
    except Exception:  # as `read_image`
        return 1
    value: Any = exif.get(_ORIENTATION)
    return int(value) if value in range(2, 9) else 1


def _has_late_exif(image: Image.Image, file: BinaryIO) -> bool:
    """Return whether a PNG that is not decoded may have EXIF behind its pixels."""
    position = file.tell()
    file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
    tail = file.read(_TAIL)
    file.seek(position)
    return "exif" in image.info or any(mark in tail for mark in _EXIF_IN_PNG)


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
        file.seek(0)
        words = why_unknown(file.read(12))  # its own words hold an address in memory
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

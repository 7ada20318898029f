"""Single pictures: which ones are meant, reading them strictly, annotating them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from detectron2.structures import Instances

from persondet.errors import MediaError, OutputExistsError, PartialMediaError
from persondet.files import atomic_path, refuse_existing
from persondet.picture_file import read_picture_file
from persondet.picture_results import PictureResults
from persondet.region_masks import paste_regions
from persondet.video.sniff import describe_foreign_file

PICTURE_SUFFIXES = frozenset(".bmp .jpeg .jpg .png .tif .tiff .webp".split())
JPEG_QUALITY = 92
_READ_AHEAD = 2  # pictures
# How long pictures wait for others of their size, in batches, and how many bytes may wait.
_MOST_WAITING = 4
_MOST_BYTES = 256 * 2**20


class PicturePredictor(Protocol):
    """What a predictor must offer; `persondet.predictor.Predictor` does, and `predict_frames`."""

    metadata: Any
    confidence_threshold: float
    model_file: str
    batch_size: int

    def predict_batch(self, images: Sequence[np.ndarray]) -> list[Instances]:
        """Return the people in each image: uint8, (H, W, 3), BGR."""


@dataclass(frozen=True)
class PictureSummary:
    """What was done: pictures annotated, people found, and (path, reason) of those skipped."""

    pictures: int
    people: int
    skipped: tuple[tuple[Path, str], ...]


def find_pictures(
    inputs: Sequence[str | Path], *, output: str | Path | None = None
) -> list[tuple[Path, str]]:
    """Return (path, name of the result) of the pictures in files, folders and glob patterns.

    A file keeps its name, a file in a folder its path relative to that folder (searched in depth).

    Args:
        inputs: of a pattern, what exists literally is taken literally, such as a folder `[x]`.
        output: a folder whose pictures are results of an earlier run: passed over where an input
            holds that folder.

    Raises: MediaError: when an input matches nothing or is no pattern, or two results would get
        the same name.
    """
    found: dict[str, Path] = {}
    for entry in inputs:
        if not str(entry):
            raise MediaError("an --input is empty; give files, folders or globs.")
        matches = _sources(Path(entry), None if output is None else Path(output))
        if not matches:
            known = " ".join(sorted(PICTURE_SUFFIXES))
            raise MediaError(
                f"{entry}: there is no picture; give files, folders or globs ({known})."
            )
        for path, name in matches:
            other = found.setdefault(name, path)
            if other != path and not other.samefile(path):
                raise MediaError(
                    f"{other} and {path} would both be written as {name}; "
                    "give their common folder as --input."
                )
    return [(path, name) for name, path in found.items()]


def _sources(entry: Path, output: Path | None) -> list[tuple[Path, str]]:
    """Return (path, name of the result) of one input, without what `output` has in it."""
    try:
        matches = list(_matches(entry))
        if output is None or entry.resolve().is_relative_to(output.resolve()):
            return matches
        results = output.resolve()
        return [one for one in matches if not one[0].parent.resolve().is_relative_to(results)]
    except OSError as error:
        raise MediaError(f"{entry}: cannot be searched ({error.strerror or error}).") from error


def _matches(entry: Path) -> Iterator[tuple[Path, str]]:
    """Yield (path, name of the result) of one input."""
    if entry.is_dir():
        for path in sorted(entry.rglob("*")):
            if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file():
                yield path, path.relative_to(entry).as_posix()
    elif entry.is_file():
        if entry.suffix.lower() in PICTURE_SUFFIXES:
            yield entry, entry.name
    else:
        root = next(folder for folder in entry.parents if folder.is_dir() or folder.name == "")
        try:
            matches = sorted(root.glob(str(entry.relative_to(root))))
        except (ValueError, NotImplementedError) as error:
            wrong = str(error).rstrip(".")
            raise MediaError(
                f"{entry}: this is no pattern ({wrong}); write e.g. 'photos/**/*.jpg'."
            ) from error
        for match in matches:
            yield from _matches(match)


def read_picture(path: str | Path) -> np.ndarray:
    """Read a whole picture, upright as its EXIF says: uint8, (H, W, 3), BGR.

    Raises: MediaError: when the file is missing, truncated, or no picture; it says what else the
        file is, where that can be seen.
    """
    path = Path(path)
    try:
        return read_picture_file(path)
    except MediaError as error:
        reason = describe_foreign_file(path)
        if not reason:
            raise
        raise MediaError(f"{path}: the picture cannot be read ({reason}).") from error


def check_picture_output(
    pictures: Sequence[tuple[Path, str]], output: str | Path, *, overwrite: bool = False
) -> None:
    """Refuse an output folder that must not be written; call it before a model is loaded.

    Raises: OutputExistsError: when the folder is used and `overwrite` is False.
        MediaError: when it is a file, or a result would replace its own source.
    """
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise MediaError(f"{output} is a file; give a folder as --output.")
    for path, name in pictures:
        target = output / name
        if target.exists() and target.samefile(path):
            raise MediaError(f"{target} is the source itself; choose another --output.")
    refuse_existing(output, overwrite=overwrite)


def predict_pictures(
    pictures: Sequence[tuple[Path, str]],
    output: str | Path,
    predictor: PicturePredictor,
    draw: Callable[[np.ndarray, Instances], np.ndarray],
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> PictureSummary:
    """Annotate pictures and write what was found; a broken picture is reported and skipped.

    Pictures of one size share a forward pass. Writes into `output` the annotated pictures under
    their names, and the files of `PictureResults`.

    Args:
        pictures: (path, name of the result), as `find_pictures` returns them.
        predictor: as `persondet.predictor.Predictor`.
        draw: returns an annotated copy of a BGR picture.
        progress: called after each picture with the number done and of all.

    Raises: MediaError, OutputExistsError: as `check_picture_output`; MediaError when no picture
        can be read. PartialMediaError: when the disk refuses and some pictures are annotated.
    """
    output = Path(output)
    check_picture_output(pictures, output, overwrite=overwrite)
    predict = getattr(predictor, "predict_frames", predictor.predict_batch)
    skipped: list[tuple[Path, str]] = []
    done = written = 0
    with (
        _kept(lambda: written),
        PictureResults(output, predictor, overwrite=overwrite) as results,
    ):

        def count() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, len(pictures))

        def readable() -> Iterator[_Picture]:
            for index, image in enumerate(_read_ahead([path for path, _ in pictures])):
                if isinstance(image, MediaError):
                    skipped.append((pictures[index][0], str(image)))
                    results.skip(index)
                    count()
                else:
                    yield _Picture(index, pictures[index][1], image)

        for batch in _batches(readable(), predictor.batch_size):
            found = predict([picture.image for picture in batch])
            for picture, instances in zip(batch, found, strict=True):
                instances = paste_regions(instances)
                _write_picture(output / picture.name, draw(picture.image, instances))
                written += 1
                results.add(picture.index, picture.name, instances)
                count()
        if not results.pictures:
            raise MediaError(f"none of the {len(pictures)} pictures can be read; {skipped[0][1]}")
    return PictureSummary(results.pictures, results.people, tuple(skipped))


@contextmanager
def _kept(written: Callable[[], int]) -> Iterator[None]:
    """Say of an error what it leaves, when pictures were annotated before it."""
    try:
        yield
    except PartialMediaError:
        raise
    except (MediaError, OutputExistsError) as error:
        if not written():
            raise
        raise PartialMediaError(
            f"{str(error).rstrip('.')}; the pictures annotated before stay ({written()})."
        ) from error


@dataclass(frozen=True)
class _Picture:
    """A picture to annotate: its place in the input, its name, uint8 (H, W, 3) BGR."""

    index: int
    name: str
    image: np.ndarray


def _read_ahead(paths: Sequence[Path]) -> Iterator[np.ndarray | MediaError]:
    """Yield each picture, or why it cannot be read, while a thread reads the next ones."""

    def read(path: Path) -> np.ndarray | MediaError:
        try:
            return read_picture(path)
        except MediaError as error:
            return error

    waiting: deque[Future[np.ndarray | MediaError]] = deque()
    left = iter(paths)
    with ThreadPoolExecutor(1, "persondet-pictures") as reader:
        try:
            waiting.extend(reader.submit(read, path) for path in islice(left, _READ_AHEAD))
            while waiting:
                picture = waiting.popleft().result()
                waiting.extend(reader.submit(read, path) for path in islice(left, 1))
                yield picture
        finally:
            reader.shutdown(cancel_futures=True)


def _batches(pictures: Iterable[_Picture], size: int) -> Iterator[list[_Picture]]:
    """Yield pictures of one shape in lists of at most `size`.

    Each list is full as long as the others of its shape come soon: those that have waited for
    their like for some batches go, and the oldest when too many bytes wait.
    """
    waiting: dict[tuple[int, ...], list[_Picture]] = {}  # in the order of their first pictures
    for picture in pictures:
        alike = waiting.setdefault(picture.image.shape, [])
        alike.append(picture)
        if len(alike) >= size:
            yield waiting.pop(picture.image.shape)
        while waiting and (
            picture.index - next(iter(waiting.values()))[0].index >= _MOST_WAITING * size
            or sum(one.image.nbytes for group in waiting.values() for one in group) > _MOST_BYTES
        ):
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()


def _write_picture(path: Path, image: np.ndarray) -> None:
    """Write a BGR picture in the format of its name, whole or not at all."""
    suffix = path.suffix.lower()
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix in (".jpg", ".jpeg") else []
    try:
        coded, data = cv2.imencode(suffix, image, options)
    except cv2.error as error:
        raise MediaError(
            f"{path}: the annotated picture cannot be written ({error.err})."
        ) from error
    if not coded:
        raise MediaError(f"{path}: the annotated picture cannot be written.")
    # Not `imwrite`, which does not notice a full disk in every format.
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())

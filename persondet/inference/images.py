"""Single images: which ones are meant, reading them strictly, annotating them.

What is written about annotated images: COCO results, and records as those of clips.

`records.jsonl` has a header, and then a line for each image that could be read, in order:

    {"schema": "persondet-picture-records", "version": 1, "model": …, "classes": ["person"],
     "confidence_threshold": 0.5}
    {"index": 0, "file_name": "park/a.jpg", "width": 640, "height": 480, "people": […]}

`index` counts the images that were asked for, so one that could not be read leaves a gap; the
people are those of `persondet.video.records`.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import cv2
import numpy as np
from detectron2.structures import Instances

from persondet.data.image_file import read_image_file
from persondet.errors import MediaError, OutputExistsError, PartialMediaError
from persondet.files import (
    PartialText,
    atomic_path,
    describe_foreign_file,
    refuse_existing,
    write_json,
)
from persondet.inference.records import people_of, person_rows
from persondet.inference.region_masks import encoded_masks, paste_regions

IMAGE_SUFFIXES = frozenset(".bmp .jpeg .jpg .png .tif .tiff .webp".split())
JPEG_QUALITY = 92
_READ_AHEAD = 2  # images
# How long images wait for others of their size, in batches, and how many bytes may wait.
_MOST_WAITING = 4
_MOST_BYTES = 256 * 2**20


class ImagePredictor(Protocol):
    """What a predictor must offer; `persondet.inference.predictor.Predictor` does, and `predict_frames`."""

    metadata: Any
    confidence_threshold: float
    model_file: str
    batch_size: int

    def predict_batch(self, images: Sequence[np.ndarray]) -> list[Instances]:
        """Return the people in each image: uint8, (H, W, 3), BGR."""


@dataclass(frozen=True)
class ImageSummary:
    """What was done: images annotated, people found, and (path, reason) of those skipped."""

    images: int
    people: int
    skipped: tuple[tuple[Path, str], ...]


def find_images(
    inputs: Sequence[str | Path], *, output: str | Path | None = None
) -> list[tuple[Path, str]]:
    """Return (path, name of the result) of the images in files, folders and glob patterns.

    A file keeps its name, a file in a folder its path relative to that folder (searched in depth).

    Args:
        inputs: of a pattern, what exists literally is taken literally, such as a folder `[x]`.
        output: a folder whose images are results of an earlier run: passed over where an input
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
            known = " ".join(sorted(IMAGE_SUFFIXES))
            raise MediaError(f"{entry}: there is no image; give files, folders or globs ({known}).")
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
            if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
                yield path, path.relative_to(entry).as_posix()
    elif entry.is_file():
        if entry.suffix.lower() in IMAGE_SUFFIXES:
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


def load_image(path: str | Path) -> np.ndarray:
    """Read a whole image, upright as its EXIF says: uint8, (H, W, 3), BGR.

    Raises: MediaError: when the file is missing, truncated, or no image; it says what else the
        file is, where that can be seen.
    """
    path = Path(path)
    try:
        return read_image_file(path)
    except MediaError as error:
        reason = describe_foreign_file(path)
        if not reason:
            raise
        raise MediaError(f"{path}: the image cannot be read ({reason}).") from error


def check_image_output(
    images: Sequence[tuple[Path, str]], output: str | Path, *, overwrite: bool = False
) -> None:
    """Refuse an output folder that must not be written; call it before a model is loaded.

    Raises: OutputExistsError: when the folder is used and `overwrite` is False.
        MediaError: when it is a file, or a result would replace its own source.
    """
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise MediaError(f"{output} is a file; give a folder as --output.")
    for path, name in images:
        target = output / name
        if target.exists() and target.samefile(path):
            raise MediaError(f"{target} is the source itself; choose another --output.")
    refuse_existing(output, overwrite=overwrite)


def predict_images(
    images: Sequence[tuple[Path, str]],
    output: str | Path,
    predictor: ImagePredictor,
    draw: Callable[[np.ndarray, Instances], np.ndarray],
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ImageSummary:
    """Annotate images and write what was found; a broken image is reported and skipped.

    Images of one size share a forward pass. Writes into `output` the annotated images under
    their names, and the files of `ImageResults`.

    Args:
        images: (path, name of the result), as `find_images` returns them.
        predictor: as `persondet.inference.predictor.Predictor`.
        draw: returns an annotated copy of a BGR image.
        progress: called after each image with the number done and of all.

    Raises: MediaError, OutputExistsError: as `check_image_output`; MediaError when no image
        can be read. PartialMediaError: when the disk refuses and some images are annotated.
    """
    output = Path(output)
    check_image_output(images, output, overwrite=overwrite)
    predict = getattr(predictor, "predict_frames", predictor.predict_batch)
    skipped: list[tuple[Path, str]] = []
    done = written = 0
    with (
        _kept(lambda: written),
        ImageResults(output, predictor, overwrite=overwrite) as results,
    ):

        def count() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, len(images))

        def readable() -> Iterator[_Image]:
            for index, image in enumerate(_read_ahead([path for path, _ in images])):
                if isinstance(image, MediaError):
                    skipped.append((images[index][0], str(image)))
                    results.skip(index)
                    count()
                else:
                    yield _Image(index, images[index][1], image)

        for batch in _batches(readable(), predictor.batch_size):
            found = predict([one.image for one in batch])
            for one, instances in zip(batch, found, strict=True):
                instances = paste_regions(instances)
                _write_image(output / one.name, draw(one.image, instances))
                written += 1
                results.add(one.index, one.name, instances)
                count()
        if not results.images:
            raise MediaError(f"none of the {len(images)} images can be read; {skipped[0][1]}")
    return ImageSummary(results.images, results.people, tuple(skipped))


@contextmanager
def _kept(written: Callable[[], int]) -> Iterator[None]:
    """Say of an error what it leaves, when images were annotated before it."""
    try:
        yield
    except PartialMediaError:
        raise
    except (MediaError, OutputExistsError) as error:
        if not written():
            raise
        raise PartialMediaError(
            f"{str(error).rstrip('.')}; the images annotated before stay ({written()})."
        ) from error


@dataclass(frozen=True)
class _Image:
    """An image to annotate: its place in the input, its name, uint8 (H, W, 3) BGR."""

    index: int
    name: str
    image: np.ndarray


def _read_ahead(paths: Sequence[Path]) -> Iterator[np.ndarray | MediaError]:
    """Yield each image, or why it cannot be read, while a thread reads the next ones."""

    def read(path: Path) -> np.ndarray | MediaError:
        try:
            return load_image(path)
        except MediaError as error:
            return error

    waiting: deque[Future[np.ndarray | MediaError]] = deque()
    left = iter(paths)
    with ThreadPoolExecutor(1, "persondet-images") as reader:
        try:
            waiting.extend(reader.submit(read, path) for path in islice(left, _READ_AHEAD))
            while waiting:
                one = waiting.popleft().result()
                waiting.extend(reader.submit(read, path) for path in islice(left, 1))
                yield one
        finally:
            reader.shutdown(cancel_futures=True)


def _batches(images: Iterable[_Image], size: int) -> Iterator[list[_Image]]:
    """Yield images of one shape in lists of at most `size`.

    Each list is full as long as the others of its shape come soon: those that have waited for
    their like for some batches go, and the oldest when too many bytes wait.
    """
    waiting: dict[tuple[int, ...], list[_Image]] = {}  # in the order of their first images
    for one in images:
        alike = waiting.setdefault(one.image.shape, [])
        alike.append(one)
        if len(alike) >= size:
            yield waiting.pop(one.image.shape)
        while waiting and (
            one.index - next(iter(waiting.values()))[0].index >= _MOST_WAITING * size
            or sum(one.image.nbytes for group in waiting.values() for one in group) > _MOST_BYTES
        ):
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()


def _write_image(path: Path, image: np.ndarray) -> None:
    """Write a BGR image in the format of its name, whole or not at all."""
    suffix = path.suffix.lower()
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix in (".jpg", ".jpeg") else []
    try:
        coded, data = cv2.imencode(suffix, image, options)
    except cv2.error as error:
        raise MediaError(f"{path}: the annotated image cannot be written ({error.err}).") from error
    if not coded:
        raise MediaError(f"{path}: the annotated image cannot be written.")
    # Not `imwrite`, which does not notice a full disk in every format.
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())


logger = logging.getLogger(__name__)

PREDICTIONS = "predictions.json"
IMAGES = "images.json"
RECORDS = "records.jsonl"
SCHEMA, VERSION = "persondet-picture-records", 1


@dataclass(frozen=True)
class _Known:
    """An image that is finished, or None in the places of one that cannot be read."""

    image: dict[str, Any] | None
    results: list[dict[str, Any]]
    record: dict[str, Any] | None


class ImageResults:
    """Collects what is found in images, which may be told in any order; writes it in theirs.

    The records grow while the images are told, as `records.partial.jsonl`; a killed run leaves
    it. All three files have their names when the `with` block ends well.

    Args:
        folder: where `predictions.json` (COCO results: `image_id category_id bbox score
            [segmentation]`, boxes XYWH in pixels), `images.json` (COCO images and categories, so
            that `COCO(images.json).loadRes(…)` works) and `records.jsonl` go.
        predictor: with `metadata`, `model_file` and `confidence_threshold`.
        overwrite: replace those of an earlier run.

    Attributes:
        images, people: numbers of those written.
    """

    def __init__(self, folder: str | Path, predictor: Any, *, overwrite: bool = False) -> None:
        self.folder, self.predictor = Path(folder), predictor
        self._classes = list(predictor.metadata.thing_classes)
        self._category_ids = category_ids(predictor.metadata)
        self._text = PartialText(self.folder / RECORDS, "records", overwrite=overwrite)
        self._waiting: dict[int, _Known] = {}
        self._next = 0
        self._images: list[dict[str, Any]] = []
        self._results: list[dict[str, Any]] = []
        self._stack = ExitStack()

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self._images)

    @property
    def people(self) -> int:
        """Number of people."""
        return len(self._results)

    def __enter__(self) -> ImageResults:
        return self

    def _start(self) -> None:
        """Write the header; not before there is an image, so that nothing is left of none."""
        self._stack.enter_context(self._text)
        header = {
            "schema": SCHEMA,
            "version": VERSION,
            "model": self.predictor.model_file,
            "classes": self._classes,
            "confidence_threshold": self.predictor.confidence_threshold,
        }
        self._text.write(_line(header), header=True)

    def add(self, index: int, name: str, instances: Instances) -> None:
        """Tell what was found in image `index`, 0 the first, whose result is called `name`."""
        height, width = instances.image_size
        image = {"id": index + 1, "file_name": name, "width": width, "height": height}
        self._tell(
            index,
            _Known(
                image,
                coco_results(instances, index + 1, self._category_ids),
                {
                    "index": index,
                    "file_name": name,
                    "width": width,
                    "height": height,
                    "people": person_rows(people_of(instances, self._classes)),
                },
            ),
        )

    def skip(self, index: int) -> None:
        """Tell that image `index` cannot be read."""
        self._tell(index, _Known(None, [], None))

    def _tell(self, index: int, known: _Known) -> None:
        self._waiting[index] = known
        while self._next in self._waiting:
            known = self._waiting.pop(self._next)
            self._next += 1
            if known.image is not None and known.record is not None:
                if not self._images:
                    self._start()
                self._images.append(known.image)
                self._results += known.results
                self._text.write(_line(known.record))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None or not self._images:
            self._stack.__exit__(kind, error, trace)
            return
        categories = [
            {"id": i, "name": name}
            for i, name in zip(self._category_ids, self._classes, strict=True)
        ]
        with self._stack:
            # pycocotools needs "info" and "annotations" to load a file.
            listing = {"info": {}, "images": self._images, "categories": categories}
            write_json(self.folder / PREDICTIONS, self._results, indent=None)
            write_json(self.folder / IMAGES, listing | {"annotations": []})


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, allow_nan=False, ensure_ascii=False, separators=(",", ":")) + "\n"


def coco_results(
    instances: Instances, image_id: int, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Return an image's people in COCO's results format; boxes XYWH, pixels."""
    boxes = instances.pred_boxes.tensor.numpy().astype(np.float64)
    masks = encoded_masks(instances)
    results: list[dict[str, Any]] = []
    for i, box in enumerate(boxes):
        if not np.isfinite(box).all():
            logger.warning("image %d: a detection with the box %s is left out", image_id, box)
            continue
        x0, y0, x1, y1 = box.tolist()
        result = {
            "image_id": image_id,
            "category_id": category_ids[int(instances.pred_classes[i])],
            "bbox": [round(value, 3) for value in (x0, y0, x1 - x0, y1 - y0)],
            "score": round(float(instances.scores[i]), 5),
        }
        if masks is not None:
            result["segmentation"] = masks[i]
        results.append(result)
    return results


def category_ids(metadata: Any) -> list[int]:
    """Return the dataset's category id of each class; 1, 2, … where the model knows none."""
    classes = metadata.thing_classes
    mapping = metadata.get("thing_dataset_id_to_contiguous_id", None)
    if not mapping:
        return list(range(1, len(classes) + 1))
    by_class = {number: category for category, number in mapping.items()}
    return [by_class[number] for number in range(len(classes))]

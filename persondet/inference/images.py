"""Single images: find the files, read them strictly, annotate them, write the results.

`predict_images` writes into one folder the annotated images; `predictions.json` (COCO results:
`image_id category_id bbox score [segmentation]`, boxes XYWH in pixels); `images.json` (COCO images
and categories, so that `COCO("images.json").loadRes("predictions.json")` works); and
`records.jsonl` with a header and then a line for each readable image, in order:

    {"schema": "persondet-picture-records", "version": 1, "model": …, "classes": ["person"],
     "confidence_threshold": 0.5}
    {"index": 0, "file_name": "park/a.jpg", "width": 640, "height": 480, "people": […]}

`index` counts the images that were asked for, so an unreadable one leaves a gap; `people` has the
objects of `persondet.records`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from detectron2.structures import Instances

from persondet.data.image_file import read_image_file
from persondet.environment import Progress
from persondet.errors import MediaError, OutputExistsError, PartialMediaError
from persondet.files import (
    PartialText,
    atomic_path,
    describe_foreign_file,
    refuse_existing,
    write_json,
)
from persondet.inference.masks import encoded_masks, paste_regions
from persondet.inference.stages import Stage, StageLine
from persondet.records import json_line, people_of, person_rows

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset(".bmp .jpeg .jpg .png .tif .tiff .webp".split())
JPEG_QUALITY = 92
PREDICTIONS, IMAGES, RECORDS = "predictions.json", "images.json", "records.jsonl"
SCHEMA, VERSION = "persondet-picture-records", 1
# How long images wait for others of their size, in batches, and how many bytes may wait.
_MOST_WAITING = 4
_MOST_BYTES = 256 * 2**20


class BatchPredictor(Protocol):
    """What a predictor must offer; `persondet.inference.predictor.Predictor` does.

    If it has `predict_frames`, which leaves the masks small, that is called instead of
    `predict_batch`.
    """

    metadata: Any
    confidence_threshold: float
    model_file: str
    batch_size: int

    def predict_batch(self, images: Sequence[np.ndarray]) -> list[Instances]:
        """Return the detections in each image: uint8, (H, W, 3), BGR."""


@dataclass(frozen=True)
class ImageSummary:
    """Number of images annotated and of detections, and (path, reason) of each image skipped."""

    images: int
    people: int
    skipped: tuple[tuple[Path, str], ...]


def find_images(
    inputs: Sequence[str | Path], *, output: str | Path | None = None
) -> list[tuple[Path, str]]:
    """Return (path, name of the result) of the images in files, folders and glob patterns.

    A file keeps its name; a file in a folder gets its path relative to that folder, whose
    sub-folders are searched too.

    Args:
        inputs: a pattern that exists literally, such as a folder `[x]`, is taken literally.
        output: a folder of earlier results; skipped where an input contains that folder.

    Raises: MediaError: when an input matches nothing or is no pattern, or two results would get
        the same name.
    """
    sources: dict[str, Path] = {}
    for entry in inputs:
        if not str(entry):
            raise MediaError("an --input is empty; give files, folders or globs.")
        matches = _sources(Path(entry), None if output is None else Path(output))
        if not matches:
            known = " ".join(sorted(IMAGE_SUFFIXES))
            raise MediaError(f"{entry}: there is no image; give files, folders or globs ({known}).")
        for path, name in matches:
            other = sources.setdefault(name, path)
            if other != path and not other.samefile(path):
                raise MediaError(
                    f"{other} and {path} would both be written as {name}; "
                    "give their common folder as --input."
                )
    return [(path, name) for name, path in sources.items()]


def _sources(entry: Path, output: Path | None) -> list[tuple[Path, str]]:
    """Return (path, name of the result) of one input, without the images inside `output`."""
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

    Raises: MediaError: when the file is missing, truncated, or no image; the message says what
        else the file seems to be.
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
    """Refuse an output folder that must not be written; call it before loading a model.

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
    predictor: BatchPredictor,
    draw: Callable[[np.ndarray, Instances], np.ndarray],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ImageSummary:
    """Annotate images and write the detections; skip and report unreadable images.

    Images of one size share a forward pass. `output` gets the annotated images under their names
    and the files that the top of this module names.

    Args:
        images: (path, name of the result), as `find_images` returns them.
        predictor: as `persondet.inference.predictor.Predictor`.
        draw: returns an annotated copy of a BGR image.
        progress: called after each image with the number done and the total.

    Raises: MediaError, OutputExistsError: as `check_image_output`; MediaError when no image is
        readable. PartialMediaError: when the disk refuses and some images are annotated.
    """
    output = Path(output)
    check_image_output(images, output, overwrite=overwrite)
    predict = getattr(predictor, "predict_frames", predictor.predict_batch)
    skipped: list[tuple[Path, str]] = []
    with ExitStack() as stack:
        results = _ImageResults(output, predictor, overwrite=overwrite)
        stack.enter_context(_partial_after(results))
        stack.enter_context(results)
        # A thread reads the next two images meanwhile.
        reader = Stage("images", lambda _: _read(images), ahead=2)

        def tell() -> None:
            if progress is not None:
                progress(results.written + len(skipped), len(images))

        def readable() -> Iterator[_Image]:
            for one in stack.enter_context(StageLine([reader])):
                if isinstance(one.image, MediaError):
                    skipped.append((images[one.index][0], str(one.image)))
                    results.skip(one.index)
                    tell()
                else:
                    yield one

        for batch in _batches(readable(), predictor.batch_size):
            found = predict([one.image for one in batch])
            for one, instances in zip(batch, found, strict=True):
                instances = paste_regions(instances)
                _write_image(output / one.name, draw(one.image, instances))
                results.add(one.index, one.name, instances)
                tell()
        if not results.written:
            raise MediaError(f"none of the {len(images)} images can be read; {skipped[0][1]}")
    return ImageSummary(results.written, results.people, tuple(skipped))


@contextmanager
def _partial_after(results: _ImageResults) -> Iterator[None]:
    """Turn an error into a partial result when images were annotated before it."""
    try:
        yield
    except PartialMediaError:
        raise
    except (MediaError, OutputExistsError) as error:
        if not results.written:
            raise
        raise PartialMediaError(
            f"{str(error).rstrip('.')}; the images annotated before stay ({results.written})."
        ) from error


@dataclass(frozen=True)
class _Image:
    """An image to annotate: its index among the inputs, its name, uint8 (H, W, 3) BGR."""

    index: int
    name: str
    image: Any  # or the MediaError that says why it is unreadable


def _read(images: Sequence[tuple[Path, str]]) -> Iterator[_Image]:
    """Yield each image, or why it is unreadable."""
    for index, (path, name) in enumerate(images):
        try:
            yield _Image(index, name, load_image(path))
        except MediaError as error:
            yield _Image(index, name, error)


def _batches(images: Iterable[_Image], size: int) -> Iterator[list[_Image]]:
    """Yield images of one shape in lists of at most `size`.

    A list goes out before it is full when its first image has waited for several batches, or,
    oldest first, when too many bytes wait.
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


class _ImageResults:
    """Collects the detections of images in any order and writes them in the order of the inputs.

    The records grow meanwhile as `records.partial.jsonl`, which a killed run leaves. All three
    files get their names when the `with` block ends well.

    Args:
        folder: gets the files.
        predictor: with `metadata`, `model_file` and `confidence_threshold`.
        overwrite: replace the files of an earlier run.

    Attributes:
        written, people: number of annotated images and of detections so far.
    """

    def __init__(self, folder: Path, predictor: BatchPredictor, *, overwrite: bool) -> None:
        self.folder, self.predictor = folder, predictor
        self.written = self.people = 0
        self._classes = list(predictor.metadata.thing_classes)
        self._category_ids = category_ids(predictor.metadata)
        self._text = PartialText(folder / RECORDS, "records", overwrite=overwrite)
        # By index; None in the place of an unreadable image.
        self._waiting: dict[int, tuple[dict[str, Any], list[dict[str, Any]]] | None] = {}
        self._next = 0
        self._images: list[dict[str, Any]] = []
        self._results: list[dict[str, Any]] = []
        self._stack = ExitStack()

    def __enter__(self) -> _ImageResults:
        return self

    def add(self, index: int, name: str, instances: Instances) -> None:
        """Add the detections of image `index` (from 0) with the result `name`."""
        self.written += 1
        height, width = instances.image_size
        masks = encoded_masks(instances)
        people = person_rows(people_of(instances, self._classes, masks))
        results = coco_results(instances, index + 1, self._category_ids, masks)
        self.people += len(results)
        image = {"index": index, "file_name": name, "width": width, "height": height}
        self._tell(index, (image | {"people": people}, results))

    def skip(self, index: int) -> None:
        """Leave out the unreadable image `index`."""
        self._tell(index, None)

    def _tell(self, index: int, known: tuple[dict[str, Any], list[dict[str, Any]]] | None) -> None:
        self._waiting[index] = known
        while self._next in self._waiting:
            known = self._waiting.pop(self._next)
            self._next += 1
            if known is not None:
                record, results = known
                if not self._images:
                    self._start()
                image = {name: record[name] for name in ("file_name", "width", "height")}
                self._images.append({"id": record["index"] + 1, **image})
                self._results += results
                self._text.write(json_line(record))

    def _start(self) -> None:
        """Write the header; not before the first image, so that no image leaves no file."""
        self._stack.enter_context(self._text)
        header = {
            "schema": SCHEMA,
            "version": VERSION,
            "model": self.predictor.model_file,
            "classes": self._classes,
            "confidence_threshold": self.predictor.confidence_threshold,
        }
        self._text.write(json_line(header), header=True)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
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


def coco_results(
    instances: Instances,
    image_id: int,
    category_ids: Sequence[int],
    masks: Sequence[dict[str, Any]] | None,
) -> list[dict[str, Any]]:
    """Return an image's detections in COCO's results format; boxes XYWH, pixels.

    Args:
        masks: of each detection, as `encoded_masks` returns them.
    """
    boxes = instances.pred_boxes.tensor.numpy().astype(np.float64)
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
    """Return the dataset's category id of each class; 1, 2, … if the model does not know them."""
    classes = metadata.thing_classes
    mapping = metadata.get("thing_dataset_id_to_contiguous_id", None)
    if not mapping:
        return list(range(1, len(classes) + 1))
    by_class = {number: category for category, number in mapping.items()}
    return [by_class[number] for number in range(len(classes))]

"""Single images: find the files, read them strictly, annotate them, write the results.

`predict_images` writes into one folder the annotated images; `predictions.json` (COCO results:
`image_id category_id bbox score [segmentation]`, boxes XYWH in pixels); `images.json` (COCO images
and categories, so that `COCO("images.json").loadRes("predictions.json")` works); and
`records.jsonl` with a header and then a line for each readable image, in order:

    {"schema": "persondet-picture-records", "version": 1, "model": …, "classes": ["person"],
     "confidence_threshold": 0.5, ["fingerprint": {…}]}
    {"index": 0, "file_name": "park/a.jpg", "width": 640, "height": 480, "people": […]}

`index` counts the images that were asked for, so an unreadable one leaves a gap; `people` has the
objects of `persondet.records`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from detectron2.structures import Instances

from persondet.data.image_file import IMAGE_SUFFIXES, is_image_name, read_image_file, write_image
from persondet.environment import Progress
from persondet.errors import MediaError, OutputExistsError, PartialMediaError
from persondet.files import PartialText, describe_foreign_file, refuse_existing, write_json
from persondet.inference.masks import encoded_masks, paste_regions
from persondet.inference.stages import Stage, StageLine
from persondet.modeling.detections import people_only
from persondet.records import PersonRecord, json_line, people_of, person_rows
from persondet.visualization.hiding import HideOptions, covers_of, hide

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

    Raises: MediaError: when an input matches nothing or cannot be searched, or two results would
        get the same name.
    """
    results = None if output is None else Path(output).resolve()
    sources: dict[str, Path] = {}
    for entry in map(str, inputs):
        try:
            matches = [
                match for match in _matches(entry) if not _is_result(match[0], entry, results)
            ]
        except (OSError, ValueError, NotImplementedError) as error:
            raise MediaError(f"--input {entry}: cannot be searched ({error}).") from error
        if not matches:
            known = " ".join(sorted(IMAGE_SUFFIXES))
            raise MediaError(
                f"--input {entry}: there is no image; give files, folders or globs ({known})."
            )
        for path, name in matches:
            other = sources.setdefault(name, path)
            if other != path and not other.samefile(path):
                raise MediaError(
                    f"{other} and {path} would both be written as {name}; "
                    "give their common folder as --input."
                )
    return [(path, name) for name, path in sources.items()]


def _is_result(path: Path, entry: str, results: Path | None) -> bool:
    """Return whether a file lies among earlier results, and its input does not."""
    if results is None or Path(entry).resolve().is_relative_to(results):
        return False
    return path.parent.resolve().is_relative_to(results)


def _matches(entry: str) -> Iterator[tuple[Path, str]]:
    """Yield (path, name of the result) of one input."""
    path = Path(entry)
    if entry and path.is_dir():
        for file in sorted(path.rglob("*")):
            if is_image_name(file) and file.is_file():
                yield file, result_name(file.relative_to(path).as_posix())
    elif path.is_file():
        if is_image_name(path):
            yield path, result_name(path.name)
    elif entry:
        root = next(filter(Path.is_dir, path.parents))
        for match in sorted(root.glob(str(path.relative_to(root)))):
            yield from _matches(str(match))


def result_name(name: str) -> str:
    """Return the name of a result: the image's, and `.jpg` where nothing writes its format."""
    return name if cv2.haveImageWriter(name) else f"{name}.jpg"


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
    hiding: HideOptions | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    fingerprint: dict[str, Any] | None = None,
) -> ImageSummary:
    """Annotate images and write the detections; skip and report unreadable images.

    Images of one size share a forward pass. `output` gets the annotated images under their names
    and the files that the top of this module names.

    Args:
        images: (path, name of the result), as `find_images` returns them.
        predictor: as `persondet.inference.predictor.Predictor`.
        draw: returns an annotated copy of a BGR image.
        hiding: hide people before anything is drawn, as `annotate_video` does.
        progress: called after each image with the number done and the total.
        fingerprint: what the result is made of; goes into the header of the records.

    Raises: MediaError, OutputExistsError: as `check_image_output`; MediaError when no image is
        readable. PartialMediaError: when the disk refuses and some images are annotated.
    """
    output = Path(output)
    check_image_output(images, output, overwrite=overwrite)
    predict = getattr(predictor, "predict_frames", predictor.predict_batch)
    tell = progress or (lambda *_: None)
    skipped: list[tuple[Path, str]] = []
    with ExitStack() as stack:
        results = _ImageResults(output, predictor, stack, fingerprint, overwrite=overwrite)
        stack.enter_context(_partial_after(results))
        # A thread reads the next two images meanwhile.
        reader = Stage("images", lambda _: _read(images), ahead=2)
        line = stack.enter_context(StageLine([reader]))

        def readable() -> Iterator[_Image]:
            for one in line:
                if isinstance(one, _Image):
                    yield one
                else:
                    skipped.append(one)
                    tell(results.written + len(skipped), len(images))

        for batch in _batches(readable(), predictor.batch_size):
            found = predict([one.image for one in batch])
            for one, instances in zip(batch, found, strict=True):
                if hiding:
                    people = people_only(instances, predictor.metadata.thing_classes)
                    hide(one.image, covers_of(people, hiding.part), hiding.style)
                    instances = instances[instances.scores >= predictor.confidence_threshold]
                instances = paste_regions(instances)
                write_image(output / one.name, draw(one.image, instances))
                masks = hiding is None or hiding.masks
                results.add(one, instances, encoded_masks(instances) if masks else None)
                tell(results.written + len(skipped), len(images))
        if not results.written:
            raise MediaError(f"none of the {len(images)} images can be read; {skipped[0][1]}")
        results.finish()
    return ImageSummary(results.written, results.people, tuple(skipped))


@contextmanager
def _partial_after(results: _ImageResults) -> Iterator[None]:
    """Turn an error into a partial result when images were annotated before it."""
    try:
        yield
    except (MediaError, OutputExistsError) as error:
        if not results.written or isinstance(error, PartialMediaError):
            raise
        raise PartialMediaError(
            f"{str(error).rstrip('.')}; the images annotated before stay ({results.written})."
        ) from error


@dataclass(frozen=True)
class _Image:
    """An image to annotate, uint8 (H, W, 3) BGR.

    place: number among the readable images, from 0; index: number among all images.
    """

    place: int
    index: int
    name: str
    image: np.ndarray


def _read(images: Sequence[tuple[Path, str]]) -> Iterator[_Image | tuple[Path, str]]:
    """Yield each image, or its path and why it is unreadable."""
    place = 0
    for index, (path, name) in enumerate(images):
        try:
            yield _Image(place, index, name, load_image(path))
            place += 1
        except MediaError as error:
            yield path, str(error)


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


class _ImageResults:
    """Collects the detections of images in any order and writes them in the order of the inputs.

    The records grow meanwhile as `records.partial.jsonl`, which a killed run leaves.

    Args:
        folder: gets the files.
        predictor: with `metadata`, `model_file` and `confidence_threshold`.
        stack: keeps the records open; they get their name when it ends well.
        fingerprint: see `predict_images`.
        overwrite: replace the files of an earlier run.

    Attributes:
        written, people: number of annotated images and of detections so far.
    """

    def __init__(
        self,
        folder: Path,
        predictor: BatchPredictor,
        stack: ExitStack,
        fingerprint: dict[str, Any] | None,
        *,
        overwrite: bool,
    ) -> None:
        self.folder, self.predictor, self._fingerprint = folder, predictor, fingerprint
        self.written = self.people = 0
        self._stack = stack
        self._classes = list(predictor.metadata.thing_classes)
        # The dataset's ids; 1, 2, … if the model does not know them.
        mapping = predictor.metadata.get("thing_dataset_id_to_contiguous_id", None) or {}
        known = {number: category for category, number in mapping.items()}
        self._category_ids = {name: known.get(i, i + 1) for i, name in enumerate(self._classes)}
        self._text = PartialText(folder / RECORDS, "records", overwrite=overwrite)
        self._waiting: dict[int, tuple[_Image, tuple[PersonRecord, ...]]] = {}  # by place
        self._images: list[dict[str, Any]] = []
        self._results: list[dict[str, Any]] = []

    def add(self, one: _Image, instances: Instances, masks: list[dict[str, Any]] | None) -> None:
        """Add the detections of an image, with encoded masks or without."""
        people = people_of(instances, self._classes, masks)
        self.written += 1
        self.people += len(people)
        self._waiting[one.place] = (one, people)
        while len(self._images) in self._waiting:
            self._write(*self._waiting.pop(len(self._images)))

    def _write(self, one: _Image, people: Sequence[PersonRecord]) -> None:
        if not self._images:  # not earlier, so that no image leaves no file
            header = {
                "schema": SCHEMA,
                "version": VERSION,
                "model": self.predictor.model_file,
                "classes": self._classes,
                "confidence_threshold": self.predictor.confidence_threshold,
            }
            header |= {"fingerprint": self._fingerprint} if self._fingerprint else {}
            self._stack.enter_context(self._text).write(json_line(header), header=True)
        height, width = one.image.shape[:2]
        image = {"file_name": one.name, "width": width, "height": height}
        record = {"index": one.index, **image, "people": person_rows(people)}
        self._text.write(json_line(record))
        self._images.append({"id": one.index + 1, **image})
        for person in people:
            x0, y0, x1, y1 = person.box
            result: dict[str, Any] = {
                "image_id": one.index + 1,
                "category_id": self._category_ids[person.class_name],
                "bbox": [round(value, 3) for value in (x0, y0, x1 - x0, y1 - y0)],
                "score": round(person.score, 5),
            }
            if person.mask is not None:
                result["segmentation"] = {"size": [height, width], "counts": person.mask}
            self._results.append(result)

    def finish(self) -> None:
        """Write the files in COCO's formats."""
        categories = [{"id": i, "name": name} for name, i in self._category_ids.items()]
        # pycocotools needs "info" and "annotations" to load a file.
        listing = {"info": {}, "images": self._images, "categories": categories}
        write_json(self.folder / PREDICTIONS, self._results, indent=None)
        write_json(self.folder / IMAGES, listing | {"annotations": []})

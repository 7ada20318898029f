"""What is written about annotated pictures: COCO results, and records as those of clips.

`records.jsonl` has a header, and then a line for each picture that could be read, in order:

    {"schema": "persondet-picture-records", "version": 1, "model": …, "classes": ["person"],
     "confidence_threshold": 0.5}
    {"index": 0, "file_name": "park/a.jpg", "width": 640, "height": 480, "people": […]}

`index` counts the pictures that were asked for, so one that could not be read leaves a gap; the
people are those of `persondet.video.records`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from detectron2.structures import Instances

from persondet.files import write_json
from persondet.region_masks import encoded_masks
from persondet.video.partial_text import PartialText
from persondet.video.records import people_of, person_rows

logger = logging.getLogger(__name__)

PREDICTIONS = "predictions.json"
IMAGES = "images.json"
RECORDS = "records.jsonl"
SCHEMA, VERSION = "persondet-picture-records", 1


@dataclass(frozen=True)
class _Known:
    """A picture that is finished, or None in the places of one that cannot be read."""

    image: dict[str, Any] | None
    results: list[dict[str, Any]]
    record: dict[str, Any] | None


class PictureResults:
    """Collects what is found in pictures, which may be told in any order; writes it in theirs.

    The records grow while the pictures are told, as `records.partial.jsonl`; a killed run leaves
    it. All three files have their names when the `with` block ends well.

    Args:
        folder: where `predictions.json` (COCO results: `image_id category_id bbox score
            [segmentation]`, boxes XYWH in pixels), `images.json` (COCO images and categories, so
            that `COCO(images.json).loadRes(…)` works) and `records.jsonl` go.
        predictor: with `metadata`, `model_file` and `confidence_threshold`.
        overwrite: replace those of an earlier run.

    Attributes:
        pictures, people: numbers of those written.
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
    def pictures(self) -> int:
        """Number of pictures."""
        return len(self._images)

    @property
    def people(self) -> int:
        """Number of people."""
        return len(self._results)

    def __enter__(self) -> PictureResults:
        return self

    def _start(self) -> None:
        """Write the header; not before there is a picture, so that nothing is left of none."""
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
        """Tell what was found in picture `index`, 0 the first, whose result is called `name`."""
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
        """Tell that picture `index` cannot be read."""
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
    """Return a picture's people in COCO's results format; boxes XYWH, pixels."""
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

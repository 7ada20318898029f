"""Pictures of the validation split with what the model finds on them, for TensorBoard."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts
from detectron2.engine import HookBase
from detectron2.structures import BoxMode

from persondet.data.register import class_names, ground_truth
from persondet.errors import MediaError
from persondet.picture_file import read_picture_file
from persondet.visualization.ground_truth import evenly_spaced, segmentation_to_mask
from persondet.visualization.side_by_side import Shown, draw_side_by_side

logger = logging.getLogger(__name__)

TAG = "val/pictures"
PICTURES = 4
DEFAULT_THRESHOLD = 0.5
WIDEST = 960  # pixels; the event file grows by every picture of every evaluation


@dataclass(frozen=True)
class PictureSource:
    """Where the pictures and what is found on them come from.

    Attributes:
        records: returns Detectron2's dataset dicts of the validation set.
        predictions: the COCO results file that the evaluator writes at each evaluation.
        class_names: by contiguous class number.
        category_ids: the category id in `predictions` of each of these classes.
    """

    records: Callable[[], Sequence[Mapping[str, Any]]]
    predictions: Path
    class_names: Sequence[str]
    category_ids: Sequence[int]


class ValidationPicturesHook(HookBase):
    """Put the same few validation pictures into the event storage after each evaluation.

    Annotated on the left, found on the right. What was found is read from the file that the
    evaluator has just written: there is no second forward pass, no draw of a random number, and no
    scalar. Its place is between the evaluation and the writers, on the main process.

    Args:
        source: see `PictureSource`.
        period: iterations between evaluations; the last iteration always gets one.
        threshold: predictions below this score (0 to 1) are not drawn.
        count: number of pictures, spread over those that show somebody.
    """

    def __init__(
        self, source: PictureSource, *, period: int, threshold: float, count: int = PICTURES
    ) -> None:
        self._source = source
        self._period = period
        self._threshold = threshold
        self._count = count
        self._records: list[Mapping[str, Any]] | None = None

    @classmethod
    def from_config(cls, cfg: CfgNode) -> ValidationPicturesHook:
        """Return the hook of a training: the first validation set, at the drawing threshold."""
        name = cfg.DATASETS.VAL[0]
        source = PictureSource(
            partial(get_detection_dataset_dicts, (name,), filter_empty=False),
            Path(cfg.OUTPUT_DIR) / "inference" / name / "coco_instances_results.json",
            class_names(name),
            ground_truth(name)[1],
        )
        threshold = cfg.VISUALIZATION.SCORE_THRESH or DEFAULT_THRESHOLD
        return cls(source, period=cfg.TEST.EVAL_PERIOD, threshold=threshold)

    def after_step(self) -> None:
        """Run when a period ends; the last iteration is left to `after_train`."""
        step = self.trainer.iter + 1
        if self._period > 0 and step % self._period == 0 and step != self.trainer.max_iter:
            self._put()

    def after_train(self) -> None:
        """Run once more when training came to its end."""
        if self.trainer.iter >= self.trainer.max_iter:
            self._put()

    def _put(self) -> None:
        try:
            if self._records is None:
                everything = self._source.records()
                annotated = [record for record in everything if record.get("annotations")]
                self._records = evenly_spaced(annotated or everything, self._count)
            found = read_predictions(
                self._source.predictions, {record["image_id"] for record in self._records}
            )
            for number, record in enumerate(self._records, start=1):
                picture = self._draw(record, found[record["image_id"]])
                rgb = np.ascontiguousarray(picture[:, :, ::-1].transpose(2, 0, 1))
                self.trainer.storage.put_image(f"{TAG}/{number}", rgb)
        except FileNotFoundError:
            logger.debug("%s is not there: no validation pictures", self._source.predictions)
        except (MediaError, OSError, ValueError, KeyError, cv2.error) as error:
            # They are for looking at; no training ends for want of them.
            logger.warning("There are no validation pictures of this evaluation: %s", error)

    def _draw(self, record: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Return a picture twice, side by side: uint8, (H, W, 3), BGR, at most `WIDEST` wide."""
        image = read_picture_file(record["file_name"])
        truth = [
            Shown(
                BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS),
                segmentation_to_mask(a.get("segmentation"), *image.shape[:2]),
                self._name(a["category_id"]),
                crowd=bool(a.get("iscrowd")),
            )
            for a in record.get("annotations", ())
        ]
        numbers = {category: number for number, category in enumerate(self._source.category_ids)}
        shown = [
            Shown(
                BoxMode.convert(row["bbox"], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS),
                segmentation_to_mask(row.get("segmentation"), *image.shape[:2]),
                f"{self._name(numbers[row['category_id']])} {row['score']:.0%}".strip(),
            )
            for row in sorted(found, key=lambda row: row["score"])
            if row["score"] >= self._threshold
        ]
        titles = (
            f"annotated: {len(truth)}",
            f"found with score >= {self._threshold:g}: {len(shown)}",
        )
        drawn = draw_side_by_side(image, truth, shown, titles=titles)
        height, width = drawn.shape[:2]
        if width <= WIDEST:
            return drawn
        size = (WIDEST, max(1, round(height * WIDEST / width)))
        return cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)

    def _name(self, number: int) -> str:
        """Return what is written beside an object: nothing where there is one class only."""
        names = self._source.class_names
        return names[number] if len(names) > 1 else ""


def read_predictions(path: Path, image_ids: Collection[int]) -> dict[int, list[dict[str, Any]]]:
    """Return the predictions on a few images from a COCO results file: a JSON array of objects.

    Our evaluator writes the predictions of each image on a line of their own, so that no more than
    one image's are in memory at a time; an array on one line is read as well.

    Args:
        path: the file.
        image_ids: which images; each gets a list.

    Raises: FileNotFoundError: when it is missing. ValueError: when it is damaged.
    """
    found: dict[int, list[dict[str, Any]]] = {image_id: [] for image_id in image_ids}
    with path.open("rb") as lines:
        for line in lines:
            part = line.strip().removeprefix(b"[").removesuffix(b",")
            # The last line ends the array; no object ends with a bracket.
            for row in msgspec.json.decode(b"[" + part.removesuffix(b"]") + b"]"):
                if row["image_id"] in found:
                    found[row["image_id"]].append(row)
    return found

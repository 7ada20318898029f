"""COCO AP for boxes and masks: Detectron2's `COCOEvaluator`, faster, and with flat memory.

The file also scores a detector that looks at no image and predicts the same box every time. If
every image shows one person in the middle, this constant box finds many of them, and a model that
does not beat it has learned the photographer's habit.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from detectron2.config import CfgNode
from detectron2.evaluation import COCOEvaluator, inference_on_dataset
from detectron2.structures import BoxMode
from detectron2.utils import comm
from pycocotools.coco import COCO
from torch import nn

from persondet.evaluation.analysis import Analysis
from persondet.evaluation.intervals import bootstrap_intervals, interval_notes
from persondet.evaluation.matching import GroundTruth, match
from persondet.evaluation.metrics import STANDARD_LIMIT, coco_metrics
from persondet.evaluation.predictions import FILE_NAME, Detection, PredictionFile
from persondet.inference.masks import encoded_masks
from persondet.inference.tiles import TiledModel, whole_size
from persondet.modeling.detections import roi_masks_kept
from persondet.modeling.precision import autocast
from persondet.results import TASKS
from persondet.text import listed

logger = logging.getLogger(__name__)


class RoboflowCOCOEvaluator(COCOEvaluator):
    """Computes the numbers of `COCOEvaluator`, in less time and memory.

    It writes predictions to disk image by image (Detectron2 holds them all in memory), encodes
    each mask from its box's region, and takes the overlaps from faster-coco-eval. The numbers equal
    those of pycocotools.

    The tasks come from the config and not from the predictions, so a model that predicts nothing
    still gets its mask row, and a metric without predictions is 0 and not NaN. A size without
    ground truth keeps NaN (-1 in pycocotools): there is nothing to measure.

    Args:
        dataset_name: a registered dataset.
        masks: score the masks too.
        output_dir: gets `coco_instances_results.json`; None: the predictions are not kept.
        distributed: collect the predictions of all ranks on the first.
        limit: how many predictions the model makes on an image; above 100 there is `AP@<limit>`.
        intervals: add `intervals` and `notes` to the result.

    Attributes:
        analysis: what explains the score, after `evaluate` with `intervals`.
    """

    def __init__(
        self,
        dataset_name: str,
        *,
        masks: bool,
        output_dir: str | None,
        distributed: bool = True,
        limit: int = STANDARD_LIMIT,
        intervals: bool = False,
    ) -> None:
        super().__init__(
            dataset_name,
            tasks=("bbox", "segm") if masks else ("bbox",),
            distributed=distributed,
            output_dir=output_dir,
            use_fast_impl=False,
        )
        self.dataset_name = dataset_name
        self.limit = limit
        self.intervals = intervals
        self.analysis: Analysis | None = None
        numbers = self._metadata.get("thing_dataset_id_to_contiguous_id", {})
        self._category_ids = {number: category for category, number in numbers.items()}
        self.reset()

    def reset(self) -> None:
        """Forget all predictions."""
        self._predictions = PredictionFile(self._output_dir)

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Put the predictions on some images on disk.

        Args:
            inputs: with `image_id`.
            outputs: with `instances`, see `persondet.inference.masks.region_masks_of`.
        """
        for asked, output in zip(inputs, outputs, strict=True):
            instances = output["instances"].to(self._cpu_device)
            boxes = BoxMode.convert(
                instances.pred_boxes.tensor, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS
            ).tolist()
            scores, classes = instances.scores.tolist(), instances.pred_classes.tolist()
            records: list[dict[str, Any]] = [
                {
                    "image_id": asked["image_id"],
                    "category_id": self._category_ids[number] if self._category_ids else number,
                    "bbox": box,
                    "score": score,
                }
                for number, box, score in zip(classes, boxes, scores, strict=True)
            ]
            for record, mask in zip(records, encoded_masks(instances) or (), strict=False):
                record["segmentation"] = mask
            self._predictions.add(asked["image_id"], records)

    def evaluate(self, img_ids: Sequence[int] | None = None) -> OrderedDict[str, Any]:
        """Return the metrics, on the first rank; the others return nothing.

        Args:
            img_ids: score these images only.

        Returns: `{"bbox": {"AP": …}, "segm": {…}}`, see `coco_metrics`; with `intervals` also
        `intervals` (task to metric to (low, high), or None where too few images tell) and `notes`
        (sentences). Empty when nothing was processed, or the dataset has no annotations to compare
        with.
        """
        predictions = self._predictions
        if self._distributed and comm.get_world_size() > 1:
            first = comm.is_main_process()
            parts = comm.gather([] if first else list(predictions.blocks()), dst=0)
            if not first:
                return OrderedDict()
            predictions.extend(block for part in parts for block in part)
        if not predictions.image_ids:
            logger.warning(
                "%s: the model saw no image, so there is nothing to score.", self.dataset_name
            )
            return OrderedDict()
        if self._output_dir:
            predictions.publish(Path(self._output_dir) / FILE_NAME)
        if not self._do_evaluation:
            logger.info("%s has no annotations to compare with.", self.dataset_name)
            return OrderedDict()
        return self._scored(predictions, img_ids)

    def _scored(
        self, predictions: PredictionFile, img_ids: Sequence[int] | None
    ) -> OrderedDict[str, Any]:
        ground_truth = GroundTruth(self._coco_api, img_ids)
        notes: list[str] = []
        tasks = [task for task in self._tasks if task != "segm" or ground_truth.has_masks]
        if len(tasks) < len(self._tasks):
            notes.append(f"{self.dataset_name} has boxes only: the masks are not scored.")
        names = " and ".join(TASKS[task] for task in tasks)
        if not ground_truth.objects:
            notes.append(
                f"{self.dataset_name} has no annotated object: there is nothing to measure "
                "average precision against."
            )
        elif predictions.is_empty:
            notes.append(f"No predictions on {self.dataset_name}: {names} AP is 0.")
        class_names = self._metadata.get("thing_classes")
        limit = max(self.limit, STANDARD_LIMIT)
        matched = {task: match(ground_truth, predictions.read, task, limit) for task in tasks}
        results: OrderedDict[str, Any] = OrderedDict(
            (task, coco_metrics(matches, class_names, limit=limit))
            for task, matches in matched.items()
        )
        if self.intervals:
            results["intervals"] = {
                task: bootstrap_intervals(matches, class_names, limit=limit)
                for task, matches in matched.items()
            }
            told = interval_notes(matched["bbox"], class_names, limit=limit)
            if never := self._metadata.get("never_learned"):
                told.append(f"{listed(never)}: no object of it in train, so its AP says nothing.")
            results["notes"] = notes = notes + [f"{self.dataset_name}: {note}" for note in told]
            self.analysis = Analysis(matched, predictions.read)
        for note in notes:
            logger.warning(note)
        return results


def build_evaluator(
    cfg: CfgNode, dataset_name: str, output_dir: str | None = None, *, intervals: bool = False
) -> RoboflowCOCOEvaluator:
    """Return the evaluator of a registered dataset.

    Args:
        output_dir: where the predictions go; default: `OUTPUT_DIR/inference/<dataset_name>`.
        intervals: let it add `intervals` and `notes` to its result.

    Example:
        >>> evaluator = build_evaluator(cfg, "person_valid")
        >>> loader = Trainer.build_test_loader(cfg, "person_valid")
        >>> sorted(inference_on_dataset(model, loader, evaluator))
        ['bbox', 'segm']
    """
    output_dir = output_dir or str(Path(cfg.OUTPUT_DIR) / "inference" / dataset_name)
    return RoboflowCOCOEvaluator(
        dataset_name,
        masks=cfg.MODEL.MASK_ON,
        output_dir=output_dir,
        limit=cfg.TEST.DETECTIONS_PER_IMAGE,
        intervals=intervals,
    )


def evaluate(
    cfg: CfgNode,
    model: nn.Module,
    dataset_names: Sequence[str],
    build_test_loader: Callable[[CfgNode, str], Any],
    *,
    intervals: bool = True,
) -> OrderedDict[str, Any]:
    """Run `model` over each dataset and return its metrics, 0 to 100.

    The drawing threshold plays no part: every detection above Detectron2's own
    `MODEL.ROI_HEADS.SCORE_THRESH_TEST` counts.

    Args:
        build_test_loader: called with `cfg` and a dataset's name.
        intervals: add the 95 % intervals and the notes.

    Returns: `{"bbox": {"AP": …}, "segm": {…}, "intervals": {"bbox": {"AP": (low, high), …}, …},
    "notes": […]}`, an interval that cannot be given None, for one dataset, `{name: {…}}` for
    several, as Detectron2's `DefaultTrainer.test`; empty on all ranks but the first.
    """
    results: OrderedDict[str, Any] = OrderedDict()
    for name in dict.fromkeys(dataset_names):
        results[name], _ = evaluate_and_analyse(
            cfg, model, name, build_test_loader, intervals=intervals
        )
    return next(iter(results.values())) if len(results) == 1 else results


def evaluate_and_analyse(
    cfg: CfgNode,
    model: nn.Module,
    dataset_name: str,
    build_test_loader: Callable[[CfgNode, str], Any],
    *,
    intervals: bool = True,
) -> tuple[dict[str, Any], Analysis | None]:
    """Run `model` over one dataset; see `evaluate`.

    Returns: the metrics, and with `intervals` the analysis that explains them, from the same
    matches; None on all ranks but the first, and without ground truth.
    """
    evaluator = build_evaluator(cfg, dataset_name, intervals=intervals)
    # pycocotools prints when it indexes; the numbers are logged below.
    with autocast(cfg), roi_masks_kept(model), contextlib.redirect_stdout(io.StringIO()):
        if cfg.TEST.TILES:
            model, cfg = TiledModel(cfg, model), whole_size(cfg)
        loader = build_test_loader(cfg, dataset_name)
        results = inference_on_dataset(model, loader, evaluator) or {}
    if comm.is_main_process():
        for task in filter(results.__contains__, TASKS):
            logger.info("%s, %s: %s", dataset_name, task, _line(results, task))
    return results, evaluator.analysis


def _line(scores: dict[str, Any], task: str) -> str:
    """Return the metrics of a task in one line, each with its interval."""
    intervals = scores.get("intervals", {}).get(task, {})
    shown = []
    for key, value in scores[task].items():
        if math.isfinite(value):
            interval = intervals.get(key)
            spread = f" ({interval[0]:.1f} to {interval[1]:.1f})" if interval else ""
            shown.append(f"{key} {value:.1f}{spread}")
    return "  ".join(shown)


CONSTANT_BOX_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def median_boxes(dicts: Iterable[Mapping[str, Any]]) -> dict[int, tuple[float, np.ndarray]]:
    """Return each class's share of the annotations, and its median box.

    Args:
        dicts: Detectron2's standard dataset dicts; crowds are left out.

    Returns: contiguous class number → (share, box); the box is float64 (4,), XYXY, each corner
    the median of the annotations' corners, as shares of the image's width and height.
    """
    boxes: dict[int, list[np.ndarray]] = {}
    for record in dicts:
        size = np.array([record["width"], record["height"]] * 2, np.float64)
        for annotation in record.get("annotations", ()):
            if not annotation.get("iscrowd", 0):
                box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
                boxes.setdefault(annotation["category_id"], []).append(np.asarray(box) / size)
    total = sum(len(found) for found in boxes.values())
    return {
        number: (len(found) / total, np.median(found, axis=0))
        for number, found in sorted(boxes.items())
    }


def constant_box_scores(
    training: Iterable[Mapping[str, Any]],
    json_file: str | Path,
    category_ids: Sequence[int],
    *,
    masks: bool,
) -> dict[str, dict[str, float]]:
    """Score the median box of the training annotations, predicted once on every image.

    With several classes each has its own box, scored by its share; the mask is the filled box.

    Args:
        training: standard dicts of the training split.
        json_file: COCO ground truth of the split to score, as `COCOEvaluator` reads it.
        category_ids: the json's category id of each contiguous class.
        masks: score the masks too.

    Returns: `{"bbox": {"AP": …, "AP50": …, …}, "segm": {…}}`, 0 to 100; NaN where no
    annotation has a size. Empty when the training split has no annotation.
    """
    boxes = median_boxes(training)
    if not boxes:
        return {}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints that it reads
        ground_truth = GroundTruth(COCO(str(json_file)))
    images = {image["id"]: image for image in ground_truth.images}

    def read(image_id: int) -> list[Detection]:
        height, width = images[image_id]["height"], images[image_id]["width"]
        found, mask = [], None
        for number, (share, box) in boxes.items():
            x0, y0, x1, y1 = (box * ([width, height] * 2)).tolist()
            if masks:
                outline = [[x0, y0, x1, y0, x1, y1, x0, y1]]
                mask = mask_util.merge(mask_util.frPyObjects(outline, height, width))
            place = [x0, y0, x1 - x0, y1 - y0]
            found.append(Detection(image_id, category_ids[number], place, share, mask))
        return found

    scores = {}
    for task in ("bbox", "segm") if masks and ground_truth.has_masks else ("bbox",):
        metrics = coco_metrics(match(ground_truth, read, task, STANDARD_LIMIT), None)
        scores[task] = {name: metrics[name] for name in CONSTANT_BOX_METRICS}
    return scores

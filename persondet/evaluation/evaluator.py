"""COCO AP for boxes and masks: Detectron2's `COCOEvaluator`, faster, and with flat memory."""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.evaluation import COCOEvaluator, inference_on_dataset
from detectron2.structures import BoxMode
from detectron2.utils import comm
from torch import nn

from persondet.evaluation.analysis import Analysis
from persondet.evaluation.ground_truth import GroundTruth
from persondet.evaluation.intervals import Interval, bootstrap_intervals, interval_notes
from persondet.evaluation.matching import Matches, match
from persondet.evaluation.metrics import STANDARD_LIMIT, coco_metrics
from persondet.evaluation.predictions import (
    FILE_NAME,
    PredictionFile,
    PredictionReader,
    remove_abandoned,
)
from persondet.inference.masks import encoded_masks
from persondet.modeling.detections import roi_masks_kept
from persondet.modeling.precision import autocast
from persondet.results import TASKS

logger = logging.getLogger(__name__)

_GATHERED_AT_ONCE = 32 * 2**20  # bytes from each rank


class RoboflowCOCOEvaluator(COCOEvaluator):
    """`COCOEvaluator`'s numbers, with what it takes less of and what it leaves out.

    Predictions go to `output_dir` image by image, where Detectron2 keeps them; the masks are
    encoded from their boxes' regions; the overlaps are faster-coco-eval's. The numbers are
    pycocotools'.

    The tasks come from the config and not from the predictions, so a model that predicts nothing
    still gets its mask row; and a metric without predictions is 0 and not NaN. A size of which
    the ground truth has no example keeps NaN, pycocotools' -1: there is nothing to measure.

    Args:
        dataset_name: a registered dataset.
        masks: score the masks too.
        output_dir: gets `coco_instances_results.json`; None: the predictions are not kept.
        distributed: collect the predictions of all ranks on the first.
        limit: how many predictions the model makes on an image; above 100 there is `AP@<limit>`.
        intervals: add `intervals` and `notes` to the result.

    Attributes:
        analysis: after `evaluate` with `intervals` and an `output_dir`: what explains the score.
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
        self.output_dir = output_dir
        self.limit = limit
        self.intervals = intervals
        self.analysis: Analysis | None = None
        self._category_ids: dict[int, int] = {
            number: category
            for category, number in self._metadata.get(
                "thing_dataset_id_to_contiguous_id", {}
            ).items()
        }
        self._predictions: PredictionFile | None = None

    def reset(self) -> None:
        """Forget what was predicted."""
        self.close()
        self._predictions = PredictionFile(self._output_dir)

    def close(self) -> None:
        """Let go of the file of predictions; `evaluate` has given it its name."""
        if self._predictions is not None:
            self._predictions.close()
        self._predictions = None

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Put the predictions on some images on disk.

        Args:
            inputs: with `image_id`.
            outputs: with `instances`, see `persondet.inference.masks.region_masks_of`.
        """
        if self._predictions is None:
            self.reset()
        assert self._predictions is not None
        for asked, output in zip(inputs, outputs, strict=True):
            instances = output["instances"].to(self._cpu_device)
            boxes = BoxMode.convert(
                instances.pred_boxes.tensor, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS
            ).tolist()
            scores, classes = instances.scores.tolist(), instances.pred_classes.tolist()
            masks = encoded_masks(instances)
            records: list[dict[str, Any]] = [
                {
                    "image_id": asked["image_id"],
                    "category_id": self._category_id(number),
                    "bbox": box,
                    "score": score,
                }
                for number, box, score in zip(classes, boxes, scores, strict=True)
            ]
            for record, mask in zip(records, masks or (), strict=False):
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
        if self._distributed:
            comm.synchronize()
            if self._predictions is None:
                self.reset()
            assert self._predictions is not None
            _gather(self._predictions)
            if not comm.is_main_process():
                self.close()
                return OrderedDict()
        if self._predictions is None or not self._predictions.image_ids:
            logger.warning(
                "%s: the model saw no image, so there is nothing to score.", self.dataset_name
            )
            return OrderedDict()
        try:
            if self._output_dir:
                self._predictions.publish(Path(self._output_dir) / FILE_NAME)
            if not self._do_evaluation:
                logger.info("%s has no annotations to compare with.", self.dataset_name)
                return OrderedDict()
            return self._scored(self._predictions, img_ids)
        finally:
            self.close()

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
        results: OrderedDict[str, Any] = OrderedDict()
        intervals: dict[str, dict[str, Interval | None]] = {}
        class_names = self._metadata.get("thing_classes")
        limit = max(self.limit, STANDARD_LIMIT)
        matched: dict[str, Matches] = {}
        for task in tasks:
            matches = match(ground_truth, predictions.read, task, limit)
            results[task] = coco_metrics(matches, class_names, limit=limit)
            if self.intervals:
                matched[task] = matches
                intervals[task] = bootstrap_intervals(matches, class_names, limit=limit)
        if self.intervals:
            notes += [
                f"{self.dataset_name}: {note}"
                for note in interval_notes(matches, class_names, limit=limit)
            ]
            results["intervals"], results["notes"] = intervals, notes
            if self._output_dir:
                path = Path(self._output_dir) / FILE_NAME
                reader = PredictionReader(path, predictions.places)
                self.analysis = Analysis(matched, reader.read)
        for note in notes:
            logger.warning(note)
        return results

    def _category_id(self, number: int) -> int:
        if not self._category_ids:
            return number
        if number not in self._category_ids:
            raise ValueError(
                f"a prediction has class {number}, and {self.dataset_name} has "
                f"{len(self._category_ids)} classes."
            )
        return self._category_ids[number]


def _gather(predictions: PredictionFile) -> None:
    """Bring the predictions of all ranks into the first rank's file, a part at a time.

    No common file system is needed, and no rank holds more than a part of each other one.
    """
    if comm.get_world_size() == 1:
        return
    first = comm.is_main_process()
    parts = iter(()) if first else predictions.blocks(_GATHERED_AT_ONCE)
    while True:
        part = next(parts, None)
        if not any(comm.all_gather(part is not None)):
            return
        for other in comm.gather(part, dst=0):
            predictions.extend(other or ())


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
        intervals: add what is no metric: the 95 % intervals and the notes.

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

    Returns: the metrics, and with `intervals` what explains them: the same matches, once more
    looked at. None on all ranks but the first, and where there is nothing to compare with.
    """
    evaluator = build_evaluator(cfg, dataset_name, intervals=intervals)
    if comm.is_main_process() and evaluator.output_dir is not None:
        remove_abandoned(evaluator.output_dir)
    comm.synchronize()  # before a rank begins a file of its own there
    # pycocotools prints when it indexes; the numbers are logged below.
    with (
        autocast(cfg),
        roi_masks_kept(model),
        contextlib.closing(evaluator),
        contextlib.redirect_stdout(io.StringIO()),
    ):
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

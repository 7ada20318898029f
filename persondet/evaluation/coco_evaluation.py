"""COCO AP for boxes and masks, by Detectron2's `COCOEvaluator`."""

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
from detectron2.utils import comm
from torch import nn

from persondet.modeling.precision import autocast

logger = logging.getLogger(__name__)


class RoboflowCOCOEvaluator(COCOEvaluator):
    """`COCOEvaluator` with two gaps closed.

    The tasks come from the config and not from the predictions, so a model that predicts nothing
    still gets its mask row; and a metric without predictions is 0 and not NaN. A size of which
    the ground truth has no example keeps NaN, pycocotools' -1: there is nothing to measure.

    The C++ COCOeval is never used: it needs Detectron2's compiled part.
    """

    def __init__(
        self, dataset_name: str, *, masks: bool, output_dir: str | None, distributed: bool = True
    ) -> None:
        super().__init__(
            dataset_name,
            tasks=("bbox", "segm") if masks else ("bbox",),
            distributed=distributed,
            output_dir=output_dir,
            use_fast_impl=False,
        )
        self.dataset_name = dataset_name

    def _derive_coco_results(
        self, coco_eval: Any, iou_type: str, class_names: list[str] | None = None
    ) -> dict[str, float]:
        results = super()._derive_coco_results(coco_eval, iou_type, class_names)
        if coco_eval is None:
            logger.warning("No predictions on %s: %s AP is 0.", self.dataset_name, iou_type)
            results = dict.fromkeys(results, 0.0)
        if class_names is not None and len(class_names) == 1:
            # Detectron2 leaves the row out where one class is all there is.
            results.setdefault(f"AP-{class_names[0]}", results["AP"])
        return results


def build_evaluator(
    cfg: CfgNode, dataset_name: str, output_dir: str | None = None
) -> RoboflowCOCOEvaluator:
    """Return the evaluator of a registered dataset.

    Args:
        output_dir: where the predictions go; default: `OUTPUT_DIR/inference/<dataset_name>`.
    """
    output_dir = output_dir or str(Path(cfg.OUTPUT_DIR) / "inference" / dataset_name)
    return RoboflowCOCOEvaluator(dataset_name, masks=cfg.MODEL.MASK_ON, output_dir=output_dir)


def evaluate(
    cfg: CfgNode,
    model: nn.Module,
    dataset_names: Sequence[str],
    build_test_loader: Callable[[CfgNode, str], Any],
) -> OrderedDict[str, Any]:
    """Run `model` over each dataset and return its metrics, 0 to 100.

    The drawing threshold plays no part: every detection above Detectron2's own
    `MODEL.ROI_HEADS.SCORE_THRESH_TEST` counts.

    Returns: `{"bbox": {"AP": …}, "segm": {…}}` for one dataset, `{name: {…}}` for several, as
    Detectron2's `DefaultTrainer.test`; empty on all ranks but the first.
    """
    results: OrderedDict[str, Any] = OrderedDict()
    for name in dataset_names:
        # pycocotools prints thirty lines per task; the same numbers are logged below.
        with autocast(cfg), contextlib.redirect_stdout(io.StringIO()):
            metrics = inference_on_dataset(
                model, build_test_loader(cfg, name), build_evaluator(cfg, name)
            )
        results[name] = metrics or {}
        if comm.is_main_process():
            for task, values in results[name].items():
                shown = "  ".join(
                    f"{key} {value:.1f}" for key, value in values.items() if math.isfinite(value)
                )
                logger.info("%s, %s: %s", name, task, shown)
    return next(iter(results.values())) if len(results) == 1 else results

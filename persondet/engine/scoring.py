"""Scoring the best model: average precision, the operating point, and what explains both.

The score threshold is tuned on the validation split and stored in the model; the test split is
looked at with it, and has no say in it. No drawing threshold plays a part.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts

from persondet.checkpoint.model_file import store_score_threshold
from persondet.data.register import ground_truth, image_count
from persondet.engine.training_records import dataset_report
from persondet.evaluation.analysis import DEFAULT_THRESHOLD, FOUND_IOU, PREDICTIONS, Analysis
from persondet.results import leak_figure

logger = logging.getLogger(__name__)

_POINT = ("precision", "recall", "f1", "hits", "misses", "false_alarms")


def tuned_threshold(cfg: CfgNode, dataset: str, model_file: Path) -> float | None:
    """Store in `model_file` the threshold with the best F1 on `dataset`, and return it.

    `model_final.pth` and the periodic checkpoints are other models, with other scores: they carry
    none.

    Args:
        cfg: of the run; the predictions on `dataset` lie in its folder.
        dataset: the validation set.
        model_file: the checkpoint that made the predictions.

    Returns: None, and the checkpoint carries none, when no prediction finds anybody.
    """
    threshold = _analysis(cfg, dataset).best_threshold()
    if threshold is None:
        logger.warning(
            "%s: nobody is found at any score threshold, so none is stored in %s.",
            *(dataset, model_file.name),
        )
    store_score_threshold(model_file, threshold)
    return threshold


def explain(
    cfg: CfgNode, datasets: Sequence[str], threshold: float | None
) -> dict[str, dict[str, Any]]:
    """Write `curves.json`, `errors.json` and `gallery/` beside the predictions on each dataset.

    Args:
        cfg: of the run.
        datasets: names; those that are named twice are looked at once.
        threshold: what the model carries; None: 0.5 stands in.

    Returns: dataset to what the threshold gives there; see `persondet.evaluation.curves.counts_at`.
    """
    found = {}
    for name in dict.fromkeys(datasets):
        analysis = _analysis(cfg, name)
        analysis.write(_folder(cfg, name), name, picture_files(name), threshold=threshold)
        used = DEFAULT_THRESHOLD if threshold is None else threshold
        point = found[name] = {"task": analysis.task, **analysis.counts_at(used)}
        logger.info(
            "%s, score threshold %.4g%s: %d of %d annotated found, %d missed, %d false alarms.",
            *(name, used, "" if threshold is not None else " (none was tuned)"),
            *(point["hits"], point["hits"] + point["misses"]),
            *(point["misses"], point["false_alarms"]),
        )
    return found


def operating_point(
    points: Mapping[str, Mapping[str, Any]],
    threshold: float | None,
    *,
    valid: str | None,
    test: str | None,
) -> dict[str, Any] | None:
    """Return the entry of `results.json`; None when nothing was looked at.

    Args:
        points: what `explain` returned.
        threshold: what the model carries.
        valid, test: the datasets, None where there is none.

    Returns: `task`, `iou`, `threshold`, `tuned` (False: 0.5 stands in for a tuned one), `valid` and
    `test`: `precision`, `recall`, `f1`, `hits`, `misses`, `false_alarms`, or None.
    """
    known = {split: points.get(name or "") for split, name in (("valid", valid), ("test", test))}
    first = known["valid"] or known["test"]
    if first is None:
        return None
    return {
        "task": first["task"],
        "iou": FOUND_IOU,
        "threshold": first["threshold"],
        "tuned": threshold is not None,
        **{
            split: None if point is None else {key: point[key] for key in _POINT}
            for split, point in known.items()
        },
    }


def headline(cfg: CfgNode, dataset: str, scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry of `results.json` of one dataset.

    Args:
        cfg: of the run.
        dataset: its name.
        scores: what `persondet.evaluation.evaluate` returned: of one dataset, or by name.
    """
    split = dataset.removeprefix(f"{cfg.DATASETS.ROBOFLOW.NAME}_")
    return {
        "dataset": dataset,
        "images": image_count(dataset),
        **scores.get(dataset, scores),
        "leaks": leak_figure(dataset_report(cfg) or {}, split),
    }


def picture_files(dataset: str) -> dict[int, str]:
    """Return the path of each picture of a registered dataset, by image id."""
    records = get_detection_dataset_dicts((dataset,), filter_empty=False)
    return {record["image_id"]: record["file_name"] for record in records}


def _analysis(cfg: CfgNode, dataset: str) -> Analysis:
    predictions = _folder(cfg, dataset) / PREDICTIONS
    return Analysis(ground_truth(dataset)[0], predictions, masks=cfg.MODEL.MASK_ON)


def _folder(cfg: CfgNode, dataset: str) -> Path:
    return Path(cfg.OUTPUT_DIR) / "inference" / dataset

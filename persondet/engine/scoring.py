"""Scoring the best model: average precision, the operating point, and what explains both.

The score threshold is tuned on the validation split and stored in the model; the test split is
looked at with it, and has no say in it. No drawing threshold plays a part.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts

from persondet.checkpoint.model_file import store_score_threshold
from persondet.data.register import image_count
from persondet.engine.run_records import dataset_report
from persondet.evaluation.analysis import FOUND_IOU, Analysis
from persondet.results import DEFAULT_THRESHOLD, leak_figure, write_results

logger = logging.getLogger(__name__)

_POINT = ("precision", "recall", "f1", "hits", "misses", "false_alarms")


def tuned_threshold(analysis: Analysis, dataset: str, model_file: Path) -> float | None:
    """Store in `model_file` the threshold with the best F1 on `dataset`, and return it.

    `model_final.pth` and the periodic checkpoints are other models, with other scores: they carry
    none.

    Args:
        analysis: of the validation set.
        dataset: its name.
        model_file: the checkpoint that made the predictions.

    Returns: None, and the checkpoint carries none, when no prediction finds anybody.
    """
    threshold = analysis.best_threshold()
    if threshold is None:
        logger.warning(
            "%s: nobody is found at any score threshold, so none is stored in %s.",
            *(dataset, model_file.name),
        )
    store_score_threshold(model_file, threshold)
    return threshold


def explain(
    cfg: CfgNode,
    analyses: Mapping[str, Analysis],
    threshold: float | None,
    *,
    model: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Write `curves.json`, `errors.json` and `gallery/` beside the predictions on each dataset.

    Args:
        cfg: of the run.
        analyses: by dataset.
        threshold: what the model carries; None: 0.5 stands in.
        model: the record of the checkpoint that made the predictions; see
            `persondet.checkpoint.model_file.model_record`.

    Returns: dataset to what the threshold gives there; see `persondet.evaluation.curves.counts_at`.
    """
    points = {}
    for name, analysis in analyses.items():
        folder, files = dataset_folder(cfg, name), image_files(name)
        analysis.write(folder, name, files, threshold=threshold, model=model)
        used = DEFAULT_THRESHOLD if threshold is None else threshold
        point = points[name] = {"task": analysis.task, **analysis.counts_at(used)}
        logger.info(
            "%s, score threshold %.4g%s: %d of %d annotated found, %d missed, %d false alarms.",
            *(name, used, "" if threshold is not None else " (none was tuned)"),
            *(point["hits"], point["hits"] + point["misses"]),
            *(point["misses"], point["false_alarms"]),
        )
    return points


def operating_point(
    points: Mapping[str, Mapping[str, Any]],
    threshold: float | None,
    *,
    valid: str | None,
    test: str | None,
) -> dict[str, Any] | None:
    """Return the entry of `results.json`; None when nothing was scored.

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


def headlines(cfg: CfgNode, scores: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the entry of `results.json` of each dataset, by name.

    Args:
        cfg: of the run.
        scores: dataset to what `persondet.evaluation.evaluate` returned of it.
    """
    report = dataset_report(cfg, list(scores)) or {}
    own = f"{cfg.DATASETS.ROBOFLOW.NAME}_"
    return {
        name: {
            "dataset": name,
            "images": image_count(name),
            **found,
            "leaks": leak_figure(report, name.removeprefix(own)) if name.startswith(own) else None,
        }
        for name, found in scores.items()
    }


def write_dataset_results(
    cfg: CfgNode,
    entries: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Any],
    points: Mapping[str, Mapping[str, Any]],
    threshold: float | None,
) -> dict[str, dict[str, Any]]:
    """Write `results.json` beside the predictions on each dataset, and return them by name.

    Args:
        cfg: of the run.
        entries: what `headlines` returned.
        facts: `model` (a record), `iteration`, `classes`.
        points: what `explain` returned.
        threshold: what the model carries.
    """
    written = {
        name: {
            **facts,
            "test": entry,
            "operating_point": operating_point(points, threshold, valid=None, test=name),
        }
        for name, entry in entries.items()
    }
    for name, results in written.items():
        write_results(dataset_folder(cfg, name), results)
    return written


def image_files(dataset: str) -> dict[int, str]:
    """Return the path of each image of a registered dataset, by image id."""
    records = get_detection_dataset_dicts((dataset,), filter_empty=False)
    return {record["image_id"]: record["file_name"] for record in records}


def dataset_folder(cfg: CfgNode, dataset: str) -> Path:
    """Return where a run keeps its predictions on a dataset and what follows from them."""
    return Path(cfg.OUTPUT_DIR) / "inference" / dataset

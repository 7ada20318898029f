"""Files of a run folder for the tests: as an evaluation, a clip and a training write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

EDGES = [round(0.05 * i, 2) for i in range(21)]


def write_json(path: Path, value: Any) -> Path:
    """Write JSON and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def write_metrics(folder: Path, *rows: dict[str, Any] | str) -> Path:
    """Write `metrics.json` of dicts, or of raw text for a damaged line; return the run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows]
    (folder / "metrics.json").write_text("".join(lines))
    return folder


def training_rows(steps: int = 200, period: int = 10, evaluation: int = 50) -> list[dict[str, Any]]:
    """Return the rows of a whole training, with the last evaluation in a row behind it."""
    rows = []
    for iteration in range(period - 1, steps, period):
        share = (iteration + 1) / steps
        row: dict[str, Any] = {"iteration": iteration, "lr": 0.01 * (1 - share)}
        row |= {"time": 0.5 + 0.1 * share, "data_time": 0.02}
        row |= _losses("", 2.0 - share)
        if (iteration + 1) % evaluation == 0 and iteration + 1 != steps:
            row |= _losses("val/", 2.1 - share) | _scores(40 * share)
        rows.append(row)
    rows.append({"iteration": steps, **_losses("val/", 1.1), **_scores(38.0)})
    return rows


def _losses(prefix: str, total: float) -> dict[str, float]:
    names = ("loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask")
    row = {f"{prefix}{name}": total / 5 for name in names} | {f"{prefix}total_loss": total}
    return row | {
        f"{prefix}fast_rcnn/cls_accuracy": 0.95 - total / 20,
        f"{prefix}mask_rcnn/accuracy": 0.9 - total / 10,
    }


def _scores(ap: float) -> dict[str, float]:
    return {"bbox/AP": ap + 5, "bbox/AP50": ap + 40, "segm/AP": ap, "segm/AP50": ap + 35}


def curves(dataset: str = "person_test", *, best: float = 0.6) -> dict[str, Any]:
    """Return a `curves.json`."""
    thresholds = np.linspace(0.05, 0.99, 95)
    tasks = {}
    for task, factor in (("bbox", 1.0), ("segm", 0.95)):
        recall = factor * np.clip(1.02 - thresholds**4, 0, 1)
        precision = factor * (1 - 0.7 * (1 - thresholds) ** 2)
        f1 = 2 * precision * recall / (precision + recall)
        at = int(np.argmin(np.abs(thresholds - best)))
        grid = np.linspace(0, 1, 101)
        tasks[task] = {
            "iou": 0.5,
            "thresholds": thresholds.round(6).tolist(),
            "precision": precision.round(6).tolist(),
            "recall": recall.round(6).tolist(),
            "f1": f1.round(6).tolist(),
            "hits": (300 * recall).astype(int).tolist(),
            "misses": (300 * (1 - recall)).astype(int).tolist(),
            "false_alarms": (60 * (1 - precision)).astype(int).tolist(),
            "best": {
                "threshold": float(thresholds[at]),
                "precision": float(precision[at]),
                "recall": float(recall[at]),
                "f1": float(f1[at]),
                "hits": 250,
                "misses": 50,
                "false_alarms": 30,
            },
            "pr": {
                "recall": grid.round(2).tolist(),
                "precision@50": np.where(grid < 0.9 * factor, 1 - 0.3 * grid**6, 0).tolist(),
                "precision@75": np.where(grid < 0.6 * factor, 1 - 0.6 * grid**3, 0).tolist(),
            },
            "score_histogram": {
                "edges": EDGES,
                "true": [2 + i * i // 6 for i in range(20)],
                "false": [max(0, 400 // (i + 1) - 15) for i in range(20)],
            },
        }
    return {
        "schema": 1,
        "dataset": dataset,
        "images": 60,
        "tasks": tasks,
        "sizes": {
            "edges": [0, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256],
            "ground_truth": [2, 15, 40, 52, 60, 48, 30, 18, 9, 2],
            "found": [0, 3, 20, 38, 55, 46, 30, 17, 9, 1],
        },
    }


def errors(dataset: str = "person_test") -> dict[str, Any]:
    """Return an `errors.json`."""
    kinds = ("classification", "localisation", "both", "duplicate", "background", "missed")
    tasks = {
        task: {
            "AP50": 81.0,
            "cost": {
                kind: round(value * factor, 3)
                for kind, value in zip(kinds, (0.0, 4.2, 0.0, 0.6, 3.1, 9.7), strict=True)
            },
            "cost_false_positives": 6.0,
            "cost_false_negatives": 11.0,
            "counts": dict(zip(kinds, (0, 22, 0, 4, 1312, 41), strict=True)),
        }
        for task, factor in (("bbox", 1.0), ("segm", 1.2))
    }
    groups = {
        "size": [("small (< 32 px)", 120, 80), ("medium (32 to 96 px)", 150, 141)],
        "crowding": [("alone", 100, 96), ("near", 110, 95), ("overlapped (IoU > 0.3)", 60, 30)],
        "border": [("inside", 240, 205), ("touches the border", 30, 16)],
    }
    recall = {
        name: [
            {"label": label, "people": people, "found": found, "recall": found / people}
            for label, people, found in rows
        ]
        for name, rows in groups.items()
    }
    recall["size"].append({"label": "large (> 96 px)", "people": 0, "found": 0, "recall": None})
    return {
        "schema": 1,
        "dataset": dataset,
        "task": "segm",
        "threshold": 0.6,
        "tasks": tasks,
        "recall": recall,
    }


def results(dataset: str = "person_test") -> dict[str, Any]:
    """Return a `results.json` with an operating point and intervals."""
    scores = {"AP": 52.1, "AP50": 87.8, "AP75": 58.6, "APs": 35.8, "APm": 59.1, "APl": None}
    point = {"precision": 0.9, "recall": 0.8, "f1": 0.847, "hits": 240, "misses": 60}
    return {
        "schema": 1,
        "model": "model_best.pth",
        "iteration": 149,
        "classes": ["person"],
        "test": {
            "dataset": dataset,
            "images": 60,
            "bbox": scores,
            "segm": scores | {"AP": 41.9},
            "intervals": {"bbox": {"AP": [47.0, 57.0]}, "segm": {"AP": [36.5, 47.3]}},
        },
        "constant_box": {"bbox": {"AP": 0.2}},
        "operating_point": {
            "task": "segm",
            "iou": 0.5,
            "threshold": 0.6,
            "valid": point | {"false_alarms": 26},
            "test": point | {"false_alarms": 30, "recall": 0.75},
        },
    }


def write_records(
    path: Path, counts: list[int], *, source: str = "walk.mp4", fps: int = 25
) -> Path:
    """Write the records of a clip whose frames show `counts` people."""
    header = {
        "schema": "persondet-video-records",
        "version": 1,
        "source": source,
        "model": "model_best.pth",
        "classes": ["person"],
        "confidence_threshold": 0.5,
        "width": 640,
        "height": 360,
        "fps": fps,
        "frame_rate": str(fps),
    }
    person = {"box": [1, 2, 3, 4], "score": 0.9, "class": "person", "mask": None, "track_id": None}
    rows = [
        {"index": i, "time": i / fps, "people": [person | {"track_id": k} for k in range(count)]}
        for i, count in enumerate(counts)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in [header, *rows]))
    return path


def write_run(folder: Path) -> Path:
    """Write a whole run: training, evaluation of both splits, results, one clip."""
    write_metrics(folder, *training_rows())
    for split in ("valid", "test"):
        name = f"person_{split}"
        write_json(folder / "inference" / name / "curves.json", curves(name))
        write_json(folder / "inference" / name / "errors.json", errors(name))
    write_json(folder / "results.json", results())
    write_json(folder / "model_best.json", {"metric": "segm/AP", "score": 38.0, "iteration": 199})
    (folder / "config.yaml").write_text(
        "DATASETS:\n  VAL: [person_valid]\n  TEST: [person_test]\nSOLVER:\n  IMS_PER_BATCH: 2\n"
    )
    write_records(folder / "walk.jsonl", [1 + i // 40 % 5 for i in range(300)])
    return folder

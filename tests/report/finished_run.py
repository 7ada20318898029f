"""Run folders as a training leaves them, small and without a training: for tests of the report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

WEIGHTS = "output/demo/pretrain/model_final.pth"
CONFIG = yaml.safe_load(f"""
DATASETS: {{TRAIN: [person_train], VAL: [person_valid], TEST: [person_test]}}
INPUT:
  ALBUMENTATIONS: {{PIPELINE: light, MIN_VISIBILITY: 0.2, MIN_BOX_SIZE: 2.0}}
  MIN_SIZE_TRAIN: [288, 320, 352]
  MAX_SIZE_TRAIN: 640
MODEL:
  BACKBONE: {{FREEZE_AT: 2}}
  FREEZE: {{MODULES: []}}
  MASK_ON: true
  RESNETS: {{DEPTH: 18}}
  WEIGHTS: {WEIGHTS}
SEED: 42
SOLVER:
  AMP: {{ENABLED: true, DTYPE: auto}}
  BASE_LR: 0.001
  IMS_PER_BATCH: 2
  LR_SCHEDULER_NAME: WarmupCosineLR
  MAX_ITER: 900
  OPTIMIZER: AdamW
  WARMUP_ITERS: 50
  WEIGHT_DECAY: 0.01
""")
PARAMETERS = [
    {"module": module, "trainable": trainable, "frozen": frozen, "state": state, "rate": "0.001"}
    for module, trainable, frozen, state in (
        ("backbone.bottom_up.stem", 0, 9536, "frozen"),
        ("roi_heads.mask_head", 203329, 0, "trained"),
        ("all", 203329, 9536, "in part"),
    )
]
WEIGHTS_LOADED = {
    **{"schema": 1, "source": WEIGHTS, "loaded": 170, "not_loaded": 2},
    "parts": [
        {"part": "backbone.bottom_up.stem", "loaded": 5, "not_loaded": 0, "why": []},
        {"part": "roi_heads.box_predictor", "loaded": 2, "not_loaded": 1, "why": ["(6,), (2,)"]},
    ],
    "classes": {"checkpoint": 5, "dataset": 1},
}
COUNTS = {"precision": 0.91, "recall": 0.78, "f1": 0.84, "hits": 193, "misses": 54}
COUNTS |= {"false_alarms": 19}
PLOTS = (
    "training_curves loss loss_components accuracy average_precision learning_rate speed pr_curve "
    "f1_curve score_histogram size_histogram errors recall_by people_over_time"
).split()


def write_image(path: Path, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (213, 94, 0)).save(path)


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def edit(path: Path, change: Callable[[Any], object]) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    write_json(path, value)


def write_finished_run(
    folder: Path, *, classes: tuple[str, ...] = ("person",), dataset: str = "person_test"
) -> Path:
    """Write every file that a report reads; nothing in it is missing."""
    write_metrics(folder, *training_rows(900, evaluation=300))
    config = CONFIG | {"DATASETS": {**CONFIG["DATASETS"], "TEST": [dataset]}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (folder / "augmentation.yaml").write_text(
        "- HorizontalFlip: {p: 0.5}  # streets have no side\n"
    )
    (folder / "model_best.pth").write_bytes(b"weights")
    for name in PLOTS:
        write_image(folder / "plots" / f"{name}.png", (105, 63))
    for name in ("ground_truth", "augmentation"):
        write_image(folder / "examples" / f"{name}.jpg", (120, 80))
    inference, gallery = folder / "inference" / dataset, {}
    for kind in ("misses", "false_alarms", "poor_masks"):
        files = [f"{kind}_{number}.jpg" for number in (1, 2)]
        known = {"image": "street_1.jpg", "caption": "3 of 5 people are missed."}
        gallery[kind] = [{"file": name, **known} for name in files]
        for name in files:
            write_image(inference / "gallery" / name, (128, 36))
    write_records(folder / "walk_annotated.jsonl", [3 + n % 2 for n in range(100)], unique=7)
    write_image(folder / "plots/video_still_1.jpg", (128, 72))
    still = {"file": "video_still_1.jpg", "clip": "walk_annotated.mp4", "time": 2.5, "people": 4}
    files = {
        "parameters.json": {"schema": 1, "parts": PARAMETERS},
        "weights.json": WEIGHTS_LOADED,
        "model_best.json": {"metric": "segm/AP", "score": 41.2, "iteration": 899},
        "results.json": results(dataset, classes),
        "provenance.json": provenance(),
        "dataset.json": dataset_report(classes),
        "plots/video_stills.json": {"schema": 1, "stills": [still]},
    }
    for name, value in files.items():
        write_json(folder / name, value)
    write_json(inference / "errors.json", errors(dataset))
    write_json(inference / "gallery/gallery.json", {"schema": 1, **gallery})
    return folder


def write_run(folder: Path) -> Path:
    """Write what the plots show: training, evaluation of both splits, results, one clip."""
    write_metrics(folder, *training_rows())
    for name in ("person_valid", "person_test"):
        write_json(folder / "inference" / name / "curves.json", curves(name))
        write_json(folder / "inference" / name / "errors.json", errors(name))
    write_json(folder / "results.json", results())
    write_json(folder / "model_best.json", {"metric": "segm/AP", "score": 38.0, "iteration": 199})
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    write_records(folder / "walk.jsonl", [1 + i // 40 % 5 for i in range(300)], unique=4)
    return folder


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
        row |= {"time": 0.5 + 0.1 * share, "data_time": 0.02, **_losses("", 2.0 - share)}
        if (iteration + 1) % evaluation == 0 and iteration + 1 != steps:
            row |= _losses("val/", 2.1 - share) | _scores(40 * share)
        rows.append(row)
    rows.append({"iteration": steps, **_losses("val/", 1.1), **_scores(38.0)})
    return rows


def _losses(prefix: str, total: float) -> dict[str, float]:
    names = ("loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask")
    row = dict.fromkeys(names, total / 5) | {"total_loss": total}
    row |= {"fast_rcnn/cls_accuracy": 0.95 - total / 20, "mask_rcnn/accuracy": 0.9 - total / 10}
    return {f"{prefix}{name}": value for name, value in row.items()}


def _scores(ap: float) -> dict[str, float]:
    return {"bbox/AP": ap + 5, "bbox/AP50": ap + 40, "segm/AP": ap, "segm/AP50": ap + 35}


def curves(dataset: str = "person_test") -> dict[str, Any]:
    thresholds, grid, tasks = np.linspace(0.05, 0.99, 95), np.linspace(0, 1, 101), {}
    for task, factor in (("bbox", 1.0), ("segm", 0.95)):
        recall = factor * np.clip(1.02 - thresholds**4, 0, 1)
        precision = factor * (1 - 0.7 * (1 - thresholds) ** 2)
        f1 = 2 * precision * recall / (precision + recall)
        columns = {"threshold": thresholds, "precision": precision, "recall": recall, "f1": f1}
        tasks[task] = {
            "iou": 0.5,
            "thresholds": thresholds.tolist(),
            **{name: columns[name].tolist() for name in ("precision", "recall", "f1")},
            "best": {name: float(column[55]) for name, column in columns.items()},
            "pr": {
                "recall": grid.tolist(),
                "precision@50": np.where(grid < 0.9 * factor, 1 - 0.3 * grid**6, 0).tolist(),
                "precision@75": np.where(grid < 0.6 * factor, 1 - 0.6 * grid**3, 0).tolist(),
            },
            "score_histogram": {
                "edges": np.linspace(0, 1, 21).tolist(),
                "true": [2 + i * i // 6 for i in range(20)],
                "false": [max(0, 400 // (i + 1) - 15) for i in range(20)],
            },
        }
    sizes = {"edges": [0, 16, 32, 64, 128, 256], "ground_truth": [17, 92, 108, 48, 11]}
    sizes |= {"found": [3, 58, 101, 47, 10]}
    return {"schema": 1, "dataset": dataset, "images": 60, "tasks": tasks, "sizes": sizes}


def errors(dataset: str = "person_test") -> dict[str, Any]:
    kinds = ("classification", "localisation", "both", "duplicate", "background", "missed")
    costs = dict(zip(kinds, (0.0, 4.2, 0.0, 0.6, 3.1, 9.7), strict=True))
    tasks = {
        task: {
            **{"AP50": 81.0, "cost_false_positives": 6.0, "cost_false_negatives": 11.0},
            "cost": {kind: round(factor * value, 3) for kind, value in costs.items()},
            "counts": dict(zip(kinds, (0, 22, 0, 4, 1312, 41), strict=True)),
        }
        for task, factor in (("bbox", 1.0), ("segm", 1.2))
    }
    groups: dict[str, Any] = {
        "size": [("small (< 32 px)", 120, 54), ("medium", 150, 141), ("large (> 96 px)", 0, 0)],
        "crowding": [("alone", 100, 96), ("near", 110, 95), ("overlapped (IoU > 0.3)", 60, 30)],
        "border": [("inside", 240, 205), ("touches the border", 30, 16)],
    }
    recall = {
        name: [
            {"label": label, "people": n, "found": found, "recall": found / n if n else None}
            for label, n, found in rows
        ]
        for name, rows in groups.items()
    }
    record = {"schema": 1, "dataset": dataset, "task": "segm", "threshold": 0.62}
    return record | {"tasks": tasks, "recall": recall}


def results(dataset: str = "person_test", classes: tuple[str, ...] = ("person",)) -> dict[str, Any]:
    measures = {"AP50": 87.8, "AP75": 58.6, "APs": 35.8, "APm": 59.1, "APl": None, "AR": 60.2}
    per_class = {f"AP-{name}": 52.1 for name in classes}
    spread = {name: [value - 4, value + 4] for name, value in measures.items() if value}
    test: dict[str, Any] = {"dataset": dataset, "images": 60, "intervals": {}, "notes": []}
    for task, ap, interval in (("bbox", 52.1, [47.9, 56.0]), ("segm", 41.9, [38.0, 45.5])):
        test[task] = {"AP": ap, **measures, **per_class}
        test["intervals"][task] = {"AP": interval, **spread}
    return {
        **{"schema": 1, "model": "model_best.pth", "iteration": 899, "steps": 900},
        "classes": list(classes),
        "test": test | {"leaks": {"images": 0, "share": 0.0, "with": {}}},
        "constant_box": {"bbox": {"AP": 0.05}, "segm": {"AP": 0.02}},
        "operating_point": {
            **{"task": "segm", "iou": 0.5, "threshold": 0.62},
            **{"valid": COUNTS, "test": COUNTS},
        },
        "freeze_at": 2,
        "initial_weights": WEIGHTS,
        "seconds": {"sample": 61.4, "train": 691.9},
        "video": {
            **{"recall": 0.77, "precision": 0.87, "frames": 100, "frames_per_second": 7.2},
            **{"mota": 0.62, "idf1": 0.583, "hota": 0.47, "switches": 61, "fragments": 73},
            **{"unique": 7, "unique_truth": 6},
        },
    }


def provenance() -> dict[str, Any]:
    fingerprint = {"images": 240, "annotations": 1000, "json_sha256": "8" * 64}
    start = {
        "command": ["tools/train_net.py", "--config-file", "configs/x.yaml", "SEED", "42"],
        **{"started": "2025-01-31T12:00:00+00:00", "ended": "2025-01-31T12:11:00+00:00"},
        **{"first_step": 0, "steps_done": 900, "exit": "finished"},
        "config": {"files": ["configs/x.yaml"], "overrides": [], "sha256": "4" * 64},
        "datasets": {"person_train": fingerprint | {"files_sha256": "7" * 64}},
        "versions": {"python": "3.11.7", "torch": "2.14.1", "cpu_count": 2, "cuda": ""},
        "git": {"commit": "c" * 40, "changed_files": 1},
        "hardware": {
            **{"cpu": "AMD EPYC", "cores": 2, "memory_bytes": 25276502016},
            "gpus": [{"name": "H100", "memory_bytes": 80 * 2**30}],
        },
    }
    return {"schema": 1, "starts": [start]}


def dataset_report(classes: tuple[str, ...]) -> dict[str, Any]:
    splits = {"train": 240, "valid": 40, "test": 60}
    statistics = {
        "splits": {
            split: {
                **{"images": images, "annotations": 4 * images, "without_annotations": 3},
                "per_image": {"mean": 4.1, "max": 7, "histogram": [[0, 3], [4, images - 3]]},
            }
            for split, images in splits.items()
        },
        "classes": [
            {"name": name, "boxes": {split: 4 * n for split, n in splits.items()}}
            for name in classes
        ],
        "box_sizes": {
            **{"boxes": 1360, "small": 0.17, "medium": 0.62, "large": 0.21},
            **{"quantile_levels": [0.0, 0.05, 0.5, 1.0], "side": [17.7, 23.3, 52.5, 210.0]},
            **{"height": [22.8, 41.8, 90.0, 340.0], "relative_height": [0.06, 0.12, 0.25, 0.94]},
            "aspect": [0.15, 0.21, 0.38, 1.8],
        },
        "masks": {"polygon": 1360, "rle": 0, "empty": 0, "other": 0},
        "image_sizes": [{"width": 640, "height": 360, "images": 340}],
        "image_sizes_total": 1,
    }
    finding = {"code": "area-of-box", "severity": "warning", "count": 1360, "training": "mended"}
    leak = {"images": 60, "leaked": 0, "share": 0.0, "clip_mates": 0}
    return {
        **{"schema": 1, "folder": "datasets/sample/people", "decoded": True},
        **{"statistics": statistics, "errors": 0, "warnings": 1},
        "splits": {split: split for split in splits},
        "findings": [finding | {"meaning": "`area` is the area of the box, not of the mask"}],
        "leaks": {"valid": leak, "test": leak},
    }


def write_records(
    path: Path, counts: list[int], *, source: str = "walk.mp4", unique: int | None = None
) -> Path:
    header = {
        **{"schema": "persondet-video-records", "version": 2, "source": source, "start": 0.0},
        **{"tracker": "Norfair", "model": "model_best.pth", "classes": ["person"]},
        **{"confidence_threshold": 0.62, "width": 640, "height": 360},
        **{"fps": 25.0, "frame_rate": "25"},
    }
    person = {"box": [1, 2, 30, 40], "score": 0.9, "class": "person", "mask": None, "track_id": 1}
    rows = [
        {"index": n, "time": n / 25, "people": [person] * count, "unique": unique}
        for n, count in enumerate(counts)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in [header, *rows]))
    return path

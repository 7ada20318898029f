"""The folder of a run (`OUTPUT_DIR`): which files are a run's, when they may go, and how its model
becomes one for inference.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from detectron2.modeling import build_model
from detectron2.utils import comm
from torch import nn

from persondet.checkpoint import SafeDetectionCheckpointer
from persondet.checkpoint.conventions import check_conventions
from persondet.checkpoint.model_file import (
    CarriedFacts,
    class_count,
    load_checkpoint,
    local_weights,
)
from persondet.errors import CheckpointError, OutputExistsError
from persondet.modeling.cpu import accelerate
from persondet.modeling.detections import map_classes
from persondet.modeling.freeze import freeze_module
from persondet.modeling.precision import resolve_device, set_memory_format

try:
    import fcntl
except ModuleNotFoundError:  # Windows: two trainings in one folder are not told apart there
    fcntl = None  # type: ignore[assignment]

# What a training writes; any of the marks makes a folder "used".
_MARKS = ("metrics.json", "model_*.pth", "last_checkpoint", "results.json")
_PRODUCTS = (
    *_MARKS,
    "events.out.tfevents.*",
    "model_best.json",
    "provenance.json",
    "weights.txt",
    "weights.json",
    "augmentation.yaml",
    "dataset.json",
    "examples/ground_truth.jpg",
    "examples/augmentation.jpg",
    "log.txt.rank*",
)
_FOLDERS = ("inference", "plots")
_LOCK = ".training"


def refuse_used_folder(folder: str | Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a run folder that holds another run.

    Raises: OutputExistsError: when it is used, and neither `resume` nor `overwrite` is set.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"OUTPUT_DIR {folder} is a file; choose another folder.")
    # A start that failed leaves an empty event log; nothing would be lost with it.
    used = any(
        path.name != "metrics.json" or path.stat().st_size
        for mark in _MARKS
        for path in folder.glob(mark)
    )
    if used and not (resume or overwrite):
        raise OutputExistsError(
            f"OUTPUT_DIR {folder} holds a run already; add --resume to go on with it, "
            "--overwrite to replace it, or choose another OUTPUT_DIR."
        )


@contextmanager
def reserved(folder: str | Path) -> Iterator[None]:
    """Keep the trainings of other processes out of a run folder; it is free again however this
    one ends. Checkpoints that a killed training left half-written are removed.

    Raises: OutputExistsError: on the main process, when another one is training there.
    """
    if fcntl is None or not comm.is_main_process():
        yield
        return
    path = Path(folder) / _LOCK
    # lockf and not flock: a killed training's loader workers, which outlive it, do not inherit it.
    with path.open("a") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise OutputExistsError(
                    f"OUTPUT_DIR {folder}: another process is training there; wait for its end, "
                    "stop it, or choose another OUTPUT_DIR."
                ) from error
            # else: a file system that knows no locks
        for half in Path(folder).glob(".model_*.pth"):
            half.unlink(missing_ok=True)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def remove_run(folder: Path) -> None:
    """Remove an earlier run's own files; the log goes on, and files of other origin stay.

    Called when the new run is ready to train: what stops it earlier costs nothing.
    """
    for pattern in _PRODUCTS:
        for path in folder.glob(pattern):
            path.unlink()
    for name in _FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)


def refuse_lost_checkpoints(folder: str | Path) -> None:
    """Refuse to begin anew, for want of a checkpoint, where a run has a model or a result.

    Raises: CheckpointError: naming what is there.
    """
    for name in ("model_best.pth", "results.json"):
        if (Path(folder) / name).exists():
            raise CheckpointError(
                f"{folder}: has a {name} and no checkpoint to resume from; start anew with "
                "--overwrite, which removes it, or in another OUTPUT_DIR."
            )


def best_is_chosen(folder: str | Path) -> bool:
    """Return whether a score on the validation split has chosen `model_best.pth`."""
    try:
        record = json.loads((Path(folder) / "model_best.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("score") is not None


def find_model(folder: str | Path) -> Path:
    """Return the model of a run: the best, else the final, else the newest checkpoint.

    Raises: CheckpointError: when the folder has none.
    """
    folder = Path(folder)
    for name in ("model_best.pth", "model_final.pth"):
        if (folder / name).is_file():
            return folder / name
    newest = sorted(folder.glob("model_*.pth"))
    if not newest:
        raise CheckpointError(
            f"{folder}: holds no model_best.pth or other checkpoint; give the OUTPUT_DIR of a "
            "training that has saved one."
        )
    return newest[-1]


COCO_CLASSES = tuple(
    str(category["name"]) for category in COCO_CATEGORIES if category["isthing"] == 1
)


@dataclass(frozen=True)
class InferenceModel:
    """A model in eval mode on its device, the classes it speaks, and what its file says."""

    model: nn.Module
    class_names: tuple[str, ...]
    facts: CarriedFacts


def build_inference_model(cfg: CfgNode, class_names: Sequence[str] | None = None) -> InferenceModel:
    """Build the config's model, load `MODEL.WEIGHTS`, and make it speak `class_names`.

    A model of COCO's 80 classes serves before any training: its `person` is mapped to ours.

    Args:
        cfg: not changed.
        class_names: the dataset's classes; default: `DATASETS.ROBOFLOW.CLASSES`, else those the
            checkpoint carries, else `person`.

    Raises: CheckpointError: when the file is missing, foreign, or knows none of the classes.
    """
    if not cfg.MODEL.WEIGHTS:
        raise CheckpointError(
            "MODEL.WEIGHTS is empty, and random weights find nothing; name a checkpoint, such as "
            "MODEL.WEIGHTS output/demo/model_best.pth."
        )
    weights = local_weights(cfg.MODEL.WEIGHTS)
    checkpoint = load_checkpoint(weights.partition("?")[0])
    check_conventions(checkpoint, cfg, cfg.MODEL.WEIGHTS)
    facts = CarriedFacts.from_checkpoint(checkpoint)
    count = class_count(checkpoint)
    del checkpoint
    theirs = facts.class_names or (COCO_CLASSES if count == len(COCO_CLASSES) else ())
    ours = tuple(class_names or cfg.DATASETS.ROBOFLOW.CLASSES or facts.class_names or ("person",))
    if not theirs:
        if count not in (None, len(ours)):
            raise CheckpointError(
                f"{cfg.MODEL.WEIGHTS}: knows {count} classes and does not name them; list them in "
                "DATASETS.ROBOFLOW.CLASSES, in the checkpoint's order."
            )
        theirs = ours

    model_cfg = cfg.clone()
    model_cfg.defrost()
    model_cfg.MODEL.DEVICE = resolve_device(cfg.MODEL.DEVICE)
    model_cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(theirs)
    model = build_model(model_cfg)
    checkpointer = SafeDetectionCheckpointer(model)
    checkpointer.load(weights, checkpointables=[])
    report = checkpointer.key_report
    gaps = [*(name for name, _, _ in report.not_fitting), *report.missing] if report else []
    if gaps:  # a head with random weights would predict noise, and nobody would know why
        raise CheckpointError(
            f"{cfg.MODEL.WEIGHTS}: {gaps[0]} does not fit this model ({len(gaps)} tensors in all); "
            "use the config it was trained with: the config.yaml in its run folder."
        )
    # Frozen first: layers do the work of frozen norms only, and keep what they fold.
    model = set_memory_format(model_cfg, accelerate(freeze_module(model)))
    return InferenceModel(map_classes(model, theirs, ours).eval(), ours, facts)

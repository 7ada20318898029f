"""The folder of a run (`OUTPUT_DIR`): which files are a run's, and when they may go."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from detectron2.utils import comm

from persondet.errors import CheckpointError, OutputExistsError

try:
    import fcntl
except ModuleNotFoundError:  # Windows: two trainings in one folder are not told apart there
    fcntl = None  # type: ignore[assignment]

# What a training writes; any of the first group makes a folder "used".
_PRODUCTS = (
    "metrics.json",
    "model_*.pth",
    "last_checkpoint",
    "events.out.tfevents.*",
    "results.json",
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
_MARKS = ("metrics.json", "model_*.pth", "last_checkpoint", "results.json")


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

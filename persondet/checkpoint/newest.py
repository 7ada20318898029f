"""Which checkpoint of a run folder a resume goes on from, and which old ones may go."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from persondet.checkpoint.model_file import load_checkpoint
from persondet.errors import CheckpointError

logger = logging.getLogger(__name__)

TAG = "last_checkpoint"
_PERIODIC = "model_" + "[0-9]" * 7 + "*.pth"


def newest_checkpoint(folder: str | Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest checkpoint that can be loaded, and its content; None where there is none.

    The one that `last_checkpoint` names goes first, then the others by their iteration. What is
    passed over is warned of.

    Raises: CheckpointError: when there are checkpoints, or a tag, and none can be loaded.
    """
    folder = Path(folder)
    failed: list[str] = []
    for path in _resumable(folder):
        try:
            checkpoint = load_checkpoint(path)
        except CheckpointError as error:
            failed.append(str(error).rstrip("."))
            continue
        for reason in failed:
            logger.warning("%s; the run goes on from %s.", reason, path.name)
        return path, checkpoint
    if not failed and not (folder / TAG).exists():
        return None
    reason = failed[0] if failed else f"{folder}: {TAG} is empty, and there is no checkpoint"
    raise CheckpointError(
        f"{reason}; no checkpoint of {folder} can be resumed: put one there and write its name into "
        f"{TAG}, or start anew with --overwrite."
    )


def remove_old_checkpoints(folder: str | Path, *, keep: int, iteration: int) -> None:
    """Remove periodic checkpoints but for the `keep` newest ones up to `iteration`.

    Those of later iterations belong to a future that a resume went back from; the run will write
    over them. `keep` 0: all stay.
    """
    found = [path for path in Path(folder).glob(_PERIODIC) if path.stem[6:].isdigit()]
    numbered = sorted((int(path.stem[6:]), path) for path in found)
    past = [path for number, path in numbered if number <= iteration]
    for path in past[:-keep] if keep > 0 else []:
        path.unlink(missing_ok=True)


def _resumable(folder: Path) -> Iterator[Path]:
    """Yield the files to try. What the tag names comes first, and may not be there."""
    tag = folder / TAG
    name = tag.read_text(encoding="utf-8", errors="replace").strip() if tag.is_file() else ""
    tagged = folder / name
    if name:
        yield tagged
    others = [*folder.glob(_PERIODIC), *folder.glob("model_final.pth")]
    iterations = {path: _iteration(path) for path in others if path != tagged}
    yield from sorted(iterations, key=lambda path: (iterations[path], path.name), reverse=True)


def _iteration(path: Path) -> int:
    """Return the iteration that a checkpoint was saved after; -1 when it cannot be read."""
    try:  # mapped: the tensors stay on disk
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return int(content["iteration"])
    except Exception:  # what is wrong with it will be said when it is loaded
        return -1

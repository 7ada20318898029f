"""Detectron2's checkpointer with atomic saves, safe loads, and a report of what it loaded.

A checkpoint holds tensors and plain containers, which load without running code, and no NaN or
infinity, which training cannot remove. This file also knows which checkpoint of a run folder a
resume starts from, and which old ones may go.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from fvcore.common.checkpoint import _IncompatibleKeys
from tabulate import tabulate
from torch import nn

from persondet.checkpoint.model_file import CARRIED, CarriedFacts, load_checkpoint, local_weights
from persondet.errors import CheckpointError, TrainingError
from persondet.files import atomic_path, write_text
from persondet.modeling.freeze import part_of

logger = logging.getLogger(__name__)


class SafeDetectionCheckpointer(DetectionCheckpointer):
    """Save whole or not at all; load tensors only; say what fitted.

    A kill while fvcore's checkpointer writes leaves a truncated file and an empty
    `last_checkpoint`; here both appear under their names only when complete.

    Args:
        carried: what every saved file carries beside the weights (config, class names).
        others: as `DetectionCheckpointer`: objects with `state_dict()` and `load_state_dict()`.

    Example:
        >>> checkpointer = SafeDetectionCheckpointer(model, "output/checkpoints")
        >>> checkpointer.save("model_0000009", iteration=9)
        >>> checkpointer.load("output/checkpoints/model_0000009.pth")["iteration"]
        9
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        carried: dict[str, Any] | None = None,
        **others: Any,
    ) -> None:
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **others)
        self.carried = dict(carried or {})
        self.key_report: KeyReport | None = None
        self.facts = CarriedFacts()
        self.resumed_from: Path | None = None
        self._opened: dict[str, Any] | None = None

    def save(self, name: str, **extra: Any) -> None:
        """Save `<name>.pth` with everything that `--resume` needs, and tag it as the newest."""
        if not self.save_dir or not self.save_to_disk:
            return
        states = {key: value.state_dict() for key, value in self.checkpointables.items()}
        self._write(name, states | extra)
        self.tag_last_checkpoint(f"{name}.pth")

    def save_model(self, name: str, *, iteration: int) -> None:
        """Save `<name>.pth` as a model to use: weights, config and class names, no optimizer.

        It is not tagged: the best model is not the newest, and a resume from it would train the
        same steps twice.
        """
        if self.save_dir and self.save_to_disk:
            self._write(name, {"iteration": iteration})

    def _write(self, name: str, extra: dict[str, Any]) -> None:
        carried = self.carried | {"iteration": extra.get("iteration")}
        path = Path(self.save_dir) / f"{name}.pth"
        content = {"model": self.model.state_dict(), **plain({CARRIED: carried, **extra})}
        # Nothing could be trained or detected with such a file.
        if bad := next(non_finite_tensors(content), None):
            raise TrainingError(
                f"training diverged: {bad.removeprefix('model.')} holds NaN or infinity, so "
                f"{path.name} is not written and the checkpoint before it stays the newest; lower "
                "SOLVER.BASE_LR, lengthen SOLVER.WARMUP_ITERS, or clip gradients "
                "(SOLVER.CLIP_GRADIENTS.ENABLED True, or a lower CLIP_VALUE)."
            )
        try:
            with atomic_path(path) as temporary:
                torch.save(content, temporary)
        except RuntimeError as error:
            # What torch's writer makes of a full disk.
            if "inline_container" not in str(error) and "iostream" not in str(error):
                raise
            need = sum(value.nbytes for value in content["model"].values())
            raise CheckpointError(
                f"{path}: cannot be written; {shutil.disk_usage(path.parent).free / 1e9:.2f} GB "
                f"are free there, and the weights alone need {need / 1e9:.2f}: make room, or lower "
                "SOLVER.CHECKPOINT_KEEP, and go on with --resume."
            ) from error
        logger.info("Saved %s", path)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Write the name of the newest checkpoint, whole or not at all."""
        write_text(Path(self.save_dir) / TAG, last_filename_basename)

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load weights (and `checkpointables`, all of them by default) from a file or address.

        Raises: CheckpointError: when the file is missing, foreign, damaged or unreachable.
        """
        if path:
            path = local_weights(path)
        return super().load(path, checkpointables)

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Go on from the newest checkpoint of the folder that can be loaded, else load `path`.

        `resumed_from` says which one it was; None: the run begins with the weights in `path`.

        Raises: CheckpointError: when there are checkpoints and none can be loaded, or when the run
        that is resumed knew other classes, had another model, or trained other parts of it.
        """
        found = newest_checkpoint(self.save_dir) if resume else None
        if found is None:
            self.resumed_from = None
            return self.load(path, checkpointables=[])
        self.resumed_from, self._opened = found
        if self.checkpointables.keys() - self._opened.keys():
            raise CheckpointError(
                f"{self.resumed_from}: holds weights alone, so nothing can be resumed from it; "
                "give it to MODEL.WEIGHTS, and start without --resume in another OUTPUT_DIR."
            )
        try:
            return self.load(str(self.resumed_from))
        except ValueError as error:
            if "parameter group" not in str(error):
                raise
            raise CheckpointError(
                f"{self.resumed_from}: other parameters were trained when it was saved; resume "
                "with MODEL.BACKBONE.FREEZE_AT and MODEL.FREEZE.MODULES as the run began, or give "
                "it to MODEL.WEIGHTS, and start without --resume in another OUTPUT_DIR."
            ) from error

    def _load_file(self, filename: str) -> dict[str, Any]:
        checkpoint, self._opened = self._opened or load_checkpoint(filename, self.model), None
        query = self._parsed_url_during_load.query if self._parsed_url_during_load else ""
        if "matching_heuristics=True" in query:
            checkpoint["matching_heuristics"] = True
        self.facts = CarriedFacts.from_checkpoint(checkpoint)
        self._loading_from = filename
        self._compare_classes()
        return checkpoint

    def _compare_classes(self) -> None:
        """Compare the classes that the checkpoint knows with those that it is to learn."""
        theirs, ours = self.facts.class_names, tuple(self.carried.get("class_names", ()))
        if not theirs or not ours or theirs == ours:
            return
        difference = f"knows {', '.join(theirs)}, and the dataset has {', '.join(ours)}"
        if self._loading_from == str(self.resumed_from):
            raise CheckpointError(
                f"{self._loading_from}: {difference}; resume with the classes the run began with, "
                "or start anew in another OUTPUT_DIR."
            )
        told = "%s %s: the layers that tell classes apart start from other classes."
        logger.warning(told, self._loading_from, difference)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        # Where names are matched by heuristics, Detectron2 tells of each match and misfit itself.
        heuristics = logging.getLogger("detectron2.checkpoint.c2_model_loading")
        heuristics.disabled, before = True, heuristics.disabled
        try:
            incompatible = super()._load_model(checkpoint)
        finally:
            heuristics.disabled = before
        self.key_report = KeyReport.from_incompatible(self.model, incompatible)
        if not self.key_report.fitting:
            raise CheckpointError(
                f"{self._loading_from}: none of its tensors fits this model; check that "
                "MODEL.WEIGHTS and --config-file belong together."
            )
        logger.info(self.key_report.text(self._loading_from))
        other = [*sorted(self.key_report.not_loaded), *self.key_report.unused]
        if other and self._loading_from == str(self.resumed_from):
            raise CheckpointError(
                f"{self._loading_from}: is of another model ({other[0]} and {len(other) - 1} more "
                "differ); resume with the model the run began with, or give it to MODEL.WEIGHTS, "
                "and start without --resume in another OUTPUT_DIR."
            )
        # Reported above in one table; fvcore would log the same again, three times as long.
        return None


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
        f"{reason}; no checkpoint of {folder} can be resumed: put one there and write its name "
        f"into {TAG}, or start anew with --overwrite."
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


def non_finite_tensors(state: Any, name: str = "") -> Iterator[str]:
    """Yield the dotted names of the floating-point tensors in nested containers that hold NaN or
    infinity.
    """
    if isinstance(state, torch.Tensor):
        if state.is_floating_point() and not bool(torch.isfinite(state).all()):
            yield name
    elif isinstance(state, Mapping | list | tuple):
        pairs: Any = state.items() if isinstance(state, Mapping) else enumerate(state)
        for key, inner in pairs:
            yield from non_finite_tensors(inner, f"{name}.{key}".removeprefix("."))


def plain(value: Any) -> Any:
    """Return `value` with numpy's numbers and arrays made Python's and torch's.

    `torch.load(weights_only=True)` refuses a whole file for one numpy scalar: what it would refuse
    is refused here, while the run that saves it can still be mended.

    Raises: TypeError: when it holds anything but numbers, strings, tensors, arrays and containers.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if value is None or type(value) in (str, bytes, bool, int, float):
        return value
    if isinstance(value, dict):
        return {plain(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([plain(inner) for inner in value])
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}")


Shape = tuple[int, ...]
_SHOWN = 4


@dataclass(frozen=True)
class KeyReport:
    """Names of tensors, by what became of them when a checkpoint was loaded.

    Attributes:
        fitting: tensors of the model that were loaded.
        not_fitting: name in the model, shape in the checkpoint, shape in the model.
        missing: tensors of the model that the checkpoint does not have.
        unused: tensors of the checkpoint that the model does not have.
    """

    fitting: tuple[str, ...]
    not_fitting: tuple[tuple[str, Shape, Shape], ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]

    @property
    def not_loaded(self) -> frozenset[str]:
        """Names of the model's tensors that kept their start values."""
        return frozenset(self.missing) | {name for name, _, _ in self.not_fitting}

    @classmethod
    def from_incompatible(cls, model: nn.Module, keys: _IncompatibleKeys) -> KeyReport:
        """Sort fvcore's verdict on the tensors of a model."""
        # Batch norm counts its batches; FrozenBatchNorm2d does not, and nothing depends on it.
        names = [n for n in model.state_dict() if not n.endswith("num_batches_tracked")]
        wrong = {name: (tuple(theirs), tuple(ours)) for name, theirs, ours in keys.incorrect_shapes}
        absent = wrong.keys() | set(keys.missing_keys)
        # FrozenBatchNorm2d makes up statistics that a file lacks; fvcore takes them for loaded.
        for name in names:
            layer, _, tensor = name.rpartition(".")
            if tensor.startswith("running_") and f"{layer}.weight" in absent:
                absent.add(name)
        return cls(
            fitting=tuple(name for name in names if name not in absent),
            not_fitting=tuple((name, *shapes) for name, shapes in wrong.items()),
            missing=tuple(name for name in names if name in absent - wrong.keys()),
            unused=tuple(n for n in keys.unexpected_keys if not n.endswith("num_batches_tracked")),
        )

    def text(self, path: str) -> str:
        """Return the report as a table for the log: a row per part of the model."""
        known = self.record(path)
        loaded, left = known["loaded"], known["not_loaded"]
        lines = [
            f"{path}: {loaded} tensors loaded, {left} of the model left at their start values."
        ]
        if left or self.unused:
            table = [[*row.values()][:3] + ["\n".join(row["why"])] for row in known["parts"]]
            headers, sides = ("part", "loaded", "not loaded", "why"), ("left", "right", "right")
            lines.append(tabulate(table, headers=headers, colalign=sides, missingval="-"))
        if known["classes"]:
            lines.append(
                f"The checkpoint tells {known['classes']['checkpoint']} classes apart and the "
                f"dataset has {known['classes']['dataset']}: the layers of the classes start "
                "anew, as they must, and all else is kept."
            )
        return "\n".join(lines)

    def record(self, path: str) -> dict[str, Any]:
        """Return the report for JSON.

        `parts` has a row per part of the model; `loaded` is null for tensors that only the
        checkpoint has. `classes` is null where the layers of the classes fit.
        """
        shapes = {name: (theirs, ours) for name, theirs, ours in self.not_fitting}
        loaded = Counter(part_of(name) for name in self.fitting)
        left: dict[str, list[str]] = {}
        for name in (*shapes, *self.missing):
            left.setdefault(part_of(name), []).append(name)
        parts: list[dict[str, Any]] = [
            {
                "part": part,
                "loaded": loaded[part],
                "not_loaded": len(left.get(part, ())),
                "why": _why(left.get(part, []), shapes),
            }
            for part in {**loaded, **left}
        ]
        why = ["in the checkpoint, and the model has no such tensor"]
        parts += [
            {"part": part, "loaded": None, "not_loaded": count, "why": why}
            for part, count in Counter(part_of(name) for name in self.unused).items()
        ]
        classes = [
            {"checkpoint": theirs[0] - 1, "dataset": ours[0] - 1}
            for name, (theirs, ours) in shapes.items()
            if name.endswith("cls_score.weight") and theirs[1:] == ours[1:]
        ]
        return {
            "source": path,
            "loaded": len(self.fitting),
            "not_loaded": len(self.not_loaded),
            "parts": parts,
            "classes": classes[0] if classes else None,
        }


def _why(names: list[str], shapes: Mapping[str, tuple[Shape, Shape]]) -> list[str]:
    wrong = [name for name in names if name in shapes]
    lines = [f"{n}: checkpoint {shapes[n][0]}, model {shapes[n][1]}" for n in wrong[:_SHOWN]]
    if len(wrong) > _SHOWN:
        lines.append(f"and {len(wrong) - _SHOWN} more of other shapes")
    if len(names) > len(wrong):
        lines.append("not in the checkpoint")
    return lines

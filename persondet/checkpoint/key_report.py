"""What a checkpoint gave to a model, in one table: loaded, not loaded, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from detectron2.checkpoint.c2_model_loading import convert_basic_c2_names
from fvcore.common.checkpoint import _IncompatibleKeys
from tabulate import tabulate

from persondet.modeling.model_parts import part_of

Shape = tuple[int, ...]

# Batch norm counts its batches; FrozenBatchNorm2d does not, and nothing depends on it.
_UNIMPORTANT = ("num_batches_tracked",)
_CLASS_LAYER = "cls_score.weight"
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
    def loaded(self) -> int:
        """How many tensors were loaded."""
        return len(self.fitting)

    @property
    def not_loaded(self) -> frozenset[str]:
        """Names of the model's tensors that kept their start values."""
        return frozenset(self.missing) | {name for name, _, _ in self.not_fitting}

    @classmethod
    def from_incompatible(
        cls,
        expected: Mapping[str, Shape],
        keys: _IncompatibleKeys,
        offered: Mapping[str, Shape],
    ) -> KeyReport:
        """Sort fvcore's verdict on the tensors of a model.

        Args:
            expected: the model's tensors and their shapes.
            offered: from `offered_shapes`: a match by ends of another shape comes back from
                Detectron2 as one missing and one unused tensor.
        """
        wrong = {name: (tuple(theirs), tuple(ours)) for name, theirs, ours in keys.incorrect_shapes}
        unused = set(keys.unexpected_keys)
        for name in keys.missing_keys:
            for other, shape in offered.items():
                if other in unused and name.endswith(f".{other}") and name in expected:
                    wrong[name] = (tuple(shape), tuple(expected[name]))
                    unused.discard(other)
        absent = wrong.keys() | set(keys.missing_keys)
        made_up = {name for name in expected if _weight_of_statistic(name) in absent}
        absent |= made_up
        return cls(
            fitting=_important(name for name in expected if name not in absent),
            not_fitting=tuple((name, *shapes) for name, shapes in wrong.items()),
            missing=_important(name for name in expected if name in absent - wrong.keys()),
            unused=_important(name for name in keys.unexpected_keys if name in unused),
        )

    def text(self, path: str) -> str:
        """Return the report as a table for the log: a row per part of the model."""
        rows: dict[str, tuple[list[str], list[str]]] = {}
        for name in self.fitting:
            _row(rows, name)[0].append(name)
        for name, _, _ in self.not_fitting:
            _row(rows, name)[1].append(name)
        for name in self.missing:
            _row(rows, name)[1].append(name)
        shapes = {name: (theirs, ours) for name, theirs, ours in self.not_fitting}
        table: list[tuple[str, int | str, int, str]] = [
            (part, len(loaded), len(left), _why(left, shapes))
            for part, (loaded, left) in rows.items()
        ]
        surplus: dict[str, int] = {}
        for name in self.unused:
            surplus[part_of(name)] = surplus.get(part_of(name), 0) + 1
        table += [
            (part, "-", count, "in the checkpoint, and the model has no such tensor")
            for part, count in surplus.items()
        ]
        kept = len(self.not_loaded)
        lines = [
            f"{path}: {self.loaded} tensors loaded, {kept} of the model left at their start values."
        ]
        if kept or self.unused:
            headers = ("part", "loaded", "not loaded", "why")
            lines.append(tabulate(table, headers=headers, colalign=("left", "right", "right")))
        lines += self._class_sentence()
        return "\n".join(lines)

    def _class_sentence(self) -> list[str]:
        for name, theirs, ours in self.not_fitting:
            if name.endswith(_CLASS_LAYER) and theirs[1:] == ours[1:]:
                return [
                    f"The checkpoint tells {theirs[0] - 1} classes apart and the dataset has "
                    f"{ours[0] - 1}: the layers of the classes start anew, as they must, and all "
                    "else is kept."
                ]
        return []


def offered_shapes(checkpoint: Mapping[str, Any]) -> dict[str, Shape]:
    """Return the shapes in a checkpoint whose names Detectron2 matches by their ends.

    Caffe2's names come as Detectron2 renames them. Empty where names are matched whole: fvcore
    reports the shapes itself.
    """
    if not checkpoint.get("matching_heuristics"):
        return {}
    names = list(checkpoint["model"])
    if checkpoint.get("__author__") == "Caffe2":
        names = convert_basic_c2_names(names)
    shapes = [tuple(value.shape) for value in checkpoint["model"].values()]
    return dict(zip(names, shapes, strict=True))


def _weight_of_statistic(name: str) -> str:
    """Return the weight beside a running statistic of batch norm; empty for any other tensor.

    `FrozenBatchNorm2d` makes up the statistics that a file lacks, and fvcore takes them for loaded.
    """
    layer, _, tensor = name.rpartition(".")
    return f"{layer}.weight" if tensor in ("running_mean", "running_var") else ""


def _important(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in names if not name.endswith(_UNIMPORTANT))


def _row(rows: dict[str, tuple[list[str], list[str]]], name: str) -> tuple[list[str], list[str]]:
    return rows.setdefault(part_of(name), ([], []))


def _why(names: list[str], shapes: Mapping[str, tuple[Shape, Shape]]) -> str:
    wrong = [name for name in names if name in shapes]
    lines = [
        f"{name}: checkpoint {shapes[name][0]}, model {shapes[name][1]}" for name in wrong[:_SHOWN]
    ]
    if len(wrong) > _SHOWN:
        lines.append(f"and {len(wrong) - _SHOWN} more of other shapes")
    if len(names) > len(wrong):
        lines.append("not in the checkpoint")
    return "\n".join(lines)

"""What a checkpoint gave to a model: loaded, not fitting, missing, left over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fvcore.common.checkpoint import _IncompatibleKeys

# Batch norm counts its batches; FrozenBatchNorm2d does not, and nothing depends on it.
_UNIMPORTANT = ("num_batches_tracked",)


@dataclass(frozen=True)
class KeyReport:
    """Names of tensors, by what became of them when a checkpoint was loaded."""

    loaded: int
    not_fitting: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]

    @classmethod
    def from_incompatible(cls, expected: Iterable[str], keys: _IncompatibleKeys) -> KeyReport:
        """Sort fvcore's verdict on the `expected` tensors of the model."""
        wrong = {name for name, _, _ in keys.incorrect_shapes}
        missing = [
            name
            for name in keys.missing_keys
            if name not in wrong and not name.endswith(_UNIMPORTANT)
        ]
        absent = wrong | set(keys.missing_keys)
        return cls(
            loaded=sum(name not in absent and not name.endswith(_UNIMPORTANT) for name in expected),
            not_fitting=tuple(
                (name, tuple(theirs), tuple(ours)) for name, theirs, ours in keys.incorrect_shapes
            ),
            missing=tuple(missing),
            unused=tuple(name for name in keys.unexpected_keys if not name.endswith(_UNIMPORTANT)),
        )

    def text(self, path: str) -> str:
        """Return the report as lines for the log."""
        lines = [f"{path}: {self.loaded} tensors loaded."]
        if self.not_fitting:
            lines.append("Left at their start values, because their shapes do not fit:")
            lines += [
                f"  {name}: checkpoint {theirs}, model {ours}"
                for name, theirs, ours in self.not_fitting
            ]
        if self.missing:
            lines.append(
                f"Left at their start values, because the checkpoint has none: {_group(self.missing)}"
            )
        if self.unused:
            lines.append(f"In the checkpoint and not used: {_group(self.unused)}")
        return "\n".join(lines)


def _group(names: tuple[str, ...]) -> str:
    modules = dict.fromkeys(name.rpartition(".")[0] or name for name in names)
    shown = list(modules)[:12]
    more = f" and {len(modules) - 12} more" if len(modules) > 12 else ""
    return ", ".join(shown) + more

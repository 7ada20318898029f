"""From the command line to a trained and scored model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from persondet.engine.defaults import load_cfg, setup

if TYPE_CHECKING:
    from persondet.engine.trainer import Trainer

__all__ = ["Trainer", "load_cfg", "setup"]


def __getattr__(name: str) -> Any:
    # The trainer brings data loaders and evaluators along, which inference does not need.
    if name == "Trainer":
        from persondet.engine.trainer import Trainer

        return Trainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

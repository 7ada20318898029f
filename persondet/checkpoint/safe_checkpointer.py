"""Detectron2's checkpointer, with atomic saves, safe loads and a report of what was loaded."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from persondet.checkpoint.conventions import other_anchors
from persondet.checkpoint.finite import refuse_non_finite
from persondet.checkpoint.key_report import KeyReport, offered_shapes
from persondet.checkpoint.model_file import CARRIED, CarriedFacts, load_checkpoint, local_weights
from persondet.checkpoint.newest import TAG, newest_checkpoint
from persondet.checkpoint.plain import plain
from persondet.errors import CheckpointError
from persondet.files import atomic_path, write_text

logger = logging.getLogger(__name__)


class SafeDetectionCheckpointer(DetectionCheckpointer):
    """Save whole or not at all; load tensors only; say what fitted.

    A kill while fvcore's checkpointer writes leaves a truncated file and an empty
    `last_checkpoint`; here both appear under their names only when complete.

    Args:
        carried: what every saved file carries beside the weights (config, class names).
        others: as `DetectionCheckpointer`: objects with `state_dict()` and `load_state_dict()`.
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
        refuse_non_finite(content, path.name)
        try:
            with atomic_path(path) as temporary:
                torch.save(content, temporary)
        except RuntimeError as error:
            # What torch's writer makes of a full disk.
            if "inline_container" not in str(error) and "iostream" not in str(error):
                raise
            need = sum(value.nbytes for value in content["model"].values())
            raise CheckpointError(
                f"{path}: cannot be written; {shutil.disk_usage(path.parent).free / 1e9:.2f} GB are "
                f"free there, and the weights alone need {need / 1e9:.2f}: make room, or lower "
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
                f"{self.resumed_from}: holds weights alone, so nothing can be resumed from it; give "
                "it to MODEL.WEIGHTS, and start without --resume in another OUTPUT_DIR."
            )
        try:
            return self.load(str(self.resumed_from))
        except ValueError as error:
            if "parameter group" not in str(error):
                raise
            raise CheckpointError(
                f"{self.resumed_from}: other parameters were trained when it was saved; resume with "
                "MODEL.BACKBONE.FREEZE_AT and MODEL.FREEZE.MODULES as the run began, or give it to "
                "MODEL.WEIGHTS, and start without --resume in another OUTPUT_DIR."
            ) from error

    def _load_file(self, filename: str) -> dict[str, Any]:
        checkpoint, self._opened = self._opened or load_checkpoint(filename), None
        query = self._parsed_url_during_load.query if self._parsed_url_during_load else ""
        if "matching_heuristics=True" in query:
            checkpoint["matching_heuristics"] = True
        self.facts = CarriedFacts.from_checkpoint(checkpoint)
        self._loading_from = filename
        self._compare_classes()
        self._compare_anchors()
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
        logger.warning(
            "%s %s: the layers that tell classes apart start from other classes.",
            self._loading_from,
            difference,
        )

    def _compare_anchors(self) -> None:
        difference = other_anchors(self.facts.config, str(self.carried.get("config", "")))
        if difference:
            logger.warning(
                "%s: its region proposals learnt other anchors (%s), and start from wrong ones.",
                self._loading_from,
                difference,
            )

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        # Where names are matched by heuristics, Detectron2 tells of each match and misfit itself.
        heuristics = logging.getLogger("detectron2.checkpoint.c2_model_loading")
        heuristics.addFilter(_silent)
        offered = offered_shapes(checkpoint)
        try:
            incompatible = super()._load_model(checkpoint)
        finally:
            heuristics.removeFilter(_silent)
        expected = {name: tuple(value.shape) for name, value in self.model.state_dict().items()}
        self.key_report = KeyReport.from_incompatible(expected, incompatible, offered)
        if not self.key_report.loaded:
            raise CheckpointError(
                f"{self._loading_from}: none of its tensors fits this model; check that "
                "MODEL.WEIGHTS and --config-file belong together."
            )
        logger.info(self.key_report.text(self._loading_from))
        other = [*sorted(self.key_report.not_loaded), *self.key_report.unused]
        if other and self._loading_from == str(self.resumed_from):
            raise CheckpointError(
                f"{self._loading_from}: is of another model ({other[0]} and {len(other) - 1} more "
                "differ); resume with the model the run began with, or give it to MODEL.WEIGHTS, and "
                "start without --resume in another OUTPUT_DIR."
            )
        # Reported above in one table; fvcore would log the same again, three times as long.
        return None


def _silent(record: logging.LogRecord) -> bool:
    return False

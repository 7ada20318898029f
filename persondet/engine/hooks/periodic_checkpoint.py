"""The checkpoints that a run can go on from: periodic ones, the final one, that of a Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.engine import HookBase

from persondet.checkpoint import SafeDetectionCheckpointer
from persondet.checkpoint.newest import remove_old_checkpoints
from persondet.engine.interruption import Interruption
from persondet.errors import InterruptedRun


class PeriodicCheckpointHook(HookBase):
    """Save `model_0000999.pth` every `period` iterations, and `model_final.pth` after the last.

    Its place is before the evaluation: one that fails or is killed costs no training. So a
    checkpoint does not hold what the hooks behind it do in its step, and a resume begins with them.
    Unlike Detectron2's it removes old files over a resume too, and runs on every rank, because each
    has random states of its own.

    Args:
        checkpointer: saves, on the main process.
        period: iterations between checkpoints.
        keep: how many of the newest periodic files stay; 0: all.
        run_state: returns what a resume needs beside weights, optimizer and hooks. It is called by
            all ranks together.
        interruption: when a rank got a signal, the step is saved and the run ends.
    """

    def __init__(
        self,
        checkpointer: SafeDetectionCheckpointer,
        *,
        period: int,
        keep: int,
        run_state: Callable[[], dict[str, Any]],
        interruption: Interruption,
    ) -> None:
        self._checkpointer = checkpointer
        self._period = period
        self._keep = keep
        self._run_state = run_state
        self._interruption = interruption

    def after_step(self) -> None:
        """Save where a period or the training ends, or where the run is interrupted.

        Raises: InterruptedRun: on all ranks, once the checkpoint is there.
        """
        iteration, steps = self.trainer.iter, self.trainer.max_iter
        last = iteration + 1 >= steps
        # After the last step the training is over anyway; `Trainer.train` looks once more.
        interrupted = not last and self._interruption.agreed()
        name = f"model_{iteration:07d}"
        if interrupted or (self._period > 0 and (iteration + 1) % self._period == 0):
            self.save(name)
            if self._checkpointer.save_to_disk:
                remove_old_checkpoints(
                    self._checkpointer.save_dir, keep=self._keep, iteration=iteration
                )
        if last:
            self.save("model_final")
        if interrupted:
            raise InterruptedRun(
                f"interrupted after step {iteration + 1} of {steps}, which is saved in "
                f"{self._checkpointer.save_dir}/{name}.pth"
            )

    def save(self, name: str, *, step_is_complete: bool = False) -> None:
        """Save `<name>.pth`; all ranks call this.

        Args:
            step_is_complete: the hooks behind this one have had their turn too.
        """
        state = self._run_state() | {"step_is_complete": step_is_complete}
        self._checkpointer.save(name, iteration=self.trainer.iter, run_state=state)

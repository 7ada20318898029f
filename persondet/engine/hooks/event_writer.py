"""The event log: a row per period, and one per evaluation."""

from __future__ import annotations

from collections.abc import Callable

from detectron2.engine.hooks import PeriodicWriter
from detectron2.utils.events import EventWriter


class EventWriterHook(PeriodicWriter):
    """`PeriodicWriter` that also writes at each evaluation.

    A writer keeps the latest value of each scalar only: of several evaluations between two rows
    all but the last would be lost.

    Args:
        build_writers: returns Detectron2's event writers; called when training starts, because
            they open their files at once.
        period: iterations between rows.
        evaluation_period: iterations between evaluations; 0: none.
    """

    def __init__(
        self, build_writers: Callable[[], list[EventWriter]], period: int, evaluation_period: int
    ) -> None:
        super().__init__([], period)
        self._build_writers = build_writers
        self._evaluation_period = evaluation_period

    def before_train(self) -> None:
        """Open the event log."""
        self._writers = self._build_writers()

    def after_step(self) -> None:
        """Write when a period ends, and once more when an evaluation ended off that beat."""
        step = self.trainer.iter + 1
        evaluated = self._evaluation_period > 0 and step % self._evaluation_period == 0
        if step % self._period == 0 or step == self.trainer.max_iter or evaluated:
            for writer in self._writers:
                writer.write()

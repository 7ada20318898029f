"""Stop when the validation split has nothing more to say."""

from __future__ import annotations

import logging
import math
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm

logger = logging.getLogger(__name__)


class StopTraining(Exception):
    """Ends the training loop between two steps; nothing has failed.

    `trainer.iter` is then the number of steps that are done, as at the end of a whole training.
    """


class EarlyStoppingHook(HookBase):
    """Stop after `patience` evaluations in a row without an improvement of `min_delta`.

    The scores are read on the main process, and every rank follows it. Its place is after the
    evaluation. It stops before the next step, so that all other hooks finish theirs.

    Args:
        metric: name of a scalar, e.g. `segm/AP`; with several validation sets that of the first.
        mode: `max` or `min`.
        patience: evaluations; 0: never stops.
        min_delta: what counts as an improvement over the best score, in points of the metric.
        period: iterations between evaluations.
        datasets: the validation datasets, for the prefix that Detectron2 adds when there are two.
    """

    def __init__(
        self,
        metric: str,
        *,
        mode: str = "max",
        patience: int,
        min_delta: float = 0.0,
        period: int,
        datasets: tuple[str, ...] = (),
    ) -> None:
        self._metric = metric
        self._names = (metric, *(f"{name}/{metric}" for name in datasets[:1]))
        self._sign = 1.0 if mode == "max" else -1.0
        self._patience = patience
        self._min_delta = min_delta
        self._period = period
        self.best_score: float | None = None
        self.best_iteration: int | None = None
        self.evaluations_without_improvement = 0

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return 0 < self._patience <= self.evaluations_without_improvement

    def before_step(self) -> None:
        """Stop when patience has run out, also when a run that was stopped is resumed.

        Raises: StopTraining: on all ranks alike.
        """
        if not self.exhausted:
            return
        logger.info(
            "%s did not improve by %g in %d evaluations (best %s): training stops after step %d "
            "of %d.",
            self._metric,
            self._min_delta,
            self.evaluations_without_improvement,
            "none"
            if self.best_score is None or self.best_iteration is None
            else f"{self.best_score:.3f} after {self.best_iteration + 1} steps",
            self.trainer.iter,
            self.trainer.max_iter,
        )
        raise StopTraining

    def after_step(self) -> None:
        """Look at the evaluation that just ended; the last one ends the training anyway."""
        step = self.trainer.iter + 1
        if self._period > 0 and step % self._period == 0 and step != self.trainer.max_iter:
            # Scores exist on the main process only: the others take over what it saw.
            self._see(comm.all_gather(self._latest_score())[0])

    def _latest_score(self) -> float:
        latest = self.trainer.storage.latest()
        for name in self._names:
            if name in latest and latest[name][1] >= self.trainer.iter:
                return float(latest[name][0])
        return math.nan

    def _see(self, score: float) -> None:
        gain = math.inf if self.best_score is None else self._sign * (score - self.best_score)
        if math.isfinite(score) and gain > 0 and gain >= self._min_delta:
            self.best_score, self.best_iteration = score, self.trainer.iter
            self.evaluations_without_improvement = 0
        else:
            self.evaluations_without_improvement += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the best score and how much patience is used up, for the checkpoint."""
        return {
            "metric": self._metric,
            "best_score": self.best_score,
            "best_iteration": self.best_iteration,
            "evaluations_without_improvement": self.evaluations_without_improvement,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; another metric starts anew."""
        if state_dict["metric"] != self._metric:
            logger.info("Early stopping follows %s now, and starts anew.", self._metric)
            return
        self.best_score = state_dict["best_score"]
        self.best_iteration = state_dict["best_iteration"]
        self.evaluations_without_improvement = state_dict["evaluations_without_improvement"]

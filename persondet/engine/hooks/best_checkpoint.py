"""The best model by its score on the validation split."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import HookBase

from persondet.checkpoint import SafeDetectionCheckpointer
from persondet.files import write_json

logger = logging.getLogger(__name__)


class BestCheckpointHook(HookBase):
    """Save `model_best.pth` and `model_best.json` whenever the metric improves, or is
    reached again: of two equal models the one that has seen more is kept.

    Unlike Detectron2's `BestCheckpointer` it remembers the best score over a resume, and leaves
    `last_checkpoint` alone, so that `--resume` goes on from the newest model.

    Args:
        checkpointer: saves the model.
        metric: name of a scalar, e.g. `segm/AP`; with several validation sets that of the first.
        mode: `max` or `min`.
        period: iterations between evaluations; the last iteration is always looked at.
        datasets: the validation datasets, for the prefix that Detectron2 adds when there are two.
    """

    def __init__(
        self,
        checkpointer: SafeDetectionCheckpointer,
        *,
        metric: str,
        mode: str = "max",
        period: int,
        datasets: tuple[str, ...] = (),
    ) -> None:
        self._checkpointer = checkpointer
        self._names = (metric, *(f"{name}/{metric}" for name in datasets[:1]))
        self._sign = 1.0 if mode == "max" else -1.0
        self._period = period
        self.best_score: float | None = None
        self.best_iteration: int | None = None

    def before_train(self) -> None:
        """Take up the best score of an earlier run that `--resume` continues."""
        record = Path(self._checkpointer.save_dir) / "model_best.json"
        resumed = self.trainer.start_iter > 0
        # The file beside the best model may know more than the checkpoint: the run had gone further
        # when it was stopped. It is going to come by the same scores again, and of two equal models
        # the later one stays.
        if resumed and record.is_file():
            facts = json.loads(record.read_text(encoding="utf-8"))
            if facts.get("metric") in self._names:
                self.best_score, self.best_iteration = facts["score"], facts["iteration"]

    def after_step(self) -> None:
        """Look at the evaluation that just ended; the last one is left to `after_train`."""
        step = self.trainer.iter + 1
        if self._period > 0 and step % self._period == 0 and step != self.trainer.max_iter:
            self._look(self.trainer.iter)

    def after_train(self) -> None:
        """Look at the evaluation at the end of training."""
        if self.trainer.iter >= self.trainer.max_iter:
            self._look(self.trainer.max_iter - 1)

    def _look(self, iteration: int) -> None:
        latest = self.trainer.storage.latest()
        for name in self._names:
            if name in latest and latest[name][1] >= iteration:
                break
        else:
            logger.warning(
                "The evaluation gave no %s: the best model is not updated.", self._names[0]
            )
            return
        score = float(latest[name][0])
        if not math.isfinite(score):
            return
        if self.best_score is not None and self._sign * (score - self.best_score) < 0:
            return
        self.best_score, self.best_iteration = score, iteration
        self._checkpointer.save_model("model_best", iteration=iteration)
        if self._checkpointer.save_to_disk:
            write_json(
                Path(self._checkpointer.save_dir) / "model_best.json",
                {"metric": name, "score": score, "iteration": iteration},
            )
        logger.info("Best %s so far: %.3f, after %d steps", name, score, iteration + 1)

    def state_dict(self) -> dict[str, Any]:
        """Return the best score and its iteration, for the checkpoint."""
        return {
            "metric": self._names[0],
            "best_score": self.best_score,
            "best_iteration": self.best_iteration,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; the score of another metric says nothing."""
        if state_dict.get("metric", self._names[0]) != self._names[0]:
            return
        self.best_score = state_dict["best_score"]
        self.best_iteration = state_dict["best_iteration"]


def best_metric(cfg: CfgNode) -> str:
    """Return the scalar that chooses the best model: `segm/AP` with masks, else `bbox/AP`."""
    if cfg.SOLVER.BEST_CHECKPOINT.METRIC != "auto":
        return cfg.SOLVER.BEST_CHECKPOINT.METRIC
    return "segm/AP" if cfg.MODEL.MASK_ON else "bbox/AP"

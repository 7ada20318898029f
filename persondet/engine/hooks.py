"""The hooks of a training, but for validation: checkpoints, early stopping, log, progress.

`persondet.engine.trainer.Trainer.build_hooks` sets their order, which matters.
"""

from __future__ import annotations

import datetime
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.engine.hooks import PeriodicWriter
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, EventWriter

from persondet.checkpoint import SafeDetectionCheckpointer
from persondet.checkpoint.checkpointer import remove_old_checkpoints
from persondet.engine.console import ConsoleHandler
from persondet.engine.resumption import Interruption
from persondet.errors import InterruptedRun
from persondet.files import write_json

logger = logging.getLogger(__name__)


def period_ends(period: int, step: int) -> bool:
    """Return whether a period ends with a step, counted from 1; a period of 0 never ends."""
    return period > 0 and step % period == 0


@dataclass(eq=False)
class PeriodHook(HookBase):
    """A hook that runs when a period ends, and once more when training came to its end.

    The last iteration is left to `after_train`, where Detectron2's `EvalHook` evaluates too.

    Args:
        period: iterations; 0: after the training alone.
    """

    period: int = field(kw_only=True)

    def at_period(self, iteration: int) -> None:
        """Do the hook's work after an iteration, counted from 0."""

    def after_step(self) -> None:
        """Run when a period ends; the last iteration is left to `after_train`."""
        step = self.trainer.iter + 1
        if period_ends(self.period, step) and step != self.trainer.max_iter:
            self.at_period(step - 1)

    def after_train(self) -> None:
        """Run once more when training came to its end."""
        if self.trainer.iter >= self.trainer.max_iter:
            self.at_period(self.trainer.max_iter - 1)


class ScoreHook(PeriodHook):
    """A hook that follows a score on the validation split; its place is after the evaluation.

    Args:
        metric: name of a scalar, e.g. `segm/AP`; with several validation sets that of the first.
        mode: `max` or `min`.
        period: iterations between evaluations.
        datasets: the validation datasets, for the prefix that Detectron2 adds when there are two.
    """

    _kept: tuple[str, ...] = ("best_score", "best_iteration")

    def __init__(
        self, metric: str, *, mode: str = "max", period: int, datasets: tuple[str, ...] = ()
    ) -> None:
        super().__init__(period=period)
        self._metric = metric
        self._names = (metric, *(f"{name}/{metric}" for name in datasets[:1]))
        self._sign = 1.0 if mode == "max" else -1.0
        self.best_score: float | None = None
        self.best_iteration: int | None = None

    def latest_score(self, iteration: int) -> tuple[str, float]:
        """Return name and score of the evaluation after an iteration; NaN when it gave none."""
        latest = self.trainer.storage.latest()
        for name in self._names:
            if name in latest and latest[name][1] >= iteration:
                return name, float(latest[name][0])
        return self._metric, math.nan

    def gain(self, score: float) -> float:
        """Return by how much a score is better than the best; infinity for the first."""
        return math.inf if self.best_score is None else self._sign * (score - self.best_score)

    def state_dict(self) -> dict[str, Any]:
        """Return the best score and what else the hook keeps, for the checkpoint."""
        return {"metric": self._metric, **{name: getattr(self, name) for name in self._kept}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; the score of another metric says nothing."""
        if state_dict.get("metric", self._metric) != self._metric:
            logger.info("%s follows %s now, and starts anew.", type(self).__name__, self._metric)
            return
        for name in self._kept:
            setattr(self, name, state_dict[name])


class BestCheckpointHook(ScoreHook):
    """Save `model_best.pth` and `model_best.json` when the metric improves or is reached again.

    Of two equal models the later one stays, because it has seen more. Unlike Detectron2's
    `BestCheckpointer` it remembers the best score over a resume, and leaves `last_checkpoint`
    alone, so that `--resume` goes on from the newest model.

    Args:
        checkpointer: saves the model; the hook belongs on the main process.
        metric, others: see `ScoreHook`.

    Example:
        >>> checkpointer = SafeDetectionCheckpointer(model, "output/hooks")
        >>> hook = BestCheckpointHook(checkpointer, metric="segm/AP", period=500)
        >>> trainer.register_hooks([hook])
    """

    def __init__(
        self, checkpointer: SafeDetectionCheckpointer, *, metric: str, **others: Any
    ) -> None:
        super().__init__(metric, **others)
        self._checkpointer = checkpointer

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

    def at_period(self, iteration: int) -> None:
        """Look at the evaluation that just ended."""
        name, score = self.latest_score(iteration)
        if not math.isfinite(score):
            logger.warning("The evaluation gave no %s: the best model stays.", name)
            return
        if self.gain(score) < 0:
            return
        self.best_score, self.best_iteration = score, iteration
        self._checkpointer.save_model("model_best", iteration=iteration)
        facts = {"metric": name, "score": score, "iteration": iteration}
        write_json(Path(self._checkpointer.save_dir) / "model_best.json", facts)
        logger.info("Best %s so far: %.3f, after %d steps", name, score, iteration + 1)


def best_metric(cfg: CfgNode) -> str:
    """Return the scalar that chooses the best model: `segm/AP` with masks, else `bbox/AP`."""
    if cfg.SOLVER.BEST_CHECKPOINT.METRIC != "auto":
        return cfg.SOLVER.BEST_CHECKPOINT.METRIC
    return "segm/AP" if cfg.MODEL.MASK_ON else "bbox/AP"


class StopTraining(Exception):
    """Ends the training loop between two steps; nothing has failed.

    `trainer.iter` is then the number of steps that are done, as at the end of a whole training.
    """


class EarlyStoppingHook(ScoreHook):
    """Stop after `patience` evaluations in a row without an improvement of `min_delta`.

    The main process reads the scores, and every rank follows it. The hook stops before the next
    step, so that all other hooks finish theirs.

    Args:
        metric, others: see `ScoreHook`.
        patience: evaluations; 0: never stops.
        min_delta: what counts as an improvement over the best score, in points of the metric.

    Example:
        >>> hook = EarlyStoppingHook("segm/AP", patience=5, min_delta=0.1, period=500)
        >>> trainer.register_hooks([hook])
        >>> hook.evaluations_without_improvement
        0
    """

    _kept = (*ScoreHook._kept, "evaluations_without_improvement")

    def __init__(
        self, metric: str, *, patience: int, min_delta: float = 0.0, **others: Any
    ) -> None:
        super().__init__(metric, **others)
        self._patience = patience
        self._min_delta = min_delta
        self.evaluations_without_improvement = 0

    def before_step(self) -> None:
        """Stop when patience has run out, also when a run that was stopped is resumed.

        Raises: StopTraining: on all ranks alike.
        """
        if not 0 < self._patience <= self.evaluations_without_improvement:
            return
        logger.info(
            "%s did not improve by %g in %d evaluations (best %s): training stops after step %d "
            "of %d.",
            *(self._metric, self._min_delta, self.evaluations_without_improvement),
            *(self.best_score, self.trainer.iter, self.trainer.max_iter),
        )
        raise StopTraining

    def at_period(self, iteration: int) -> None:
        """Look at the evaluation that just ended; the last one ends the training anyway."""
        if iteration + 1 >= self.trainer.max_iter:
            return
        # Scores exist on the main process only: the others take over what it saw.
        score = comm.all_gather(self.latest_score(iteration)[1])[0]
        gain = self.gain(score)
        if math.isfinite(score) and gain > 0 and gain >= self._min_delta:
            self.best_score, self.best_iteration = score, iteration
            self.evaluations_without_improvement = 0
        else:
            self.evaluations_without_improvement += 1


@dataclass(eq=False)
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

    checkpointer: SafeDetectionCheckpointer
    period: int
    keep: int
    run_state: Callable[[], dict[str, Any]]
    interruption: Interruption

    def after_step(self) -> None:
        """Save where a period or the training ends, or where the run is interrupted.

        Raises: InterruptedRun: on all ranks, once the checkpoint is there.
        """
        iteration, steps = self.trainer.iter, self.trainer.max_iter
        last = iteration + 1 >= steps
        # After the last step the training is over anyway; `Trainer.train` looks once more.
        interrupted = not last and self.interruption.agreed()
        name = f"model_{iteration:07d}"
        if interrupted or period_ends(self.period, iteration + 1):
            self.save(name)
            if self.checkpointer.save_to_disk:
                remove_old_checkpoints(
                    self.checkpointer.save_dir, keep=self.keep, iteration=iteration
                )
        if last:
            self.save("model_final")
        if interrupted:
            raise InterruptedRun(
                f"interrupted after step {iteration + 1} of {steps}, which is saved in "
                f"{self.checkpointer.save_dir}/{name}.pth"
            )

    def save(self, name: str, *, step_is_complete: bool = False) -> None:
        """Save `<name>.pth`; all ranks call this.

        Args:
            step_is_complete: the hooks behind this one have had their turn too.
        """
        state = self.run_state() | {"step_is_complete": step_is_complete}
        self.checkpointer.save(name, iteration=self.trainer.iter, run_state=state)


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
        evaluated = period_ends(self._evaluation_period, step)
        if evaluated or period_ends(self._period, step) or step == self.trainer.max_iter:
            for writer in self._writers:
                writer.write()


SECONDS_BETWEEN_UPDATES = 0.2
# Losses are medians and speeds means of the newest steps; the time left is reckoned with the median
# of more, because the first steps of a process are slow ones.
WINDOW, ETA_WINDOW = 20, 200


@dataclass(eq=False)
class ProgressHook(HookBase):
    """Log a row per period, and keep the live line of a terminal up to date in between.

    Its place is before the writers, which get `eta_seconds` from it.

    Args:
        period: iterations between rows.
        batch_size: images per step, over all ranks.
        epoch_size: images per epoch.
        console: shows the live line; where it is verbose a row names every loss.
    """

    period: int
    batch_size: int
    epoch_size: int
    console: ConsoleHandler | None
    _last_shown: float = 0.0

    def after_step(self) -> None:
        """Log a row when a period ends; else refresh the live line, a few times a second."""
        now = time.perf_counter()
        step = self.trainer.iter + 1
        if period_ends(self.period, step) or step == self.trainer.max_iter:
            if "time" in self.trainer.storage.histories():
                left = self._seconds_left(step)
                self.trainer.storage.put_scalar("eta_seconds", left, smoothing_hint=False)
            verbose = self.console is not None and self.console.verbosity > 0
            logger.info(self._line(verbose=verbose), extra={"live": True})
            self._last_shown = now
        elif self.console and now - self._last_shown >= SECONDS_BETWEEN_UPDATES:
            self.console.show(self._line())
            self._last_shown = now

    def after_train(self) -> None:
        """Leave the live line, however the training ended."""
        if self.console:
            self.console.finish()

    def _line(self, *, verbose: bool = False) -> str:
        """Return how far and how fast, the most important first."""
        storage, step, steps = self.trainer.storage, self.trainer.iter + 1, self.trainer.max_iter
        per_epoch = self.epoch_size / self.batch_size
        digits = 1 if per_epoch < 200 else 2
        fields = [
            f"step {step:>{len(str(steps))}}/{steps}",
            f"epoch {step / per_epoch:.{digits}f}/{steps / per_epoch:.{digits}f}",
        ]
        seconds, waited = (_mean(storage, name) for name in ("time", "data_time"))
        if seconds:
            fields.append(f"ETA {datetime.timedelta(seconds=round(self._seconds_left(step)))}")
        losses = _losses(storage)
        if "total_loss" in losses:
            fields.append(f"loss {losses.pop('total_loss'):.3f}")
        if verbose:
            fields += [f"{name} {loss:.4f}" for name, loss in losses.items()]
        if "lr" in storage.latest():
            fields.append(f"rate {storage.latest()['lr'][0]:.2g}")
        if seconds:
            fields.append(f"{self.batch_size / seconds:.1f} images/s")
            fields.append(f"data wait {min(waited / seconds, 1.0):.0%}")
        if torch.cuda.is_available() and (memory := torch.cuda.max_memory_allocated()):
            fields.append(f"{memory / 2**30:.1f} GB")
        return "  ".join(fields)

    def _seconds_left(self, step: int) -> float:
        seconds = self.trainer.storage.history("time").median(ETA_WINDOW)
        return (self.trainer.max_iter - step) * seconds


def _losses(storage: EventStorage) -> dict[str, float]:
    names = [n for n in storage.histories() if "loss" in n and not n.startswith("val/")]
    return {
        name: storage.history(name).median(storage.count_samples(name, WINDOW)) for name in names
    }


def _mean(storage: EventStorage, name: str) -> float:
    if name not in storage.histories():
        return 0.0
    return float(storage.history(name).avg(storage.count_samples(name, WINDOW)))

"""The one line that says how far the training is and how fast it goes."""

from __future__ import annotations

import datetime
import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from detectron2.engine import HookBase
from detectron2.utils.events import EventStorage

from persondet.engine.console import ConsoleHandler, current_console

try:
    import resource
except ModuleNotFoundError:  # Windows
    resource = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_UPDATES = 0.2
# Losses are medians and speeds means of the newest steps; the time left is reckoned with the median
# of more, because the first steps of a process are slow ones.
WINDOW, ETA_WINDOW = 20, 200


class ProgressHook(HookBase):
    """Log a row per period, and keep the live line of a terminal up to date in between.

    Its place is after the evaluation and before the writers, which get `eta_seconds` from it.

    Args:
        period: iterations between rows.
        batch_size: images per step, over all ranks.
        epoch_size: images per epoch.
        evaluation_period: iterations between evaluations; 0: none.
        verbose: name every loss, not their sum alone.
    """

    def __init__(
        self,
        period: int,
        *,
        batch_size: int,
        epoch_size: int,
        evaluation_period: int = 0,
        verbose: bool = False,
    ) -> None:
        self._period = period
        self._batch_size = batch_size
        self._epoch_size = epoch_size
        self._evaluation_period = evaluation_period
        self._verbose = verbose
        self._console: ConsoleHandler | None = None
        self._last_call = self._last_shown = 0.0
        self._evaluation_seconds: list[float] = []

    def before_train(self) -> None:
        """Find the terminal, and start the clock."""
        self._console = current_console()
        self._last_call = time.perf_counter()

    def after_step(self) -> None:
        """Log a row when a period ends; else refresh the live line, a few times a second."""
        now = time.perf_counter()
        step = self.trainer.iter + 1
        if self._ends_an_evaluation(step):
            seconds = _mean(self.trainer.storage, "time", 1) or 0.0
            self._evaluation_seconds.append(max(now - self._last_call - seconds, 0.0))
        self._last_call = now
        if step % self._period == 0 or step == self.trainer.max_iter:
            progress = self._progress()
            if progress.eta_seconds is not None:
                self.trainer.storage.put_scalar(
                    "eta_seconds", progress.eta_seconds, smoothing_hint=False
                )
            logger.info(progress.text(verbose=self._verbose), extra={"live": True})
            self._last_shown = now
        elif self._console and now - self._last_shown >= SECONDS_BETWEEN_UPDATES:
            self._console.show(self._progress().text())
            self._last_shown = now

    def after_train(self) -> None:
        """Leave the live line, however the training ended."""
        if self._console:
            self._console.finish()

    def _ends_an_evaluation(self, step: int) -> bool:
        return self._evaluation_period > 0 and step % self._evaluation_period == 0

    def _progress(self) -> Progress:
        storage, step = self.trainer.storage, self.trainer.iter + 1
        seconds = _mean(storage, "time", WINDOW)
        waited = _mean(storage, "data_time", WINDOW)
        return Progress(
            step=step,
            steps=self.trainer.max_iter,
            steps_per_epoch=self._epoch_size / self._batch_size,
            eta_seconds=None if seconds is None else self._seconds_left(step),
            losses=_losses(storage),
            rate=storage.latest()["lr"][0] if "lr" in storage.latest() else None,
            images_per_second=self._batch_size / seconds if seconds else None,
            waiting=min(waited / seconds, 1.0) if seconds and waited is not None else None,
            memory=_memory(),
        )

    def _seconds_left(self, step: int) -> float:
        """Return the time of the steps that are left, and of the evaluations, once one is known."""
        seconds = self.trainer.storage.history("time").median(ETA_WINDOW)
        left = (self.trainer.max_iter - step) * seconds
        if self._evaluation_seconds:
            last = self.trainer.max_iter
            between = (last - 1) // self._evaluation_period - step // self._evaluation_period
            evaluations = between + 1 if step < last else 0
            left += evaluations * sum(self._evaluation_seconds) / len(self._evaluation_seconds)
        return left


@dataclass(frozen=True)
class Progress:
    """How far and how fast: what the line says, most important first.

    Attributes:
        step: steps done.
        steps: steps of the whole run.
        steps_per_epoch: so many steps see as many images as there are.
        eta_seconds: time left; None: not known yet.
        losses: smoothed losses by name, `total_loss` among them.
        rate: learning rate.
        images_per_second: of all ranks together.
        waiting: share of the time spent waiting for data, 0 to 1.
        memory: bytes; on CUDA the most that was allocated, else what the process holds; 0: unknown.
    """

    step: int
    steps: int
    steps_per_epoch: float
    eta_seconds: float | None
    losses: dict[str, float]
    rate: float | None
    images_per_second: float | None
    waiting: float | None
    memory: int

    def text(self, *, verbose: bool = False) -> str:
        """Return the line; `verbose` adds a column per loss."""
        digits = 1 if self.steps_per_epoch < 200 else 2
        epochs = self.steps / self.steps_per_epoch
        fields = [
            f"step {self.step:>{len(str(self.steps))}}/{self.steps}",
            f"epoch {self.step / self.steps_per_epoch:.{digits}f}/{epochs:.{digits}f}",
        ]
        if self.eta_seconds is not None:
            fields.append(f"ETA {datetime.timedelta(seconds=round(self.eta_seconds))}")
        if "total_loss" in self.losses:
            fields.append(f"loss {self.losses['total_loss']:.3f}")
        if verbose:
            fields += [f"{k} {v:.4f}" for k, v in self.losses.items() if k != "total_loss"]
        if self.rate is not None:
            fields.append(f"rate {self.rate:.2g}")
        if self.images_per_second is not None:
            fields.append(f"{self.images_per_second:.1f} images/s")
        if self.waiting is not None:
            fields.append(f"data wait {self.waiting:.0%}")
        if self.memory:
            fields.append(f"{self.memory / 2**30:.1f} GB")
        return "  ".join(fields)


def _losses(storage: EventStorage) -> dict[str, float]:
    names = [n for n in storage.histories() if "loss" in n and not n.startswith("val/")]
    return {
        name: storage.history(name).median(storage.count_samples(name, WINDOW)) for name in names
    }


def _mean(storage: EventStorage, name: str, window: int) -> float | None:
    if name not in storage.histories():
        return None
    return float(storage.history(name).avg(storage.count_samples(name, window)))


def _memory() -> int:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    if resource is None:
        return 0
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * resource.getpagesize()
    except OSError:  # no Linux: the most that was held
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

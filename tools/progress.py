"""How far a loop is: a bar with ETA on a terminal, a line every few seconds in a pipe."""

from __future__ import annotations

import sys
import time
from types import TracebackType

SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Shows the progress of one loop on standard error, so that standard output stays clean.

    Call it with the number done and the number of all (None: not known).
    """

    def __init__(self, name: str, unit: str, *, size: int = 1) -> None:
        """Name the loop, e.g. a file, and what it shows, e.g. "frames"; it counts `size` of one."""
        self.name, self.unit, self.size = name, unit, size
        self._on_terminal = sys.stderr.isatty()
        self._started = self._said = time.monotonic()
        self._bar = None

    def __enter__(self) -> Progress:
        if self._on_terminal:
            from tqdm import tqdm

            self._bar = tqdm(desc=self.name, unit=f" {self.unit}", dynamic_ncols=True, leave=False)
        return self

    def __call__(self, done: int, total: int | None) -> None:
        """Show that `done` of `total` are done."""
        done, total = done // self.size, None if total is None else total // self.size
        if self._bar is not None:
            self._bar.total = total
            self._bar.update(done - self._bar.n)
            return
        now = time.monotonic()
        if now - self._said < SECONDS_BETWEEN_LINES:
            return
        self._said = now
        print(f"{self.name}: {self.describe(done, total, now - self._started)}", file=sys.stderr)

    def describe(self, done: int, total: int | None, seconds: float) -> str:
        """Return e.g. "120 of 260 frames, 12.1 per second, 11 s left"."""
        rate = done / max(seconds, 1e-9)
        if total is None or total < done:
            return f"{done} {self.unit}, {rate:.1f} per second"
        left = (total - done) / max(rate, 1e-9)
        return f"{done} of {total} {self.unit}, {rate:.1f} per second, {left:.0f} s left"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

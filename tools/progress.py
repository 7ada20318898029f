"""How far a loop is: a bar with ETA on a terminal, a line every few seconds in a pipe."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Shows the progress of one loop on standard error, so that standard output stays clean.

    Call it with the number done and the number of all (None: not known).
    """

    def __init__(self, name: str, unit: str, *, size: int = 1) -> None:
        """Name the loop, e.g. a file, and what it shows, e.g. "frames"; it counts `size` of one."""
        self._name, self._unit, self._size = name, f" {unit}", size
        self._started = self._said = time.monotonic()
        self._bar: tqdm | None = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            self._bar = tqdm(desc=self._name, unit=self._unit, dynamic_ncols=True, leave=False)
        return self

    def __call__(self, done: int, total: int | None, *, note: str = "") -> None:
        """Show that `done` of `total` are done, and behind that a note."""
        done, total = done // self._size, None if total is None else total // self._size
        now = time.monotonic()
        if self._bar is not None:
            self._bar.total = total
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(done - self._bar.n)
        elif now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            elapsed = now - self._started
            line = tqdm.format_meter(
                done, total, elapsed, 0, prefix=self._name, unit=self._unit, postfix=note
            )
            print(line, file=sys.stderr)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

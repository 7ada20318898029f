"""What a run says: on a terminal one live line with the messages above it, in a pipe plain lines,
everything in `log.txt`; and its numbers in `metrics.json` and TensorBoard's files.

A record may carry `extra={"live": True}` (how far the training is; on a terminal it is shown in
place) or `extra={"result": True}` (what the run was for; `--quiet` shows it too).
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import sys
from pathlib import Path
from typing import Any, TextIO

from detectron2.utils.events import EventWriter, TensorboardXWriter, get_event_storage
from tqdm import tqdm

from persondet.files import write_text

LOGGERS = ("persondet", "detectron2", "fvcore", "py.warnings")
_FILE_FORMAT = "[%(asctime)s] %(name)s %(levelname)s: %(message)s"
_TIME_FORMAT = "%m/%d %H:%M:%S"


class ConsoleHandler(logging.Handler):
    """Writes records as lines, and keeps one live line below them when `stream` is a terminal.

    Args:
        stream: usually standard output.
        verbosity: -1 warnings, errors and the result; 0 also what persondet says; 1 everything.
        prefix: stands before every line, e.g. `"rank 1: "`.
    """

    def __init__(self, stream: TextIO, verbosity: int = 0, *, prefix: str = "") -> None:
        super().__init__()
        self.stream = stream
        self.verbosity = verbosity
        self.on_terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._prefix = prefix
        self._bar: tqdm[Any] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record above the live line, or as the live line, or not at all."""
        try:
            if not self._is_wanted(record):
                return
            if getattr(record, "live", False) and self.on_terminal and self.verbosity < 1:
                self.show(record.getMessage())
                return
            with tqdm.external_write_mode(self.stream):
                self.stream.write(f"{self._prefix}{self.format(record)}\n")
                self.stream.flush()
        except Exception:
            self.handleError(record)

    def show(self, text: str) -> None:
        """Replace the live line; nothing happens without a terminal, or with `--quiet`."""
        if not self.on_terminal or self.verbosity < 0:
            return
        if self._bar is None:
            self._bar = tqdm(file=self.stream, bar_format="{desc}", position=0)
        # tqdm shortens no line without a bar, and a line that wraps could not be taken away.
        self._bar.set_description_str(text[: shutil.get_terminal_size().columns - 1])

    def finish(self) -> None:
        """Leave the live line where it is and go on below it."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def close(self) -> None:
        """Leave the live line where it is; nothing is written any more."""
        self.finish()
        super().close()

    def _is_wanted(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING or getattr(record, "result", False):
            return True
        ours = record.name.partition(".")[0] == "persondet" and record.levelno >= logging.INFO
        return self.verbosity > 0 or (self.verbosity == 0 and ours)


class _PlainFormatter(logging.Formatter):
    """The record in its format; what is wrong says so."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record).rstrip("\n")
        return text if record.levelno < logging.WARNING else f"{record.levelname}: {text}"


def start_logging(output_dir: str | Path, *, verbosity: int = 0, rank: int = 0) -> None:
    """Send the log to standard output and to `log.txt` in `output_dir`; again: to another folder.

    One process speaks for all: the others show their errors alone, with their rank, and write them
    into `log.txt.rank<N>`.

    Args:
        verbosity: -1, 0 or 1, see `ConsoleHandler`; `log.txt` gets everything at INFO always.
        rank: the number of this process.
    """
    stop_logging()
    console = ConsoleHandler(sys.stdout, verbosity, prefix=f"rank {rank}: " if rank else "")
    form = "%(asctime)s %(name)s: %(message)s" if verbosity > 0 else "%(message)s"
    console.setFormatter(_PlainFormatter(form, "%H:%M:%S"))
    console.setLevel(logging.ERROR if rank else logging.DEBUG)
    name = f"log.txt.rank{rank}" if rank else "log.txt"
    file = _LogFile(Path(output_dir) / name, encoding="utf-8", delay=bool(rank))
    file.setFormatter(logging.Formatter(_FILE_FORMAT, _TIME_FORMAT))
    file.setLevel(logging.ERROR if rank else logging.INFO)
    for log in map(logging.getLogger, LOGGERS):
        log.setLevel(logging.DEBUG if verbosity > 0 else logging.INFO)
        log.propagate = False
        log.addHandler(console)
        log.addHandler(file)
    # Otherwise they are written across the live line, and no file keeps them.
    logging.captureWarnings(True)


class _LogFile(logging.FileHandler):
    """`log.txt`, which every run of a folder goes on with."""


def stop_logging() -> None:
    """Take back what `start_logging` did."""
    for log in map(logging.getLogger, LOGGERS):
        for handler in log.handlers[:]:
            if isinstance(handler, ConsoleHandler | _LogFile):
                log.removeHandler(handler)
                handler.close()
    logging.captureWarnings(False)


def current_console() -> ConsoleHandler | None:
    """Return the console that `start_logging` made, None before it."""
    handlers = logging.getLogger("persondet").handlers
    return next((handler for handler in handlers if isinstance(handler, ConsoleHandler)), None)


# Losses are written as medians over so many iterations, as Detectron2 does.
WINDOW = 20
METRICS = "metrics.json"


def event_writers(folder: str | Path, *, start: int = 0) -> list[EventWriter]:
    """Return the writers of a run's event files.

    Args:
        folder: the run folder.
        start: rows of this iteration and later ones are removed: they come from a run that went
            further than the checkpoint from which this one goes on, and will be written again.
    """
    metrics = MetricsWriter(Path(folder) / METRICS, start=start)
    return [metrics, TensorBoardWriter(str(folder), start=start, last_row=metrics.last_row)]


class MetricsWriter(EventWriter):
    """Writes `metrics.json` as Detectron2's `JSONWriter` does: a JSON object per line.

    It goes on where the file ends: half a line and the rows from `start` on are removed, and what
    the other rows hold is not written twice. A number that is not finite is written as `null`,
    because `NaN` is no JSON. Each row is on disk when `write` returns.

    Attributes:
        last_row: the largest iteration that has been written; -1: none.
    """

    def __init__(self, path: Path, *, start: int = 0) -> None:
        """Open the file, and make it, when it is missing."""
        self.last_row = keep_rows_before(path, start)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - until close()

    def write(self) -> None:
        """Write what is newer than the last row, a row for each iteration."""
        rows: dict[int, dict[str, Any]] = {}
        newest = get_event_storage().latest_with_smoothing_hint(WINDOW)
        for name, (value, iteration) in newest.items():
            if iteration > self.last_row:
                row = rows.setdefault(iteration, {"iteration": iteration})
                row[name] = value if math.isfinite(value) else None
        for iteration in sorted(rows):
            self._file.write(json.dumps(rows[iteration], sort_keys=True, allow_nan=False) + "\n")
        self.last_row = max([self.last_row, *rows])
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoardWriter(TensorboardXWriter):
    """Detectron2's writer of TensorBoard events, but later events of an older run are hidden.

    What `write` was given is in the file when it returns, as in `metrics.json`.
    """

    def __init__(self, folder: str, *, start: int = 0, last_row: int = -1) -> None:
        """Write to `folder`; events from `start` on give way, those of `last_row` are there."""
        super().__init__(folder, window_size=WINDOW, **({"purge_step": start} if start else {}))
        self._last_write = last_row

    def write(self) -> None:
        """Write what is newer than the last row, and the images of the event storage."""
        super().write()
        self._writer.flush()


def keep_rows_before(path: Path, start: int) -> int:
    """Remove from a `metrics.json` the rows of iterations from `start` on, and half a last line.

    Lines that hold no row stay where they are. The file is replaced whole or not at all.

    Returns: the largest iteration that is left; -1 when there is none.
    """
    if path.is_file():
        text = path.read_text(encoding="utf-8", errors="replace")
        lines = text[: text.rfind("\n") + 1].splitlines(keepends=True)
        kept = "".join(line for line in lines if (n := _iteration(line)) is None or n < start)
        if kept != text:
            write_text(path, kept)
    return last_row(path)


def last_row(path: Path) -> int:
    """Return the largest iteration of a `metrics.json`; -1 when there is none."""
    if not path.is_file():
        return -1
    with path.open(encoding="utf-8", errors="replace") as lines:
        return max((n for n in map(_iteration, lines) if n is not None), default=-1)


def _iteration(line: str) -> int | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    number = row.get("iteration") if isinstance(row, dict) else None
    return number if isinstance(number, int) else None

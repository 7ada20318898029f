"""What a run says: one live line and the messages above it on a terminal, plain lines in a pipe,
everything in `log.txt`.

A record may carry `extra={"live": True}` (how far the training is; on a terminal it is shown in
place) or `extra={"result": True}` (what the run was for; `--quiet` shows it too).
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
from collections import deque
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from persondet.files import write_text

LOGGERS = ("persondet", "detectron2", "fvcore", "py.warnings")
_FILE_FORMAT = "[%(asctime)s] %(name)s %(levelname)s: %(message)s"
_TIME_FORMAT = "%m/%d %H:%M:%S"
# What Detectron2 says every few seconds of a long evaluation.
_INFERENCE = re.compile(r"Inference done (\d+/\d+)\..*ETA=(\S+)")
_INFERENCE_ENDED = "Total inference time"


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
        self._before_inference: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record above the live line, or as the live line, or not at all."""
        try:
            self._emit(record)
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
        self._before_inference = None
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def close(self) -> None:
        """Leave the live line where it is; nothing is written any more."""
        self.finish()
        super().close()

    def _emit(self, record: logging.LogRecord) -> None:
        if self.on_terminal and self.verbosity == 0 and self._tells_of_inference(record):
            return
        if not self._is_wanted(record):
            return
        if getattr(record, "live", False) and self.on_terminal and self.verbosity < 1:
            self.show(record.getMessage())
            return
        with tqdm.external_write_mode(self.stream):
            self.stream.write(f"{self._prefix}{self.format(record)}\n")
            self.stream.flush()

    def _tells_of_inference(self, record: logging.LogRecord) -> bool:
        """Show how far an evaluation is; when it ends, what was shown before it."""
        text = record.getMessage()
        if done := _INFERENCE.match(text):
            if self._before_inference is None:
                self._before_inference = self._bar.desc if self._bar else ""
            self.show(f"evaluating: image {done[1]}, {done[2]} left")
        elif text.startswith(_INFERENCE_ENDED) and self._before_inference is not None:
            self.show(self._before_inference)
            self._before_inference = None
        else:
            return False
        return True

    def _is_wanted(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING or getattr(record, "result", False):
            return True
        ours = record.name.partition(".")[0] == "persondet" and record.levelno >= logging.INFO
        return self.verbosity > 0 or (self.verbosity == 0 and ours)


class _PlainFormatter(logging.Formatter):
    """The message alone; what is wrong says so."""

    def __init__(self, *, names: bool) -> None:
        super().__init__(
            "%(asctime)s %(name)s: %(message)s" if names else "%(message)s", "%H:%M:%S"
        )

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record).rstrip("\n")
        return text if record.levelno < logging.WARNING else f"{record.levelname}: {text}"


def start_logging(output_dir: str | Path, *, verbosity: int = 0, rank: int = 0) -> None:
    """Send the log to standard output and to `log.txt` in `output_dir`; again: to another folder.

    One process speaks for all: of the others the errors alone are shown, with their rank, and
    `log.txt.rank<N>` is written when they fail.

    Args:
        verbosity: -1, 0 or 1, see `ConsoleHandler`; `log.txt` gets everything at INFO always.
        rank: the number of this process.
    """
    stop_logging()
    console = ConsoleHandler(sys.stdout, verbosity, prefix=f"rank {rank}: " if rank else "")
    console.setFormatter(_PlainFormatter(names=verbosity > 0))
    console.setLevel(logging.ERROR if rank else logging.DEBUG)
    file: logging.Handler
    if rank:
        file = RankLog(Path(output_dir) / f"log.txt.rank{rank}")
    else:
        file = _LogFile(Path(output_dir) / "log.txt", encoding="utf-8")
    file.setFormatter(logging.Formatter(_FILE_FORMAT, _TIME_FORMAT))
    file.setLevel(logging.INFO)
    for name in LOGGERS:
        log = logging.getLogger(name)
        log.setLevel(logging.DEBUG if verbosity > 0 else logging.INFO)
        log.propagate = False
        log.addHandler(console)
        log.addHandler(file)
    # Otherwise they are written across the live line, and no file keeps them.
    logging.captureWarnings(True)


class _LogFile(logging.FileHandler):
    """`log.txt`, which every run of a folder goes on with."""


class RankLog(logging.Handler):
    """Keeps the newest lines of a further rank, which `write` puts in `path` when the rank fails.

    Rank 0 writes `log.txt`; the further ranks log the same, which nobody reads until one fails.
    """

    def __init__(self, path: str | Path, *, lines: int = 2000) -> None:
        super().__init__()
        self.path = Path(path)
        self._lines: deque[str] = deque(maxlen=lines)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self._lines.append(self.format(record))

    def write(self, last: str) -> None:
        """Write the kept lines, and `last` below them."""
        write_text(self.path, "\n".join([*self._lines, last]) + "\n")


def write_rank_log(last: str) -> None:
    """Write the log of this process with `last` below it, where it keeps one and the folder exists.

    Args:
        last: such as a traceback.
    """
    for handler in logging.getLogger("persondet").handlers:
        if isinstance(handler, RankLog) and handler.path.parent.is_dir():
            handler.write(last)


def stop_logging() -> None:
    """Take back what `start_logging` did."""
    for name in LOGGERS:
        log = logging.getLogger(name)
        for handler in log.handlers[:]:
            if isinstance(handler, ConsoleHandler | _LogFile | RankLog):
                log.removeHandler(handler)
                handler.close()
    logging.captureWarnings(False)


def current_console() -> ConsoleHandler | None:
    """Return the console that `start_logging` made, None before it."""
    handlers = logging.getLogger("persondet").handlers
    return next((handler for handler in handlers if isinstance(handler, ConsoleHandler)), None)

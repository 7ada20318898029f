"""The log of the further ranks: kept in memory, and written only when its rank fails."""

from __future__ import annotations

import logging
from collections import deque
from pathlib import Path

from persondet.files import write_text


class RankLog(logging.Handler):
    """Keeps the newest lines of a rank for `log.txt.rank<N>` in the run folder.

    Rank 0 writes `log.txt`; the further ranks say the same, which nobody reads until one fails.

    Args:
        path: the file that `write` makes.
        lines: how many lines are kept.
    """

    def __init__(self, path: str | Path, *, lines: int = 2000) -> None:
        super().__init__(logging.DEBUG)
        self.path = Path(path)
        self._lines: deque[str] = deque(maxlen=lines)
        self.setFormatter(
            logging.Formatter("[%(asctime)s] %(name)s %(levelname)s: %(message)s", "%m/%d %H:%M:%S")
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self._lines.append(self.format(record))

    def write(self, last: str = "") -> None:
        """Write the kept lines, and `last` below them."""
        write_text(self.path, "\n".join([*self._lines, last]) + "\n")


def write_rank_log(last: str = "") -> None:
    """Write the log of this process, when it keeps one and its folder is there.

    Args:
        last: what goes below the lines, such as a traceback.
    """
    for handler in logging.getLogger("persondet").handlers:
        if isinstance(handler, RankLog) and handler.path.parent.is_dir():
            handler.write(last)

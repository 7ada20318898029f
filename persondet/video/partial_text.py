"""Text that grows line by line while a clip is annotated, and is kept when the run is killed."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType
from typing import IO

from persondet.errors import MediaError, PartialMediaError
from persondet.files import make_folder, refuse_existing

_FULL = {errno.ENOSPC, errno.EDQUOT}


def partial_path(path: str | Path) -> Path:
    """Return where a file lies while it is written: `walk.partial.jsonl` for `walk.jsonl`."""
    path = Path(path)
    return path.with_name(f"{path.stem}.partial{path.suffix}")


class PartialText:
    """A text file (UTF-8) that has each line on the disk's side as soon as it is written.

    The lines go to `partial_path`, which takes its final name when the `with` block succeeds. When
    it fails, or the process is killed, the partial file stays with the lines that it has; one
    without anything in it but a header is removed.

    Args:
        path: the file to be.
        what: what it holds, for errors.
        overwrite: replace what an earlier run left at `path`, or as its partial file.

    Attributes:
        lines: how many lines were written after the header.

    Raises: OutputExistsError: on entering, when there is something and `overwrite` is False, or
        the folder cannot be made.
        MediaError: on entering, from `write` and at the end, when the disk refuses; PartialMediaError
        when lines are kept.
    """

    def __init__(self, path: str | Path, what: str, *, overwrite: bool = False) -> None:
        self.path, self.what, self.overwrite = Path(path), what, overwrite
        self.partial = partial_path(path)
        self.lines = 0
        self._file: IO[str] | None = None

    def __enter__(self) -> PartialText:
        make_folder(self.path.parent)
        for path in (self.path, self.partial):
            refuse_existing(path, overwrite=self.overwrite)
        # A file name that is no UTF-8 has surrogates, for which JSON has the same escape.
        try:
            self._file = open(self.partial, "w", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise self._refused(error) from error
        return self

    def write(self, text: str, *, header: bool = False) -> None:
        """Append a line, or several; a process that is killed afterwards does not lose them.

        Raises: MediaError: when the disk refuses.
        """
        assert self._file is not None
        try:
            self._file.write(text)
            self._file.flush()
        except OSError as error:
            raise self._refused(error) from error
        self.lines += not header

    def _refused(self, error: OSError) -> MediaError:
        """Return the error that says why, what is kept, and the mend."""
        full = error.errno in _FULL
        kept = "what was written before stays there; " if self.lines else ""
        mend = "free some space or choose another --output" if full else "choose another --output"
        kind = PartialMediaError if self.lines else MediaError
        return kind(
            f"{self.partial}: the {self.what} cannot be written ({error.strerror or error}); "
            f"{kept}{mend}."
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._file is not None
        try:
            with self._file as file:
                file.flush()
                if kind is None:
                    os.fsync(file.fileno())
            if kind is None:
                os.replace(self.partial, self.path)
        except OSError as failure:
            if kind is None:
                raise self._refused(failure) from failure
        if kind is not None and not self.lines:
            self.partial.unlink(missing_ok=True)

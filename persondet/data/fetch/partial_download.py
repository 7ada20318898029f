"""The unfinished download beside an output: continued by the next try, never a dataset."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from pathlib import Path
from types import TracebackType

from persondet.data.fetch.archive import writing
from persondet.errors import OutputExistsError
from persondet.files import make_folder, write_json


class PartialDownload:
    """A hidden folder `.<name>.download` beside `output`, held by one process at a time.

    Use as a context: on leaving it the folder is removed unless it holds bytes that a next try
    can continue.

    Attributes:
        archive: the file that is being filled.
        validator: the ETag or date by which the server tells that its file is the same, or "".
        total: bytes of the whole file, or None when the server did not say.
    """

    def __init__(self, output: str | Path, identity: str) -> None:
        """Name the folder.

        Args:
            output: the dataset that the download is for.
            identity: what is downloaded; another identity's bytes are thrown away.
        """
        output = Path(output)
        self._output = output
        self._folder = output.parent / f".{output.name}.download"
        self._state = self._folder / "state.json"
        self._identity = hashlib.sha256(identity.encode()).hexdigest()
        self.archive = self._folder / "export.zip"
        self.validator = ""
        self.total: int | None = None

    def __enter__(self) -> PartialDownload:
        """Take the folder, and see what is in it.

        Raises: OutputExistsError: when another process holds it, or it cannot be written.
        """
        make_folder(self._folder)
        with writing():
            self._lock = os.open(self._folder, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise OutputExistsError(
                f"{self._output} is being downloaded by another command; wait for its end."
            ) from None
        try:
            self._load()
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the folder; it stays only with bytes that can be continued."""
        if not (self.size and self.validator):
            self.remove()
        os.close(self._lock)

    @property
    def size(self) -> int:
        """Bytes that are there."""
        try:
            return self.archive.lstat().st_size
        except FileNotFoundError:
            return 0

    def restart(self, validator: str, total: int | None) -> None:
        """Begin with an empty file, which `validator` belongs to."""
        # In this order no moment has the bytes of one file and the validator of another.
        self._state.unlink(missing_ok=True)
        with writing(), open(self.archive, "wb"):
            pass
        self.validator, self.total = validator, total
        with writing():
            write_json(
                self._state,
                {"identity": self._identity, "validator": validator, "total": total},
            )

    def cut_to(self, size: int) -> None:
        """Keep the first `size` bytes."""
        with writing():
            os.truncate(self.archive, size)

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        self.validator, self.total = "", None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _load(self) -> None:
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            same = state["identity"] == self._identity and not self.archive.is_symlink()
            validator, total = str(state["validator"]), state["total"]
        except (OSError, ValueError, KeyError, TypeError):
            same = False
        if same and validator and self.size and (total is None or type(total) is int):
            self.validator, self.total = validator, total
            return
        with writing():
            for path in self._folder.iterdir():
                path.unlink()

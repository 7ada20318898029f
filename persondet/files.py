"""Files on disk: atomic writes, digests, and paths that cannot leave their folder.

`PartialText` keeps its lines when a process is killed; `describe_foreign_file` tells from a file's
own bytes what it is, for errors that help.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

from persondet.errors import DatasetError, MediaError, OutputExistsError, PartialMediaError

try:
    import fcntl
except ModuleNotFoundError:  # Windows: what a killed process leaves is not removed there
    fcntl = None  # type: ignore[assignment]


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` when the block succeeds.

    The temporary name keeps the suffix, because writers choose a format by it. When the block
    raises, the temporary file is removed and whatever stood at `path` stays as it was.
    """
    path = Path(path)
    make_folder(path.parent)
    with _writing(path):
        stem = path.stem[:40]  # no longer than the name itself may be
        handle, name = tempfile.mkstemp(prefix=f".{stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with _writing(path, _FULL):
            yield temporary
            # mkstemp makes private files; the result gets the mode that a plain open() would give.
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `path`, and rename it to `path` when the block succeeds.

    When the block raises, the folder is removed and whatever stood at `path` stays as it was. When
    the process is killed, an unfinished folder with a hidden name stays; the next one removes it.

    Raises: OutputExistsError: when `path` is there already and `overwrite` is False (an empty
        folder does not count), or cannot be written.
    """
    path = Path(path)
    make_folder(path.parent)
    _remove_abandoned(path)
    refuse_existing(path, overwrite=overwrite)
    with _writing(path):
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=_DRAFT, dir=path.parent))
    lock = locked(draft)
    try:
        with _writing(path, _FULL):
            yield draft
            draft.chmod(0o777 & ~_umask())
            _replace_folder(draft, path, overwrite)
    finally:
        if lock is not None:
            os.close(lock)
        shutil.rmtree(draft, ignore_errors=True)


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_DRAFT, _OLD = ".unfinished", ".replaced"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def locked(folder: Path) -> int | None:
    """Return a descriptor that holds a lock on a folder, None where there are no such locks.

    Raises: BlockingIOError: when somebody else holds it.
    """
    if fcntl is None:
        return None
    lock = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


def _replace_folder(draft: Path, path: Path, overwrite: bool) -> None:
    """Rename `draft` to `path`, whatever is there (only an empty folder without `overwrite`)."""
    old = draft.with_suffix(_OLD)
    if os.path.lexists(path):
        if overwrite:
            path.rename(old)
        else:
            refuse_existing(path)  # somebody may have filled it meanwhile
            path.rmdir()
    draft.rename(path)
    if old.is_dir() and not old.is_symlink():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.unlink(missing_ok=True)


def _remove_abandoned(path: Path) -> None:
    """Clear up after a killed process: remove its drafts of `path`, put back what it moved away.

    A draft on which somebody holds a lock is being written, and stays.
    """
    for old in path.parent.glob(f".{glob.escape(path.name)}.*{_OLD}"):
        if not os.path.lexists(path):
            old.rename(path)
        else:
            shutil.rmtree(old, ignore_errors=True)
    for draft in path.parent.glob(f".{glob.escape(path.name)}.*{_DRAFT}"):
        try:
            lock = locked(draft)
        except OSError:  # held, or not ours
            continue
        if lock is not None:
            shutil.rmtree(draft, ignore_errors=True)
            os.close(lock)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Give a file a second name: a hard link, or a copy where the file system refuses one.

    Folders above `target` are made where they are missing.

    Raises: OSError: when neither can be written.
    """
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def make_folder(path: str | Path) -> None:
    """Make a folder and those above it, where they are missing.

    Raises: OutputExistsError: when it cannot be made, or a file has its name.
    """
    with _writing(Path(path)):
        Path(path).mkdir(parents=True, exist_ok=True)


@contextmanager
def _writing(path: Path, codes: Container[int | None] | None = None) -> Iterator[None]:
    """Turn what the disk says to a write, with any error number or these, into one sentence."""
    try:
        yield
    except OSError as error:
        if codes is not None and error.errno not in codes:
            raise
        raise OutputExistsError(
            f"{path} cannot be written ({error.strerror or error}); choose another place."
        ) from error


def write_text(path: str | Path, text: str) -> None:
    """Write `text` (UTF-8) to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any, *, indent: int | None = 2) -> None:
    """Write `value` as JSON to `path`, whole or not at all.

    Raises: ValueError: when `value` holds NaN or an infinity, which are not JSON.
    """
    text = json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False)
    if any("\ud800" <= character <= "\udfff" for character in set(text)):
        # Half of a surrogate pair: no UTF-8, but an escape can say it.
        text = json.dumps(value, indent=indent, allow_nan=False)
    write_text(path, text + "\n")


def sha256_of_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def leads_out(name: str) -> bool:
    """Return whether a name leads out of its folder, or can name no file in it, by its text alone.

    True for an empty or absolute name, for `..` among its parts, a drive, a NUL, and half of a
    surrogate pair; on every system, whatever the separators.
    """
    if name.isprintable() and not {"/", "\\", ":"} & set(name):
        return name in ("", "..")
    parts = {*PurePosixPath(name).parts, *PureWindowsPath(name).parts}
    absolute = PurePosixPath(name).is_absolute() or bool(PureWindowsPath(name).anchor)
    nameable = "\0" not in name and name.encode(errors="ignore").decode() == name
    return absolute or ".." in parts or not nameable


def folded(name: str) -> str:
    """Return what two names share that some file systems take for one: case, Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def path_inside(root: str | Path, name: str) -> Path:
    """Return `root / name` for a relative `name` that stays inside `root`.

    Links are resolved, so a link that points out of the folder is refused too.

    Raises: DatasetError: when `name` leads out of `root`, by its text or by a link.
    """
    if leads_out(name):
        raise DatasetError(
            f"{root}: the name {name!r} leads out of its folder; "
            "use names relative to the folder, without '..'."
        )
    base = Path(root).resolve()
    path = base / name
    if not path.resolve().is_relative_to(base):
        raise DatasetError(
            f"{root}: {name!r} is a link that leads out of its folder; copy the file."
        )
    return path


def refuse_existing(path: str | Path, *, overwrite: bool = False) -> None:
    """Raise when `path` exists (a folder counts when it is not empty) and may not be replaced.

    Raises: OutputExistsError: with the name of the flag that allows it.
    """
    path = Path(path)
    used = any(path.iterdir()) if path.is_dir() else os.path.lexists(path)
    if used and not overwrite:
        raise OutputExistsError(
            f"{path} is there already; choose another --output, or add --overwrite to replace it."
        )


def refuse_nesting(source: Path, output: Path) -> None:
    """Refuse an output inside its source, which would grow, and a source that goes with its output.

    Raises: OutputExistsError: naming both.
    """
    inner, outer = source.resolve(), output.resolve()
    if source.exists() and (inner.is_relative_to(outer) or outer.is_relative_to(inner)):
        raise OutputExistsError(
            f"{output} and its source {source} lie in each other; choose an --output beside it."
        )


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
        MediaError: on entering, from `write` and at the end, when the disk refuses;
            PartialMediaError when lines are kept.
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
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        kept = "what was written before stays there; " if self.lines else ""
        mend = "free some space or choose another --output" if full else "choose another --output"
        kind = PartialMediaError if self.lines else MediaError
        return kind(
            f"{self.partial}: the {self.what} cannot be written ({error.strerror or error}); "
            f"{kept}{mend}."
        )

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
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


_BOOKMARKS = (b"book\0\0\0\0mark", b"bplist00")
_PAGES = ("<!doctype html", "<html", "<head")
_ADDRESSES = ("http://", "https://", "[internetshortcut]")


def describe_foreign_file(path: Path) -> str:
    """Say what a file that is no clip and no image looks like, or "" when nothing is known."""
    try:
        with open(path, "rb") as file:
            head = file.read(2048)
    except OSError as error:
        return f"it cannot be opened ({error.strerror})"
    if not head:
        return "it is empty"
    if head.startswith(_BOOKMARKS):
        return "it is a macOS bookmark to another file, so copy that file itself"
    text = head.decode("utf-8", errors="replace").strip().lower()
    if text.startswith(_PAGES):
        return "it is an HTML page, as a download link gives where a sign-in is needed"
    if text.startswith(_ADDRESSES):
        return "it is a text with an address, so download the file itself"
    if text.startswith("version https://git-lfs"):
        return "it is a Git LFS pointer, so fetch the file itself with `git lfs pull`"
    return ""

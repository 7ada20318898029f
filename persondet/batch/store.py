"""Where a job's files lie: a folder here or mounted, or an address that fsspec opens (`s3://…`).

A file appears under its name when it is whole: renamed in a folder, uploaded behind an address.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from persondet.errors import InstallationError, MediaError, OutputExistsError, PersondetError
from persondet.files import make_folder
from persondet.text import printable
from persondet.video.source import local_path, shown

UNFINISHED = ".unfinished"
_END_BYTES = 2**20
_HEAD_BYTES = 2**16


class Store:
    """The files below one root, by names relative to it with `/` between their parts.

    Args:
        root: a folder, or an address such as `s3://bucket/clips`. Credentials come from the
            environment, as fsspec's packages read them.

    Attributes:
        label: the root as a log may show it.

    Raises: InstallationError: when the package for the address is missing. MediaError: when the
        address cannot be used.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        self.remote = "://" in self.root and not self.root.lower().startswith("file://")
        self.label = shown(self.root)
        self._opened: Any = None
        if not self.remote:
            # Workers may stand in another folder.
            self.root = str(local_path(self.root).resolve())

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_opened": None}  # connections stay in their process

    @property
    def _files(self) -> Any:
        if self._opened is None:
            import fsspec

            scheme = self.root.partition("://")[0]
            try:
                # Asked for each name alone: a listing would be out of date, and large.
                self._opened = fsspec.filesystem(scheme, use_listings_cache=False)
            except ImportError as error:
                raise InstallationError(f"{self.label} needs a package: {error}.") from error
            except ValueError as error:
                raise MediaError(f"{self.label} cannot be opened ({error}).") from error
        return self._opened

    def _ask(self, method: str, *arguments: Any, **more: Any) -> Any:
        """Call a method of fsspec's; the packages behind it raise whatever their servers say."""
        try:
            return getattr(self._files, method)(*arguments, **more)
        except (FileNotFoundError, PersondetError):
            raise
        except Exception as error:
            reason = printable(f"{type(error).__name__}: {error}", 300)
            raise MediaError(f"{self.label} cannot be used ({reason}).") from error

    def _at(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}" if name else self.root

    def walk(self) -> Iterator[tuple[str, int, str]]:
        """Yield (name, bytes, when it was changed) of each file, folder by folder.

        Hidden files and folders are passed over. A link to a file that is gone is listed.

        Raises: MediaError: when there is no such folder, or one of them cannot be listed.
        """
        if self.remote:
            yield from self._walk_address()
            return
        root = Path(self.root)
        if not root.is_dir():
            raise MediaError(f"{self.label} is no folder; give a folder of clips or images.")
        folders = [root]
        while folders:
            folder = folders.pop()
            try:
                entries = os.scandir(folder)
            except OSError as error:
                raise MediaError(
                    f"{folder} cannot be listed ({error.strerror}); make it readable, or give an "
                    "--input without it."
                ) from error
            with entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    name = Path(entry.path).relative_to(root).as_posix()
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    elif entry.is_file():
                        facts = entry.stat()
                        yield name, facts.st_size, str(facts.st_mtime_ns)
                    elif entry.is_symlink() and not entry.is_dir():
                        yield name, 0, ""

    def _walk_address(self) -> Iterator[tuple[str, int, str]]:
        top = self._files._strip_protocol(self.root).rstrip("/")
        folders, empty = [top], True
        while folders:
            with suppress(FileNotFoundError):
                for entry in self._ask("ls", folders.pop(), detail=True):
                    name = entry["name"].removeprefix(top).lstrip("/")
                    if not name or name.rpartition("/")[2].startswith("."):
                        continue
                    empty = False
                    if entry["type"] == "directory":
                        folders.append(entry["name"])
                    else:
                        yield name, int(entry["size"] or 0), _changed(entry)
        if empty:
            raise MediaError(f"{self.label} holds no file; give an address of clips or images.")

    def digest(self, name: str, size: int) -> str:
        """Return a SHA-256 of the first and the last MiB of a file of `size` bytes.

        Raises: OSError, MediaError: when it cannot be read.
        """
        digest = hashlib.sha256(self._read(name, 0, min(size, _END_BYTES)))
        if size > _END_BYTES:
            digest.update(self._read(name, max(_END_BYTES, size - _END_BYTES), size))
        return digest.hexdigest()

    def _read(self, name: str, start: int, end: int | None) -> bytes:
        if start == end:
            return b""  # a server refuses an empty range
        if self.remote:
            found: bytes = self._ask("cat_file", self._at(name), start=start, end=end)
            return found
        with open(self._at(name), "rb") as file:
            file.seek(start)
            return file.read(-1 if end is None else end - start)

    def first_line(self, name: str) -> bytes | None:
        """Return the first line of a file, cut off after 64 KiB; None where there is no file."""
        try:
            return self._read(name, 0, _HEAD_BYTES).partition(b"\n")[0]
        except FileNotFoundError:
            return None

    def exists(self, name: str) -> bool:
        """Return whether there is a file of that name."""
        return (
            bool(self._ask("isfile", self._at(name)))
            if self.remote
            else Path(self._at(name)).is_file()
        )

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with suppress(FileNotFoundError):
            self._ask("rm_file", self._at(name)) if self.remote else Path(self._at(name)).unlink()

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a small file; None where there is none."""
        try:
            return self._read(name, 0, None)
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, whole or not at all."""
        with self.stage() as folder:
            (folder / "file").write_bytes(content)
            self.publish(folder / "file", name)

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """Yield a local path of a file: its own, or that of a copy which goes afterwards."""
        if not self.remote:
            yield Path(self._at(name))
            return
        with tempfile.TemporaryDirectory(prefix="persondet-") as folder:
            path = Path(folder) / name.rpartition("/")[2]
            self._ask("get_file", self._at(name), str(path))
            yield path

    @contextmanager
    def stage(self) -> Iterator[Path]:
        """Yield an empty local folder, on the disk of the store if it has one, for a while.

        Nobody else writes there: a worker that was given up may still be at its work.
        """
        if self.remote:
            with tempfile.TemporaryDirectory(prefix="persondet-") as name:
                yield Path(name)
            return
        folder = Path(self.root) / UNFINISHED / uuid.uuid4().hex
        make_folder(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, path: Path, name: str) -> None:
        """Give a staged file its name, replacing what is there.

        Raises: OutputExistsError: when the disk refuses.
        """
        if self.remote:
            self._ask("put_file", str(path), self._at(name))
            return
        target = Path(self._at(name))
        make_folder(target.parent)
        try:
            os.replace(path, target)
        except OSError as error:
            raise OutputExistsError(
                f"{target} cannot be written ({error.strerror}); choose another --output."
            ) from error

    def publish_claimed(self, path: Path, claim: str, name: str) -> None:
        """Give a staged file its name, after it was published as `claim`, which goes."""
        if self.remote:
            self.publish(path, name)
            self.remove(claim)
        else:
            os.replace(self._at(claim), self._at(name))

    def clear_stages(self) -> None:
        """Remove what workers that were killed have left; call it when nobody else works there."""
        if not self.remote:
            shutil.rmtree(Path(self.root) / UNFINISHED, ignore_errors=True)


def _changed(entry: dict[str, Any]) -> str:
    for key in ("ETag", "mtime", "LastModified", "updated", "created"):
        if entry.get(key):
            return str(entry[key]).strip('"')
    return ""

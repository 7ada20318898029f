"""An export from Roboflow: downloaded, continued where it broke off, unpacked whole or not at all.

The address is signed, so it is in no message: what `requests` and `urllib3` raise names it. A few
words replace that before this module raises anything, and it drops what these libraries log.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from persondet.data.fetch.archive import ArchiveLimits, require_space, writing
from persondet.data.fetch.importing import IncompleteExportError, import_archive
from persondet.data.fetch.roboflow_link import FORMATS, VersionName, api_key, resolve_link
from persondet.environment import Progress
from persondet.errors import DatasetError, OutputExistsError
from persondet.files import make_folder, refuse_existing, write_json

if TYPE_CHECKING:
    import requests

logger = logging.getLogger(__name__)

_CHUNK = 256 * 1024
_REDIRECTS = 5
_LONGEST_WAIT = 60.0


@dataclass(frozen=True)
class Patience:
    """How long to wait, and how often to try again.

    Attributes:
        connect: seconds for a connection.
        silence: seconds without a byte.
        tries: tries in a row that bring no new byte.
        pause: seconds before the second try; doubled for each further one.
        poll: seconds between two questions whether an export is ready.
        sleep: waits so many seconds.
    """

    connect: float = 15.0
    silence: float = 30.0
    tries: int = 5
    pause: float = 1.0
    poll: float = 2.0
    sleep: Callable[[float], None] = time.sleep


class LinkRefusedError(DatasetError):
    """The server does not serve this link (any more): a new one may be served."""


def download_export(
    workspace: str,
    project: str,
    version: int,
    output: str | Path,
    *,
    dataset_format: str = FORMATS[0],
    overwrite: bool = False,
    timeout: float = 900.0,
    limits: ArchiveLimits | None = None,
    patience: Patience | None = None,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Download a version of a Roboflow project to `output`, laid out as by `import_export`.

    The environment variable ROBOFLOW_API_KEY holds the API key. Neither the key nor the signed
    link is in any file or message. An unfinished download lies in `.<name>.download` beside
    `output`; the next call goes on with it.

    Args:
        workspace, project, version: as in the address app.roboflow.com/WORKSPACE/PROJECT/VERSION.
        output: the folder to make.
        dataset_format: `coco-segmentation` or `coco`.
        overwrite: replace `output` if it exists.
        timeout: seconds for Roboflow to name the link, with waiting for an export in the making.
        limits: what the archive may hold; default `ArchiveLimits()`.
        patience: time-outs and tries; default `Patience()`.
        progress: called with bytes done and bytes in all, first of the download, then, from 0
            again, of the unpacking.

    Returns:
        dict from each split of the export to the number of images in its json.

    Raises:
        DatasetError: one sentence for a fault of Roboflow, the network or the export.
        InstallationError: when the `roboflow` package is not installed.
        OutputExistsError: when `output` exists already or cannot be written.
    """
    output, limits, patience = Path(output), limits or ArchiveLimits(), patience or Patience()
    name = VersionName(workspace, project, version, dataset_format)
    refuse_existing(output, overwrite=overwrite)
    key = api_key()
    label = f"the export of {name}"
    identity = [os.environ.get("API_URL", ""), workspace, project, version, dataset_format]
    with PartialDownload(output, json.dumps(identity)) as partial:
        for last in (False, True):
            link = resolve_link(
                name,
                key=key,
                timeout=timeout,
                silence=patience.silence,
                poll=patience.poll,
                on_wait=lambda what, share: logger.info(
                    "Roboflow is %s %s: %.0f %%", what, name, 100 * share
                ),
            )
            try:
                fetch(
                    link,
                    partial,
                    label,
                    patience=patience,
                    most_bytes=limits.total_bytes,
                    progress=progress,
                )
                break
            except LinkRefusedError:  # a signed link lives for minutes: one more may do
                if last:
                    raise
        mend = (
            f"the zip is kept as {partial.archive}: unpack it by hand and run "
            "`python tools/prepare_dataset.py clean` on the folder, or generate a new version"
        )
        try:
            return import_archive(
                partial.archive,
                output,
                label,
                mend,
                overwrite=overwrite,
                limits=limits,
                progress=progress,
                finish=partial.remove,
            )
        except IncompleteExportError:
            raise
        except DatasetError:
            partial.remove()  # to go on with these bytes would end the same way
            raise


class PartialDownload:
    """A hidden folder `.<name>.download` beside `output`, held by one process at a time.

    Use as a context, which removes the folder at its end unless it holds bytes that a next try can
    continue.

    Attributes:
        archive: the file to fill.
        validator: the ETag or date by which the server tells that its file is the same, or "".
        total: bytes of the whole file, or None when the server did not say.
    """

    def __init__(self, output: str | Path, identity: str) -> None:
        """Name the folder.

        Args:
            output: the dataset that the download is for.
            identity: what is downloaded; bytes of another identity count for nothing.
        """
        self._output = Path(output)
        self._folder = self._output.parent / f".{self._output.name}.download"
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
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise OutputExistsError(
                    f"{self._output} is being downloaded by another command; wait for its end."
                ) from None
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

    def restart(self, validator: str = "", total: int | None = None) -> None:
        """Begin with an empty file, to which `validator` belongs."""
        # In this order no moment has the bytes of one file and the validator of another.
        self._state.unlink(missing_ok=True)
        self.validator, self.total = validator, total
        state = {"identity": self._identity, "validator": validator, "total": total}
        with writing():
            self.archive.write_bytes(b"")
            write_json(self._state, state)

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


class _Trouble(Exception):
    """Why a try did not bring the whole file, and how long the server asks to wait."""

    def __init__(
        self,
        what: str,
        *,
        again: bool = True,
        wait: float | None = None,
        link_refused: bool = False,
    ) -> None:
        super().__init__(what)
        self.what, self.again, self.wait = what, again, wait
        self.link_refused = link_refused


def fetch(
    link: str,
    partial: PartialDownload,
    label: str,
    *,
    patience: Patience | None = None,
    most_bytes: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Download a zip to `partial.archive`, from where an earlier try broke off.

    The function continues only when the server answers with exactly the missing range of a file
    with the same ETag (or date); any other answer starts from the first byte.

    Args:
        link: where from; only http and https, also after a redirect, and never from https to http.
        partial: what to fill.
        label: what errors call the download.
        patience: time-outs and tries; default `Patience()`.
        most_bytes: refuse a larger file.
        progress: called with bytes there and bytes in all (None when the server does not say).

    Raises:
        LinkRefusedError: when the server does not serve the link: expired, gone or not allowed.
        DatasetError: when it cannot be reached, breaks off again and again, or sends no zip.
        OutputExistsError: when the disk is too small or cannot be written.
    """
    patience = patience or Patience()
    tries, best = 0, partial.size
    while True:
        with _unlogged():
            trouble = _Try(partial, label, most_bytes, progress).run(link, patience)
        if trouble is None:
            return
        if trouble.link_refused:
            raise LinkRefusedError(f"the link to {label} is not served ({trouble.what}).")
        if not trouble.again:
            raise DatasetError(f"{label} cannot be downloaded: {trouble.what}.")
        tries = 1 if partial.size > best else tries + 1
        best = max(best, partial.size)
        wait = patience.pause * 2 ** (tries - 1) if trouble.wait is None else trouble.wait
        if tries >= patience.tries or wait > _LONGEST_WAIT:
            raise DatasetError(
                f"the download of {label} broke off: {trouble.what}; run the command again, it "
                "goes on from there where the server allows."
            )
        patience.sleep(wait)


@dataclass
class _Try:
    """One request and what it brings."""

    partial: PartialDownload
    label: str
    most_bytes: int | None
    progress: Progress | None

    def run(self, link: str, patience: Patience) -> _Trouble | None:
        """Return None when the file is whole, else why it is not.

        No error of the HTTP libraries leaves this method, not even as the cause of another one.
        """
        import requests
        import urllib3

        headers = {"Accept-Encoding": "identity"}
        if self.partial.size and self.partial.validator:
            # The last byte comes again, so that a file that is whole needs no special case.
            headers["Range"] = f"bytes={self.partial.size - 1}-"
            headers["If-Range"] = self.partial.validator
        timeout = (patience.connect, patience.silence)
        try:
            with (
                _session(link) as session,
                session.get(link, headers=headers, stream=True, timeout=timeout) as response,
            ):
                self._receive(response)
        except _Trouble as trouble:
            return trouble
        except requests.exceptions.SSLError:
            return _Trouble("the server's certificate cannot be verified", again=False)
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            return _Trouble("the server does not answer")
        except requests.TooManyRedirects:
            return _Trouble("the server leads in a circle", again=False)
        except ValueError:  # an address that is none, or of a scheme that the session lacks
            return _Trouble("the link leads to an address that is not https", again=False)
        except (requests.RequestException, urllib3.exceptions.HTTPError):
            return _Trouble("no connection to the server")
        return None

    def _receive(self, response: requests.Response) -> None:
        _refuse_status(response)
        self._begin(response)
        partial = self.partial
        done, total = partial.size, partial.total
        for chunk in response.raw.stream(_CHUNK, decode_content=False):
            if done == 0 and not b"PK".startswith(chunk[:2]):
                raise _Trouble(_not_a_zip(chunk), again=False)
            done += len(chunk)
            if total is not None and done > total:
                partial.restart()
                raise _Trouble("the server sends more than it announced")
            self._judge_size(done)
            with writing(), open(partial.archive, "ab") as file:
                file.write(chunk)
            if self.progress is not None:
                self.progress(done, total)
        # Without an announced length only the end of the zip tells that it is whole.
        whole = done == total if total is not None else zipfile.is_zipfile(partial.archive)
        if not whole:
            raise _Trouble("the connection ended early")

    def _begin(self, response: requests.Response) -> None:
        """Bring the partial file to where the answer begins."""
        partial = self.partial
        validator = _validator(response)
        if response.status_code == 206:
            given = response.headers.get("Content-Range", "")
            match = re.fullmatch(rf"bytes {partial.size - 1}-\d+/(\d+)", given)
            changed = validator and validator != partial.validator
            if match is None or changed or partial.total not in (None, int(match[1])):
                partial.restart()
                raise _Trouble("the server continued with another file", wait=0.0)
            partial.total = int(match[1])
            with writing():
                os.truncate(partial.archive, partial.size - 1)
        else:
            partial.restart(validator, _number(response.headers.get("Content-Length", "")))
        if partial.total is not None:
            self._judge_size(partial.total)
            require_space(partial.archive.parent, partial.total - partial.size)

    def _judge_size(self, size: int) -> None:
        if self.most_bytes is not None and size > self.most_bytes:
            self.partial.remove()
            raise DatasetError(
                f"{self.label} is larger than {self.most_bytes / 1024**3:,.1f} GiB; it is not "
                "downloaded."
            )


def _session(link: str) -> requests.Session:
    """Return a session that sends no credentials of ~/.netrc, and stays on https from the start."""
    import requests

    session = requests.Session()
    session.auth = lambda request: request
    session.rebuild_auth = lambda *_: None  # type: ignore[method-assign]
    session.max_redirects = _REDIRECTS
    if link.lower().startswith("https:"):
        del session.adapters["http://"]
    return session


def _refuse_status(response: requests.Response) -> None:
    """Raise `_Trouble` for a status other than success."""
    status = response.status_code
    if status in (200, 206):
        return
    retried = status in (408, 416, 425, 429) or status >= 500
    raise _Trouble(
        f"the server answers {status}",
        again=retried,
        wait=_number(response.headers.get("Retry-After", "")) if retried else None,
        link_refused=status in (400, 401, 403, 404, 410),
    )


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _validator(response: requests.Response) -> str:
    """Return what says that two answers are parts of one file: a strong ETag, or a date."""
    etag = str(response.headers.get("ETag", ""))
    if etag.startswith('"'):
        return etag
    return "" if etag else str(response.headers.get("Last-Modified", ""))


def _not_a_zip(start: bytes) -> str:
    if re.match(rb"(?:\xef\xbb\xbf)?\s*<", start):
        return (
            "the server answers with a web page instead of the zip; is there a sign-in page or a "
            "proxy between"
        )
    return "what the server sends is no zip"


@contextmanager
def _unlogged() -> Iterator[None]:
    """Drop what the HTTP libraries log: at level DEBUG, and in some warnings, it is the address."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith("urllib3")]
    names += ["urllib3.connectionpool", "urllib3.connection", "requests"]
    loggers = [logging.getLogger(name) for name in dict.fromkeys(names)]
    for one in loggers:
        one.addFilter(_drop)
    try:
        yield
    finally:
        for one in loggers:
            one.removeFilter(_drop)


def _drop(record: logging.LogRecord) -> bool:
    return False

"""An export from Roboflow: downloaded, continued where it broke off, unpacked whole or not at all.

The address is signed, so it is in no message: a few words replace what `requests` and `urllib3`
raise, see `http_fault`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING

from persondet.data.fetch import archive, roboflow_link
from persondet.data.fetch.archive import require_space, writing
from persondet.data.fetch.importing import IncompleteExportError, import_export
from persondet.data.fetch.roboflow_link import (
    FORMATS,
    VersionName,
    api_key,
    http_fault,
    open_session,
    resolve_link,
)
from persondet.environment import Progress
from persondet.errors import DatasetError, OutputExistsError
from persondet.files import locked, make_folder, refuse_existing, write_json

if TYPE_CHECKING:
    import requests

logger = logging.getLogger(__name__)

_CHUNK = 256 * 1024
_CONNECT = 15.0  # seconds for a connection
_TRIES = 5  # in a row that bring no new byte
_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds before the second try; doubled for each further one


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
        progress: called with bytes done and bytes in all, first of the download, then, from 0
            again, of the unpacking.

    Returns:
        dict from each split of the export to the number of images in its json.

    Raises:
        DatasetError: one sentence for a fault of Roboflow, the network or the export.
        OutputExistsError: when `output` exists already or cannot be written.
    """
    output = Path(output)
    name = VersionName(workspace, project, version, dataset_format)
    refuse_existing(output, overwrite=overwrite)
    key = api_key()
    label = f"the export of {name}"
    identity = [os.environ.get("API_URL", ""), workspace, project, version, dataset_format]

    def say(what: str, share: float) -> None:
        logger.info("Roboflow is %s %s: %.0f %%", what, name, 100 * share)

    with partial_download(output, json.dumps(identity)) as partial:
        for last in (False, True):
            link = resolve_link(name, key=key, timeout=timeout, on_wait=say)
            try:
                fetch(link, partial, label, progress=progress)
                break
            except LinkRefusedError:  # a signed link lives for minutes: one more may do
                if last:
                    raise
        mend = (
            f"the zip is kept as {partial.archive}: unpack it by hand and run "
            "`python tools/prepare_dataset.py clean` on the folder, or generate a new version"
        )
        try:
            return import_export(
                partial.archive,
                output,
                overwrite=overwrite,
                progress=progress,
                label=label,
                mend=mend,
                finish=partial.remove,
            )
        except DatasetError as error:
            if not isinstance(error, IncompleteExportError):
                partial.remove()  # to go on with these bytes would end the same way
            raise


@contextmanager
def partial_download(output: Path, identity: str) -> Iterator[PartialDownload]:
    """Hold the hidden folder `.<name>.download` beside `output`, one process at a time.

    At the end the folder goes, unless it holds bytes that a next try can continue.

    Args:
        output: the dataset that the download is for.
        identity: what is downloaded; bytes of another identity count for nothing.

    Raises: OutputExistsError: on entering, when another process holds the folder, or it cannot be
        written.
    """
    folder = output.parent / f".{output.name}.download"
    make_folder(folder)
    with writing():
        try:
            lock = locked(folder)
        except BlockingIOError:
            raise OutputExistsError(
                f"{output} is being downloaded by another command; wait for its end."
            ) from None
    try:
        partial = PartialDownload(folder, hashlib.sha256(identity.encode()).hexdigest())
        try:
            yield partial
        finally:
            if not (partial.size and partial.validator):
                partial.remove()
    finally:
        if lock is not None:
            os.close(lock)


class PartialDownload:
    """What is there of a download.

    Attributes:
        archive: the file to fill.
        validator: the ETag or date by which the server tells that its file is the same, or "".
        total: bytes of the whole file, or None when the server did not say.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        """See what is in the folder, and remove bytes of another identity."""
        self._folder, self._identity = folder, identity
        self._state = folder / "state.json"
        self.archive = folder / "export.zip"
        self.validator = ""
        self.total: int | None = None
        self._load()

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

    def __init__(self, what: str, *, again: bool = True, wait: float | None = None) -> None:
        super().__init__(what)
        self.what, self.again, self.wait = what, again, wait


# The words of `http_fault`; another try would change nothing about the last three.
_FAULTS = {
    "timeout": "the server does not answer",
    "network": "no connection to the server",
    "certificate": "the server's certificate cannot be verified",
    "circle": "the server leads in a circle",
    "address": "the link leads to an address that is not https",
}


def fetch(
    link: str, partial: PartialDownload, label: str, *, progress: Progress | None = None
) -> None:
    """Download a zip to `partial.archive`, from where an earlier try broke off.

    The function continues only when the server answers with exactly the missing range of a file
    with the same ETag (or date); any other answer starts from the first byte.

    Args:
        link: where from; only http and https, also after a redirect, and never from https to http.
        partial: what to fill.
        label: what errors call the download.
        progress: called with bytes there and bytes in all (None when the server does not say).

    Raises:
        LinkRefusedError: when the server does not serve the link: expired, gone or not allowed.
        DatasetError: when it cannot be reached, breaks off again and again, or sends no zip.
        OutputExistsError: when the disk is too small or cannot be written.
    """
    tries, best = 0, partial.size
    while trouble := _trouble(link, partial, label, progress):
        if not trouble.again:
            raise DatasetError(f"{label} cannot be downloaded: {trouble.what}.")
        tries = 1 if partial.size > best else tries + 1
        best = max(best, partial.size)
        wait = _PAUSE * 2 ** (tries - 1) if trouble.wait is None else trouble.wait
        if tries >= _TRIES or wait > _LONGEST_PAUSE:
            raise DatasetError(
                f"the download of {label} broke off: {trouble.what}; run the command again, it "
                "goes on from there where the server allows."
            )
        sleep(wait)


def _trouble(
    link: str, partial: PartialDownload, label: str, progress: Progress | None
) -> _Trouble | None:
    """Ask for what is missing; return None when that brought the whole file, else why it did not.

    Raises: LinkRefusedError. DatasetError.
    """

    def ask() -> None:
        headers = {"Accept-Encoding": "identity"}
        if partial.size and partial.validator:
            # The last byte comes again, so that a file that is whole needs no special case.
            headers["Range"] = f"bytes={partial.size - 1}-"
            headers["If-Range"] = partial.validator
        timeout = (_CONNECT, roboflow_link.SILENCE)
        with (
            open_session(link) as session,
            session.get(link, headers=headers, stream=True, timeout=timeout) as response,
        ):
            _begin(response, partial, label)
            _receive(response, partial, label, progress)

    try:
        fault = http_fault(ask)
    except _Trouble as trouble:
        return trouble
    return _Trouble(_FAULTS[fault], again=fault in ("timeout", "network")) if fault else None


def _begin(response: requests.Response, partial: PartialDownload, label: str) -> None:
    """Judge the status, and bring the partial file to where the answer begins."""
    status = response.status_code
    if status in (400, 401, 403, 404, 410):
        raise LinkRefusedError(f"the link to {label} is not served (the server answers {status}).")
    if status not in (200, 206):
        retried = status in (408, 416, 425, 429) or status >= 500
        wait = _number(response.headers.get("Retry-After", ""))
        raise _Trouble(f"the server answers {status}", again=retried, wait=wait)
    validator = _validator(response)
    if status == 206:
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
        _judge_size(partial.total, partial, label)
        require_space(partial.archive.parent, partial.total - partial.size)


def _receive(
    response: requests.Response, partial: PartialDownload, label: str, progress: Progress | None
) -> None:
    done, total = partial.size, partial.total
    for chunk in response.raw.stream(_CHUNK, decode_content=False):
        if done == 0 and not b"PK".startswith(chunk[:2]):
            page = " but a web page (a sign-in page or a proxy?)" if b"<" in chunk[:9] else ""
            raise _Trouble(f"what the server sends is no zip{page}", again=False)
        done += len(chunk)
        if total is not None and done > total:
            partial.restart()
            raise _Trouble("the server sends more than it announced")
        _judge_size(done, partial, label)
        with writing(), open(partial.archive, "ab") as file:
            file.write(chunk)
        if progress is not None:
            progress(done, total)
    # Without an announced length only the end of the zip tells that it is whole.
    whole = done == total if total is not None else zipfile.is_zipfile(partial.archive)
    if not whole:
        raise _Trouble("the connection ended early")


def _judge_size(size: int, partial: PartialDownload, label: str) -> None:
    if size > archive.MAX_BYTES:
        partial.remove()
        raise DatasetError(
            f"{label} is larger than {archive.MAX_BYTES / 1024**3:,.1f} GiB; it is not downloaded."
        )


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _validator(response: requests.Response) -> str:
    """Return what says that two answers are parts of one file: a strong ETag, or a date."""
    etag = str(response.headers.get("ETag", ""))
    if etag.startswith('"'):
        return etag
    return "" if etag else str(response.headers.get("Last-Modified", ""))

"""One file over HTTP into a partial download: checked, retried, continued where it broke off.

The address is signed, so it is in no message: what `requests` and `urllib3` raise names it, and is
replaced by a few words before anything is raised from here; what they log is dropped meanwhile.
"""

from __future__ import annotations

import logging
import re
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from persondet.data.fetch.archive import Progress, require_space, writing
from persondet.data.fetch.partial_download import PartialDownload
from persondet.errors import DatasetError

if TYPE_CHECKING:
    import requests

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


@dataclass(frozen=True)
class _Trouble:
    """Why a try did not bring the whole file, and how long the server asks to wait."""

    what: str
    again: bool = True
    wait: float | None = None
    link_refused: bool = False


def fetch(
    link: str,
    partial: PartialDownload,
    *,
    label: str,
    patience: Patience | None = None,
    most_bytes: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Download a zip to `partial.archive`, from where an earlier try broke off.

    Bytes are continued only when the server answers with exactly the range that is missing of a
    file with the same ETag (or date); any other answer starts from the first byte.

    Args:
        link: where from; only http and https, also after a redirect, and never from https to http.
        partial: what to fill.
        label: what is downloaded, for errors.
        patience: time-outs and tries; default `Patience()`.
        most_bytes: a larger file is refused.
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
            trouble = _Try(link, partial, label, patience, most_bytes, progress).run()
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

    link: str
    partial: PartialDownload
    label: str
    patience: Patience
    most_bytes: int | None
    progress: Progress | None

    def run(self) -> _Trouble | None:
        """Return None when the file is whole, else why it is not."""
        import requests
        import urllib3

        try:
            with requests.Session() as session:
                session.auth = _unchanged  # nothing out of ~/.netrc goes along
                response = self._open(session)
                if isinstance(response, _Trouble):
                    return response
                with response:
                    return self._receive(response)
        except requests.exceptions.SSLError:
            return _Trouble("the server's certificate cannot be verified", again=False)
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            return _Trouble("the server does not answer")
        except (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL):
            return _Trouble("the server names an address that is none", again=False)
        except (requests.RequestException, urllib3.exceptions.HTTPError):
            return _Trouble("no connection to the server")

    def _open(self, session: requests.Session) -> requests.Response | _Trouble:
        """Send the request, following redirects to http and https only."""
        headers = {"Accept-Encoding": "identity"}
        if self.partial.size and self.partial.validator:
            # One byte is asked for again, so that a file that is whole needs no special case.
            headers["Range"] = f"bytes={self.partial.size - 1}-"
            headers["If-Range"] = self.partial.validator
        address = self.link
        allowed = {"https"} if _scheme(address) == "https" else {"https", "http"}
        for _ in range(_REDIRECTS + 1):
            if _scheme(address) not in allowed:
                return _Trouble("the server leads to an address that is not https", again=False)
            timeout = (self.patience.connect, self.patience.silence)
            try:
                response = session.get(
                    address, headers=headers, stream=True, allow_redirects=False, timeout=timeout
                )
            except ValueError:  # requests parses where a redirect leads, followed or not
                return _Trouble("the server names an address that is none", again=False)
            if response.status_code not in (301, 302, 303, 307, 308):
                return response
            target = response.headers.get("Location", "")
            response.close()
            address = _joined(address, target)
        return _Trouble("the server leads in a circle", again=False)

    def _receive(self, response: requests.Response) -> _Trouble | None:
        trouble = _refused(response) or self._begin(response)
        if trouble is not None:
            return trouble
        partial = self.partial
        done, total = partial.size, partial.total
        for chunk in response.raw.stream(_CHUNK, decode_content=False):
            if done == 0 and not b"PK".startswith(chunk[:2]):
                return _Trouble(_not_a_zip(chunk), again=False)
            done += len(chunk)
            if total is not None and done > total:
                partial.restart("", None)
                return _Trouble("the server sends more than it announced")
            self._judge_size(done)
            with writing(), open(partial.archive, "ab") as file:
                file.write(chunk)
            if self.progress is not None:
                self.progress(done, total)
        # Without an announced length only the end of the zip tells that it is whole.
        whole = done == total if total is not None else zipfile.is_zipfile(partial.archive)
        return None if whole else _Trouble("the connection ended early")

    def _begin(self, response: requests.Response) -> _Trouble | None:
        """Bring the partial file to where the answer begins."""
        partial = self.partial
        validator = _validator(response)
        if response.status_code == 206:
            match = re.fullmatch(
                r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", "")
            )
            known = partial.total
            fits = match is not None and int(match[1]) == partial.size - 1
            fits = fits and match is not None and known in (None, int(match[2]))
            if not fits or (validator and validator != partial.validator):
                partial.restart("", None)
                return _Trouble("the server continued with another file", wait=0.0)
            assert match is not None
            partial.total = int(match[2])
            partial.cut_to(partial.size - 1)
        else:
            length = response.headers.get("Content-Length", "")
            partial.restart(
                validator, int(length) if length.isascii() and length.isdigit() else None
            )
        total = partial.total
        if total is not None:
            self._judge_size(total)
            require_space(partial.archive.parent, total - partial.size)
        return None

    def _judge_size(self, size: int) -> None:
        if self.most_bytes is not None and size > self.most_bytes:
            self.partial.remove()
            raise DatasetError(
                f"{self.label} is larger than {self.most_bytes / 1024**3:,.1f} GiB; it is not "
                "downloaded."
            )


def _scheme(address: str) -> str:
    """Return http or https, or "" for any other address."""
    try:
        scheme = urlsplit(address).scheme.lower()
    except ValueError:
        return ""
    return scheme if scheme in ("http", "https") else ""


def _joined(address: str, target: str) -> str:
    try:
        return urljoin(address, target)
    except ValueError:
        return ""


def _refused(response: requests.Response) -> _Trouble | None:
    """Return what a status other than success means."""
    status = response.status_code
    if status in (200, 206):
        return None
    what = f"the server answers {status}"
    if status in (400, 401, 403, 404, 410):
        return _Trouble(what, link_refused=True)
    if status in (408, 425, 429, 416) or status >= 500:
        asked = response.headers.get("Retry-After", "")
        return _Trouble(what, wait=float(asked) if asked.isascii() and asked.isdigit() else None)
    return _Trouble(what, again=False)


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


def _unchanged(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


@contextmanager
def _unlogged() -> Iterator[None]:
    """Drop what the HTTP libraries log: at level DEBUG, and in some warnings, it is the address."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith("urllib3")]
    names += ["urllib3.connectionpool", "urllib3.connection", "requests"]
    loggers = [logging.getLogger(name) for name in dict.fromkeys(names)]
    for logger in loggers:
        logger.addFilter(_drop)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(_drop)


def _drop(record: logging.LogRecord) -> bool:
    return False

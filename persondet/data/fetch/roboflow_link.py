"""From workspace, project, version and format to the link of an export on Roboflow.

The `roboflow` package forms the three questions; our own session carries them. The package's would
wait without limit and log signed addresses, and its exceptions hold the key. Here neither the key
nor an address is in any message, exception or log.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic, sleep
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from persondet.errors import DatasetError, InstallationError
from persondet.text import one_line, without_secrets

if TYPE_CHECKING:
    import requests

KEY_VARIABLE = "ROBOFLOW_API_KEY"
FORMATS = ("coco-segmentation", "coco")
SILENCE = 30.0
"""Seconds to wait for an answer, or for the next byte of one."""

_POLL = 2.0  # seconds between two questions whether the export is ready
_TRIES, _LOOKS_AT_AN_EMPTY_VERSION = 3, 2
_REDIRECTS = 5


@dataclass(frozen=True)
class VersionName:
    """Which export is meant: a version of a project in a workspace, in a format."""

    workspace: str
    project: str
    version: int
    dataset_format: str = FORMATS[0]

    def __post_init__(self) -> None:
        """Refuse what cannot be a name.

        Raises: DatasetError: when a name is no part of an address, the version no number from 1,
            or the format none of COCO.
        """
        for what, name in (("workspace", self.workspace), ("project", self.project)):
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", name):
                raise DatasetError(
                    f"--{what} {name!r} is not a name as Roboflow has them; take it from the "
                    "address app.roboflow.com/WORKSPACE/PROJECT/VERSION."
                )
        if type(self.version) is not int or not 1 <= self.version < 10**9:
            raise DatasetError(f"--version {self.version!r} is not a number from 1; give one.")
        if self.dataset_format not in FORMATS:
            raise DatasetError(
                f"--format {self.dataset_format!r} cannot be read; choose {' or '.join(FORMATS)}."
            )

    def __str__(self) -> str:
        return f"{self.workspace}/{self.project} version {self.version}"


def api_key() -> str:
    """Return the key from the environment.

    Raises: DatasetError: when there is none, or it cannot be one.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        raise DatasetError(
            f"{KEY_VARIABLE} is not set; take the private key from app.roboflow.com (Settings, "
            f"API Keys) and run `export {KEY_VARIABLE}=...` first."
        )
    if not re.fullmatch(r"[A-Za-z0-9._-]+", key):
        raise DatasetError(f"{KEY_VARIABLE} holds characters that no key has; set it to the key.")
    return key


def resolve_link(
    name: VersionName,
    *,
    key: str,
    timeout: float,
    on_wait: Callable[[str, float], None] | None = None,
) -> str:
    """Ask Roboflow for the link of an export, waiting while it is being made.

    The link is signed: whoever has it can use it. The environment variable API_URL replaces the
    address of the API.

    Args:
        name: which export.
        key: the API key.
        timeout: seconds in all.
        on_wait: called with `generating` or `exporting` and the share that is done, 0 to 1.

    Raises:
        DatasetError: one sentence for a wrong key, an unknown workspace, project or version, an
            empty or unfinished one, a plan or quota that does not allow it, no network, no answer.
        InstallationError: when the `roboflow` package is not installed.
    """
    api = _Api(name, key, timeout, on_wait or (lambda what, share: None))
    versions = api.ask("project", name.project).get("versions")
    ids = [v.get("id", "") for v in versions if isinstance(v, dict)] if versions else []
    known = [str(identity).rpartition("/")[2] for identity in ids]
    if known and str(name.version) not in known:
        newest = sorted(known, key=lambda number: (len(number), number))[-10:]
        raise api.error("version", versions=f"; its newest versions are {', '.join(newest)}")
    api.wait_until_generated()
    return api.wait_until_exported()


def http_fault(work: Callable[[], Any]) -> str:
    """Do `work`, which asks a server, and return in a word what went wrong, "" when nothing did.

    What the HTTP libraries raise and log names the address. It does not leave this function, not
    even as the cause of another error. What `work` itself raises does.
    """
    import requests
    import urllib3

    kinds: dict[str, tuple[type[Exception], ...]] = {
        "certificate": (requests.exceptions.SSLError,),
        "timeout": (requests.Timeout, urllib3.exceptions.TimeoutError),
        "circle": (requests.TooManyRedirects,),
        "address": (ValueError,),  # no address, or one of a scheme that the session lacks
        "network": (requests.RequestException, urllib3.exceptions.HTTPError),
    }
    with ExitStack() as stack:
        # At level DEBUG, and in some warnings, their log holds the address.
        for name in [*logging.root.manager.loggerDict, "urllib3.connectionpool", "requests"]:
            if name.startswith(("urllib3", "requests")):
                logging.getLogger(name).addFilter(_drop)
                stack.callback(logging.getLogger(name).removeFilter, _drop)
        try:
            work()
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            return next(fault for fault, of in kinds.items() if isinstance(error, of))
    return ""


def _drop(record: logging.LogRecord) -> bool:
    return False


def open_session(link: str) -> requests.Session:
    """Return a session that sends no credentials of ~/.netrc, and stays on https from the start."""
    import requests

    session = requests.Session()
    session.auth = lambda request: request
    session.rebuild_auth = lambda *_: None  # type: ignore[method-assign]
    session.max_redirects = _REDIRECTS
    if link.lower().startswith("https:"):
        del session.adapters["http://"]
    return session


_SENTENCES = {
    "key": "Roboflow does not accept the key in ROBOFLOW_API_KEY{quoted}; copy the private key "
    "of the workspace again.",
    "access": "the key in ROBOFLOW_API_KEY may not read {name}{quoted}; use a key of the "
    "workspace {name.workspace}.",
    "plan": "the plan or quota of the workspace does not allow this{quoted}; see its "
    "usage on app.roboflow.com.",
    "quota": "Roboflow's limit of requests is reached{quoted}; wait some minutes and run the "
    "command again.",
    "project": "Roboflow knows no project {name.project} in a workspace {name.workspace}, or the "
    "key may not see it; take both from the address app.roboflow.com/WORKSPACE/PROJECT.",
    "version": "{name.workspace}/{name.project} has no version {name.version}{versions}; generate "
    "it on Roboflow, or give another --version.",
    "export": "Roboflow has no export of {name} in the format {name.dataset_format}{quoted}; "
    "try another --format, or export it once in the browser.",
    "empty": "{name} is empty: it has 0 images; generate a version with images on Roboflow.",
    "generating": "{name} is still being generated on Roboflow; wait and run the command again.",
    "exporting": "Roboflow is still preparing the export of {name}; wait and run the command "
    "again.",
    "timeout": "Roboflow did not answer in time; check the network and run the command again.",
    "network": "Roboflow cannot be reached; check the network and the proxy and run the "
    "command again.",
    "certificate": "Roboflow's certificate cannot be verified; check the clock and the proxy "
    "of this computer.",
    "address": "the address in API_URL is not one; unset it, or set it to https://...",
    "server": "Roboflow has a fault of its own (status {status}){quoted}; run the command "
    "again later.",
    "refused": "Roboflow refuses the request for {name} (status {status}){quoted}; check "
    "workspace, project and version.",
    "upload": "Roboflow did not take an image for {name}{quoted}; see its usage and the image on "
    "app.roboflow.com.",
    "answer": "Roboflow's answer about {name} is not understood; download the export in the "
    "browser and import the zip.",
}
STATUS_FAULTS = {401: "key", 402: "plan", 403: "access", 429: "quota"}


class _Api:
    """The questions about one export, until a deadline."""

    def __init__(
        self, name: VersionName, key: str, timeout: float, on_wait: Callable[[str, float], None]
    ) -> None:
        self._name, self._key, self._on_wait = name, key, on_wait
        self._deadline = monotonic() + timeout
        self._root = api_root()
        self._session = open_session(self._root)

    def wait_until_generated(self) -> None:
        """Wait until the version has its images.

        Raises: DatasetError: when it has none, or the time is over.
        """
        empty = 0
        while True:
            version = self.ask("version", self._name.project, self._name.version).get("version")
            if not isinstance(version, dict):
                raise self.error("answer")
            if not version.get("generating"):
                if version.get("images") != 0:
                    return
                empty += 1
                if empty >= _LOOKS_AT_AN_EMPTY_VERSION:
                    raise self.error("empty")
            self._wait("generating", version.get("progress"))

    def wait_until_exported(self) -> str:
        """Wait until the export has a link, and return that.

        Raises: DatasetError: when the time is over.
        """
        place = (self._name.project, self._name.version, self._name.dataset_format)
        while not (answer := self.ask("export", *place))["ready"]:
            self._wait("exporting", answer.get("progress"))
        export = answer.get("export")
        link = export.get("link") if isinstance(export, dict) else None
        if not isinstance(link, str) or not link.startswith(("https://", "http://")):
            raise self.error("answer")
        return link

    def _wait(self, what: str, progress: Any) -> None:
        self._on_wait(what, float(progress) if isinstance(progress, int | float) else 0.0)
        if monotonic() + _POLL > self._deadline:
            raise self.error(what)
        sleep(_POLL)

    def ask(self, step: str, *place: str | int) -> dict[str, Any]:
        """Return the answer to a question, with `ready`: whether the server waits for nothing.

        A fault of the server or the network gets another try.

        Args:
            step: what a 404 says is not there.
            place: below the workspace.

        Raises: DatasetError: with the sentence of what went wrong.
        """
        for attempt in range(_TRIES):
            if attempt:
                sleep(min(_POLL * attempt, 5))
            fault, status, body = self._get(step, place)
            if status not in (0, 200, 202):
                kinds = {**STATUS_FAULTS, 404: step}
                fault = kinds.get(status, "server" if status >= 500 else "refused")
            if fault not in ("server", "network"):
                break
        content = parsed(body)
        if fault or not isinstance(content, dict):
            raise self.error(fault or "answer", status=status, said=words_of(content))
        return {**content, "ready": status != 202}

    def _get(self, step: str, place: Sequence[str | int]) -> tuple[str, int, str]:
        """Return the fault of the network, "" for none, and the status and text of the answer."""
        rfapi = roboflow_package()
        questions = {
            "project": rfapi.get_project,
            "version": partial(rfapi.get_version, nocache=True),
            "export": rfapi.get_version_export,
        }
        answers: list[requests.Response] = []
        wait = min(SILENCE, max(self._deadline - monotonic(), 0.1))

        def get(address: str) -> requests.Response:
            answers.append(self._session.get(address, timeout=wait))
            return answers[0]

        def ask() -> None:
            # What the package makes of an answer is not needed: its errors do not tell the status.
            with suppress(rfapi.RoboflowError):
                questions[step](self._key, self._name.workspace, *place)

        kept = rfapi.http, rfapi.API_URL
        rfapi.http, rfapi.API_URL = SimpleNamespace(get=get), self._root
        try:
            fault = http_fault(ask)
        finally:
            rfapi.http, rfapi.API_URL = kept
        return ("", answers[0].status_code, answers[0].text) if answers else (fault, 0, "")

    def error(
        self, fault: str, *, status: int = 0, said: str = "", versions: str = ""
    ) -> DatasetError:
        """Return the one sentence for a fault, as `fault_sentence`."""
        return fault_sentence(fault, self._name, self._key, status, said, versions=versions)


def fault_sentence(
    fault: str, name: object, key: str, status: int = 0, said: str = "", *, versions: str = ""
) -> DatasetError:
    """Return the one sentence for a fault, with the server's own words, without secrets.

    Args:
        fault: of `http_fault` or `STATUS_FAULTS`, or what is unfinished or not there.
        name: of the version or project, with `workspace` and `project`.
        key: what must not be said.
        status, said: of the server's answer.
        versions: which there are.
    """
    said = re.sub(re.escape(key), "***", said, flags=re.IGNORECASE)
    said = one_line(without_secrets(re.sub(r"\w+://\S+", "***", said)), 200).rstrip(".")
    sentence = _SENTENCES.get(fault, _SENTENCES["network"])
    quoted = f" ({said})" if said else ""
    return DatasetError(sentence.format(name=name, status=status, quoted=quoted, versions=versions))


def api_root() -> str:
    """Return the address of the API: API_URL's, or Roboflow's."""
    return os.environ.get("API_URL", "").rstrip("/") or "https://api.roboflow.com"


def roboflow_package() -> Any:
    """Return the module of the `roboflow` package that forms the questions.

    Raises: InstallationError: when the package is not installed.
    """
    os.environ.setdefault("HOME", os.path.sep)  # the package looks for its settings below it
    try:
        from roboflow.adapters import rfapi
    except ModuleNotFoundError as error:
        raise InstallationError(
            "the roboflow package is not installed; run `pip install 'roboflow>=1.7,<2'`, or "
            "download the export in the browser and import the zip."
        ) from error
    return rfapi


def parsed(body: str) -> Any:
    """Return what JSON says, else the text, "" for a web page."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return "" if "<" in body else body


def words_of(content: Any) -> str:
    """Return what an error's body says to a person: a text, or an object with a message."""
    for field in ("error", "message"):
        content = content.get(field, content) if isinstance(content, dict) else content
    return content[:2000] if isinstance(content, str) else ""

"""From workspace, project, version and format to the link of an export on Roboflow.

The `roboflow` package waits without limit, prints signed addresses, and names addresses with the
key in its exceptions. So it works in a process of its own (this module, run by `python -m`): nobody
reads that process's output, and one small answer leaves it. The request comes by stdin, so that the
key is on no command line; the answer goes to what was stdout.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from persondet.errors import DatasetError, InstallationError, PersondetError
from persondet.text import one_line

KEY_VARIABLE = "ROBOFLOW_API_KEY"
FORMATS = ("coco-segmentation", "coco")
_GRACE = 15.0  # seconds for a process that keeps its own time to say so
_TRIES, _LOOKS_AT_AN_EMPTY_VERSION = 3, 2

Answer = dict[str, Any]


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
        raise DatasetError(
            f"{KEY_VARIABLE} holds characters that no key has; set it to the key alone."
        )
    return key


def resolve_link(
    name: VersionName,
    *,
    key: str,
    timeout: float,
    silence: float = 30.0,
    poll: float = 2.0,
    on_wait: Callable[[str, float], None] | None = None,
) -> str:
    """Ask Roboflow for the link of an export, waiting while it is being made.

    The link is signed: whoever has it can use it.

    The `roboflow` package does the asking in a process of its own, which is killed at the end of
    the time; the address of its API is overridden by the environment variable API_URL.

    Args:
        name: which export.
        key: the API key; it leaves this process only over a pipe.
        timeout: seconds in all.
        silence: seconds to wait for one answer.
        poll: seconds between two questions whether the export is ready.
        on_wait: called with `generating` or `exporting` and the share that is done, 0 to 1.

    Raises:
        DatasetError: one sentence for a wrong key, an unknown workspace, project or version, an
            empty or unfinished one, a plan or quota that does not allow it, no network, no answer.
        InstallationError: when the `roboflow` package is not installed.
    """
    request = {
        "key": key,
        "workspace": name.workspace,
        "project": name.project,
        "version": name.version,
        "format": name.dataset_format,
        "seconds": timeout,
        "silence": silence,
        "poll": poll,
    }
    answer = _ask(json.dumps(request).encode(), timeout + _GRACE, on_wait)
    if isinstance(answer.get("link"), str):
        return str(answer["link"])
    fault, status = str(answer.get("fault", "unexpected")), answer.get("status", 0)
    said, known = (_scrubbed(str(answer.get(what, "")), key) for what in ("said", "known"))
    raise _error(name, fault, status, said, known)


def _ask(request: bytes, seconds: float, on_wait: Callable[[str, float], None] | None) -> Answer:
    """Run the process and return its last answer; no answer in time is a fault too."""
    environment = {name: value for name, value in os.environ.items() if name != KEY_VARIABLE}
    # The process finds this package where it lies, behind whatever else it finds there.
    paths = [os.environ.get("PYTHONPATH", ""), str(Path(__file__).parents[3])]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    deadline = time.monotonic() + seconds
    waiting = b""
    try:
        try:
            process.stdin.write(request)
            process.stdin.close()
        except BrokenPipeError:
            return {"fault": "unexpected"}
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                return {"fault": "timeout"}
            chunk = os.read(process.stdout.fileno(), 65536)
            *lines, waiting = (waiting + chunk).split(b"\n")
            for line in lines:
                answer = json.loads(line)
                if "waiting" not in answer:
                    return dict(answer)
                if on_wait is not None:
                    on_wait(answer["waiting"], float(answer["progress"]))
            if not chunk:
                return {"fault": "unexpected"}
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _scrubbed(said: str, key: str) -> str:
    """Return a server's words without the key, addresses and control characters, in short."""
    if len(key) < 8:  # too common to be found in a text, and no real key
        return ""
    for secret in {key, quote(key, safe="")}:
        said = re.sub(re.escape(secret), "***", said, flags=re.IGNORECASE)
    said = re.sub(r"\w+://\S+|\S*(?:api_?key|token|signature)\S*=\S*", "***", said, flags=re.I)
    return one_line(said, 200).rstrip(".")


_SENTENCES = {
    "key": "Roboflow does not accept the key in ROBOFLOW_API_KEY{quoted}; copy the private key "
    "of the workspace again.",
    "access": "the key in ROBOFLOW_API_KEY may not read {place}{quoted}; use a key of the "
    "workspace {workspace}.",
    "plan": "the plan or quota of the workspace does not allow this export{quoted}; see its "
    "usage on app.roboflow.com.",
    "quota": "Roboflow's limit of requests is reached{quoted}; wait some minutes and run the "
    "command again.",
    "workspace": "Roboflow knows no workspace {workspace}, or the key may not see it; "
    "take the name from the address app.roboflow.com/WORKSPACE/PROJECT.",
    "project": "the workspace {workspace} has no project {project}, or the key may "
    "not see it; take the name from the address app.roboflow.com/WORKSPACE/PROJECT.",
    "version": "{place} has no version {version}{versions}; generate it on Roboflow, or "
    "give another --version.",
    "export": "Roboflow has no export of {name} in the format {format}{quoted}; "
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
    "answer": "Roboflow's answer about {name} is not understood; update the roboflow package, "
    "or download the export in the browser and import the zip.",
    "unexpected": "the roboflow package failed while it looked up {name}{quoted}; update it, or "
    "download the export in the browser and import the zip.",
}
_NOT_INSTALLED = (
    "the roboflow package is not installed; run `pip install 'roboflow>=1.7,<2'`, or download the "
    "export in the browser and import the zip."
)


def _error(name: VersionName, fault: str, status: Any, said: str, known: str) -> PersondetError:
    """Return the one sentence for a fault."""
    if fault == "not-installed":
        return InstallationError(_NOT_INSTALLED)
    sentence = _SENTENCES.get(fault, _SENTENCES["unexpected"])
    return DatasetError(
        sentence.format(
            name=name,
            workspace=name.workspace,
            place=f"{name.workspace}/{name.project}",
            project=name.project,
            version=name.version,
            format=name.dataset_format,
            status=status,
            quoted=f" ({said})" if said else "",
            versions=f"; its newest versions are {known}" if known else "",
        )
    )


class _Fault(Exception):
    """What went wrong, as one word, with the server's own words, or the versions that there are."""

    def __init__(self, kind: str, said: str = "", status: int = 0, known: str = "") -> None:
        super().__init__(kind)
        self.answer: Answer = {"fault": kind, "said": said, "status": status, "known": known}


def _answer_request() -> None:
    """Read a request from stdin, answer on stdout, and let nothing else out."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    silence = os.open(os.devnull, os.O_RDWR)
    os.dup2(silence, 1)
    os.dup2(silence, 2)

    def tell(answer: Answer) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    request = json.loads(sys.stdin.buffer.read())
    # Should the process that asked be killed, this one ends by itself.
    signal.alarm(int(request["seconds"]) + 10)
    os.environ.setdefault("HOME", os.path.sep)
    try:
        answer = _Look(request, tell).link()
    except _Fault as fault:
        answer = fault.answer
    except Exception as error:
        answer = {"fault": "unexpected", "said": type(error).__name__, "status": 0}
    tell(answer)


class _Look:
    """One look-up: which project, which version, is it ready, what is the link."""

    def __init__(self, request: Answer, tell: Callable[[Answer], None]) -> None:
        self._names = (request["key"], request["workspace"], request["project"])
        self._version, self._format = str(request["version"]), request["format"]
        self._poll = request["poll"]
        self._deadline = time.monotonic() + request["seconds"]
        self._tell = tell
        self._status = 0
        self._watch_requests(request["silence"])
        try:
            from roboflow.adapters import rfapi
        except ModuleNotFoundError as error:
            raise _Fault("not-installed", str(error)) from None
        self._api = rfapi

    def link(self) -> Answer:
        """Return the answer with the link, after waiting for a version that is being made."""
        known = [str(v.get("id", "")).rpartition("/")[2] for v in self._versions()]
        if known and self._version not in known:
            newest = sorted(known, key=lambda number: (len(number), number))[-10:]
            raise _Fault("version", known=", ".join(newest))
        self._wait_until_generated()
        return {"link": self._wait_until_exported()}

    def _versions(self) -> list[Answer]:
        try:
            project = self._call("project", self._api.get_project)
        except _Fault as fault:
            if fault.answer["fault"] == "project" and not self._workspace_is_known():
                raise _Fault("workspace") from None
            raise
        versions = project.get("versions")
        return [v for v in versions if isinstance(v, dict)] if isinstance(versions, list) else []

    def _workspace_is_known(self) -> bool:
        key, workspace, _ = self._names
        try:
            self._call("workspace", lambda *_: self._api.get_workspace(key, workspace))
        except _Fault as fault:
            return bool(fault.answer["fault"] != "workspace")
        return True

    def _wait_until_generated(self) -> None:
        empty = 0
        while True:
            answer = self._call("version", self._api.get_version, self._version, nocache=True)
            version = answer.get("version")
            if not isinstance(version, dict):
                raise _Fault("answer")
            if not version.get("generating"):
                if version.get("images") != 0:
                    return
                empty += 1
                if empty >= _LOOKS_AT_AN_EMPTY_VERSION:
                    raise _Fault("empty")
            self._wait("generating", version.get("progress"))

    def _wait_until_exported(self) -> str:
        while True:
            export = self._call("export", self._api.get_version_export, self._version, self._format)
            if export.get("ready") is not False:
                break
            self._wait("exporting", export.get("progress"))
        link = export["export"].get("link") if isinstance(export.get("export"), dict) else None
        if not isinstance(link, str) or not link.startswith(("https://", "http://")):
            raise _Fault("answer")
        return link

    def _wait(self, what: str, progress: Any) -> None:
        share = progress if isinstance(progress, int | float) else 0
        self._tell({"waiting": what, "progress": share})
        if time.monotonic() + self._poll > self._deadline:
            raise _Fault(what)
        time.sleep(self._poll)

    def _call(self, step: str, ask: Callable[..., Any], *rest: Any, **named: Any) -> Answer:
        """Ask Roboflow; a fault of the server or the network gets another try."""
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(min(self._poll * attempt, 5))
            fault = _Fault("answer")
            try:
                answer = ask(*self._names, *rest, **named)
                if isinstance(answer, dict):
                    return answer
            except Exception as error:
                fault = self._fault_of(step, error)
            if fault.answer["fault"] not in ("server", "network"):
                break
        raise fault

    def _fault_of(self, step: str, error: Exception) -> _Fault:
        import requests

        refused = isinstance(error, self._api.RoboflowError) and self._status not in (200, 202)
        if refused:
            kinds = {401: "key", 402: "plan", 403: "access", 404: step, 429: "quota"}
            kind = kinds.get(self._status, "server" if self._status >= 500 else "refused")
            return _Fault(kind, _words(str(error)), self._status)
        of = requests.exceptions
        classes: dict[str, tuple[type[Exception], ...]] = {
            "timeout": (of.Timeout,),
            "certificate": (of.SSLError,),
            "address": (of.InvalidURL, of.MissingSchema, of.InvalidSchema),
            "network": (of.ConnectionError,),
        }
        kinds_of = (kind for kind, known in classes.items() if isinstance(error, known))
        return _Fault(next(kinds_of, "answer"))

    def _watch_requests(self, silence: float) -> None:
        """Give each request of this process a time-out, and note the status of the answer."""
        import requests

        plain = requests.Session.request

        def request(*args: Any, **named: Any) -> requests.Response:
            self._status = 0
            left = max(self._deadline - time.monotonic(), 0.1)
            named["timeout"] = min(silence, left)
            response = plain(*args, **named)
            self._status = response.status_code
            return response

        requests.Session.request = request  # type: ignore[method-assign]


def _words(body: str) -> str:
    """Return what an error's body says to a person: a text, or an object with a message."""
    try:
        said = json.loads(body)
        said = said.get("error", said) if isinstance(said, dict) else said
        said = said.get("message", "") if isinstance(said, dict) else said
    except ValueError:
        said = "" if "<" in body else body
    return said[:2000] if isinstance(said, str) else ""


if __name__ == "__main__":
    _answer_request()

"""The process of its own in which the `roboflow` package looks up an export's link.

The package waits without limit, prints signed addresses, and names addresses with the key in its
exceptions. Here it can do so: nobody reads its output, and what leaves is one small answer. The
request comes by stdin (the key is on no command line), the answer goes to what was stdout.

Run by its path; it imports nothing of persondet.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

Answer = dict[str, Any]

_TRIES, _LOOKS_AT_AN_EMPTY_VERSION = 3, 2


class _Fault(Exception):
    """What went wrong, as one word, with the server's own words, or the versions that there are."""

    def __init__(self, kind: str, said: str = "", status: int = 0, known: str = "") -> None:
        super().__init__(kind)
        self.answer: Answer = {"fault": kind, "said": said, "status": status, "known": known}


def main() -> None:
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
        images = self._wait_until_generated()
        return {"link": self._wait_until_exported(), "images": images}

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

    def _wait_until_generated(self) -> int:
        empty = 0
        while True:
            answer = self._call("version", self._api.get_version, self._version, nocache=True)
            version = answer.get("version")
            if not isinstance(version, dict):
                raise _Fault("answer")
            images = version.get("images")
            if not version.get("generating"):
                if images != 0:
                    return images if isinstance(images, int) else -1
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
        classes: tuple[tuple[type[Exception], str], ...] = (
            (requests.Timeout, "timeout"),
            (requests.exceptions.SSLError, "certificate"),
            (requests.exceptions.InvalidURL, "address"),
            (requests.exceptions.MissingSchema, "address"),
            (requests.exceptions.InvalidSchema, "address"),
            (requests.ConnectionError, "network"),
        )
        for kind_of, kind in classes:
            if isinstance(error, kind_of):
                return _Fault(kind)
        return _Fault("answer")

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
    main()

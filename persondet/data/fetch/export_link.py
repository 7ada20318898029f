"""From workspace, project, version and format to the link of an export on Roboflow."""

from __future__ import annotations

import json
import logging
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from persondet.errors import DatasetError, InstallationError, PersondetError

logger = logging.getLogger(__name__)

KEY_VARIABLE = "ROBOFLOW_API_KEY"
FORMATS = ("coco-segmentation", "coco")
_GRACE = 15.0  # seconds for a process that keeps its own time to say so
_PROCESS = Path(__file__).with_name("link_process.py")


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


@dataclass(frozen=True)
class ExportLink:
    """Where an export can be fetched from. The link is signed: whoever has it can use it."""

    link: str = field(repr=False)
    images: int


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
) -> ExportLink:
    """Ask Roboflow for the link of an export, waiting while it is being made.

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
        return ExportLink(answer["link"], int(answer.get("images", -1)))
    fault, status = str(answer.get("fault", "unexpected")), answer.get("status", 0)
    said, known = (_scrubbed(str(answer.get(what, "")), key) for what in ("said", "known"))
    raise _error(name, fault, status, said, known)


def _ask(
    request: bytes, seconds: float, on_wait: Callable[[str, float], None] | None
) -> dict[str, Any]:
    """Run the process and return its last answer; no answer in time is a fault too."""
    environment = {name: value for name, value in os.environ.items() if name != KEY_VARIABLE}
    # -P: the folder of the script, with this room's files in it, does not go before the library.
    process = subprocess.Popen(
        [sys.executable, "-P", str(_PROCESS)],
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
    said = "".join(letter if letter.isprintable() else " " for letter in said)
    said = " ".join(said.split()).rstrip(".")
    return said if len(said) <= 200 else f"{said[:199]}…"


def _error(name: VersionName, fault: str, status: Any, said: str, known: str) -> PersondetError:
    """Return the one sentence for a fault."""
    if fault == "not-installed":
        return InstallationError(
            "the roboflow package is not installed; run `pip install 'roboflow>=1.7,<2'`, or "
            "download the export in the browser and import the zip."
        )
    quoted = f" ({said})" if said else ""
    place = f"{name.workspace}/{name.project}"
    versions = f"; its newest versions are {known}" if known else ""
    sentences = {
        "key": f"Roboflow does not accept the key in {KEY_VARIABLE}{quoted}; copy the private key "
        "of the workspace again.",
        "access": f"the key in {KEY_VARIABLE} may not read {place}{quoted}; use a key of the "
        f"workspace {name.workspace}.",
        "plan": f"the plan or quota of the workspace does not allow this export{quoted}; see its "
        "usage on app.roboflow.com.",
        "quota": f"Roboflow's limit of requests is reached{quoted}; wait some minutes and run the "
        "command again.",
        "workspace": f"Roboflow knows no workspace {name.workspace}, or the key may not see it; "
        "take the name from the address app.roboflow.com/WORKSPACE/PROJECT.",
        "project": f"the workspace {name.workspace} has no project {name.project}, or the key may "
        "not see it; take the name from the address app.roboflow.com/WORKSPACE/PROJECT.",
        "version": f"{place} has no version {name.version}{versions}; generate it on Roboflow, or "
        "give another --version.",
        "export": f"Roboflow has no export of {name} in the format {name.dataset_format}{quoted}; "
        "try another --format, or export it once in the browser.",
        "empty": f"{name} is empty: it has 0 images; generate a version with images on Roboflow.",
        "generating": f"{name} is still being generated on Roboflow; wait and run the command "
        "again.",
        "exporting": f"Roboflow is still preparing the export of {name}; wait and run the command "
        "again.",
        "timeout": "Roboflow did not answer in time; check the network and run the command again.",
        "network": "Roboflow cannot be reached; check the network and the proxy and run the "
        "command again.",
        "certificate": "Roboflow's certificate cannot be verified; check the clock and the proxy "
        "of this computer.",
        "address": "the address in API_URL is not one; unset it, or set it to https://...",
        "server": f"Roboflow has a fault of its own (status {status}){quoted}; run the command "
        "again later.",
        "refused": f"Roboflow refuses the request for {name} (status {status}){quoted}; check "
        "workspace, project and version.",
        "answer": f"Roboflow's answer about {name} is not understood; update the roboflow package, "
        "or download the export in the browser and import the zip.",
    }
    return DatasetError(
        sentences.get(
            fault,
            f"the roboflow package failed while it looked up {name}{quoted}; update it, or "
            "download the export in the browser and import the zip.",
        )
    )

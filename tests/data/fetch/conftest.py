"""A local server that speaks what the `roboflow` package asks for, and exports to serve."""

from __future__ import annotations

import json
import re
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

KEY = "Abcd1234SecretKeyOfMine"
SIGNATURE = "GOOGSIG4SIGNEDLINK0815"


@dataclass
class Served:
    """What the server was asked: the path without its query, and the headers."""

    path: str
    headers: dict[str, str]


@dataclass
class LocalRoboflow:
    """What the server answers; a test sets what is special about it.

    `api[step]` replaces the answer of a step (project, workspace, version, export) by
    (status, body) or "hang". `files` is what each request for the zip in turn gets; when the list
    has one entry left, it stays.
    """

    content: bytes = b""
    etag: str = '"one"'
    images: int = 12
    generating: int = 0
    exporting: int = 0
    versions: list[int] = field(default_factory=lambda: [1, 3])
    api: dict[str, Any] = field(default_factory=dict)
    files: list[str] = field(default_factory=lambda: ["whole"])
    asked: list[Served] = field(default_factory=list)
    port: int = 0
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def link(self) -> str:
        return f"{self.address}/storage/export.zip?X-Goog-Signature={SIGNATURE}"

    def times(self, path: str) -> int:
        return sum(served.path == path for served in self.asked)

    def answer(self, path: str, key: str) -> tuple[int, Any]:
        """The answer of the API to a path below its root."""
        parts = path.strip("/").split("/")
        step = {1: "workspace", 2: "project", 3: "version", 4: "export"}[len(parts)]
        if key != KEY:
            return 401, {"error": {"message": f"This API key does not exist: {key}"}}
        if step in self.api:
            if self.api[step] == "hang":
                self.released.wait(20)
            return self.api[step] if self.api[step] != "hang" else (500, "")
        if parts[0] != "harbour":
            return 404, {"error": "no such workspace"}
        if step == "workspace":
            return 200, {"workspace": {"name": "Harbour", "url": "harbour", "projects": []}}
        if parts[1] != "people":
            return 404, {"error": "no such project"}
        if step == "project":
            known = [{"id": f"harbour/people/{number}"} for number in self.versions]
            return 200, {"workspace": {}, "project": {"id": "harbour/people"}, "versions": known}
        if step == "version":
            self.generating -= 1
            making = self.generating >= 0
            images = 0 if making else self.images
            return 200, {"version": {"images": images, "generating": making, "progress": 0.5}}
        self.exporting -= 1
        if self.exporting >= 0:
            return 202, {"progress": 0.25}
        return 200, {"export": {"format": parts[3], "link": self.link, "size": 1}}


def _handler(server: LocalRoboflow) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            server.asked.append(Served(url.path, dict(self.headers)))
            if url.path.startswith("/storage/"):
                signed = parse_qs(url.query).get("X-Goog-Signature") == [SIGNATURE]
                what = server.files[0] if len(server.files) == 1 else server.files.pop(0)
                self.file(what if signed else "403")
                return
            status, body = server.answer(url.path, parse_qs(url.query).get("api_key", [""])[0])
            body = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send(status, body, {"Content-Length": str(len(body))})

        def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(body)

        def file(self, what: str) -> None:
            content, headers = server.content, {}
            what, _, more = what.partition(" ")
            if what.isdigit():
                self.send(int(what), b"<html>", {"Retry-After": more} if more else {})
            elif what == "html":
                self.send(200, b"<!DOCTYPE html><html>sign in", {"Content-Type": "text/html"})
            elif what == "redirect":
                self.send(302, b"", {"Location": more or self.path})
            elif what == "hang":
                server.released.wait(20)
            else:
                start = self.range_start(what, more)
                if server.etag:
                    headers["ETag"] = server.etag
                if what != "no-length":
                    headers["Content-Length"] = str(len(content) - start)
                if what == "part":  # an answer in itself, of less than was asked for
                    headers["Content-Length"] = more
                if start:
                    first = start + (7 if what == "wrong-range" else 0)
                    last = len(content) - 1
                    headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
                body = content[start:]
                if what in ("cut", "no-length", "part") and more:
                    body = body[: int(more)]
                self.send(206 if start else 200, b"", headers)
                self.stream(body, float(more) if what == "slow" else 0.0)

        def range_start(self, what: str, more: str) -> int:
            match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            same = self.headers.get("If-Range", server.etag) == server.etag or what == "any-range"
            return int(match[1]) if match and same and what != "no-range" else 0

        def stream(self, body: bytes, seconds: float) -> None:
            step = max(1, len(body) // 40) if seconds else len(body) or 1
            with suppress(OSError):
                for start in range(0, len(body), step):
                    self.wfile.write(body[start : start + step])
                    time.sleep(seconds / 40)

    return Handler


@pytest.fixture
def roboflow(
    tmp_path: Path, export_zip: bytes, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalRoboflow]:
    """The server, with project harbour/people and the versions 1 and 3, and the key set."""
    state = LocalRoboflow(content=export_zip)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    server.daemon_threads = True
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setenv("API_URL", state.address)
    monkeypatch.setenv("ROBOFLOW_API_KEY", KEY)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield state
    state.released.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def export_zip(tiny_export: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The tiny export as a zip's bytes."""
    path = tmp_path_factory.mktemp("zip") / "export.zip"
    write_zip(path, tiny_export)
    return path.read_bytes()


def write_zip(path: Path, folder: Path) -> None:
    """Pack what is in a folder."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if not path.is_dir()
    }

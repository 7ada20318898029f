"""A local server that speaks Roboflow's API, and exports to serve."""

import json
import re
import shutil
import threading
import time
from collections import namedtuple
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

KEY = "Abcd1234SecretKeyOfMine"
SIGNATURE = "GOOGSIG4SIGNEDLINK0815"
Served = namedtuple("Served", ["path", "headers"])  # a request; the path is without its query


@dataclass
class LocalRoboflow:
    """What the server answers; a test sets what is special about it.

    `api[step]` replaces the answer of a step (project, version, export) by (status, body) or
    "hang"; before that, `faults` answers fail. `files` is what each request for the zip in turn
    gets; when the list has one entry left, it stays.
    """

    content: bytes = b""
    etag: str = '"one"'
    images: int = 12
    generating: int = 0
    exporting: int = 0
    faults: int = 0
    api: dict[str, Any] = field(default_factory=dict)
    files: list[str] = field(default_factory=lambda: ["whole"])
    asked: list[Served] = field(default_factory=list)
    # What arrived: file name or image id to the body and the query. After so many it is busy.
    uploads: dict[str, Any] = field(default_factory=dict)
    annotations: dict[str, Any] = field(default_factory=dict)
    uploads_allowed: int = 100
    address: str = ""
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def link(self):
        return f"{self.address}/storage/export.zip?X-Goog-Signature={SIGNATURE}"

    def times(self, path):
        return sum(served.path == path for served in self.asked)

    def answer(self, path, key):
        """The answer of the API to a path below its root."""
        parts = path.strip("/").split("/")
        step = ("project", "version", "export")[len(parts) - 2]
        if key != KEY:
            return 401, {"error": {"message": f"This API key does not exist: {key}"}}
        self.faults -= 1
        if self.faults >= 0:
            return 500, ""
        if self.api.get(step) == "hang":
            self.released.wait(20)
            return 500, ""
        if step in self.api:
            return self.api[step]
        if parts[:2] != ["harbour", "people"]:
            return 404, {"error": "no such place"}
        if step == "version":
            self.generating -= 1
            making = self.generating >= 0
            images = 0 if making else self.images
            return 200, {"version": {"images": images, "generating": making, "progress": 0.5}}
        if step == "export":
            self.exporting -= 1
            making = self.exporting >= 0
            export = {"format": parts[3], "link": self.link, "size": 1}
            return (202, {"progress": 0.25}) if making else (200, {"export": export})
        versions = [{"id": f"harbour/people/{number}"} for number in (1, 3)]
        return 200, {"project": {"id": "harbour/people"}, "versions": versions}

    def take(self, path, query, body):
        """The answer to an image or an annotation that is sent."""
        kind, _, place = path.removeprefix("/dataset/people/").partition("/")
        self.faults -= 1
        if query.get("api_key") != KEY or self.faults >= 0:
            return (401 if self.faults < 0 else 500), ""
        if kind in self.api:
            return self.api[kind]
        if kind == "annotate":
            self.annotations[place] = body, query
            return 200, {"success": True}
        name = re.search(rb'filename="([^"]+)"', body)[1].decode()
        if len(self.uploads) >= self.uploads_allowed:
            return 429, "busy"
        self.uploads[name] = body, query
        return 200, {"success": True, "id": f"id-{list(self.uploads).index(name)}"}


class _Handler(BaseHTTPRequestHandler):
    state: LocalRoboflow

    def log_message(self, *_):
        pass

    def do_GET(self):
        url, state = urlsplit(self.path), self.state
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        state.asked.append(Served(url.path, dict(self.headers)))
        if url.path.startswith("/storage/"):
            what = state.files[0] if len(state.files) == 1 else state.files.pop(0)
            self.file(what if query.get("X-Goog-Signature") == SIGNATURE else "403")
            return
        status, body = state.answer(url.path, query.get("api_key", ""))
        body = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send(status, body, {"Content-Length": str(len(body))})

    def do_POST(self):
        url, state = urlsplit(self.path), self.state
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, answer = state.take(url.path, query, body)
        answer = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send(status, answer, {"Content-Length": str(len(answer))})

    def send(self, status, body, headers, seconds=0):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        step = max(1, len(body) // 40) if seconds else len(body) or 1
        with suppress(OSError):
            for start in range(0, len(body), step):
                self.wfile.write(body[start : start + step])
                time.sleep(seconds / 40)

    def file(self, what):
        """Answer a request for the zip: `what` may be a status, a fate, and a number for it."""
        what, _, more = what.partition(" ")
        if what.isdigit():
            self.send(int(what), b"<html>", {"Retry-After": more} if more else {})
        elif what == "html":
            self.send(200, b"<!DOCTYPE html><html>sign in", {"Content-Type": "text/html"})
        elif what == "redirect":
            self.send(302, b"", {"Location": more or self.path})
        elif what == "hang":
            self.state.released.wait(20)
        else:
            self.part(what, more)

    def part(self, what, more):
        content, etag = self.state.content, self.state.etag
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range", etag) == etag or what == "any-range"
        start = int(match[1]) if match and same and what != "no-range" else 0
        body = content[start:]
        headers = {"ETag": etag} if etag else {}
        if what != "no-length":
            headers["Content-Length"] = str(len(body))
        if what in ("cut", "no-length", "part") and more:
            body = body[: int(more)]
        if what == "part":  # an answer in itself, of less than was asked for
            headers["Content-Length"] = more
        if start:
            first, last = start + (7 if what == "wrong-range" else 0), len(content) - 1
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        seconds = float(more) if what == "slow" else 0
        self.send(206 if start else 200, body, headers, seconds)


@pytest.fixture
def roboflow(export_zip, monkeypatch):
    """The server, with project harbour/people and the versions 1 and 3, and the key set."""
    state = LocalRoboflow(content=export_zip)
    handler = type("Handler", (_Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    state.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("API_URL", state.address)
    monkeypatch.setenv("ROBOFLOW_API_KEY", KEY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield state
    state.released.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def export_zip(tiny_export, tmp_path_factory):
    path = tmp_path_factory.mktemp("zip") / "export.zip"
    write_zip(path, tiny_export)
    return path.read_bytes()


def write_zip(path, folder):
    shutil.make_archive(str(path.with_suffix("")), "zip", folder)


def contents(folder):
    files = (path for path in folder.rglob("*") if not path.is_dir())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

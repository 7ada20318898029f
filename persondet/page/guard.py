"""What stands before the page: who may ask for what.

The page is for the people at this computer, where a browser runs the scripts of strangers too. A
`Guard` is an ASGI application around another one. It refuses a foreign Host or Origin (a name that
a stranger's page has rebound to this computer; a form that posts to it), routes that the page does
not use, uploads that are too large, and files and sessions of another visitor. Visitors are told
apart by a cookie. This module needs the standard library alone.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

VISITOR_HEADER = "x-visitor"
SHARED = "shared"  # a folder for all visitors
_LARGEST_FORM = 2**20  # bytes of what is no upload
_KEPT_FREE = 2**30  # bytes of the disk
_UPLOADS_KEPT = 6  # of one visitor; older files go
_API = "/gradio_api"
_REFUSED = "persondet.refused"
_FILE, _UPLOAD = f"{_API}/file=", f"{_API}/upload"
_READ = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json|report\.html)/?|/(assets|static|svelte)/.+"
    rf"|{_API}/(info|app_id|startup-events|theme\.css|queue/data|upload_progress|heartbeat/.+|file=.+)"
)
_WRITE = re.compile(rf"{_API}/(queue/join|upload|cancel|reset)/?")
# Nothing from another address, whatever a script of the page may try.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; worker-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; font-src 'self' data:; img-src 'self' data: blob:; "
    "media-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'self'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class Refusal(Exception):
    """A request is refused: the status of the answer, and the sentence in it."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Guard:
    """The application `app`, for the requests that may pass.

    Args:
        app: gets the visitor's id in the header `VISITOR_HEADER`.
        root: the folder of all files; a visitor sees `root/<id>`, `root/shared` and their uploads.
        port: where the server listens.
        most_bytes: of one upload.
    """

    def __init__(self, app: App, root: Path, port: int, most_bytes: int) -> None:
        self._app, self._root, self._most = app, root.resolve(), most_bytes
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
        self._hosts |= {"127.0.0.1", "localhost"} if port == 80 else set()
        self._cookie = f"persondet_page_{port}"  # all ports of a computer share their cookies
        self._uploads: dict[str, list[Path]] = {}  # by visitor, the latest last
        self._uploading = 0
        self._sessions: dict[str, str] = {}  # of browser tabs: who began them

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        more, secret = list(_HEADERS), self._secret(scope)
        if not secret:
            secret = secrets.token_urlsafe(24)
            cookie = f"{self._cookie}={secret}; Path=/; HttpOnly; SameSite=Lax"
            more.append((b"set-cookie", cookie.encode()))
        visitor = hashlib.sha256(secret.encode()).hexdigest()[:32]
        answered = False

        async def answer(message: Message) -> None:
            nonlocal answered
            if _REFUSED in scope and not answered:
                return  # what the application says to a body that was cut off here
            if message["type"] == "http.response.start":
                answered = True
                message["headers"] = [*message.get("headers", ()), *more]
            await send(message)

        refusal: Refusal | None = None
        try:
            await self._pass(scope, receive, answer, visitor)
        except Refusal as error:
            refusal = error
        except Exception:
            if _REFUSED not in scope:
                raise
        refusal = scope.pop(_REFUSED, refusal)
        if refusal is not None and not answered:
            text = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
            start = {"type": "http.response.start", "status": refusal.status, "headers": text}
            await answer(start)
            await answer({"type": "http.response.body", "body": f"{refusal}\n".encode()})

    def _secret(self, scope: MutableMapping[str, Any]) -> str:
        """Return what the visitor's cookie holds; "" without one, or with one that is not ours."""
        try:
            jar = SimpleCookie(_header(scope, b"cookie"))
        except CookieError:
            return ""
        value = jar[self._cookie].value if self._cookie in jar else ""
        return value if re.fullmatch(r"[\w-]{32}", value) else ""

    async def _pass(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send, visitor: str
    ) -> None:
        """Hand a request on, or raise a `Refusal`."""
        self._check_address(scope)
        path, posted = scope["path"], scope["method"] == "POST"
        session = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("session_hash", [])
        if path.startswith(_FILE):
            self._check_file(path.removeprefix(_FILE), visitor)
        elif path.startswith(f"{_API}/heartbeat/"):
            session = [path.rpartition("/")[2]]
        for name in session:
            self._check_session(name, visitor)
        dropped = {b"cookie", VISITOR_HEADER.encode()}
        if uploading := path.rstrip("/") == _UPLOAD:
            # The answer is read here, so it must come as it is.
            dropped.add(b"accept-encoding")
            receive, send = self._upload(scope, receive, send, visitor)
        elif posted:
            receive = await self._form(scope, receive, visitor)
        headers = [(name, value) for name, value in scope["headers"] if name not in dropped]
        headers.append((VISITOR_HEADER.encode(), visitor.encode()))
        self._uploading += uploading
        try:
            await self._app({**scope, "headers": headers}, receive, send)
        finally:
            self._uploading -= uploading
            if uploading and not self._uploading:
                # Gradio leaves the beginning of a file whose upload was cut off.
                for rest in filter(Path.is_file, self._root.glob("tmp*")):
                    rest.unlink(missing_ok=True)

    def _check_address(self, scope: MutableMapping[str, Any]) -> None:
        host, origin = _header(scope, b"host"), _header(scope, b"origin")
        if host not in self._hosts:
            raise Refusal(421, "Refused: the page has another address; see where it was started.")
        if origin and origin.removeprefix("http://") not in self._hosts:
            raise Refusal(403, "Refused: the request comes from another page.")
        allowed = {"GET": _READ, "HEAD": _READ, "POST": _WRITE}.get(scope["method"])
        if allowed is None or not allowed.fullmatch(scope["path"]):
            raise Refusal(404, "Refused: the page has no such part.")

    def _check_file(self, name: str, visitor: str) -> None:
        """Refuse a file that is not the visitor's."""
        try:
            path = Path(name).resolve()
        except (OSError, ValueError, RuntimeError):  # a NUL, a loop of links
            path = Path()
        own = any(path.is_relative_to(self._root / folder) for folder in (visitor, SHARED))
        if not own and path not in self._uploads.get(visitor, ()):
            raise Refusal(403, "Refused: that file is none of yours.")

    def _check_session(self, name: Any, visitor: str) -> None:
        if self._sessions.setdefault(str(name), visitor) != visitor:
            raise Refusal(403, "Refused: that session is none of yours.")

    def _counted(
        self, scope: MutableMapping[str, Any], receive: Receive, most: int, sentence: str
    ) -> Receive:
        """Refuse a body of more than `most` bytes by its announced length; else count them."""
        length = _header(scope, b"content-length")
        if length and not (length.isdigit() and int(length) <= most):
            raise Refusal(413, sentence)
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:
                scope[_REFUSED] = Refusal(413, sentence)
                raise scope[_REFUSED]
            return message

        return counted

    def _upload(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send, visitor: str
    ) -> tuple[Receive, Send]:
        """Cap an upload, and note whose files the answer names."""
        megabytes = self._most // 10**6
        # The form around a file takes some bytes too.
        receive = self._counted(
            scope,
            receive,
            self._most + 10_000,
            f"Refused: the file is too large; {megabytes:,} MB is the limit.",
        )
        length = int(_header(scope, b"content-length") or self._most)
        if shutil.disk_usage(self._root).free < length + _KEPT_FREE:
            raise Refusal(507, "Refused: the disk is nearly full.")
        status, body = 0, b""

        async def noted(message: Message) -> None:
            nonlocal status, body
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                body += message.get("body", b"")
                if status == 200 and not message.get("more_body"):
                    self._note(visitor, [Path(name).resolve() for name in json.loads(body)])
            await send(message)

        return receive, noted

    def _note(self, visitor: str, files: list[Path]) -> None:
        """Note a visitor's uploads, and remove old ones that nobody else has."""
        mine = self._uploads.setdefault(visitor, [])
        mine[:] = [path for path in mine if path not in files] + files
        old, mine[:] = mine[:-_UPLOADS_KEPT], mine[-_UPLOADS_KEPT:]
        used = {path for paths in self._uploads.values() for path in paths}
        for path in {*old} - used:
            if path.is_relative_to(self._root):
                path.unlink(missing_ok=True)

    async def _form(
        self, scope: MutableMapping[str, Any], receive: Receive, visitor: str
    ) -> Receive:
        """Read what is sent to the page: every file and session that it names is the visitor's."""
        read = self._counted(scope, receive, _LARGEST_FORM, "Refused: the request is too large.")
        body, more = b"", True
        while more:
            message = await read()
            if message["type"] != "http.request":
                raise Refusal(400, "Refused: the request was cut off.")
            body, more = body + message.get("body", b""), message.get("more_body", False)
        try:
            form = json.loads(body)
            named = [*_named(form)]
        except (ValueError, RecursionError) as error:
            raise Refusal(400, "Refused: the request is no JSON.") from error
        for key, value in named:
            if key == "path":
                self._check_file(str(value), visitor)
            elif key == "session_hash":
                self._check_session(value, visitor)
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return messages.pop() if messages else await receive()

        return again


def _header(scope: MutableMapping[str, Any], name: bytes) -> str:
    values = [value for key, value in scope["headers"] if key == name]
    return b", ".join(values).decode("latin-1")


def _named(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield each (key, value) of all objects in a JSON document, but for values that are null."""
    if isinstance(value, dict):
        yield from ((key, inner) for key, inner in value.items() if inner is not None)
        value = [*value.values()]
    for inner in value if isinstance(value, list) else ():
        yield from _named(inner)

"""The guard alone, around an application that tells what reaches it; no server, no Gradio."""

import asyncio
import json
from pathlib import Path

import pytest

from persondet.page.guard import Guard

MOST = 1000


class Echo:
    """Answers with path, visitor and length of the body; to an upload, with the files it `has`."""

    def __init__(self, has=()):
        self.has, self.scopes = [*map(str, has)], []

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        size, more = 0, scope["method"] == "POST"
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        headers = dict(scope["headers"])
        said = {"path": scope["path"], "visitor": headers[b"x-visitor"].decode(), "size": size}
        if scope["path"].endswith("/upload"):
            said = self.has
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(said).encode()})


class Client:
    """One browser: keeps its cookie."""

    def __init__(self, guard):
        self.guard, self.cookie = guard, b""

    def __call__(self, path, *, method="GET", body=b"", headers=(), query=b"", host=b"localhost:7"):
        chunks = [body[i : i + 300] for i in range(0, len(body), 300)] or [b""]
        messages = [
            {"type": "http.request", "body": chunk, "more_body": i + 1 < len(chunks)}
            for i, chunk in enumerate(chunks)
        ]
        self.unread, sent = messages, []

        async def receive():
            return messages.pop(0)

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": method, "path": path, "query_string": query}
        scope["headers"] = [(b"host", host), (b"cookie", self.cookie), *headers]
        asyncio.run(self.guard(scope, receive, send))
        start, *rest = sent
        for name, value in start["headers"]:
            if name == b"set-cookie":
                self.cookie = value.split(b";")[0]
        self.headers = dict(start["headers"])
        text = b"".join(message.get("body", b"") for message in rest)
        return start["status"], json.loads(text) if start["status"] == 200 else text.decode()

    def post(self, path, value, **more):
        return self(path, method="POST", body=json.dumps(value).encode(), **more)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root" / "shared").mkdir(parents=True)
    return tmp_path / "root"


@pytest.fixture
def echo():
    return Echo()


@pytest.fixture
def client(root, echo):
    return Client(Guard(echo, root, 7, MOST))


@pytest.mark.parametrize(
    ("host", "status"),
    [(b"localhost:7", 200), (b"127.0.0.1:7", 200)]
    + [(host, 421) for host in (b"", b"localhost", b"evil.example:7", b"127.0.0.1:8", b"0.0.0.0:7")]
    + [(host, 421) for host in (b"localhost:7.evil.example", b"evil.example@localhost:7")],
)
def test_a_forged_host_is_refused(client, echo, host, status):
    assert client("/", host=host)[0] == status
    assert len(echo.scopes) == (status == 200)


@pytest.mark.parametrize(
    ("origin", "status"),
    [(b"http://localhost:7", 200), (b"http://evil.example", 403), (b"null", 403)]
    + [(b"https://localhost:7", 403), (b"http://localhost:8", 403)],
)
def test_a_form_of_another_page_is_refused(client, origin, status):
    said = client.post("/gradio_api/queue/join", {}, headers=[(b"origin", origin)])
    assert said[0] == status


@pytest.mark.parametrize(
    "path", ["/gradio_api/proxy=http://a", "/docs", "/gradio_api/run/predict", "/login", "/file/x"]
)
def test_routes_that_the_page_does_not_use_are_closed(client, path):
    assert client(path)[0] == client.post(path, {})[0] == 404
    assert client("/config", method="DELETE")[0] == client("/config", method="POST")[0] == 404
    assert client("/config")[0] == 200


def test_a_visitor_is_known_by_a_cookie_that_is_not_shown_to_scripts(root, echo, client):
    first = client("/")[1]["visitor"]
    assert b"HttpOnly" in client.headers[b"set-cookie"]
    assert client("/")[1]["visitor"] == first
    assert b"set-cookie" not in client.headers
    forged = [(b"x-visitor", first.encode())]
    other = Client(client.guard)
    assert other("/", headers=forged)[1]["visitor"] != first
    assert client.cookie.decode().partition("=")[2] not in first


def file(client, path):
    return client(f"/gradio_api/file={path}")[0]


def test_files_of_others_and_outside_the_folder_are_refused(tmp_path, root, client):
    other = Client(client.guard)
    mine, theirs = client("/")[1]["visitor"], other("/")[1]["visitor"]
    for place in (root / mine, root / theirs, tmp_path):
        place.mkdir(exist_ok=True)
        (place / "a.jpg").touch()
    (root / "shared" / "loss.png").touch()
    (root / mine / "link.jpg").symlink_to(tmp_path / "a.jpg")
    assert file(client, root / mine / "a.jpg") == file(client, root / "shared/loss.png") == 200
    assert file(other, root / theirs / "a.jpg") == 200
    refused = [
        *(root / theirs / "a.jpg", tmp_path / "a.jpg", "/etc/passwd", "../a.jpg", "a\0.jpg"),
        *(root / mine / ".." / ".." / "a.jpg", root / mine / "link.jpg", root, "http://a/b"),
        *(root / "shared/../a.jpg", f"{root / mine}x/a.jpg", "file:///etc/passwd"),
    ]
    assert [file(client, path) for path in refused] == [403] * len(refused)


def test_a_form_names_only_ones_own_files_and_sessions(root, client):
    other = Client(client.guard)
    mine, theirs = client("/")[1]["visitor"], other("/")[1]["visitor"]

    def join(client, path, session):
        data = [{"deep": [{"path": str(path)}]}, None, 3]
        return client.post("/gradio_api/queue/join", {"data": data, "session_hash": session})[0]

    assert join(client, root / mine / "a.jpg", "s") == 200
    assert join(other, root / theirs / "a.jpg", "t") == 200
    assert join(other, root / mine / "a.jpg", "t") == 403
    assert join(other, "/etc/passwd", "t") == join(other, "https://a/b.jpg", "t") == 403
    assert join(other, root / theirs / "a.jpg", "s") == 403
    assert other("/gradio_api/queue/data", query=b"session_hash=s")[0] == 403
    assert other("/gradio_api/heartbeat/s")[0] == 403
    assert other.post("/gradio_api/cancel", {"session_hash": "s"})[0] == 403
    assert client("/gradio_api/queue/data", query=b"session_hash=s")[0] == 200
    assert client("/gradio_api/queue/join", method="POST", body=b"{")[0] == 400
    assert client("/gradio_api/queue/join", method="POST", body=b"[" * 10**5)[0] == 400
    assert client("/gradio_api/queue/join", method="POST", body=b"1")[0] == 200
    assert client("/gradio_api/queue/join", method="POST", body=b" " * (2**20 + 1))[0] == 413


def upload(client, size, *headers):
    return client("/gradio_api/upload", method="POST", body=b"x" * size, headers=headers)


def test_an_upload_is_capped_by_its_announced_length_and_by_its_bytes(root, client):
    status, said = upload(client, 12_000, (b"content-length", b"2000000000"))
    assert status == 413 and "0 MB is the limit" in said
    assert len(client.unread) == 40  # nothing of the body was read
    assert upload(client, 12_000)[0] == 413
    assert 0 < len(client.unread) < 10
    assert upload(client, 1_000, (b"content-length", b"1000"))[0] == 200
    assert upload(client, 1_000, (b"content-length", b"-1"))[0] == 413
    assert upload(client, 1_000, (b"content-length", b"1, 2"))[0] == 413


@pytest.mark.parametrize("swallows", [False, True])
def test_what_an_application_says_to_a_cut_body_does_not_hide_the_refusal(root, swallows):
    async def careless(scope, receive, send):
        try:
            while (await receive())["more_body"]:
                pass
        except Exception:
            await send({"type": "http.response.start", "status": 500, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            if not swallows:
                raise

    (root / "tmpbeginning").touch()
    assert upload(Client(Guard(careless, root, 7, MOST)), 12_000)[0] == 413
    assert [path.name for path in root.iterdir()] == ["shared"]


def test_an_upload_is_its_visitors_and_old_ones_go(root, client, echo):
    files = [root / str(i) / "a.jpg" for i in range(9)]
    for path in files:
        path.parent.mkdir()
        path.touch()
    other = Client(client.guard)
    for path in files[:2]:
        echo.has = [str(path)]
        assert upload(client, 5)[0] == 200
    assert upload(other, 5)[0] == 200  # the same file, files[1]
    assert [file(client, path) for path in files[:3]] == [200, 200, 403]
    assert [file(other, path) for path in files[:3]] == [403, 200, 403]
    for path in files[2:]:
        echo.has = [str(path)]
        upload(client, 5)
    there = [path.is_file() for path in files]
    assert there == [False, True, False, *[True] * 6]
    assert [file(client, path) for path in files] == [403] * 3 + [200] * 6


def test_a_full_disk_is_not_filled(root, client, monkeypatch):
    usage = type("usage", (), {"free": 2**30 + 1500})
    monkeypatch.setattr("persondet.page.guard.shutil.disk_usage", lambda _: usage)
    assert upload(client, 5, (b"content-length", b"1400"))[0] == 200
    assert upload(client, 5, (b"content-length", b"1600"))[0] == 507


def test_the_browser_is_told_to_load_nothing_from_elsewhere(client):
    client("/")
    policy = client.headers[b"content-security-policy"].decode()
    assert "default-src 'self';" in policy and "http" not in policy and "*" not in policy
    assert client.headers[b"x-content-type-options"] == b"nosniff"


def test_a_websocket_is_closed(root, echo):
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "websocket", "path": "/", "headers": []}
    asyncio.run(Guard(echo, Path(root), 7, MOST)(scope, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]

"""The running page by raw HTTP: what it serves, what it refuses, what it asks of the network."""

import json
import re
import socket
import time
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote

import cv2
import pytest

from persondet.errors import ConfigError
from persondet.page.server import listen
from tests.page.conftest import MEGABYTES

pytestmark = pytest.mark.slow


class Visitor:
    """A browser without scripts: one cookie, one session."""

    def __init__(self, page, session):
        self.page, self.session, self.cookie = page, session, ""
        self.config = json.loads(self.get("/config")[1])

    def request(self, method, path, body=None, **headers):
        connection = HTTPConnection("127.0.0.1", self.page.port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {"Cookie": self.cookie} | named)
        answer = connection.getresponse()
        if cookie := answer.getheader("set-cookie"):
            self.cookie = cookie.split(";")[0]
        self.headers = answer.headers
        return answer.status, answer.read()

    def get(self, path, **headers):
        return self.request("GET", path, **headers)

    def upload(self, path, name=None):
        form = b'--b\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n'
        body = form % (name or path.name).encode() + path.read_bytes() + b"\r\n--b--\r\n"
        kind = "multipart/form-data; boundary=b"
        status, said = self.request("POST", "/gradio_api/upload", body, Content_Type=kind)
        assert status == 200
        return json.loads(said)[0]

    def event(self, target, name):
        """Return the number of the event `name` of the element with the id `target`."""
        ids = {c["props"].get("elem_id"): c["id"] for c in self.config["components"]}
        found = [d for d in self.config["dependencies"] if [ids[target], name] in d["targets"]]
        return found[0]["id"]

    def join(self, event, data):
        body = {"data": data, "fn_index": event, "session_hash": self.session}
        kind = "application/json"
        place = "/gradio_api/queue/join"
        said = self.request("POST", place, json.dumps(body), Content_Type=kind)
        return said[0], json.loads(said[1]) if said[0] == 200 else said[1].decode()

    def call(self, event, data):
        """Return what the event puts out in the end; None: it has failed."""
        assert self.join(event, data)[0] == 200
        said = self.get(f"/gradio_api/queue/data?session_hash={self.session}")[1].decode()
        messages = [json.loads(line[5:]) for line in said.splitlines() if line.startswith("data:")]
        (done,) = (m for m in messages if m["msg"] == "process_completed")
        return done["output"]["data"] if done["success"] else None

    def detect(self, path, threshold=0.5):
        given = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
        return self.call(self.event("image-source", "upload"), [given, threshold, True])

    def file(self, path):
        return self.get(f"/gradio_api/file={quote(str(path))}")


@pytest.fixture
def visitor(page, request):
    return Visitor(page, request.node.name.partition("[")[0])


def test_an_image_goes_in_and_image_and_records_come_out(page, visitor, tmp_path):
    told, image, file, records, table = visitor.detect(visitor.upload(page.image))
    assert "from 0.50 on: <b>2</b>" in told
    assert [row[0] for row in table["value"]["data"]] == ["person", "person"]
    status, body = visitor.file(image["value"]["path"])
    (tmp_path / "a.jpg").write_bytes(body)
    assert status == 200 and cv2.imread(str(tmp_path / "a.jpg")).shape == (64, 96, 3)
    assert file["value"]["path"] == image["value"]["path"]
    status, body = visitor.file(records["value"]["path"])
    assert json.loads(body.splitlines()[1])["file_name"] == "square.jpg"


def test_a_file_of_the_wrong_kind_is_one_sentence(page, visitor, tmp_path):
    (tmp_path / "a.jpg").write_text("<html><script>alert(1)</script>")
    path = visitor.upload(tmp_path / "a.jpg", "<b>.jpg")
    told, image, *_ = visitor.detect(path)
    assert 'role="alert"' in told and "it is an HTML page" in told and not image["visible"]
    assert "<b>" not in told and str(page.folder) not in told


def test_two_visitors_do_not_see_each_others_files_and_results(page):
    one, other = Visitor(page, "one"), Visitor(page, "other")
    mine, theirs = one.upload(page.image), other.upload(page.clip)
    image = one.detect(mine)[1]["value"]["path"]
    records = one.detect(mine)[3]["value"]["path"]
    assert [one.file(path)[0] for path in (mine, image, records)] == [200, 200, 200]
    assert [other.file(path)[0] for path in (mine, image, records)] == [403, 403, 403]
    assert [one.file(theirs)[0], other.file(theirs)[0]] == [403, 200]
    event = other.event("image-source", "upload")
    assert other.join(event, [{"path": mine}, 0.5, True])[0] == 403
    other.session = "one"
    assert other.join(event, [{"path": theirs}, 0.5, True])[0] == 403
    assert other.get("/gradio_api/queue/data?session_hash=one")[0] == 403
    assert other.get("/gradio_api/heartbeat/one")[0] == 403


def test_paths_outside_the_folder_are_refused(page, visitor):
    outside = [
        *("/etc/passwd", "../../../etc/passwd", page.clip, page.notes, Path(__file__)),
        *(page.folder, "http://127.0.0.1:1/a", "file:///etc/passwd", "~/.bashrc"),
    ]
    assert [visitor.file(path)[0] for path in outside] == [403] * len(outside)
    for path in ("/static/%2e%2e/%2e%2e/version.txt", "/assets/..%2f..%2fconfig.py", "/file=/etc"):
        assert visitor.get(path)[0] in (403, 404)
    event = visitor.event("image-source", "upload")
    assert visitor.join(event, [{"path": "/etc/passwd"}, 0.5, True])[0] == 403
    annotate = visitor.event("clip-go", "click") + 1
    for pick in ("/etc/passwd", str(page.clip)):
        assert visitor.call(annotate, [None, pick, 0, 1, 0.5, True]) is None


def raw(page, text, address="127.0.0.1"):
    """Send the beginning of a request, and return the first line of the answer."""
    with socket.create_connection((address, page.port), timeout=30) as connection:
        connection.sendall(text.encode())
        return connection.recv(4096).decode().splitlines()[0]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "[::1]"])
def test_a_forged_host_is_refused(page, host):
    host = host.format(port=page.port)
    for path in ("/", "/config", "/gradio_api/file=/etc/passwd"):
        assert " 421 " in raw(page, f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
    assert " 200 " in raw(page, f"GET / HTTP/1.1\r\nHost: localhost:{page.port}\r\n\r\n")


def test_a_form_of_another_page_is_refused(page, visitor):
    posted = visitor.request("POST", "/gradio_api/upload", b"", Origin="http://evil.example")
    assert posted[0] == 403


def test_two_gigabytes_are_refused_before_they_are_sent(page):
    head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost:{page.port}\r\n"
    head += "Content-Type: multipart/form-data; boundary=b\r\n"
    assert " 413 " in raw(page, f"{head}Content-Length: 2147483648\r\n\r\n")


def test_an_upload_without_a_length_is_cut_at_the_limit_and_leaves_nothing(page):
    head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost:{page.port}\r\n"
    head += "Content-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n\r\n"
    form = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
    (root,) = page.folder.glob("persondet-page-*")
    before, sent = used(root), 0
    with socket.create_connection(("127.0.0.1", page.port), timeout=30) as connection:
        connection.sendall(head.encode() + b"%x\r\n%s\r\n" % (len(form), form))
        try:
            for _ in range(2000):  # two gigabytes
                connection.sendall(b"%x\r\n%s\r\n" % (2**20, bytes(2**20)))
                sent += 1
        except OSError:
            pass
        else:
            raise AssertionError("everything was taken")
    assert sent < 30 * MEGABYTES
    for _ in range(100):
        if used(root) == before and not list(root.glob("tmp*")):
            break
        time.sleep(0.1)
    assert used(root) == before
    assert Visitor(page, "after").upload(page.image)


def used(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_it_listens_at_127_0_0_1_alone(page):
    line = f"GET / HTTP/1.1\r\nHost: localhost:{page.port}\r\n\r\n"
    assert " 200 " in raw(page, line)
    with pytest.raises(OSError):
        raw(page, line, "127.0.0.2")
    assert page.noted("socket.bind") == ["(('127.0.0.1', 0),)"]
    with pytest.raises(ConfigError, match="choose another one"):
        listen(page.port)


def test_report_and_curves_are_there_and_the_report_runs_no_script(page, visitor):
    status, body = visitor.get("/report.html")
    assert status == 200 and b"<h1>" in body
    assert "sandbox" in ", ".join(visitor.headers.get_all("content-security-policy"))
    shown = json.dumps(visitor.config)
    curve = shown.partition("gradio_api/file=")[2].partition(".png")[0] + ".png"
    assert visitor.get(f"/gradio_api/file={curve}")[0] == 200


def test_nothing_is_asked_of_the_network(page, visitor):
    """Looks at all that the server did up to now; the tests before this one used the page."""
    visitor.detect(visitor.upload(page.image))
    for event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        assert page.noted(event) == [], event
    source = visitor.get("/")[1].decode()
    loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"([^\"]+)", source)
    assert loaded and not [address for address in loaded if "//" in address]

"""Clips behind an address: read like files, and no label, log or error shows their secrets."""

import contextlib
import http.server
import logging
import threading
import traceback
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.errors import MediaError
from persondet.video import source as source_module
from persondet.video.reader import VideoReader
from persondet.video.source import is_address, local_path, shown, shown_name
from tests.video.clips import noisy_clip

SECRETS = ("somebody", "s3cret", "t0ken")


@pytest.mark.parametrize(
    ("address", "label", "name"),
    [
        ("http://example.org/a/walk.mp4", "http://example.org/a/walk.mp4", "walk.mp4"),
        ("https://example.org:8443/live?key=1#t=3", "https://example.org:8443/live", "live"),
        ("RTSP://user:pass@camera/stream1", "rtsp://camera/stream1", "stream1"),
        ("rtsp://user:p@ss@camera/1", "rtsp://camera/1", "1"),
        ("https://example.org/@some/walk.mp4", "https://example.org/@some/walk.mp4", "walk.mp4"),
        ("rtsp://user:pa/ss@camera/1", "rtsp://…", "…"),
    ],
)
def test_what_is_shown_of_an_address(address, label, name):
    assert is_address(address)
    assert (shown(address), shown_name(address)) == (label, name)


@pytest.mark.parametrize(
    ("name", "path"),
    [(name, name) for name in ("walk.mp4", "a:b.mp4", "C:/walk.mp4", "C://a.mp4")]
    + [("file:///a/b%20c.mp4", "/a/b c.mp4"), ("FILE:///a/b%20c.mp4", "/a/b c.mp4")],
)
def test_files_are_no_addresses(name, path):
    assert not is_address(name)
    assert (shown(name), local_path(name)) == (str(Path(path)), Path(path))
    assert shown_name(name) == Path(path).name


@settings(max_examples=25)
@given(
    st.text("ab1/.:@?#%ß", min_size=6, max_size=12).filter(lambda t: t.strip("/.:@?#") == t),
    st.sampled_from(["/walk.mp4", "", "/a@b/c", "/x?a=b@c", "?q=@", "#@"]),
)
def test_a_password_is_never_shown_whatever_is_in_it(secret, rest):
    label = shown(f"rtsp://somebody:s3cr3t{secret}@camera{rest}")
    assert not any(part in label for part in ("s3cr3t", "somebody"))
    assert secret not in label or secret in f"rtsp://camera{rest}"


@contextlib.contextmanager
def clips(files, wait=None):
    """Serve {path: bytes} on the yielded port, to clients with a user and a password."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if wait is not None:
                wait.wait(20)
            body = files.get(self.path.partition("?")[0])
            status = 200 if body is not None else 404
            if "Authorization" not in self.headers:
                status = 401
            body = body if status == 200 else b""
            self.send_response(status)
            self.send_header("WWW-Authenticate", 'Basic realm="clips"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


def hides_its_secrets(text):
    return not any(secret in text for secret in SECRETS)


def test_an_address_is_read_like_a_file(clip, caplog, capfd):
    with caplog.at_level(logging.DEBUG), clips({"/a/walk.mp4": clip.read_bytes()}) as port:
        address = f"http://somebody:s3cret@127.0.0.1:{port}/a/walk.mp4?key=t0ken#part"
        with VideoReader(address) as reader:
            assert reader.name == "walk.mp4"
            assert reader.label == f"http://127.0.0.1:{port}/a/walk.mp4"
            read = [(frame.index, frame.time) for frame in reader]
        part = [frame.index for frame in VideoReader(address, start=0.2)]
    assert read == [(frame.index, frame.time) for frame in VideoReader(clip.as_uri())]
    assert part == [6, 7, 8, 9]
    assert hides_its_secrets(caplog.text + "".join(capfd.readouterr()))


def test_errors_of_an_address_do_not_show_its_secrets(clip, caplog, capfd):
    pages = {
        "/page": b"<!doctype html><html>",
        "/cut.mp4": clip.read_bytes()[:700],
        # A list on the network must not lead to a local file.
        "/list.m3u8": f"#EXTM3U\n#EXTINF:1,\nfile://{clip}\n#EXT-X-ENDLIST\n".encode(),
    }
    says = {"none": "404", "page": "Invalid data", "cut.mp4": "cut.mp4", "list.m3u8": "list.m3u8"}
    with caplog.at_level(logging.DEBUG), clips(pages) as port:
        for name, reason in says.items():
            address = f"http://somebody:s3cret@127.0.0.1:{port}/{name}?key=t0ken"
            with pytest.raises(MediaError, match=reason) as caught:
                VideoReader(address)
            assert hides_its_secrets("".join(traceback.format_exception(caught.value)))
            assert caught.value.__context__ is None
    assert hides_its_secrets(caplog.text + "".join(capfd.readouterr()))


def test_a_server_that_does_not_answer_and_other_schemes_are_refused(clip, monkeypatch):
    monkeypatch.setattr(source_module, "ANSWER_SECONDS", 0.2)
    never = threading.Event()
    with clips({"/walk.mp4": clip.read_bytes()}, wait=never) as port:
        with pytest.raises(MediaError, match=r"127\.0\.0\.1.*did not answer"):
            VideoReader(f"http://127.0.0.1:{port}/walk.mp4")
        never.set()
    for address in ("gopher://x/y", "unix://socket", "pipe://1"):
        with pytest.raises(MediaError, match="are not opened; use http"):
            VideoReader(address)


def test_a_clip_that_is_cut_is_known_behind_an_address(tmp_path):
    data = noisy_clip(tmp_path / "a.mkv", 60).read_bytes()
    with clips({"/cut": data[: len(data) // 2]}) as port:
        reader = VideoReader(f"http://somebody:s3cret@127.0.0.1:{port}/cut")
        assert 15 <= len(list(reader)) <= 45
    assert reader.damage == "the clip is cut: it should have 60 frames"

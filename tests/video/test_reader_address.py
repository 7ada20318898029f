"""Clips behind an address: read like files, and their secrets shown nowhere."""

from __future__ import annotations

import contextlib
import http.server
import logging
import threading
import traceback
from fractions import Fraction

import numpy as np
import pytest

from persondet.errors import MediaError
from persondet.video import source as source_module
from persondet.video.outputs import check_clips
from persondet.video.reader import VideoReader
from persondet.video.writer import VideoWriter

SECRETS = ("somebody", "s3cret", "t0ken")


@contextlib.contextmanager
def served(files, wait=None):
    """Serve {path: bytes} to those who know the user and the password."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if wait is not None:
                wait.wait(20)
            if "Authorization" not in self.headers:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="clips"')
                self.end_headers()
                return
            body = files.get(self.path.partition("?")[0])
            if body is None:
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://somebody:s3cret@127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def hides_its_secrets(text):
    return not any(secret in text for secret in SECRETS)


def test_an_address_is_read_like_a_file(clip, tmp_path, caplog, capfd):
    with (
        caplog.at_level(logging.DEBUG),
        served({"/a/walk.mp4": clip.read_bytes()}) as server,
    ):
        address = f"{server}/a/walk.mp4?key=t0ken#part"
        with VideoReader(address) as reader:
            assert reader.name == "walk.mp4"
            assert reader.label.startswith("http://127.0.0.1:")
            assert reader.label.endswith("/a/walk.mp4")
            read = [(frame.index, frame.time) for frame in reader]
        part = [frame.index for frame in VideoReader(address, start=0.2)]
        target = tmp_path / "out.mp4"
        assert check_clips([(address, target)]) == ([(address, target)], [])
    assert read == [(frame.index, frame.time) for frame in VideoReader(clip)]
    assert part == [6, 7, 8, 9]
    assert hides_its_secrets(caplog.text + "".join(capfd.readouterr()))


def test_what_is_wrong_with_an_address_is_said_without_its_secrets(clip, caplog, capfd):
    pages = {"/page": b"<!doctype html><html>", "/cut.mp4": clip.read_bytes()[:700]}
    with caplog.at_level(logging.DEBUG), served(pages) as server:
        for name, says in (("none", "404"), ("page", "Invalid data"), ("cut.mp4", "cut.mp4")):
            with pytest.raises(MediaError, match=says) as caught:
                VideoReader(f"{server}/{name}?key=t0ken")
            told = "".join(traceback.format_exception(caught.value))
            assert hides_its_secrets(told.replace('VideoReader(f"{server}/{name}?key=t0ken")', ""))
            assert caught.value.__context__ is None
    assert hides_its_secrets(caplog.text + "".join(capfd.readouterr()))


def test_a_server_that_does_not_answer_is_given_up(clip, monkeypatch):
    monkeypatch.setattr(source_module, "ANSWER_SECONDS", 0.3)
    never = threading.Event()
    with served({"/walk.mp4": clip.read_bytes()}, wait=never) as server:
        with pytest.raises(MediaError, match=r"127\.0\.0\.1.*did not answer"):
            VideoReader(f"{server}/walk.mp4")
        never.set()


def test_a_list_on_the_network_cannot_lead_to_a_local_file(clip, tmp_path):
    secret = tmp_path / "secret.ts"
    with (
        VideoReader(clip) as reader,
        VideoWriter(tmp_path / "s.mkv", width=96, height=64, fps=reader.frame_rate) as writer,
    ):
        for frame in reader:
            writer.write(frame.image)
    (tmp_path / "s.mkv").rename(secret)
    listing = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n"
    with served({"/list.m3u8": listing.encode()}) as server, pytest.raises(MediaError):
        VideoReader(f"{server}/list.m3u8")


@pytest.mark.parametrize("address", ["gopher://x/y", "unix://socket", "pipe://1", "nonsense://x"])
def test_other_schemes_are_refused(address):
    with pytest.raises(MediaError, match="are not opened; use http"):
        VideoReader(address)


def test_a_file_address_is_a_file(clip):
    assert len(list(VideoReader(clip.as_uri()))) == 10


def test_a_clip_that_is_cut_is_known_behind_an_address(tmp_path, clip_writer, squares):
    noise = np.random.default_rng(0).integers(0, 255, (60, 64, 96, 3), dtype=np.uint8)
    data = clip_writer(tmp_path / "a.mkv", noise, rate=Fraction(25)).read_bytes()
    loud = clip_writer(tmp_path / "b.mkv", noise[:20], rate=Fraction(25), sound=True).read_bytes()
    files = {"/a.mkv": data, "/cut.mkv": data[: len(data) // 2], "/b.mkv": loud}
    with served(files) as server:
        reader = VideoReader(f"{server}/cut.mkv")
        assert 15 < len(list(reader)) < 45
        assert reader.damage == "the clip is cut: it should have 60 frames"
        for name, count in (("a", 60), ("b", 20)):
            reader = VideoReader(f"{server}/{name}.mkv")
            assert (len(list(reader)), reader.damage) == (count, "")

"""A browser plays what the writer writes: headless Chromium reports its own verdict."""

from __future__ import annotations

import contextlib
import http.server
import json
import queue
import shutil
import subprocess
import threading
from fractions import Fraction

import pytest

from persondet.video.pipeline import annotate_video

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next((path for name in BROWSERS if (path := shutil.which(name))), None)
# The page plays the clip to its end and posts what happened to the server it came from.
PAGE = b"""<!doctype html><video id=v src=/clip.mp4 muted preload=auto></video><script>
const report = {};
const post = () => fetch('/verdict', {method: 'POST', body: JSON.stringify(report)});
v.oncanplaythrough = () => {
  if (report.ready) return;
  Object.assign(report, {ready: true, width: v.videoWidth, height: v.videoHeight,
                         duration: v.duration});
  v.playbackRate = 4; v.play().catch(e => {report.error = String(e); post();});
};
v.onended = () => {report.ended = true; post();};
v.onerror = () => {report.error = v.error.message || 'error ' + v.error.code; post();};
</script>"""


@contextlib.contextmanager
def served(clip):
    verdicts = queue.Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/clip.mp4":
                kind, body = "video/mp4", clip.read_bytes()
            elif self.path == "/":
                kind, body = "text/html", PAGE
            else:
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

        def do_POST(self):
            verdicts.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", verdicts
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def verdict_on(clip, profile):
    with served(clip) as (address, verdicts):
        browser = subprocess.Popen(
            [
                *(BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update"),
                *("--disable-sync", "--disable-dev-shm-usage", "--mute-audio"),
                *("--autoplay-policy=no-user-gesture-required", f"--user-data-dir={profile}"),
                *("--remote-debugging-port=0", address),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            return verdicts.get(timeout=90)
        finally:
            browser.terminate()
            browser.wait(timeout=30)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on PATH: playing is not tried")
@pytest.mark.parametrize("case", ["plain", "odd size", "portrait", "variable rate"])
def test_chromium_plays_the_annotated_clip(case, tmp_path, clip_writer, squares, predictor):
    width, height = {"odd size": (321, 181), "portrait": (180, 320)}.get(case, (320, 180))
    choices = {}
    if case == "variable rate":
        ticks = [n * 40 + (n % 3) * 7 for n in range(50)]
        choices = {"times": ticks, "time_base": Fraction(1, 1000), "rate": Fraction(25)}
    if case == "odd size":
        choices = {"codec": "ffv1", "pix_fmt": "bgr0"}
    source = clip_writer(
        tmp_path / f"source{'.mkv' if case == 'odd size' else '.mp4'}",
        [squares(n, width, height) for n in range(50)],
        **choices,
    )
    output = tmp_path / "annotated.mp4"
    annotate_video(source, output, predictor)
    verdict = verdict_on(output, tmp_path / "profile")
    assert "error" not in verdict
    assert verdict["ready"]
    assert verdict["ended"]
    assert (verdict["width"], verdict["height"]) == (width + width % 2, height + height % 2)
    assert verdict["duration"] == pytest.approx(
        2.0 if choices.get("times") else 50 / 29.97, abs=0.4
    )

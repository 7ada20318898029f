"""A browser plays what the writer writes: headless Chromium reports its verdict and its pixels."""

from __future__ import annotations

import base64
import json
import queue
import shutil
import subprocess
from fractions import Fraction

import cv2
import numpy as np
import pytest

from persondet.video.pipeline import annotate_video
from persondet.video.reader import VideoReader
from persondet.video.writer import VideoWriter, partial_path
from tests.video.clips import served, write_clip

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next((path for name in BROWSERS if (path := shutil.which(name))), None)
FRAMES = 40
# The page plays each clip to its end and posts what happened to the server it came from, with the
# image that it shows then.
PAGE = """<!doctype html><body style="margin:0"><script>
const play = name => new Promise(done => {
  const v = document.createElement('video'), report = {name};
  const end = () => {
    const c = document.createElement('canvas');
    c.width = v.videoWidth; c.height = v.videoHeight;
    if (c.width) {
      c.getContext('2d').drawImage(v, 0, 0);
      report.image = c.toDataURL('image/png').split(',')[1];
    }
    Object.assign(report, {duration: v.duration, ended: v.ended,
                           heard: v.webkitAudioDecodedByteCount});
    v.remove(); done(report);
  };
  v.onended = end;
  v.onerror = () => {report.error = v.error.message || 'error ' + v.error.code; end();};
  setTimeout(() => {report.error = 'it did not end'; end();}, 15000);
  v.src = '/' + encodeURIComponent(name); document.body.append(v);
  v.playbackRate = 2; v.play().catch(e => {report.error = String(e); end();});
});
(async () => {
  for (const name of CLIPS) {
    const body = JSON.stringify(await play(name));
    await fetch('/verdict', {method: 'POST', body});
  }
})();
</script>"""


def verdicts_on(folder, names, profile):
    verdicts = queue.Queue()

    def get(handler):
        name = handler.path[1:].replace("%20", " ")
        if name in names:
            return 200, {"Content-Type": "video/mp4"}, (folder / name).read_bytes()
        page = PAGE.replace("CLIPS", json.dumps(names)).encode()
        return (404, {}, b"") if name else (200, {"Content-Type": "text/html"}, page)

    with served(get, lambda body: verdicts.put(json.loads(body))) as port:
        browser = subprocess.Popen(
            [
                *(BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update"),
                *("--disable-sync", "--disable-dev-shm-usage"),
                *("--autoplay-policy=no-user-gesture-required", f"--user-data-dir={profile}"),
                *("--remote-debugging-port=0", f"http://127.0.0.1:{port}/"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            return [verdicts.get(timeout=90) for _ in names]
        finally:
            browser.terminate()
            browser.wait(timeout=30)


def scene(number, width=320, height=180):
    """A frame with a different colour in each corner, and a white square that moves."""
    image = np.full((height, width, 3), 90, dtype=np.uint8)
    image[: height // 4, : width // 4] = (40, 40, 220)
    image[: height // 4, -width // 4 :] = (60, 200, 60)
    image[-height // 4 :, : width // 4] = (220, 80, 40)
    x = 4 * number % (width - 40)
    image[height // 2 - 16 : height // 2 + 16, x : x + 32] = 255
    return image


QUARTER = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
UNEVEN = {"times": [n * 40 + n % 3 * 7 for n in range(FRAMES)], "time_base": Fraction(1, 1000)}
# name: (traits, width and height as the browser must see them)
CLIPS = {
    "odd size.mkv": ({"codec": "ffv1", "pix_fmt": "bgr0"}, (322, 182)),
    "rotated.mp4": ({"matrix": QUARTER, "pix_fmt": "yuv420p10le"}, (180, 320)),
    "variable rate.mp4": (UNEVEN | {"rate": Fraction(25), "sound": ("aac",)}, (320, 180)),
}


def unfinished(folder):
    """What a run leaves that is killed after two seconds."""
    writer = VideoWriter(folder / "killed.mp4", width=320, height=180, fps=Fraction(25))
    writer.__enter__()
    for number in range(50):
        writer.write(scene(number))
    left = partial_path(writer.path).read_bytes()
    writer.__exit__(KeyError, KeyError(), None)
    partial_path(writer.path).write_bytes(left)
    return partial_path(writer.path)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on PATH: playing is not tried")
def test_chromium_plays_the_annotated_clips_and_a_killed_runs_rest(tmp_path, predictor):
    sizes = {unfinished(tmp_path).name: (320, 180)}
    for name, (traits, size) in CLIPS.items():
        given = (321, 181) if name == "odd size.mkv" else (320, 180)
        frames = [scene(n, *given) for n in range(FRAMES)]
        source = write_clip(tmp_path / "in" / name, frames, **traits)
        target = tmp_path / f"{source.stem}.mp4"
        annotate_video(source, target, predictor)
        sizes[target.name] = size
    for report in verdicts_on(tmp_path, list(sizes), tmp_path / "profile"):
        name = report["name"]
        assert "error" not in report, (name, report["error"])
        assert report["ended"], name
        with VideoReader(tmp_path / name) as reader:
            frames = list(reader)
        end = float(frames[-1].time + 1 / reader.frame_rate)
        assert report["duration"] == pytest.approx(end, abs=0.05), name
        assert report["duration"] >= 1
        assert (report["heard"] > 0) == reader.sound == (name == "variable rate.mp4"), name
        seen = cv2.imdecode(np.frombuffer(base64.b64decode(report["image"]), np.uint8), 1)
        assert seen.shape[1::-1] == sizes[name]
        # The browser's image is the last one of the clip, as this project reads it: turned,
        # with its colours, up to the rounding of the conversion.
        assert np.abs(seen.astype(int) - frames[-1].image).mean() < 3, name

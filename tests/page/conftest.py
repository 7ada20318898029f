"""The page, served by its tool in a process of its own; the model is a stand-in."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest

from tests.report.finished_run import write_finished_run
from tests.video.clips import BrightSquares, square_frame, squares, write_clip

ROOT = Path(__file__).resolve().parents[2]
MEGABYTES = 5


@dataclass
class ServedPage:
    """port: of 127.0.0.1; notes: what `main` notes of the server; image, clip: to upload."""

    port: int
    process: subprocess.Popen
    folder: Path
    notes: Path
    image: Path
    clip: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def noted(self, what):
        lines = [json.loads(line) for line in self.notes.read_text().splitlines()]
        return [value for name, value in lines if name == what]


@pytest.fixture(scope="session")
def page(tmp_path_factory):
    pytest.importorskip("gradio", reason="Gradio is not installed: pip install persondet[page]")
    folder = tmp_path_factory.mktemp("page")
    run, temporary = folder / "run", folder / "temporary"
    temporary.mkdir()
    write_finished_run(run)
    cv2.imwrite(str(folder / "square.jpg"), square_frame(0))
    write_clip(run / "walk.mp4", squares(40))
    notes = folder / "notes.jsonl"
    words = ["--run", run, "--port", "0", "--max-upload-mb", MEGABYTES]
    paths = os.pathsep.join([*map(str, (ROOT, ROOT / "tools")), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.page.conftest", notes, *map(str, words)],
        env=os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": paths},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    port = int(line.split("127.0.0.1:")[1].split("/")[0])
    yield ServedPage(port, process, temporary, notes, folder / "square.jpg", run / "walk.mp4")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert not list(temporary.glob("persondet-page-*"))  # the page's files go with it


class NotedSquares(BrightSquares):
    """Notes each image that it sees, and takes its time."""

    cfg = SimpleNamespace(
        VIDEO=SimpleNamespace(STRIDE=1),
        DATASETS=SimpleNamespace(ROBOFLOW=SimpleNamespace(ROOT="nowhere/people")),
    )

    def __init__(self, note):
        super().__init__()
        self.note = note

    def detect(self, image):
        self.note("image", len(self.batches))
        time.sleep(0.02)
        return super().detect(image)


def main(notes, *words):
    """Run the tool with the stand-in; note what the process asks of the network."""
    file = open(notes, "a", buffering=1)  # noqa: SIM115, as long as the process

    def note(name, value):
        file.write(json.dumps([name, value]) + "\n")

    def audit(event, arguments):
        if event in ("socket.connect", "socket.bind", "socket.sendto"):
            note(event, repr(arguments[1:]))
        elif event == "socket.getaddrinfo":
            note(event, repr(arguments[0]))

    sys.addaudithook(audit)
    import cli
    import model_page

    import persondet.inference.predictor as predictor

    predictor.Predictor = NotedSquares
    predictor.load_predictor = lambda *_, **__: NotedSquares(note)
    sys.argv = ["model_page.py", *words]
    cli.run(model_page.main)


if __name__ == "__main__":
    main(*sys.argv[1:])

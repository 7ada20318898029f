"""What a person sees, what `log.txt` keeps, and the numbers in `metrics.json` and TensorBoard."""

import io
import json
import logging
import math
import re
import sys
import warnings

from detectron2.utils.events import EventStorage, JSONWriter
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from persondet.engine.console import (
    MetricsWriter,
    current_console,
    event_writers,
    keep_rows_before,
    last_row,
    start_logging,
)
from persondet.report.events import load_events


class Terminal(io.StringIO):
    """A stream that says it is a terminal, and knows what its screen shows."""

    def isatty(self):
        return True

    def screen(self):
        """Return the lines of the screen: only what no later text has taken away."""
        lines = []
        for line in self.getvalue().split("\n"):
            shown = ""
            for part in line.split("\r"):
                shown = part + shown[len(part) :]
            lines.append(shown.rstrip())
        return lines


def speak(monkeypatch, folder, stream, verbosity=0, rank=0):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", stream)
    start_logging(folder, verbosity=verbosity, rank=rank)
    ours, theirs = logging.getLogger("persondet.engine.x"), logging.getLogger("detectron2.x")
    ours.info("12 images")
    theirs.info("Serializing")
    ours.info("step 1/3", extra={"live": True})
    ours.warning("a key makes no sense")
    theirs.warning("something is odd")
    ours.debug("a detail")
    ours.info("step 3/3", extra={"live": True})
    ours.info("AP 50.0", extra={"result": True})
    console = current_console()
    assert console is not None
    console.show("x" * 200)
    return console


FEW = ["WARNING: a key makes no sense", "WARNING: something is odd"]


def test_a_pipe_gets_clean_lines_and_on_a_terminal_one_line_lives_below_them(tmp_path, monkeypatch):
    pipe, terminal = io.StringIO(), Terminal()
    speak(monkeypatch, tmp_path, pipe)
    assert pipe.getvalue().splitlines() == ["12 images", "step 1/3", *FEW, "step 3/3", "AP 50.0"]
    console = speak(monkeypatch, tmp_path, terminal)
    # A line that wraps could not be taken away.
    assert terminal.screen() == ["12 images", *FEW, "AP 50.0", "x" * 59]
    console.finish()
    terminal.write("error: of the tool\n")
    assert terminal.screen()[-2:] == ["error: of the tool", ""]


def test_quiet_is_warnings_and_the_result_and_the_file_gets_everything(tmp_path, monkeypatch):
    stream = Terminal()
    speak(monkeypatch, tmp_path, stream, verbosity=-1)
    assert stream.getvalue().splitlines() == [*FEW, "AP 50.0"]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("a library is old", stacklevel=1)
    kept = (tmp_path / "log.txt").read_text()
    for said in ("Serializing", "step 3/3", "WARNING: a key makes no sense", "AP 50.0", "is old"):
        assert said in kept
    assert not any(word in kept for word in ("a detail", "\x1b", "\r"))


def test_a_further_rank_shows_and_keeps_its_errors_alone(tmp_path, monkeypatch):
    stream = io.StringIO()
    speak(monkeypatch, tmp_path, stream, rank=1)
    assert list(tmp_path.iterdir()) == []
    logging.getLogger("persondet").error("the image is gone")
    assert stream.getvalue() == "rank 1: ERROR: the image is gone\n"
    assert (tmp_path / "log.txt.rank1").read_text().endswith("ERROR: the image is gone\n")


def test_rows_are_those_of_detectron2(tmp_path):
    writers = [JSONWriter(str(tmp_path / "stock")), MetricsWriter(tmp_path / "ours")]
    with EventStorage() as storage:
        for storage.iter in range(60):
            storage.put_scalar("total_loss", (storage.iter * 7919) % 13 / 3)
            if storage.iter % 4 == 0:  # not in every step, as the mask head's accuracy
                storage.put_scalar("mask_rcnn/accuracy", storage.iter / 100)
            if storage.iter % 9 == 8:
                storage.put_scalar("segm/AP", float(storage.iter), smoothing_hint=False)
            if storage.iter % 7 == 6:
                [writer.write() for writer in writers]
    stock, ours = ((tmp_path / name).read_text().splitlines() for name in ("stock", "ours"))
    # Detectron2 writes the rows of one moment in no order of time.
    rows = sorted(map(json.loads, stock), key=lambda row: row["iteration"])
    assert list(map(json.loads, ours)) == rows


def test_trap_4_what_is_not_finite_is_null_and_read_as_nan(tmp_path):
    with EventStorage() as storage:
        for value in (1.0, math.nan, math.inf):
            storage.put_scalar("bbox/AP", value, smoothing_hint=False)
            storage.put_scalar("total_loss", 2.0)
            writer = MetricsWriter(tmp_path / "metrics.json", start=storage.iter)
            writer.write()
            writer.close()
            storage.iter += 1
    assert not re.search("NaN|Infinity", (tmp_path / "metrics.json").read_text())
    series = load_events(tmp_path)["bbox/AP"]
    assert series.iterations.tolist() == [0, 1, 2]
    assert series.finite().values.tolist() == [1.0]


def test_cutting_leaves_earlier_rows_and_foreign_lines_alone(tmp_path):
    path = tmp_path / "metrics.json"
    assert keep_rows_before(path, 5) == last_row(path) == -1
    path.write_text(
        '{"iteration": 3}\n\n# mine\n{"iteration": 9}\n{"iteration": 4, "a": NaN}\n{"it'
    )
    assert keep_rows_before(path, 5) == 4
    assert path.read_text() == '{"iteration": 3}\n\n# mine\n{"iteration": 4, "a": NaN}\n'
    assert keep_rows_before(path, 4) == 3
    assert keep_rows_before(path, 0) == -1


def test_tensorboard_shows_each_step_once(tmp_path, monkeypatch):
    # Files of one second are read by this number's digits; each run is a process, and begins at 0.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))
    for start, end in ((0, 8), (5, 10)):  # nothing is closed: a killed run keeps it
        with EventStorage(start) as storage:
            writers = event_writers(tmp_path, start=start)
            for storage.iter in range(start, end):
                storage.put_scalar("lr", storage.iter + start, smoothing_hint=False)
                [writer.write() for writer in writers]
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("lr")
    expected = [*((i, i) for i in range(5)), *((i, i + 5) for i in range(5, 10))]
    assert [(event.step, event.value) for event in events] == expected

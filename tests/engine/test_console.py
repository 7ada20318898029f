"""What a person sees, and what the log file keeps."""

import io
import logging
import sys
import warnings

import pytest

from persondet.engine.console import (
    current_console,
    start_logging,
)

LIVE = {"live": True}


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


def start(monkeypatch, folder, stream, verbosity=0):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", stream)
    start_logging(folder, verbosity=verbosity)


def speak():
    """What a run says, in short."""
    ours, theirs = logging.getLogger("persondet.engine.x"), logging.getLogger("detectron2.x")
    ours.info("12 images")
    theirs.info("Serializing")
    ours.info("step 1/3", extra=LIVE)
    ours.warning("a key makes no sense")
    ours.info("step 2/3", extra=LIVE)
    theirs.warning("something is odd")
    ours.debug("a detail")
    ours.info("step 3/3", extra=LIVE)
    ours.info("AP 50.0", extra={"result": True})


PLAIN = [
    "12 images",
    "step 1/3",
    "WARNING: a key makes no sense",
    "step 2/3",
    "WARNING: something is odd",
    "step 3/3",
    "AP 50.0",
]
FEW = ["WARNING: a key makes no sense", "WARNING: something is odd", "AP 50.0"]


def test_in_a_pipe_there_are_clean_lines_one_row_each(tmp_path, monkeypatch):
    stream = io.StringIO()
    start(monkeypatch, tmp_path, stream)
    speak()
    console = current_console()
    assert console is not None
    console.show("step 2/3 and a half")  # a live line is for terminals
    console.finish()
    assert stream.getvalue().splitlines() == PLAIN


def test_on_a_terminal_one_line_lives_below_what_is_said(tmp_path, monkeypatch):
    stream = Terminal()
    start(monkeypatch, tmp_path, stream)
    speak()
    assert stream.screen() == ["12 images", *FEW, "step 3/3"]
    console = current_console()
    assert console is not None
    console.show("x" * 200)
    assert stream.screen()[-1] == "x" * 59  # a line that wraps could not be taken away
    console.finish()
    stream.write("error: of the tool\n")
    assert stream.screen()[-2:] == ["error: of the tool", ""]


def test_an_evaluation_that_has_ended_leaves_the_line_of_before(tmp_path, monkeypatch):
    evaluator = logging.getLogger("detectron2.evaluation.evaluator")
    for before in ("step 9/9", ""):
        stream = Terminal()
        start(monkeypatch, tmp_path, stream)
        if before:
            logging.getLogger("persondet.engine.x").info(before, extra=LIVE)
        for image in (11, 40):
            evaluator.info(f"Inference done {image}/40. Dataloading: 0.1 s/iter. ETA=0:00:01")
        evaluator.info("Total inference time: 0:00:04.2 (0.1 s / iter per device, on 1 devices)")
        logging.getLogger("persondet.engine.x").info("AP 50.0")
        assert stream.screen() == ["AP 50.0", before]


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()], ids=["terminal", "pipe"])
def test_quiet_is_warnings_errors_and_the_result(tmp_path, monkeypatch, stream):
    start(monkeypatch, tmp_path, stream, -1)
    speak()
    console = current_console()
    assert console is not None
    console.show("step 2/3 and a half")
    assert stream.getvalue().splitlines() == FEW


@pytest.mark.parametrize("verbosity", [-1, 0, 1])
def test_the_file_gets_everything_at_info_in_plain_form(tmp_path, monkeypatch, verbosity):
    start(monkeypatch, tmp_path, Terminal(), verbosity)
    speak()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("a library is old", stacklevel=1)
    kept = (tmp_path / "log.txt").read_text()
    for said in ("Serializing", "step 2/3", "WARNING: a key makes no sense", "AP 50.0", "is old"):
        assert said in kept
    assert "a detail" not in kept
    assert "\x1b" not in kept
    assert "\r" not in kept


def test_a_further_rank_writes_no_log_and_shows_its_errors_alone(tmp_path, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    start_logging(tmp_path, rank=1)
    speak()
    logging.getLogger("persondet").error("the image is gone")
    assert stream.getvalue() == "rank 1: ERROR: the image is gone\n"
    assert list(tmp_path.iterdir()) == []

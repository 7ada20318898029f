"""Signals: remembered, then obeyed; and the command that goes on."""

import os
import shlex
import signal

import pytest

from persondet.engine.resumption import Interruption, resume_command, saying_how_to_resume
from persondet.errors import ConfigError, InterruptedRun


@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_remembered_and_the_second_stops_at_once(number):
    before = signal.getsignal(number)
    interruption = Interruption()
    with interruption:
        assert not interruption.agreed()
        os.kill(os.getpid(), number)
        assert interruption.agreed()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_a_process_that_ignores_ctrl_c_goes_on_to_do_so():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert not interruption.requested


def test_the_command_is_quoted_and_resumes():
    words = ["python", "-u", "tools/train_net.py", "--overwrite", "--config-file", "a b.yaml"]
    words += ["OUTPUT_DIR", "it's here", "--opts", "SOLVER.STEPS", "(1, 2)"]
    command = resume_command(words)
    again = shlex.split(command)
    assert again[:4] == ["python", "-u", "tools/train_net.py", "--resume"]
    assert again[4:] == ["--config-file", *words[5:]]
    assert resume_command(again) == command


def test_an_interruption_says_how_to_go_on():
    words = ["python", "tools/train_net.py"]
    sentence = "^saved; go on with: python tools/train_net.py --resume$"
    with pytest.raises(InterruptedRun, match=sentence), saying_how_to_resume(words):
        raise InterruptedRun("saved")
    at_once = pytest.raises(InterruptedRun, match="at once.*; go on with: python")
    with at_once as caught, saying_how_to_resume(words):
        raise KeyboardInterrupt
    assert caught.value.exit_code == 130
    with pytest.raises(ConfigError), saying_how_to_resume(words):
        raise ConfigError("another matter")

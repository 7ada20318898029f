"""Processes that crash, hang or are killed take one name with them, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from persondet.data.check.worker_processes import results_of_processes


def lost(reason):
    return f"lost: {reason}"


def run(function, names, **options):
    found = list(results_of_processes(function, names, lost, **options))
    assert sorted(name for name, _ in found) == sorted(names)
    return dict(found)


NAMES = [f"name {i}" for i in range(100)]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_name_is_answered_once(workers):
    assert run(str.upper, NAMES, workers=workers) == {name: name.upper() for name in NAMES}
    assert run(str.upper, [], workers=workers) == {}


def test_a_crash_costs_only_its_name():
    def crash(name):
        if name in ("name 7", "name 40"):
            os.kill(os.getpid(), signal.SIGSEGV)
        return name

    found = run(crash, NAMES, workers=2)
    assert {name for name, text in found.items() if text != name} == {"name 7", "name 40"}
    assert "SIGSEGV" in found["name 7"]


def test_a_process_that_is_killed_once_costs_nothing(tmp_path):
    def killed_once(name):
        if name == "name 7" and not (tmp_path / "mark").exists():
            (tmp_path / "mark").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return name

    assert run(killed_once, NAMES, workers=2) == {name: name for name in NAMES}


def test_a_name_that_takes_for_ever_is_given_up():
    def hang(name):
        if name == "name 7":
            time.sleep(600)
        return name

    started = time.monotonic()
    found = run(hang, NAMES, workers=2, patience=0.3)
    assert time.monotonic() - started < 60
    assert [name for name, text in found.items() if text != name] == ["name 7"]
    assert "too long" in found["name 7"]


def test_a_bug_keeps_its_traceback():
    def bug(name):
        return {}[name]

    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*in bug.*KeyError: 'name"):
        run(bug, NAMES, workers=2)


def test_processes_that_never_work_end_it(monkeypatch):
    from persondet.data.check import worker_processes

    monkeypatch.setattr(worker_processes, "_serve", lambda *_: os._exit(3))
    with pytest.raises(RuntimeError, match="code 3"):
        run(str.upper, NAMES, workers=2)


def test_nothing_is_left_running_when_the_caller_stops():
    results = results_of_processes(lambda name: os.getpid(), NAMES, lost, workers=2)
    pids = {next(results)[1] for _ in range(20)}
    results.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


SCRIPT = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits another
from persondet.data.check.worker_processes import results_of_processes

def slow(name):
    open(os.path.join(sys.argv[1], str(os.getpid())), "w").close()
    time.sleep(600)

list(results_of_processes(slow, [str(i) for i in range(40)], str, workers=2))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_processes_end_with_their_caller(tmp_path, number):
    command = [sys.executable, "-c", SCRIPT.replace("600", "1"), str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    while len(list(tmp_path.iterdir())) < 2:
        time.sleep(0.02)
    # Ctrl-C goes to all of the group; SIGKILL to the caller alone.
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    _, text = process.communicate(timeout=20)
    assert (b"KeyboardInterrupt" in text) == (number == signal.SIGINT)
    assert text.count(b"Traceback") <= 1  # the workers say nothing
    deadline = time.monotonic() + 20
    pids = [path.name for path in tmp_path.iterdir()]
    while any(_runs(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_runs(pid) for pid in pids)


def _runs(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False

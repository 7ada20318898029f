"""The ranks of one machine as processes: start them, watch over them, end them together."""

from __future__ import annotations

import contextlib
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm

from persondet.engine.rank_failure import Failure, read_failures, report
from persondet.engine.rank_log import write_rank_log
from persondet.environment import cpu_count, quiet_upstream
from persondet.errors import ConfigError, InterruptedRun, RankLostError

# Seconds that the other ranks get to end by themselves when one has died, and again after SIGTERM.
GRACE = 5.0
_HOST = "127.0.0.1"


@dataclass(frozen=True)
class Group:
    """The ranks that train together.

    Args:
        processes: ranks on this machine.
        num_machines: machines, with as many ranks each.
        machine_rank: which of them this is.
        dist_url: where the ranks meet, `tcp://host:port`; `auto` on a single machine.
        device: `cuda` (NCCL, a GPU for each rank) or `cpu` (Gloo).
    """

    processes: int
    num_machines: int = 1
    machine_rank: int = 0
    dist_url: str = "auto"
    device: str = "cpu"

    @property
    def world_size(self) -> int:
        """The number of ranks on all machines."""
        return self.processes * self.num_machines


def run_ranks(function: Callable[..., Any], args: Sequence[Any], group: Group) -> None:
    """Call `function(*args)` in each of the group's ranks on this machine, and wait for them.

    When one dies the others are ended. Ctrl-C and SIGTERM are passed on to every rank, once each
    time, and the ranks are given the time that they need to save.

    Raises: what `function` raised where it is a `PersondetError` or an interruption; RankLostError:
    when a rank was killed; RuntimeError: with rank and traceback, for any other error of a rank.
    """
    # It hands out the port, which no other process can take in between, and takes the failures.
    store = dist.TCPStore(_HOST, 0, is_master=True, wait_for_workers=False, timeout=DEFAULT_TIMEOUT)
    with _signals_passed_on(store) as passed:
        with _quiet_start():
            context = mp.start_processes(
                _rank,
                (function, tuple(args), group, store.port),
                nprocs=group.processes,
                join=False,
            )
        passed.processes = context.processes
        codes = _watch(context.processes, passed)
    for name in context.error_files:
        Path(name).unlink(missing_ok=True)
    error = _cause(read_failures(store), codes, group, interrupted=passed.count > 0)
    if error is not None:
        raise error


def join_group(
    group: Group, rank: int, local_rank: int, *, store: dist.Store | None = None
) -> None:
    """Make this process the rank that it is, as Detectron2's `launch` does.

    Args:
        store: where the ranks meet, instead of `group.dist_url`.

    Raises: ConfigError: when the ranks cannot meet there.
    """
    backend = "gloo"
    if group.device.startswith("cuda"):
        torch.cuda.set_device(local_rank)
        backend = "nccl"
    where = {"store": store} if store is not None else {"init_method": group.dist_url}
    try:
        dist.init_process_group(
            backend, rank=rank, world_size=group.world_size, timeout=DEFAULT_TIMEOUT, **where
        )
    except (RuntimeError, ValueError) as error:
        if store is not None:
            raise
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"command line: the ranks cannot meet at --dist-url {group.dist_url} ({reason}); use "
            "tcp://HOST:PORT with the first machine's address and a free port."
        ) from error
    comm.create_local_process_group(group.processes)
    comm.synchronize()


def leave_group() -> None:
    """End this process's part in the group, when every rank has come so far."""
    comm.synchronize()
    dist.destroy_process_group()


def _rank(
    local_rank: int, function: Callable[..., Any], args: Sequence[Any], group: Group, port: int
) -> None:
    """Be one rank: this runs in the new process."""
    _listen_to_the_parent_alone()
    quiet_upstream()
    rank = group.machine_rank * group.processes + local_rank
    store = dist.TCPStore(_HOST, port, is_master=False, timeout=DEFAULT_TIMEOUT)
    try:
        if store.check(["stop"]):
            raise KeyboardInterrupt
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, cpu_count() // group.processes))
        meeting = dist.PrefixStore("group", store) if group.dist_url == "auto" else None
        join_group(group, rank, local_rank, store=meeting)
        function(*args)
        leave_group()
    except BaseException as error:
        failure = Failure.of(rank, error)
        report(store, failure)
        interrupted = isinstance(error, KeyboardInterrupt | InterruptedRun)
        if rank and not interrupted and not failure.is_consequence:
            write_rank_log(failure.trace)
        raise


def _listen_to_the_parent_alone() -> None:
    # A terminal sends Ctrl-C to its whole process group: from there each rank would get it twice.
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)


class _Passed:
    """Passes each signal of this process on to the ranks."""

    def __init__(self, store: dist.Store) -> None:
        self.processes: Sequence[Any] = ()
        self.count = 0
        self._store = store

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self._store.set("stop", "1")  # for ranks that are still starting
        for process in self.processes:
            if process.is_alive():
                # Who presses three times wants it to end.
                os.kill(process.pid, number if self.count < 3 else signal.SIGTERM)


@contextlib.contextmanager
def _signals_passed_on(store: dist.Store) -> Iterator[_Passed]:
    passed = _Passed(store)
    if threading.current_thread() is not threading.main_thread():
        yield passed  # signals are the main thread's
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, passed)
        yield passed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    """Let new processes inherit what they cannot set in time, before they import torch."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    warnings_before = os.environ.get("PYTHONWARNINGS")
    # What `quiet_upstream` says of Detectron2's import; a filter that a user has set stays.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:`torch.jit.script:FutureWarning")
    # Ctrl-C would give a traceback for each process.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main_thread else None
    try:
        yield
    finally:
        if warnings_before is None:
            del os.environ["PYTHONWARNINGS"]
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)


def _watch(processes: Sequence[Any], passed: _Passed) -> dict[int, int]:
    """Wait for the ranks; return the exit codes of those that died of themselves, in order."""
    codes: dict[int, int] = {}
    waiting = {process.sentinel: index for index, process in enumerate(processes)}

    def wait(seconds: float | None) -> None:
        for sentinel in multiprocessing.connection.wait(list(waiting), seconds):
            index = waiting.pop(sentinel)
            processes[index].join()
            if processes[index].exitcode:
                codes[index] = processes[index].exitcode

    while waiting and not codes:
        wait(None)
    end = time.monotonic() + GRACE
    # Ranks that were asked to stop are saving: that takes what it takes.
    while waiting and (passed.count or time.monotonic() < end):
        wait(None if passed.count else max(0.0, end - time.monotonic()))
    died = dict(codes)
    for stop in ("terminate", "kill"):
        for index in waiting.values():
            getattr(processes[index], stop)()
        end = time.monotonic() + GRACE
        while waiting and time.monotonic() < end:
            wait(max(0.0, end - time.monotonic()))
    return died


def _cause(
    failures: Sequence[Failure], codes: dict[int, int], group: Group, *, interrupted: bool
) -> BaseException | None:
    """Return what ended the run, out of what its ranks report and how they ended."""
    causes = [failure for failure in failures if not failure.is_consequence]
    first = next(iter(codes.items()), (0, 0))
    killed = first[1] < 0
    if causes and (causes[0].exit_code or not killed):
        return causes[0].error()
    if interrupted and (failures or codes):
        return KeyboardInterrupt()
    if killed:
        rank = group.machine_rank * group.processes + first[0]
        name = signal.Signals(-first[1]).name
        return RankLostError(
            f"rank {rank} was ended by {name}, as the system does when memory runs out, and the "
            "other ranks with it; go on from the last checkpoint with --resume, with fewer "
            "processes or a smaller SOLVER.IMS_PER_BATCH if it was memory."
        )
    if failures:
        return failures[0].error()
    if codes:
        return RuntimeError(f"rank {first[0]} ended with exit code {first[1]} and no error")
    return None

"""A function over many names in several processes, of which some may crash or hang."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import sys
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.sharedctypes import RawValue
from typing import Any, Generic, TypeVar

from persondet.environment import cpu_count

Result = TypeVar("Result")

PATIENCE = 60.0
"""Seconds after which a name that is not done is given up."""
_BATCH = 16
_SECONDS_BETWEEN_REPLIES = 0.05
_LOSSES_WITHOUT_WORK = 3


def results_of_processes(
    function: Callable[[str], Result],
    names: Sequence[str],
    lost: Callable[[str], Result],
    *,
    workers: int = 0,
    patience: float = PATIENCE,
) -> Iterator[tuple[str, Result]]:
    """Yield (name, function(name)) for every name, in no particular order.

    A process that dies takes only the name with it at which it was: that one is tried once more,
    in another process, and then given up. The processes write nothing to standard error, and end
    when the iterator is closed or this process ends, however it ends.

    Args:
        function: what is done; it and its results go through a pipe.
        names: different ones.
        lost: gives the result of a name that killed its process or took longer than `patience`,
            from a few words on what happened.
        workers: processes; 0: one per core that this process may use.
        patience: seconds that one name may take.

    Raises: RuntimeError: with the worker's traceback, when `function` raises.
    """
    waiting = deque(list(names[i : i + _BATCH]) for i in range(0, len(names), _BATCH))
    count = min(workers or cpu_count(), len(waiting))
    pool: list[_Worker[Result]] = []
    deaths: dict[str, int] = {}
    losses = 0
    try:
        for _ in range(count):
            pool.append(_Worker(function, pool))
        while True:
            for worker in pool:
                if waiting and not worker.batch:
                    worker.give(waiting.popleft())
            busy = {worker.connection: worker for worker in pool if worker.batch}
            if not busy:
                return
            first = min(worker.since for worker in busy.values())
            ready = set(wait(list(busy), max(0.0, first + patience - time.monotonic())))
            for connection, worker in busy.items():
                late = time.monotonic() - worker.since > patience
                if connection in ready:
                    replies = worker.receive()
                    yield from replies or ()
                    if replies is not None:
                        continue
                elif not late:
                    continue
                reason = worker.end(late=connection not in ready)
                name = worker.current()
                if name is None:
                    losses += 1
                    if losses > _LOSSES_WITHOUT_WORK:
                        raise RuntimeError(f"worker processes end before they work: {reason}")
                else:
                    worker.batch.remove(name)
                    deaths[name] = deaths.get(name, 0) + 1
                    if connection not in ready or deaths[name] > 1:
                        yield name, lost(reason)
                    else:
                        waiting.append([name])
                if worker.batch:
                    waiting.appendleft(worker.batch)
                pool.remove(worker)
                pool.append(_Worker(function, pool))
    finally:
        for worker in pool:
            worker.end()


class _Worker(Generic[Result]):
    """One process, and the names that it was given and has not answered."""

    def __init__(self, function: Callable[[str], Result], others: Sequence[_Worker[Any]]) -> None:
        # A fork is there in milliseconds, where a new interpreter imports for half a second. What
        # runs in it must not wait for threads of this process: Pillow and NumPy do not, and OpenCV
        # gives the reduction to a thumbnail to no thread.
        method = "fork" if sys.platform == "linux" else "spawn"
        context = multiprocessing.get_context(method)
        self.connection, theirs = context.Pipe()
        self._position = RawValue("q", -1)
        self.batch: list[str] = []
        self._given: list[str] = []
        self.since = 0.0
        inherited = [self.connection, *(other.connection for other in others)]
        arguments = (function, theirs, self._position, inherited if method == "fork" else [])
        self._process = context.Process(target=_serve, args=arguments, daemon=True)  # type: ignore[attr-defined]
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # threads and forks: see above
                self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()

    def give(self, batch: list[str]) -> None:
        """Send names; nothing happens when the process is dead, which `receive` will tell."""
        self.batch, self._given, self.since = list(batch), batch, time.monotonic()
        self._position.value = -1
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(batch)

    def receive(self) -> list[tuple[str, Result]] | None:
        """Return what was answered, or None when the process is dead."""
        try:
            replies = self.connection.recv()
        except (EOFError, ConnectionResetError):
            return None
        if isinstance(replies, str):
            raise RuntimeError(replies)
        self.since = time.monotonic()
        del self.batch[: len(replies)]
        return list(replies)

    def current(self) -> str | None:
        """Return the unanswered name that the process was at when it ended, or None."""
        position = self._position.value
        name = self._given[position] if position >= 0 else None
        return name if name in self.batch else None

    def end(self, *, late: bool = True) -> str:
        """End the process, at once when it is late, and return a few words on how it ended."""
        if not late:
            self._process.join(1.0)  # its pipe is gone, and so will it be
        self._process.kill()
        self._process.join()
        self.connection.close()
        code = self._process.exitcode or 0
        if late:
            return "reading it takes too long"
        how = signal.Signals(-code).name if code < 0 else f"code {code}"
        return f"reading it ends the process ({how})"


def _serve(
    function: Callable[[str], Any],
    connection: Connection,
    position: Any,
    inherited: Sequence[Connection],
) -> None:
    """Answer names until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    faulthandler.disable()  # a crash is told by the result
    for other in inherited:
        other.close()  # so that its end is seen here when that process is gone
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # what C libraries complain about
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            replies = []
            names, sent = connection.recv(), time.monotonic()
            for index, name in enumerate(names):
                position.value = index
                try:
                    replies.append((name, function(name)))
                except Exception:
                    connection.send(f"in a worker process:\n{traceback.format_exc()}")
                    return
                if index + 1 == len(names) or time.monotonic() - sent > _SECONDS_BETWEEN_REPLIES:
                    connection.send(replies)
                    replies, sent = [], time.monotonic()

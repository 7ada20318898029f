"""Who does the work: this process, a process that may be killed, or actors of a Ray cluster.

A pool takes items and yields outcomes, in the order in which they end. Results lie in the output;
an outcome is a few hundred bytes.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Protocol

from persondet.batch.items import JobItem
from persondet.batch.worker import Outcome, Worker
from persondet.errors import InstallationError, PersondetError

logger = logging.getLogger(__name__)

MOST_TRIES = 3
_POLL_SECONDS = 1.0
_WAIT_WARNING = 60.0

Tell = Callable[[int], None]
"""`tell(frames)`: how many frames of unfinished items are done, on all workers."""


class Pool(Protocol):
    """Does items, several at a time or one after the other."""

    def run(self, items: Iterator[JobItem], tell: Tell) -> Iterator[Outcome]:
        """Yield the outcome of each item; an item is taken when somebody is free for it."""


def _timed_out(item: JobItem, seconds: float) -> Outcome:
    reason = f"it was not done after {seconds:g} seconds and was given up"
    return Outcome(item.name, item.target, "failed", reason, seconds=seconds)


def _lost(item: JobItem, tries: int, why: str) -> Outcome:
    reason = f"its worker died {tries} times ({why})"
    return Outcome(item.name, item.target, "failed", reason, tries=tries)


@dataclass(frozen=True)
class HerePool:
    """One item after the other, in this process."""

    worker: Worker

    def run(self, items: Iterator[JobItem], tell: Tell) -> Iterator[Outcome]:
        """Yield the outcome of each item."""
        for item in items:
            self.worker.on_frame = tell
            yield self.worker.annotate(item)


@dataclass(frozen=True)
class TimedPool:
    """One item after the other, in a process beside this one, which a time limit may kill.

    worker: travels to the process; seconds: per item.
    """

    worker: Worker
    seconds: float

    def run(self, items: Iterator[JobItem], tell: Tell) -> Iterator[Outcome]:
        """Yield the outcome of each item; the model is loaded again after a process was killed."""
        from multiprocessing import get_context

        from pebble import ProcessExpired, ProcessPool

        context = get_context("spawn")
        with ProcessPool(1, context=context, initializer=_keep, initargs=[self.worker]) as pool:
            for item in items:
                tell(0)
                for tries in count(1):
                    # Loading, also after a process was killed, is not the item's fault.
                    pool.schedule(_load_kept).result()
                    try:
                        outcome = pool.schedule(
                            _annotate_kept, args=[item], timeout=self.seconds
                        ).result()
                        yield replace(outcome, tries=tries)
                    except FutureTimeoutError:
                        yield replace(_timed_out(item, self.seconds), tries=tries)
                    except ProcessExpired as error:
                        if tries < MOST_TRIES:
                            continue
                        yield _lost(item, tries, f"exit code {error.exitcode}")
                    break
            pool.stop()


_kept: list[Worker] = []


def _keep(worker: Worker) -> None:
    _kept[:] = [worker]


def _load_kept() -> None:
    _kept[0].loaded()


def _annotate_kept(item: JobItem) -> Outcome:
    return _kept[0].annotate(item)


@dataclass
class _Task:
    """A call that an actor is at; item: None while it loads the model."""

    actor: Any
    item: JobItem | None
    started: float
    tries: int = 1


class RayPool:
    """Actors of a Ray cluster, each with a model of its own.

    Args:
        worker: travels to each actor.
        address: of a cluster (`auto`, `host:6379`, `ray://…`), or `local` for one on this machine.
        actors: how many; cpus, gpus: of each.
        timeout: seconds per item; None: no limit.

    Raises: InstallationError: when Ray is missing.
    """

    def __init__(
        self,
        worker: Worker,
        address: str,
        *,
        actors: int = 1,
        cpus: float = 1.0,
        gpus: float = 0.0,
        timeout: float | None = None,
    ) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            raise InstallationError(
                "--ray needs Ray; install it with `pip install persondet[cluster]`."
            ) from error
        self._ray: Any = ray  # checked alike where Ray is not installed
        self._worker, self._timeout = worker, timeout
        self._count, self._resources = actors, {"num_cpus": cpus, "num_gpus": gpus}
        self._address = address
        self._tasks: dict[Any, _Task] = {}
        self._loaded, self._failed_starts = False, 0

    def run(self, items: Iterator[JobItem], tell: Tell) -> Iterator[Outcome]:
        """Yield the outcome of each item.

        Raises: PersondetError: when the cluster cannot be reached or the model cannot be used.
        """
        ray = self._ray
        mine = not ray.is_initialized()
        if mine:
            self._connect()
        try:
            for _ in range(self._count):
                self._start_actor()
            yield from self._work(items, tell)
        finally:
            for task in self._tasks.values():
                ray.kill(task.actor)
            self._tasks.clear()
            if mine:
                ray.shutdown()

    def _connect(self) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if self._address == "local":
                self._ray.init(include_dashboard=False, **quiet)
            else:
                self._ray.init(address=self._address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise PersondetError(
                f"--ray {self._address}: the cluster cannot be reached ({reason})."
            ) from error

    def _start_actor(self) -> None:
        # One thread works, the other one tells how far it is.
        options = {"max_concurrency": 2, "max_restarts": 0, **self._resources}
        actor = self._ray.remote(**options)(_Actor).remote(self._worker)
        self._tasks[actor.load.remote()] = _Task(actor, None, time.monotonic())

    def _work(self, items: Iterator[JobItem], tell: Tell) -> Iterator[Outcome]:
        again: deque[tuple[JobItem, int]] = deque()
        began = asked = time.monotonic()
        exhausted = warned = False
        while True:
            for reference in self._ended():
                task = self._tasks.pop(reference)
                outcome = self._outcome(reference, task, again)
                if outcome is not None:
                    yield outcome
                if task.actor is None:
                    self._start_actor()
                    continue
                item, tries = again.popleft() if again else (next(items, None), 1)
                if item is None:
                    exhausted = True
                    self._ray.kill(task.actor)
                    continue
                self._give(task.actor, item, tries)
            yield from self._given_up()
            if exhausted and not again and not any(t.item for t in self._tasks.values()):
                return
            if not (self._loaded or warned) and time.monotonic() - began > _WAIT_WARNING:
                warned = True
                logger.warning("waiting for a node with %s for a worker", self._resources)
            if time.monotonic() - asked > max(_POLL_SECONDS, self._count / 100):
                asked = time.monotonic()
                tell(self._frames())

    def _ended(self) -> list[Any]:
        calls = [*self._tasks]
        if not self._ray.wait(calls, timeout=_POLL_SECONDS, fetch_local=False)[0]:
            return []
        found: list[Any] = self._ray.wait(
            calls, num_returns=len(calls), timeout=0, fetch_local=False
        )[0]
        return found

    def _give(self, actor: Any, item: JobItem, tries: int) -> None:
        self._tasks[actor.annotate.remote(item)] = _Task(actor, item, time.monotonic(), tries)

    def _outcome(
        self, reference: Any, task: _Task, again: deque[tuple[JobItem, int]]
    ) -> Outcome | None:
        """Return what a call that ended has found; a dead actor is None afterwards."""
        try:
            found: Outcome | None = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, PersondetError) else error from None
        except self._ray.exceptions.RayError as error:
            task.actor = None
            if task.item is None:
                self._failed_starts += 1
                if not self._loaded and self._failed_starts >= MOST_TRIES:
                    raise PersondetError(
                        f"workers end while they load the model ({_reason(error)}); install "
                        "persondet on each node, and give each worker enough memory: fewer "
                        "--actors, or more --cpus-per-actor."
                    ) from error
                return None
            if task.tries < MOST_TRIES:
                again.append((task.item, task.tries + 1))
                return None
            return _lost(task.item, task.tries, _reason(error))
        self._loaded = True
        return None if found is None else replace(found, tries=task.tries)

    def _given_up(self) -> Iterator[Outcome]:
        """End the calls that take too long, with their actors."""
        if self._timeout is None:
            return
        late = time.monotonic() - self._timeout
        for reference, task in [*self._tasks.items()]:
            if task.item is not None and task.started < late:
                del self._tasks[reference]
                self._ray.kill(task.actor)
                self._start_actor()
                yield replace(_timed_out(task.item, self._timeout), tries=task.tries)

    def _frames(self) -> int:
        calls = [task.actor.frames.remote() for task in self._tasks.values() if task.item]
        if not calls:
            return 0
        done, _ = self._ray.wait(calls, num_returns=len(calls), timeout=_POLL_SECONDS)
        total = 0
        for call in done:
            try:
                total += self._ray.get(call)
            except self._ray.exceptions.RayError:  # the actor died; its item is given to another
                continue
        return total


def _reason(error: Exception) -> str:
    """Return what went wrong on the other side, without its traceback and its colours."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()
    causes = [line for line in lines if re.match(r"\s*[\w.]*(Error|Exception): ", line)]
    return (causes or lines or [type(error).__name__])[0].strip().rstrip(".")


class _Actor:
    """What runs on a node."""

    def __init__(self, worker: Worker) -> None:
        from persondet.environment import quiet_upstream

        quiet_upstream()
        self._worker = worker

    def load(self) -> None:
        self._worker.loaded()

    def annotate(self, item: JobItem) -> Outcome:
        return self._worker.annotate(item)

    def frames(self) -> int:
        return self._worker.frames

"""Stages of work that run at the same time: each stage a thread with a bounded queue before it.

A stage is a function from an iterator to an iterator, usually a generator. The order of the items
stays. A full queue blocks the stages before it, so memory does not grow with the work.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any, cast

THREAD_PREFIX = "persondet-"


@dataclass(frozen=True)
class Stage:
    """One step of the work.

    name: of the thread and in the table; work: takes the results of the stage before (the first
    stage gets none) and yields its own; ahead: how many results may wait for the next stage, 1 or
    more.
    """

    name: str
    work: Callable[[Iterator[Any]], Iterator[Any]]
    ahead: int = 2


@dataclass(frozen=True)
class StageTime:
    """Where a stage's time went: name, seconds of work, seconds of waiting for its neighbours.

    Work includes waiting for a CPU core or the interpreter lock.
    """

    name: str
    busy: float
    waiting: float


class _Stopped(BaseException):
    """Ends a stage whose neighbour is gone; never leaves this file."""


class _Queue:
    """A bounded queue between two threads; either side can close it."""

    def __init__(self, size: int) -> None:
        self._items: deque[Any] = deque()
        self._size = size
        self._changed = threading.Condition()
        self._ended = self._stopped = False

    def put(self, item: Any) -> None:
        """Append an item, waiting for a free place; raises _Stopped after `stop`."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._items) < self._size or self._stopped)
            if self._stopped:
                raise _Stopped
            self._items.append(item)
            self._changed.notify_all()

    def get(self) -> Any:
        """Take an item; raises StopIteration after the last one, _Stopped after `stop`."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._ended or self._stopped)
            if self._stopped:
                raise _Stopped
            if not self._items:
                raise StopIteration
            self._changed.notify_all()
            return self._items.popleft()

    def end(self, *, stop: bool = False) -> None:
        """Say that nothing more will be put; `stop`: nor taken, so waiting items are dropped."""
        with self._changed:
            self._ended = True
            if stop:
                self._stopped = True
                self._items.clear()
            self._changed.notify_all()


class _Worker(threading.Thread):
    """The thread of one stage."""

    def __init__(
        self, stage: Stage, before: _Queue, after: _Queue, report: Callable[[BaseException], None]
    ) -> None:
        super().__init__(name=THREAD_PREFIX + stage.name, daemon=True)
        self.stage, self._before, self._after, self._report = stage, before, after, report
        self._waited = 0.0
        self.times = StageTime(stage.name, 0.0, 0.0)
        # Not left to `join`: an interrupted `join` believes that a running thread has ended.
        self.ended = threading.Event()

    def run(self) -> None:
        """Pass the results on until there are no more, or until a neighbour stops."""
        started = time.monotonic()
        try:
            results = self.stage.work(self._taken())
            with closing(cast("Any", results)) if hasattr(results, "close") else nullcontext():
                for result in results:
                    self._timed(self._after.put, result)
                    del result  # release the frame before the next one is made
        except _Stopped:
            pass
        except BaseException as error:
            self._report(error)
        finally:
            # Later stages finish what they have; earlier ones have nobody left to work for.
            self._after.end()
            self._before.end(stop=True)
            busy = max(0.0, time.monotonic() - started - self._waited)
            self.times = StageTime(self.stage.name, busy, self._waited)
            self.ended.set()

    def _taken(self) -> Iterator[Any]:
        while True:
            try:
                item = self._timed(self._before.get)
            except StopIteration:
                return
            yield item
            del item

    def _timed(self, wait: Callable[..., Any], *arguments: Any) -> Any:
        start = time.monotonic()
        try:
            return wait(*arguments)
        finally:
            self._waited += time.monotonic() - start


class StageLine:
    """Runs stages at the same time and yields the results of the last one, in order.

    Use it as a context manager, and iterate over it inside: leaving the block stops all threads
    and waits until each has finished its current item. A second Ctrl-C does not cut that short,
    because a thread that outlives the interpreter would abort it.

    When a stage fails, the stages before it stop at once, the stages behind it finish the items
    they received, and then the line raises the error; if several stages fail, the first error.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        """Line up the stages, at least one; the `with` block starts them."""
        self._errors: list[BaseException] = []
        self._queues = [_Queue(size) for size in (1, *(stage.ahead for stage in stages))]
        self._queues[0].end()
        neighbours = zip(self._queues, self._queues[1:], strict=False)
        self._workers = [
            _Worker(stage, before, after, self._errors.append)
            for stage, (before, after) in zip(stages, neighbours, strict=True)
        ]

    def __enter__(self) -> StageLine:
        for worker in self._workers:
            worker.start()
        return self

    def __iter__(self) -> Iterator[Any]:
        """Yield the results of the last stage.

        Raises: the error of the first stage that failed.
        """
        while True:
            try:
                result = self._queues[-1].get()
            except StopIteration:
                break
            except _Stopped:  # the block was left
                return
            yield result
        if self._errors:
            raise self._errors[0]

    def __exit__(self, *exception: object) -> None:
        for queue in self._queues:
            queue.end(stop=True)
        interruption: KeyboardInterrupt | None = None
        for worker in self._workers:
            while not worker.ended.is_set():
                try:
                    worker.ended.wait()
                except KeyboardInterrupt as again:
                    interruption = again
            worker.join()
        if interruption is not None:
            raise interruption

    @property
    def times(self) -> tuple[StageTime, ...]:
        """Where the time of each stage went, after the block."""
        return tuple(worker.times for worker in self._workers)

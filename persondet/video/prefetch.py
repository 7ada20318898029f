"""Stages that work side by side: an iterator that runs ahead in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

Item = TypeVar("Item")

_POLL_SECONDS = 0.1


def prefetch(items: Iterable[Item], depth: int) -> Generator[Item, None, None]:
    """Yield `items` in order while a thread makes the next ones, at most `depth` ahead.

    An exception of the source is raised here, after the items before it. Closing the generator
    stops the thread and closes the source; a source that is itself a `prefetch` stops likewise.
    """
    ready: queue.Queue[tuple[str, object]] = queue.Queue(maxsize=max(1, depth))
    stopped = threading.Event()

    def hand_over(kind: str, value: object) -> bool:
        """Put a message into the queue; False when nobody wants it any more."""
        while not stopped.is_set():
            try:
                ready.put((kind, value), timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        source = iter(items)
        try:
            for item in source:
                if not hand_over("item", item):
                    return
            hand_over("end", None)
        except BaseException as error:
            hand_over("error", error)
        finally:
            close = getattr(source, "close", None)
            if close is not None:
                close()

    thread = threading.Thread(target=work, name="persondet-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                assert isinstance(value, BaseException)
                raise value
            yield value  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()

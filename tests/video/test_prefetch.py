"""The thread that runs ahead: order, bounds, errors, an early end."""

from __future__ import annotations

import threading
import time

import pytest

from persondet.video.prefetch import prefetch


def our_threads():
    return [thread for thread in threading.enumerate() if thread.name == "persondet-prefetch"]


def test_order_is_kept_through_two_stages():
    assert list(prefetch((2 * n for n in prefetch(range(200), 3)), 2)) == list(range(0, 400, 2))
    assert our_threads() == []


def test_it_runs_ahead_by_the_depth_only():
    made = []

    def source():
        for number in range(50):
            made.append(number)
            yield number

    stage = prefetch(source(), 3)
    next(stage)
    time.sleep(0.1)
    # One was taken, three wait in the queue, one waits for a place in it.
    assert len(made) <= 5
    stage.close()


def test_an_error_arrives_after_the_items_before_it():
    def source():
        yield from range(3)
        raise KeyError("broken")

    got = []
    with pytest.raises(KeyError, match="broken"):
        got.extend(prefetch(prefetch(source(), 1), 5))
    assert got == [0, 1, 2]
    assert our_threads() == []


def test_closing_stops_the_threads_and_closes_the_source():
    closed = threading.Event()

    def source():
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            closed.set()

    stage = prefetch(prefetch(source(), 2), 2)
    assert [next(stage) for _ in range(3)] == [0, 1, 2]
    stage.close()
    assert closed.is_set()
    assert our_threads() == []

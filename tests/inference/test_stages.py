"""Stages at the same time: order, bounds, errors, an early end, and where the time went."""

import threading
import time
import weakref

import pytest

from persondet.inference.stages import THREAD_PREFIX, Stage, StageLine


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert not [t for t in threading.enumerate() if t.name.startswith(THREAD_PREFIX)]


def numbers(count):
    return lambda _: iter(range(count))


def each(function):
    return lambda items: (function(item) for item in items)


def test_a_full_queue_holds_up_what_is_before_it_and_no_item_is_held_longer_than_needed():
    class Frame:
        pass

    made, passed = [], []

    def make(_):
        for _ in range(50):
            frame = Frame()
            made.append(weakref.ref(frame))
            yield frame
            del frame

    stages = [Stage("make", make, 3), Stage("pass", each(lambda item: passed.append(1) or 1), 2)]
    with StageLine(stages) as line:
        next(iter(line))
        time.sleep(0.1)
        # One was taken; two wait behind a stage that holds a fourth; three wait before it, and
        # the first stage holds an eighth.
        assert (len(passed), len(made)) == (4, 8)
        # Those that wait, the one in hand, and perhaps the one that the last stage has just used.
        assert sum(ref() is not None for ref in made) <= 5


def test_stages_work_at_the_same_time():
    begun = [threading.Event() for _ in range(32)]

    def last(item):
        # Not ended before the first stage has begun with the one after the next.
        assert begun[min(item + 2, 29)].wait(10)
        return item

    first = each(lambda item: begun[item].set() or item)
    stages = [Stage("make", numbers(30)), Stage("first", first), Stage("last", each(last))]
    with StageLine(stages) as line:
        assert list(line) == list(range(30))


def test_an_early_end_stops_an_endless_source_and_closes_it():
    closed = threading.Event()

    def endless(_):
        try:
            while True:
                yield 0
        finally:
            closed.set()

    with StageLine([Stage("make", endless), Stage("pass", each(abs))]) as line:
        next(iter(line))
    assert closed.is_set()
    assert list(line) == []

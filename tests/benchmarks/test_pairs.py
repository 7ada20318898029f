"""Timing in turns: who runs when, and the statistics of known times."""

from __future__ import annotations

import gc

import pytest

from persondet.benchmarks.pairs import PairedTimes, Seconds, interleaved, part_of


def test_the_sides_take_turns_and_who_begins_changes():
    calls = []
    interleaved(lambda: calls.append("A"), lambda: calls.append("B"), pairs=4, warmup=1)
    assert "".join(calls) == "BA" + "ABBAABBA"


def test_statistics_of_known_times():
    times = PairedTimes((1.0, 2.0, 4.0), (2.0, 6.0, 4.0))
    assert times.ratios == (2.0, 3.0, 1.0)
    assert times.ratio == 2.0  # the median of the ratios, not the ratio of medians or means
    assert times.low == pytest.approx(1.2)
    assert times.high == pytest.approx(2.8)
    assert (times.first, times.second) == (2.0, 4.0)
    kept = times.as_json()
    assert kept["first_seconds"] == [1.0, 2.0, 4.0]
    assert kept["second_seconds"] == [2.0, 6.0, 4.0]
    assert (kept["ratio"], kept["pairs"]) == (2.0, 3)


def test_drift_of_the_machine_cancels():
    """A clock that runs slower and slower meets both sides alike."""
    spent = iter(range(100, 140))
    times = interleaved(
        lambda: Seconds(next(spent)), lambda: Seconds(next(spent)), pairs=10, warmup=0
    )
    assert times.ratio == pytest.approx(1.0, abs=0.001)


def test_a_result_that_is_no_seconds_is_not_taken_for_time():
    times = interleaved(lambda: 1000.0, lambda: Seconds(5), pairs=1, warmup=0)
    assert times.first_seconds[0] < 1
    assert times.second_seconds == (5.0,)


def test_garbage_is_collected_between_the_calls_and_never_within():
    within = []
    interleaved(lambda: within.append(gc.isenabled()), lambda: None, pairs=2)
    assert within == [False] * 3
    assert gc.isenabled()


def test_the_collector_is_on_again_after_a_failure():
    with pytest.raises(ZeroDivisionError):
        interleaved(lambda: 1 / 0, lambda: None, pairs=1)
    assert gc.isenabled()


def test_no_pair_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        interleaved(lambda: None, lambda: None, pairs=0)


def test_progress_counts_the_warm_up():
    told = []
    interleaved(lambda: None, lambda: None, pairs=2, progress=lambda *step: told.append(step))
    assert told == [(done, 6) for done in range(1, 7)]


def test_progress_of_parts():
    told = []
    part_of(lambda *step: told.append(step), 1, 3)(2, 4)
    assert told == [(6, 12)]
    assert part_of(None, 0, 2) is None

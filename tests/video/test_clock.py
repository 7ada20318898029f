"""Time stamps: exact where a clock allows it, increasing always."""

from __future__ import annotations

import itertools
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from persondet.video.clock import MAX_TICKS_PER_SECOND, OutputClock, common_tick

RATES = st.sampled_from([Fraction(n) for n in (1, 12, 24, 25, 30, 50, 60, 120)]) | st.sampled_from(
    [Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60000, 1001), Fraction(25, 3)]
)
CLOCKS = st.sampled_from([1000, 12800, 15360, 30000, 90000, 600, 1_000_000]).map(
    lambda ticks: Fraction(1, ticks)
)


@given(RATES, CLOCKS)
def test_the_common_tick_divides_both(rate, clock):
    tick = common_tick(rate, clock)
    assert (1 / rate / tick).denominator == 1
    assert (clock / tick).denominator == 1
    assert tick.denominator <= MAX_TICKS_PER_SECOND


def test_a_clock_beyond_32_bits_keeps_the_rate_exact():
    rate, clock = Fraction(30000, 1001), Fraction(1, 1_999_999_973)
    tick = common_tick(rate, clock)
    assert tick.denominator <= MAX_TICKS_PER_SECOND
    assert (Fraction(1001, 30000) / tick).denominator == 1


@given(RATES, CLOCKS, st.integers(0, 10_000))
def test_the_rounding_of_a_coarse_clock_is_undone(rate, clock, start):
    output = OutputClock(rate, clock)
    begin = start * clock
    rounded = [round((begin + n / rate) / clock) * clock for n in range(20)]
    times = [output.ticks(time) * output.tick for time in rounded]
    if 1 / rate > 2 * clock:
        assert times == [begin + n / rate for n in range(20)]


@given(RATES, CLOCKS, st.lists(st.integers(0, 10**7), min_size=1, max_size=20))
def test_ticks_always_increase_and_stay_close(rate, clock, numbers):
    output = OutputClock(rate, clock)
    ordered = sorted(set(numbers))
    ticks = [output.ticks(n * clock) for n in ordered]
    assert all(a < b for a, b in itertools.pairwise(ticks))
    assert all(
        abs(t * output.tick - n * clock) <= clock / 2 for t, n in zip(ticks, ordered, strict=True)
    )
    backwards = output.ticks(Fraction(0))
    assert backwards == ticks[-1] + 1


def test_without_times_frames_follow_the_rate():
    clock = OutputClock(Fraction(30000, 1001))
    assert [clock.ticks(None) * clock.tick for _ in range(4)] == [
        Fraction(1001 * n, 30000) for n in range(4)
    ]

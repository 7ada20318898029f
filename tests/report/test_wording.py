"""Numbers in words: rounded as a reader expects, and never to what they are not."""

from __future__ import annotations

import pytest

from persondet.report.wording import duration, listed, plain, points, several, share


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0 %"), (0.004, "0.4 %"), (0.283, "28 %"), (0.996, "99.6 %"), (1.0, "100 %")],
)
def test_a_share_is_rounded_to_none_or_all_only_when_it_is(value: float, text: str) -> None:
    assert share(value) == text


def test_what_does_not_exist_is_a_dash() -> None:
    assert {points(None), share(None), plain(None), duration(None)} == {"–"}


def test_nothing_is_less_than_zero_after_rounding() -> None:
    assert [points(value) for value in (-1e-9, -0.04, 0.0, -0.06)] == ["0.0", "0.0", "0.0", "-0.1"]


def test_counts_durations_and_lists() -> None:
    assert [several(1, "image"), several(2000, "image")] == ["1 image", "2,000 images"]
    assert [duration(s) for s in (4, 41, 692, 9000)] == [
        *("4.0 seconds", "41 seconds", "12 minutes", "2 h 30 min"),
    ]
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(list("abcde"), most=3) == "a, b and 3 more"
    assert [plain(0.00005), plain(0.001), plain(12345.6)] == ["0.00005", "0.001", "12,346"]

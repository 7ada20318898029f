"""metrics.json as it really looks: resumed, cut off, with NaN, with keys missing."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.report.events import Series, load_events
from persondet.results import RunError
from tests.report.finished_run import write_metrics as write_rows


def values(events, name):
    """Return {iteration: value} of a scalar."""
    return dict(zip(*(column.tolist() for column in events[name]), strict=True))


def losses(value, *iterations, **more):
    return [{"iteration": i, "total_loss": value, **more} for i in iterations]


def test_columns_are_arrays_and_rows_may_lack_keys(tmp_path):
    rows = [*losses(2.0, 19, lr=0.1), {"iteration": 39, "bbox/AP": 12.5}, *losses(1, 59, lr=0.2)]
    events = load_events(write_rows(tmp_path, *rows))
    loss = events["total_loss"]
    assert (loss.iterations.dtype, loss.values.dtype) == (np.int64, np.float64)
    assert values(events, "total_loss") == {19: 2.0, 59: 1.0}
    assert values(events, "bbox/AP") == {39: 12.5}
    assert events.names() == ["bbox/AP", "lr", "total_loss"]
    assert events.names("l") == ["lr"]
    assert "iteration" not in events
    assert (events.last_iteration, events.restarts) == (59, ())


@pytest.mark.parametrize(
    ("old", "new", "kept", "restarts"),
    [
        # trap 4: after a resume the last row of an iteration wins
        ((20, 40, 60, 80), (60, 80, 100), {20: 9, 40: 9, 60: 1, 80: 1, 100: 1}, (60,)),
        # the resumed run stopped earlier than the first: what that had logged is gone
        ((20, 40, 60, 80), (40,), {20: 9, 40: 1}, (40,)),
        # an old run in front, also one that was killed at its first row
        (range(19, 500, 20), (19, 39, 59), {19: 1, 39: 1, 59: 1}, (19,)),
        ((19,), (19, 39), {19: 1, 39: 1}, (19,)),
    ],
)
def test_trap_4_a_later_start_supersedes_what_it_does_again(tmp_path, old, new, kept, restarts):
    rows = [*losses(9.0, *old, **{"bbox/AP": 77.0}), *losses(1.0, *new)]
    events = load_events(write_rows(tmp_path, *rows))
    assert values(events, "total_loss") == kept
    assert events.restarts == restarts
    left = {i: 77.0 for i, loss in kept.items() if loss == 9}
    assert (values(events, "bbox/AP") if "bbox/AP" in events else {}) == left


def test_the_score_of_a_step_is_no_second_start(tmp_path):
    score = {"iteration": 39, "bbox/AP": 5.0}
    assert load_events(write_rows(tmp_path, *losses(1.0, 19, 39), score)).restarts == ()


def test_rows_of_one_iteration_are_joined_and_the_last_value_wins(tmp_path):
    rows = [{"iteration": 9, "a": 1, "b": 1}, {"iteration": 9, "b": 2, "val/a": 3}]
    events = load_events(write_rows(tmp_path, *rows))
    assert [values(events, n) for n in ("a", "b", "val/a")] == [{9: 1.0}, {9: 2.0}, {9: 3.0}]


def test_nan_null_and_infinity_are_kept_but_are_not_finite(tmp_path):
    line = '{"iteration": 1, "a": NaN, "b": null, "c": Infinity, "d": 4}\n'
    events = load_events(write_rows(tmp_path, line, {"iteration": 2, "a": 5}))
    assert math.isnan(values(events, "a")[1])
    assert math.isnan(values(events, "b")[1])
    assert events.finite("b") is None
    assert events.finite("c") is None
    assert events.finite("missing") is None
    assert events.finite("a").values.tolist() == [5.0]
    assert events["a"].best("min") == (2, 5.0)
    assert events["b"].best() is None


def test_a_cut_last_line_is_skipped_and_counted(tmp_path, caplog):
    events = load_events(write_rows(tmp_path, {"iteration": 1, "a": 1}, '{"iteration": 2, "a'))
    assert values(events, "a") == {1: 1.0}
    assert events.unreadable_lines == 1
    assert "1 unreadable" in caplog.text


def test_a_row_appended_to_a_cut_line_is_found(tmp_path):
    """A run killed while writing, resumed later: both write into the same line."""
    glued = '{"iteration": 3, "a' + json.dumps({"iteration": 2, "a": 7}) + "\n"
    events = load_events(write_rows(tmp_path, {"iteration": 1, "a": 1}, glued))
    assert values(events, "a") == {1: 1.0, 2: 7.0}
    assert events.unreadable_lines == 0


@pytest.mark.parametrize(
    "line",
    [
        "null",
        "[1, 2]",
        '"text"',
        '{"a": 1}',  # no iteration
        '{"iteration": "7", "a": 1}',
        '{"iteration": true, "a": 1}',
        '{"iteration": -1, "a": 1}',
        '{"iteration": NaN, "a": 1}',
        '{"iteration": 1.5, "a": 1}',
        '{"iteration": 1' + "0" * 400 + ', "a": 1}',
        "[" * 100_000,
        "\0\ufffd",
    ],
)
def test_a_line_that_is_no_row_is_skipped(tmp_path, line):
    events = load_events(write_rows(tmp_path, line + "\n", {"iteration": 5, "a": 1}))
    assert values(events, "a") == {5: 1.0}
    assert events.unreadable_lines == 1


def test_values_that_are_no_numbers_are_left_out(tmp_path):
    row = {"iteration": 1, "text": "x", "flag": True, "list": [1], "big": 10**400, "a": 1}
    assert load_events(write_rows(tmp_path, row)).names() == ["a"]


def test_a_missing_file_and_an_empty_one_are_one_sentence(tmp_path):
    with pytest.raises(RunError, match=r"metrics\.json cannot be read .*OUTPUT_DIR"):
        load_events(tmp_path)
    write_rows(tmp_path, "\n")
    with pytest.raises(RunError, match="holds no row"):
        load_events(tmp_path)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.floats(-10, 10)), min_size=1, max_size=60))
def test_any_order_of_iterations_gives_increasing_series(tmp_path_factory, rows):
    folder = write_rows(
        tmp_path_factory.mktemp("run"), *({"iteration": i, "a": value} for i, value in rows)
    )
    events = load_events(folder)
    # The independent path: a row survives when no later row has a smaller iteration.
    kept = {
        i: value
        for k, (i, value) in enumerate(rows)
        if all(later >= i for later, _ in rows[k + 1 :])
    }
    assert values(events, "a") == kept
    assert (np.diff(events["a"].iterations) > 0).all()


def test_steps_are_counted_from_one_and_the_last_score_belongs_to_the_last_step(tmp_path):
    rows = [{"iteration": i, "total_loss": 1.0} for i in (9, 19)]
    scores = [{"iteration": 9, "segm/AP": 1.0}, {"iteration": 20, "segm/AP": 2.0}]
    events = load_events(write_rows(tmp_path, rows[0], scores[0], rows[1], scores[1]))
    assert events.steps(events["total_loss"]).tolist() == [10, 20]
    assert events.steps(events["segm/AP"]).tolist() == [10, 20]
    assert events.last_step == 20


def test_the_best_is_the_last_of_equals():
    """As the model that is kept: of two equal ones that which has seen more."""
    series = Series(np.array([1, 2, 3, 4]), np.array([1.0, 5.0, np.nan, 5.0]))
    assert series.best() == (4, 5.0)
    assert series.best("min") == (1, 1.0)

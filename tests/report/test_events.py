"""metrics.json as it really looks: resumed, cut off, with NaN, with keys missing."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.report.events import best_model, load_events
from persondet.results import RunError
from tests.report.finished_run import write_metrics


def values(events, name):
    return dict(zip(*(column.tolist() for column in events[name]), strict=True))


def losses(value, *iterations, **more):
    return [{"iteration": i, "total_loss": value, **more} for i in iterations]


@pytest.mark.parametrize(
    ("old", "new", "kept", "restarts"),
    [
        # trap 4: after a resume the last row of an iteration wins
        ((20, 40, 60, 80), (60, 80, 100), {20: 9, 40: 9, 60: 1, 80: 1, 100: 1}, (60,)),
        # the resumed run stopped earlier than the first: what that had logged is gone
        ((20, 40, 60, 80), (40,), {20: 9, 40: 1}, (40,)),
        # an old run in front that was killed at its first row
        ((19,), (19, 39), {19: 1, 39: 1}, (19,)),
    ],
)
def test_trap_4_a_later_start_supersedes_what_it_does_again(tmp_path, old, new, kept, restarts):
    rows = [*losses(9.0, *old, **{"bbox/AP": 77.0}), *losses(1.0, *new)]
    events = load_events(write_metrics(tmp_path, *rows))
    assert values(events, "total_loss") == kept
    assert events.restarts == restarts
    left = {i: 77.0 for i, loss in kept.items() if loss == 9}
    assert (values(events, "bbox/AP") if "bbox/AP" in events else {}) == left


def test_rows_may_lack_keys_and_those_of_one_iteration_are_joined(tmp_path):
    first = losses(1.0, 9, b=1, text="x", flag=True, big=10**400)
    rows = [*first, {"iteration": 9, "b": 2, "c": 3}, {"iteration": 19, "bbox/AP": 12.5}]
    events = load_events(write_metrics(tmp_path, *rows))
    assert events.names() == ["b", "bbox/AP", "c", "total_loss"]
    assert [values(events, n) for n in events.names()] == [{9: 2}, {19: 12.5}, {9: 3}, {9: 1}]
    loss = events["total_loss"]
    assert (loss.iterations.dtype, loss.values.dtype) == (np.int64, np.float64)
    assert (events.last_iteration, events.restarts) == (19, ())  # an evaluation is no restart


def test_nan_null_and_infinity_are_kept_but_are_not_finite(tmp_path):
    line = '{"iteration": 1, "a": NaN, "b": null, "c": Infinity, "d": 4}\n'
    events = load_events(write_metrics(tmp_path, line, {"iteration": 2, "a": 5}))
    assert math.isnan(values(events, "a")[1]) and math.isnan(values(events, "b")[1])
    assert [events.finite(name) for name in ("b", "c", "missing")] == [None, None, None]
    assert events.finite("a").values.tolist() == [5.0]


def test_a_row_appended_to_a_cut_line_is_found(tmp_path, caplog):
    """A run killed while writing, resumed later: both write into the same line."""
    glued = '{"iteration": 3, "a' + json.dumps({"iteration": 2, "a": 7}) + "\n"
    metrics = write_metrics(tmp_path, {"iteration": 1, "a": 1}, glued, '{"iteration": 9')
    events = load_events(metrics)
    assert values(events, "a") == {1: 1.0, 2: 7.0}
    assert events.unreadable_lines == 1
    assert "1 unreadable" in caplog.text


def test_a_line_that_is_no_row_is_skipped(tmp_path):
    lines = [
        *("null", "[1, 2]", '"text"', '{"a": 1}', '{"iteration": "7"}', '{"iteration": true}'),
        *('{"iteration": -1}', '{"iteration": NaN}', '{"iteration": 1.5}', "\0\ufffd"),
        *('{"iteration": 1' + "0" * 400 + "}", "[" * 100_000),
    ]
    with pytest.raises(RunError, match=r"metrics\.json cannot be read .*OUTPUT_DIR"):
        load_events(tmp_path)
    rows = [f"{line}\n" for line in lines]
    with pytest.raises(RunError, match="holds no row"):
        load_events(write_metrics(tmp_path, *rows))
    events = load_events(write_metrics(tmp_path, *rows, {"iteration": 5, "a": 1}))
    assert values(events, "a") == {5: 1.0}
    assert events.unreadable_lines == len(lines)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 30), st.floats(-10, 10)), min_size=1, max_size=60))
def test_any_order_of_iterations_gives_increasing_series(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("run")
    events = load_events(write_metrics(folder, *({"iteration": i, "a": v} for i, v in rows)))
    # The independent path: a row survives when no later row has a smaller iteration.
    kept = {i: v for k, (i, v) in enumerate(rows) if all(later >= i for later, _ in rows[k + 1 :])}
    assert values(events, "a") == kept
    assert (np.diff(events["a"].iterations) > 0).all()


def test_the_last_score_belongs_to_the_last_step_and_the_best_is_the_last_of_equals(tmp_path):
    """As the model that is kept: of two equal ones that which has seen more."""
    scores = [{"iteration": i, "segm/AP": v} for i, v in ((9, 2.0), (19, 1.0), (30, 2.0))]
    rows = [*losses(1.0, 9), scores[0], *losses(1.0, 19), scores[1], *losses(1.0, 29), scores[2]]
    events = load_events(write_metrics(tmp_path, *rows))
    assert events.steps(events["segm/AP"]).tolist() == [10, 20, 30]
    assert events.last_step == 30
    assert best_model(events, "", None)[:2] == (30, "mask AP 2.0")

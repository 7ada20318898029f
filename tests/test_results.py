"""results.json: round trip, NaN, damaged files, and the table."""

import json
import math

import numpy as np
import pytest

from persondet.results import (
    RunError,
    format_results_table,
    leak_figure,
    read_results,
    write_results,
)

RESULTS = {
    "model": "model_best.pth",
    "iteration": 350,
    "classes": ["person"],
    "test": {
        "dataset": "person_test",
        "images": 60,
        "bbox": {"AP": 52.125, "AP50": 88.7, "AP75": 55.0, "APs": 3.0, "APm": 40.0, "APl": 100.0},
        "segm": {"AP": 41.0, "AP50": 76.4, "AP75": 44.0, "APs": None, "APm": 30.0, "APl": 60.25},
    },
    "seconds": {"train": 301.5},
}


def test_what_is_written_is_read_back(tmp_path):
    path = write_results(tmp_path, RESULTS)
    assert path == tmp_path / "results.json"
    assert read_results(tmp_path) == {"schema": 1, **RESULTS}


def test_numpy_numbers_become_plain_and_nan_becomes_null(tmp_path):
    scores = {"AP": np.float32(50), "APs": math.nan, "APm": np.float64("nan"), "APl": np.int64(7)}
    write_results(tmp_path, {"test": {"bbox": scores}, "classes": ("a",), "speed": np.ones(2)})

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    results = json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)
    assert results["test"]["bbox"] == {"AP": 50.0, "APs": None, "APm": None, "APl": 7}
    assert results["classes"] == ["a"]
    assert results["speed"] == [1.0, 1.0]


def test_numbers_outside_0_to_100_are_refused_and_the_older_file_stays(tmp_path):
    write_results(tmp_path, RESULTS)
    with pytest.raises(RunError, match=r"test\.bbox\.AP.* 0 to 100"):
        write_results(tmp_path, {"test": {"bbox": {"AP": 100.5}}})
    assert read_results(tmp_path)["test"] == RESULTS["test"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "not JSON"),
        ('{"schema": 1, "test": {"bbox"', "not JSON"),  # half a file
        ("[1]", "top level"),
        ("{}", '"schema"'),
        ('{"schema": true, "test": {}}', '"schema"'),
        ('{"schema": 2, "test": {}}', "update persondet"),
        ('{"schema": 1}', "neither"),
        ('{"schema": 1, "test": []}', "not an object"),
        ('{"schema": 1, "test": {"bbox": 3}}', "test.bbox"),
        ('{"schema": 1, "test": {"bbox": {"AP": "high"}}}', "test.bbox.AP"),
        ('{"schema": 1, "test": {"bbox": {"AP": true}}}', "test.bbox.AP"),
        ('{"schema": 1, "valid": {"segm": {"AP": -1}}}', "valid.segm.AP"),
        ('{"schema": 1, "test": {"bbox": {"AP": NaN}}}', "test.bbox.AP"),
        ('{"schema": 1, "test": {}, "tests": []}', '"tests"'),
        ('{"schema": 1, "test": {}, "tests": {"a": 3}}', '"tests.a"'),
        ('{"schema": 1, "test": {}, "tests": {"a": {"segm": {"AP": 200}}}}', "tests.a.segm.AP"),
    ],
)
def test_a_damaged_file_is_one_sentence_that_names_it(tmp_path, content, says):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(RunError) as error:
        read_results(tmp_path)
    message = str(error.value)
    assert str(tmp_path / "results.json") in message
    assert says in message
    assert "\n" not in message
    assert message.endswith(".")


def test_a_split_without_leaks_says_so_and_one_that_nobody_looked_at_is_silent():
    none = {"images": 0, "share": 0.0, "with": {}}
    table = format_results_table({"test": {**RESULTS["test"], "leaks": none}})
    assert table.splitlines()[-1] == "No image of this split is in an earlier split."
    assert "split is" not in format_results_table({"test": {**RESULTS["test"], "leaks": None}})


def test_a_leak_is_a_number_only_where_the_pixels_were_compared():
    leaks = {"images": 6, "leaked": 2, "share": 1 / 3, "clip_mates": 0, "with": {"valid": 2}}
    report = {"decoded": True, "leaks": {"test": leaks}}
    assert leak_figure(report, "test") == {"images": 2, "share": 1 / 3, "with": {"valid": 2}}
    assert leak_figure({**report, "decoded": False}, "test") is None
    assert leak_figure(report, "train") is None
    assert leak_figure({"leaks": 3}, "test") is None

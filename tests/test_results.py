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

SCORES = {"AP": 52.125, "AP50": 88.7, "AP75": 55.0, "APs": None, "APm": 40.0, "APl": 100.0}
TEST = {"dataset": "person_test", "images": 60, "bbox": SCORES, "segm": SCORES}
RESULTS = {"model": "model_best.pth", "iteration": 350, "classes": ["person"], "test": TEST}


def test_what_is_written_is_read_back_and_what_cannot_be_right_is_refused(tmp_path):
    assert write_results(tmp_path, RESULTS) == tmp_path / "results.json"
    with pytest.raises(RunError, match=r"test\.bbox\.AP.* 0 to 100"):
        write_results(tmp_path, {"test": {"bbox": {"AP": 100.5}}})
    assert read_results(tmp_path) == {"schema": 1, **RESULTS}  # the older file stays


def test_numpy_numbers_become_plain_and_nan_becomes_null(tmp_path):
    scores = {"AP": np.float32(50), "APs": math.nan, "APm": np.float64("nan"), "APl": np.int64(7)}
    write_results(tmp_path, {"test": {"bbox": scores}, "classes": ("a",), "speed": np.ones(2)})
    text = (tmp_path / "results.json").read_text()
    assert "NaN" not in text
    results = json.loads(text)
    assert results["test"]["bbox"] == {"AP": 50.0, "APs": None, "APm": None, "APl": 7}
    assert (results["classes"], results["speed"]) == (["a"], [1.0, 1.0])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"schema": 1, "test": {"bbox"', "not JSON"),  # half a file
        ('{"schema": true, "test": {}}', '"schema"'),
        ('{"schema": 2, "test": {}}', "update persondet"),
        ('{"schema": 1}', "neither"),
        ('{"schema": 1, "test": {"bbox": 3}}', "test.bbox"),
        ('{"schema": 1, "test": {"bbox": {"AP": true}}}', "test.bbox.AP"),
        ('{"schema": 1, "valid": {"segm": {"AP": -1}}}', "valid.segm.AP"),
        ('{"schema": 1, "test": {"bbox": {"AP": NaN}}}', "test.bbox.AP"),
        ('{"schema": 1, "test": {}, "tests": {"a": {"segm": {"AP": 200}}}}', "tests.a.segm.AP"),
    ],
)
def test_a_damaged_file_is_one_sentence_that_names_it(tmp_path, content, says):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(RunError) as error:
        read_results(tmp_path)
    assert str(tmp_path / "results.json") in str(error.value) and says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_split_without_leaks_says_so_and_one_that_nobody_looked_at_is_silent():
    for leaks in ({"images": 0, "share": 0.0, "with": {}}, None):
        table = format_results_table({"test": {**TEST, "leaks": leaks}})
        assert ("No image of this split is in an earlier split." in table) == bool(leaks)


def test_frames_of_a_clip_that_an_earlier_split_has_are_told():
    leaks = {"images": 0, "share": 0.0, "clip_mates": 8, "with": {}}
    table = format_results_table({"test": {**TEST, "images": 8, "leaks": leaks}})
    assert "No image of this split is in an earlier split.\n8 of 8 images are frames of" in table


def test_a_leak_is_a_number_only_where_the_pixels_were_compared():
    leaks = {"images": 6, "leaked": 2, "share": 1 / 3, "clip_mates": 1, "with": {"valid": 2}}
    report = {"decoded": True, "leaks": {"test": leaks}}
    figure = {"images": 2, "share": 1 / 3, "clip_mates": 1, "with": {"valid": 2}}
    assert leak_figure(report, "test") == figure
    assert leak_figure({**report, "decoded": False}, "test") is None
    assert leak_figure(report, "train") is None
    assert leak_figure({"leaks": 3}, "test") is None

"""The lines of the table, from numbers that are known."""

from __future__ import annotations

import pytest

from persondet.benchmarks.table import BASELINES, Row, baseline, lines_of

FIGURES = {
    "ratio": 2.5,
    "low": 2.25,
    "high": 2.75,
    "first_seconds": [1.0, 1.0, 3.0],
    "second_seconds": [2.0, 2.5, 4.0],
}


def test_a_row_says_ratio_spread_goal_and_both_numbers():
    assert str(Row("step", FIGURES, 2.0, "1.00 s against 2.50 s")) == (
        "step: 2.50 x (2.25 to 2.75), goal at least 2.0: met; 1.00 s against 2.50 s"
    )


@pytest.mark.parametrize(
    ("ratio", "goal", "at_most", "met"),
    [(2.0, 2.0, False, True), (1.99, 2.0, False, False), (0.6, 0.6, True, True)]
    + [(0.61, 0.6, True, False)],
)
def test_a_goal_is_met_or_missed(ratio, goal, at_most, met):
    row = Row("x", {"ratio": ratio}, goal, "", at_most=at_most)
    assert row.met is met
    assert ("missed" in str(row)) is not met


def test_the_training_rows():
    found = {
        "device": "cpu",
        "rows": {
            "default": {**FIGURES, "dtype": "bfloat16"},
            "float32": {
                **FIGURES,
                "ratio": 1.1,
                "losses": {"ours": {"a": 1.01, "b": 2.0}, "stock": {"a": 1.0, "b": 2.0}},
            },
            "saved": {"ours": 5e8, "stock": 1e9, "ratio": 0.5},
        },
    }
    default, exact, saved = lines_of("train", found)
    assert "(bfloat16)" in default and "goal at least 2.0: met; 1.00 s against 2.50 s" in default
    assert "goal at least 1.2: missed" in exact and "losses within 1.00 %" in exact
    assert "0.50 x, goal at most 0.6: met; 500 MB against 1000 MB" in saved
    assert "goal at least 1.5" in lines_of("train", found | {"device": "NVIDIA H100"})[0]


def test_the_mapper_rows():
    one = {**FIGURES, "first_images_per_second": 50.0, "second_images_per_second": 20.0}
    outlines = {"boundary_mean": 0.3, "boundary_within_1": 0.98}
    street, geometry, flip = lines_of(
        "mapper", {"street": one | outlines, "geometry": one | outlines, "flip": one}
    )
    for line in (street, geometry):
        assert "goal at least 3.5: missed; 50.0 against 20.0 images per second and core" in line
        assert "outlines 0.30 px apart on average, 98 % within 1 px" in line
    assert "goal at least 1.6: met" in flip and "px" not in flip


def test_the_startup_rows():
    small, default = lines_of("startup", {"small": FIGURES, "default": FIGURES})
    assert "small model" in small and "goal at least 1.3: met; 1.00 s against 2.50 s" in small
    assert "default model" in default


def test_the_video_rows():
    one = {**FIGURES, "frames": 10}
    apart = {"cores": 2, "matched": 0.995, "box_apart": 0.5, "score_apart": 0.01}
    found = {
        "people": 10,
        "draw": {**one, "ratio": 36.0},
        "simulated": {**one, "ratio": 11.0},
        "exact": {**one, **apart, "dtype": "float32"},
        "default": {**one, **apart, "dtype": "bfloat16", "ratio": 3.5},
        "gpu": {**one, "ratio": 1.1},
        "memory": {"grown_mb": 12.5, "from": 100, "to": 3000},
    }
    draw, simulated, exact, default, gpu, memory = lines_of("video", found)
    assert "goal at least 35.0: met; 100.0 ms against 250.0 ms per frame" in draw
    assert "goal at least 12.0: missed" in simulated
    assert "(float32, 2 cores)" in exact and "goal" not in exact
    assert "99.5 % of the people on both, boxes within 0.50 px, scores within 0.010" in exact
    assert "(bfloat16, 2 cores)" in default and "goal at least 3.0: met" in default
    assert "goal at most 1.15: met; 250.0 ms against 100.0 ms per frame" in gpu
    assert memory == "memory growth from frame 100 to 3000: 12.5 MB, goal at most 20 MB: met"
    few = {name: found[name] for name in ("people", "draw", "simulated")}
    lines = lines_of("video", few | {"memory": {**found["memory"], "grown_mb": 20.1}})
    assert len(lines) == 3 and lines[-1].endswith("missed")


def test_the_dataset_lines():
    found = {
        "check": {**FIGURES, "check_images_per_second": 90.0, "decode_images_per_second": 95.0},
        "json": {"annotations": 100, "seconds": 1.0, "peak_mb": 200.0},
        "leaks": {"hashes": 50, "seconds": 2.0},
    }
    check, mending, leaks = lines_of("dataset", found)
    assert "2.50 x (2.25 to 2.75); 90 against 95 images per second" in check
    assert "100 annotations" in mending and "50 hashes" in leaks


@pytest.mark.parametrize("mode", list(BASELINES))
def test_each_mode_has_a_baseline_to_show(mode):
    assert "def " in baseline(mode)

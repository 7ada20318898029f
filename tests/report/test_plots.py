"""The curves as PNG files: all of them, some of them, and none."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import cv2
import numpy as np
import pytest

from persondet.report.plots import plot_run
from persondet.report.smoothing import smooth, smoothing_window
from persondet.results import RunError

ALL = [
    "training_curves.png",
    "loss.png",
    "loss_components.png",
    "accuracy.png",
    "average_precision.png",
    "learning_rate.png",
]


def write_run(folder, rows):
    folder.mkdir(exist_ok=True)
    (folder / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def full_row(iteration):
    row = {"iteration": iteration, "lr": 1e-3, "bbox/AP": 30.0, "segm/AP50": 50.0}
    for prefix in ("", "val/"):
        row |= {f"{prefix}total_loss": 2.0, f"{prefix}loss_cls": 1.0, f"{prefix}loss_$\\frac$": 1.0}
        row |= {f"{prefix}fast_rcnn/cls_accuracy": 0.9, f"{prefix}mask_rcnn/accuracy": 0.8}
    return row


def ink(path):
    """Return the share of the picture's pixels that are not white."""
    image = cv2.imread(str(path))
    assert image is not None
    assert min(image.shape[:2]) > 400
    return float((image < 250).any(axis=2).mean())


def test_a_full_run_gives_every_plot(tmp_path):
    run = write_run(tmp_path / "run", [full_row(i) for i in (0, 20, 40)])
    written = plot_run(run)
    assert [path.name for path in written] == ALL
    assert all(path.parent == run / "plots" and ink(path) > 0.01 for path in written)
    assert sorted(p.name for p in (run / "plots").iterdir()) == sorted(ALL)  # nothing temporary


def test_missing_scalars_leave_a_plot_out_and_the_log_says_so(tmp_path, caplog):
    run = write_run(tmp_path / "run", [{"iteration": 0, "total_loss": 1.0}])
    with caplog.at_level(logging.INFO, logger="persondet"):
        written = plot_run(run)
    assert [path.name for path in written] == ["training_curves.png", "loss.png"]
    assert "learning_rate.png is left out" in caplog.text


def test_plotting_again_replaces_our_files_and_keeps_others(tmp_path):
    run = write_run(
        tmp_path / "run", [{"iteration": i, "total_loss": 2.0, "lr": 0.1} for i in (0, 20)]
    )
    assert "learning_rate.png" in {path.name for path in plot_run(run)}
    (run / "plots" / "mine.png").write_bytes(b"mine")
    before = (run / "plots" / "loss.png").read_bytes()
    write_run(run, [{"iteration": 0, "total_loss": 1.0}, {"iteration": 9, "total_loss": 0.5}])
    plot_run(run)
    left = sorted(path.name for path in (run / "plots").iterdir())
    assert left == ["loss.png", "mine.png", "training_curves.png"]
    assert (run / "plots" / "loss.png").read_bytes() != before


def test_the_same_run_gives_the_same_bytes(tmp_path):
    run = write_run(tmp_path / "run", [{"iteration": i, "lr": i / 10} for i in range(3)])
    first, second = (plot_run(run, tmp_path / name)[-1].read_bytes() for name in "ab")
    assert first == second


@pytest.mark.parametrize(
    "rows",
    [
        [
            {"iteration": 0, "total_loss": float("nan"), "loss_cls": float("nan")}
        ],  # diverged at once: nothing to draw
        [{"iteration": 3, "time": 0.5}],
    ],
)
def test_nothing_to_draw_gives_no_file(tmp_path, rows):
    assert plot_run(write_run(tmp_path / "run", rows)) == []
    assert not list((tmp_path / "run").rglob("*.png"))


def test_values_that_are_not_finite_are_told_and_do_not_stop_the_plot(tmp_path):
    rows = [{"iteration": i, "total_loss": v} for i, v in enumerate([1.0, float("nan"), 2.0])]
    spoilt = plot_run(write_run(tmp_path / "a", rows))[-1]
    rows[1]["total_loss"] = 1.5
    whole = plot_run(write_run(tmp_path / "b", rows))[-1]
    vermilion = np.array([0, 94, 213])  # BGR: the colour of the note
    seen = [
        (np.abs(cv2.imread(str(p)).astype(int) - vermilion) < 30).all(axis=2).sum()
        for p in (spoilt, whole)
    ]
    assert seen[0] > 100
    assert seen[1] == 0


def test_a_run_without_metrics_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"metrics\.json"):
        plot_run(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_smoothing_by_hand():
    assert smooth(np.array([0.0, 3.0, 6.0, 0.0]), 3).tolist() == [1.5, 3.0, 3.0, 3.0]
    noisy = np.random.default_rng(0).normal(size=50)
    assert np.allclose(smooth(noisy, 1), noisy)
    expected = [noisy[max(0, i - 3) : i + 4].mean() for i in range(50)]
    assert np.allclose(smooth(noisy, 7), expected)


def test_smoothing_steps_over_nan():
    values = np.array([1.0, np.nan, 3.0])
    assert np.array_equal(smooth(values, 3), [1.0, np.nan, 3.0], equal_nan=True)


def test_the_window_is_odd_and_leaves_short_series_alone():
    assert [smoothing_window(n) for n in (0, 39, 40, 79, 80, 2000)] == [1, 1, 3, 3, 5, 101]


def test_the_report_needs_no_torch_and_no_pyplot():
    code = (
        "import sys, persondet.report.plots; "
        "sys.exit(bool({'torch', 'detectron2', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

"""The figures of a run as PNG files: all of them, some of them, and none; and what they show."""

import logging

import cv2
import numpy as np
import pytest
from matplotlib.text import Text

from persondet.report.build import build_document
from persondet.report.events import smooth, smoothing_window
from persondet.report.plots import PLOTS, evaluation, plot_run
from persondet.report.plots.evaluation import moving_mean
from persondet.report.plots.style import drawing
from persondet.report.plots.training import draw_overview, panel_average_precision, single
from persondet.report.run import Run
from tests.report.finished_run import (
    curves,
    edit,
    training_rows,
    write_json,
    write_metrics,
    write_records,
    write_run,
)
from tests.report.shown import rows

NAMES = list(PLOTS)


def texts(figure):
    found = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible())
    return [text.get_text() for text in found if text.get_text()]


def draw(function, folder):
    with drawing():
        return function(Run(folder))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Every figure of a whole run, what its curves.json holds, and the pooled precision."""
    run = write_run(tmp_path_factory.mktemp("drawn") / "run")
    content = curves("person_test")
    task = content["tasks"]["segm"]
    task["at_threshold"] = {"threshold": 0.62, "precision": 0.81, "recall": 0.7, "f1": 0.75}
    pooled = np.interp(np.linspace(0, 1, 101), [0, 0.7, 1], [1, 0.81, 0.2])
    task["pooled"] = {"recall": task["pr"]["recall"], "precision": pooled.tolist()}
    write_json(run / "inference/person_test/curves.json", content)
    path = run / "inference/person_test/errors.json"
    edit(path, lambda value: value["tasks"]["bbox"]["cost"].update(background=-1e-9))
    return {name: draw(function, run) for name, function in PLOTS.items()}, task


def overview(folder, *metrics):
    return draw(draw_overview, write_metrics(folder, *metrics))


@pytest.mark.slow
def test_a_whole_run_gives_every_plot_and_nothing_is_cut_off(tmp_path):
    run = write_run(tmp_path / "run")
    written = plot_run(run)
    assert [path.name for path in written] == NAMES
    assert sorted(p.name for p in (run / "plots").iterdir()) == sorted(NAMES)  # nothing temporary
    for path in written:
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert min(image.shape) > 400
        assert (image < 250).mean() > 0.01
        border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        assert (border > 250).all(), f"{path.name} reaches the edge of its image"


def test_every_axis_has_a_label_with_its_unit(drawn):
    unitless = {"size", "crowding", "place", "kind of mistake"}  # they name what stands beside them
    for name, figure in drawn[0].items():
        shown = [axes for axes in figure.axes if axes.axison]
        assert shown
        for label in (text for axes in shown for text in (axes.get_xlabel(), axes.get_ylabel())):
            assert label in unitless or ("(" in label and ")" in label), (name, label)


def test_a_run_plots_what_it_has_and_the_log_names_the_rest(tmp_path, caplog):
    """And a later call replaces our files, removes those that show nothing, and keeps others."""
    run, path = write_metrics(tmp_path, {"iteration": 0, "time": 1.0}), tmp_path / "plots/speed.png"
    for name in ("speed.png", "mine.png"):
        write_json(tmp_path / "plots" / name, "old")
    assert plot_run(run) == [path]
    assert path.read_bytes().startswith(b"\x89PNG")
    lost = {"iteration": 4, "total_loss": float("nan")}
    nothing = ({"iteration": 3, "eta_seconds": 0.5}, lost, '{"iteration": 9, "total')
    with caplog.at_level(logging.INFO, logger="persondet"):
        assert plot_run(str(write_metrics(run, *nothing))) == []
    assert "speed.png is left out" in caplog.text
    assert [path.name for path in (run / "plots").iterdir()] == ["mine.png"]


def test_values_that_are_not_finite_leave_a_gap_and_spikes_do_not_flatten_the_curve(tmp_path):
    values = [1.0, float("nan"), *[1.0] * 30, 5e6]
    losses = [{"iteration": i, "total_loss": v} for i, v in enumerate(values)]
    figure = overview(tmp_path / "run", *losses)
    assert "1 of 33 training values are not finite" in texts(figure)
    assert "1 values lie above, up to 5e+06" in texts(figure)
    assert np.flatnonzero(np.isnan(figure.axes[0].get_lines()[0].get_ydata())).tolist() == [1]
    assert figure.axes[0].get_ylim() == (0.0, 2.0)


@pytest.mark.parametrize(
    ("best", "shown"),
    [
        (None, "mask AP 38.0 after 200 steps"),  # scored one iteration behind the last step
        ({"metric": "bbox/AP50", "iteration": 199}, "box AP50 78.0 after 200 steps"),
        ({"metric": "val/total_loss", "iteration": 99}, "val/total_loss 1.6 after 100 steps"),
    ],
)
def test_the_best_model_is_marked_where_it_was_saved(tmp_path, best, shown):
    run = write_metrics(tmp_path / "run", *training_rows())
    if best:
        write_json(run / "model_best.json", best)
    figure = draw(single(panel_average_precision), run)
    assert [text for text in texts(figure) if "best" in text] == [f"best model: {shown}"]


def test_trap_5_two_validation_sets_are_both_drawn(tmp_path):
    losses = {"total_loss": 1.0, "val/a/total_loss": 1.5, "val/b/total_loss": 1.7}
    scores = {"a/bbox/AP": 10.0, "b/bbox/AP": 20.0}
    figure = overview(tmp_path / "run", {"iteration": 9, **losses, **scores})
    assert {"validation, a", "validation, b", "box AP, a", "box AP, b"} <= set(texts(figure))


def test_the_curves_are_those_of_the_file(drawn):
    figures, known = drawn
    panel = figures["f1_curve.png"].axes[3]  # the test split's masks
    assert "person_test" in panel.get_title(loc="left")
    lines = {line.get_label(): line for line in panel.get_lines()}
    assert lines["F1"].get_xdata().tolist() == known["thresholds"]
    assert np.allclose(lines["F1"].get_ydata(), np.multiply(100, known["f1"]))
    assert [label for label in lines if label.startswith("threshold in use, 0.62: F1")]
    histogram = figures["score_histogram.png"].axes[0]
    heights = [patch.get_height() for patch in histogram.patches]
    assert heights == known["score_histogram"]["true"] + known["score_histogram"]["false"]


def test_precision_stands_over_recall_and_the_threshold_on_a_curve(drawn):
    """Of several classes the curve is the mean, and the threshold counts all of them as one."""
    figures, task = drawn
    panel = figures["pr_curve.png"].axes[1]
    assert panel.get_xlabel().startswith("recall") and panel.get_ylabel().startswith("precision")
    lines = {line.get_label(): line for line in panel.get_lines()}
    for label, precision in (
        ("mask, IoU 0.5", task["pr"]["precision@50"]),
        ("mask, IoU 0.75", task["pr"]["precision@75"]),
        ("mask, IoU 0.5, all classes as one", task["pooled"]["precision"]),
    ):
        assert np.allclose(lines[label].get_xdata(), np.multiply(100, task["pr"]["recall"]))
        assert np.allclose(lines[label].get_ydata(), np.multiply(100, precision))
    (star,) = (line for label, line in lines.items() if label.startswith("threshold 0.62"))
    # The file's own point, not that of the nearest of the thresholds.
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (70.0, 81.0)


def test_the_bars_of_the_mistakes_are_those_of_the_file(drawn):
    figure = drawn[0]["errors.png"]
    # Kinds that one class cannot have, and nobody made, are left out.
    assert [patch.get_width() for patch in figure.axes[0].patches][:4] == [9.7, 4.2, 0.6, -1e-9]
    assert len(figure.axes[0].patches) == 8
    assert "0.0  (1,312 ×)" in texts(figure)
    panels = drawn[0]["recall_by.png"].axes
    assert [len(axes.patches) for axes in panels] == [2, 3, 2]  # a group without anybody is none
    assert panels[0].patches[0].get_width() == pytest.approx(100 * 54 / 120)


def test_people_over_time_in_plot_and_report_alike(tmp_path):
    records = write_records(tmp_path / "video/monday/a.jsonl", [0, 2, 4, 4], unique=5)
    with records.open("a") as file:
        file.write('{"index": 4, "ti\n{"index": 5, "time": 9.0, "people": []}\n')
    (tmp_path / "other.jsonl").write_text('{"not": "records"}\n')
    (clip,) = Run(tmp_path).clips
    assert clip.times.tolist() == [0.0, 0.04, 0.08, 0.12]
    title = "on average 2.5, at most 4, 5 different people; score 0.62 or more"
    figure = draw(evaluation.draw_people, tmp_path)
    assert f"People in walk.mp4\n{title}" in texts(figure)
    assert figure.axes[0].get_lines()[0].get_ydata().tolist() == [0, 2, 4, 4]
    (tmp_path / "config.yaml").write_text("{}")
    shown = rows(build_document(tmp_path), "The annotated clips")["a"]
    assert shown[2:] == ("4", "0.62", "2.5", "4", "5")


def test_the_moving_mean_follows_time_and_smoothing_knows_what_is_missing():
    times, counts = np.array([0.0, 0.1, 0.2, 5.0]), np.array([1, 2, 3, 9])
    expected = [counts[abs(times - t) <= 0.5].mean() for t in times]
    assert np.allclose(moving_mean(times, counts, 1.0), expected)
    assert smooth(np.array([0.0, 3.0, 6.0, 0.0]), 3).tolist() == [1.5, 3.0, 3.0, 3.0]
    noisy = np.random.default_rng(0).normal(size=50)
    noisy[[3, 4, 20]] = np.nan
    expected = [np.nanmean(noisy[max(0, i - 3) : i + 4]) for i in range(50)]
    expected = np.where(np.isfinite(noisy), expected, np.nan)
    assert np.allclose(smooth(noisy, 7), expected, equal_nan=True)
    assert [smoothing_window(n) for n in (0, 39, 40, 79, 80, 2000)] == [1, 1, 3, 3, 5, 101]

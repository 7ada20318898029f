"""Several runs in one figure, and their numbers in one table."""

import csv

import pytest

from persondet.errors import OutputExistsError
from persondet.report.plots import OVERLAYS, default_folder, plot_runs
from persondet.report.plots.overlay import _draw, run_names, write_results_csv
from persondet.report.plots.style import drawing
from persondet.report.run import Run
from persondet.results import RunError
from tests.report.finished_run import edit, training_rows, write_metrics, write_run


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_run_keeps_its_values_and_its_look(tmp_path):
    short = [row for row in training_rows() if row["iteration"] < 100]
    runs = [write_run(tmp_path / "whole"), write_metrics(tmp_path / "half", *short)]
    data = [Run(run) for run in runs]
    with drawing():
        loss, curve = (
            _draw(OVERLAYS[name](data), data, run_names(runs))
            for name in ("loss.png", "pr_curve.png")
        )
    lines = loss.axes[0].get_lines()
    assert [line.get_xdata()[-1] for line in lines] == [200, 200, 100, 100]
    assert [line.get_linestyle() for line in lines] == ["-", "--", "-", "--"]
    assert lines[0].get_color() == lines[1].get_color() != lines[2].get_color()
    assert lines[0].get_marker() != lines[2].get_marker()
    legend = [text.get_text() for text in loss.legends[0].get_texts()]
    assert legend == ["whole", "half", "training", "validation"]
    (line,) = curve.axes[0].get_lines()  # the half has no scores yet
    assert (line.get_xdata() == 100 * data[0].evaluation("test").curves["bbox"].pr_recall).all()


def test_runs_are_told_apart_and_their_figures_belong_to_none(monkeypatch, tmp_path):
    long, nested = "x" * 60, [tmp_path / "demo", tmp_path / "demo" / "pretrain"]
    folders = [tmp_path / "a" / "run", tmp_path / "b" / "run", tmp_path / "b" / "$\\frac$<b>"]
    assert run_names(folders) == ["a/run", "b/run", "b/$\\frac$<b>"]
    first, second = run_names([tmp_path / f"{long}1{long}", tmp_path / f"{long}2{long}"])
    assert first != second
    assert max(len(first), len(second)) <= 45
    assert default_folder(nested) == tmp_path / "comparison"
    monkeypatch.chdir(tmp_path)  # where the runs have nothing in common
    assert default_folder(["/one/run", "/two/run"]) == tmp_path / "comparison"


def test_nothing_is_replaced_unasked_and_a_run_with_nothing_is_refused(tmp_path):
    runs = [write_metrics(tmp_path / name, {"iteration": 0, "lr": 0.1}) for name in "ab"]
    inside, table_path = runs[0] / "plots/accuracy.png", tmp_path / "results.csv"
    inside.parent.mkdir()  # of one of the runs: it belongs to that run alone
    for path, call in (
        (inside, lambda: plot_runs(runs, inside.parent)),
        (table_path, lambda: write_results_csv(runs, table_path)),
    ):
        path.write_bytes(b"mine")
        with pytest.raises(OutputExistsError, match=rf"{path.name} is there already"):
            call()
        assert path.read_bytes() == b"mine"
    assert [path.name for path in inside.parent.iterdir()] == ["accuracy.png"]
    assert len(table(write_results_csv(runs, table_path, overwrite=True))) == 2
    for _ in range(2):  # in the folder of one run it is made again
        assert len(table(write_results_csv(runs[:1], inside.with_name("results.csv")))) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"empty/metrics\.json"):
        plot_runs([runs[0], tmp_path / "empty"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_table_has_a_row_per_run_and_says_what_does_not_exist_by_an_empty_cell(tmp_path):
    whole = write_run(tmp_path / "whole")
    edit(whole / "results.json", lambda value: value["test"].update(dataset='=HYPERLINK("x")\n"'))
    half = write_metrics(tmp_path / "half", *training_rows()[:10])
    first, second = table(write_results_csv([whole, half], tmp_path / "results.csv"))
    known = {
        **{"run": str(whole), "steps": "200", "best_step": "200", "best_score": "mask AP 38.0"},
        **{"test segm AP": "41.9", "test segm AP low": "38", "test segm AP high": "45.5"},
        **{"test bbox APl": "", "operating_point threshold": "0.62"},
        **{"operating_point test recall": "0.78", "smallest val/total_loss": "1.1"},
    }
    assert {key: first[key] for key in known} == known
    assert first["test dataset"].startswith("'=HYPERLINK")  # a spreadsheet computes nothing
    assert (second["steps"], second["test segm AP"]) == ("100", "")
    assert float(second["seconds_per_step"]) == pytest.approx(0.5275)

"""Several runs in one figure, and their numbers in one table."""

from __future__ import annotations

import csv

import pytest

from persondet.errors import OutputExistsError
from persondet.report.plots import OVERLAYS, default_folder, plot_runs
from persondet.report.plots.overlay import _draw, run_names
from persondet.report.plots.style import drawing
from persondet.report.results_csv import write_results_csv
from persondet.report.run_data import read_run
from persondet.results import RunError
from tests.report.run_files import results, training_rows, write_json, write_metrics, write_run

FILES = [overlay.file_name for overlay in OVERLAYS]


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_two_runs_give_every_overlay_and_leave_their_folders_alone(tmp_path):
    runs = [write_run(tmp_path / name) for name in "ab"]
    written = plot_runs(runs, tmp_path / "out")
    assert [path.name for path in written] == FILES
    assert all(not (run / "plots").exists() for run in runs)


def test_each_run_keeps_its_values_and_its_look(tmp_path):
    short = [row for row in training_rows() if row["iteration"] < 100]
    runs = [write_run(tmp_path / "whole"), write_metrics(tmp_path / "half", *short)]
    data = [read_run(run) for run in runs]
    with drawing():
        figures = {o.file_name: _draw(o.panels(data), data, run_names(runs)) for o in OVERLAYS}
    loss = figures["loss.png"].axes[0].get_lines()
    assert [line.get_xdata()[-1] for line in loss] == [200, 200, 100, 100]
    assert [line.get_linestyle() for line in loss] == ["-", "--", "-", "--"]
    assert loss[0].get_color() == loss[1].get_color() != loss[2].get_color()
    assert loss[0].get_marker() != loss[2].get_marker()
    legend = [text.get_text() for text in figures["loss.png"].legends[0].get_texts()]
    assert legend == ["whole", "half", "training", "validation"]
    scores = figures["pr_curve.png"].axes[0].get_lines()
    assert len(scores) == 1  # the other one has not been scored yet


@pytest.mark.slow
def test_names_of_runs_are_told_apart_and_shown_as_text(tmp_path):
    long = "x" * 60
    folders = [tmp_path / "a" / "run", tmp_path / "b" / "run", tmp_path / "b" / "$\\frac$<b>"]
    assert run_names(folders) == ["a/run", "b/run", "b/$\\frac$<b>"]
    assert run_names([tmp_path / "demo", tmp_path / "demo" / "pretrain"]) == [
        *("demo", "demo/pretrain")
    ]
    first, second = run_names([tmp_path / f"{long}1{long}", tmp_path / f"{long}2{long}"])
    assert first != second
    assert max(len(first), len(second)) <= 45
    runs = [write_metrics(folder, *training_rows()) for folder in folders]
    assert "training_curves.png" in {path.name for path in plot_runs(runs, tmp_path / "out")}


def test_the_default_folder_belongs_to_no_run(tmp_path):
    nested = [tmp_path / "demo", tmp_path / "demo" / "pretrain"]
    assert default_folder(nested) == tmp_path / "comparison"


def test_without_a_common_folder_the_figures_go_to_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert default_folder(["/one/run", "/two/run"]) == tmp_path / "comparison"


def test_every_axis_of_several_runs_has_a_label_with_its_unit(tmp_path):
    data = [read_run(write_run(tmp_path / name)) for name in "ab"]
    for overlay in OVERLAYS:
        with drawing():
            figure = _draw(overlay.panels(data), data, ["a", "b"])
        shown = [axes for axes in figure.axes if axes.axison]
        assert shown
        for axes in shown:
            for label in (axes.get_xlabel(), axes.get_ylabel()):
                assert "(" in label, (overlay.file_name, label)
                assert ")" in label, (overlay.file_name, label)


def test_files_of_somebody_else_stay(tmp_path):
    """Neither replaced nor, where there is nothing to draw, removed."""
    rows = [{"iteration": i, "lr": 0.1} for i in range(3)]
    runs = [write_metrics(tmp_path / name, *rows) for name in "ab"]
    out = tmp_path / "out"
    out.mkdir()
    (out / "accuracy.png").write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match=r"accuracy\.png is there already"):
        plot_runs(runs, out)
    assert [path.name for path in out.iterdir()] == ["accuracy.png"]
    plot_runs(runs, out, overwrite=True)
    assert (out / "accuracy.png").read_bytes() == b"mine"
    (out / "accuracy.png").unlink()
    (out / "loss.png").write_bytes((out / "learning_rate.png").read_bytes())  # ours, of earlier
    assert "learning_rate.png" in {path.name for path in plot_runs(runs, out)}
    assert not (out / "loss.png").exists()


def test_a_run_with_nothing_is_refused_and_nothing_is_written(tmp_path):
    run = write_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"empty/metrics\.json"):
        plot_runs([run, tmp_path / "empty"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_table_has_a_row_per_run_and_says_what_does_not_exist_by_an_empty_cell(tmp_path):
    whole = write_run(tmp_path / "whole")
    half = write_metrics(tmp_path / "half", *training_rows()[:10])
    first, second = table(write_results_csv([whole, half], tmp_path / "results.csv"))
    assert first["run"] == str(whole)
    assert (first["steps"], second["steps"]) == ("200", "100")
    assert first["best_step"] == "200"
    assert first["best_score"] == "mask AP 38.0"
    assert [first[f"test segm AP{end}"] for end in ("", " low", " high")] == [
        "41.9",
        "36.5",
        "47.3",
    ]
    assert first["test bbox APl"] == ""
    assert first["operating_point threshold"] == "0.6"
    assert first["operating_point test recall"] == "0.75"
    assert first["smallest val/total_loss"] == "1.1"
    assert second["test segm AP"] == ""
    assert float(second["seconds_per_step"]) == pytest.approx(0.5275)


def test_a_spreadsheet_computes_nothing_from_a_name(tmp_path):
    run = write_run(tmp_path / "run")
    write_json(run / "results.json", results('=HYPERLINK("http://x";"a")\n"'))
    (row,) = table(write_results_csv([run], tmp_path / "results.csv"))
    assert row["test dataset"].startswith("'=HYPERLINK")


def test_a_table_of_somebody_else_is_not_replaced(tmp_path):
    run = write_metrics(tmp_path / "run", *training_rows())
    path = tmp_path / "results.csv"
    path.write_text("name,grade\n")
    with pytest.raises(OutputExistsError, match="not made by this tool"):
        write_results_csv([run], path)
    assert path.read_text() == "name,grade\n"
    path.unlink()
    write_results_csv([run], path)
    write_results_csv([run], path)  # ours is made again
    assert len(table(path)) == 1

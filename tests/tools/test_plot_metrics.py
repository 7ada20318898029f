"""tools/plot_metrics.py: files, messages and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import plot_metrics
import pytest

from persondet.errors import OutputExistsError
from persondet.results import RunError


def write_run(folder, *rows):
    folder.mkdir()
    (folder / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_it_prints_the_files_that_it_wrote(tmp_path, capsys):
    run = write_run(tmp_path / "run", {"iteration": 0, "lr": 0.1}, {"iteration": 9, "lr": 0.2})
    assert plot_metrics.main([str(run), "--output", str(tmp_path / "out")]) == 0
    printed = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(printed) == sorted((tmp_path / "out").iterdir())
    assert {path.name for path in printed} == {
        *("training_curves.png", "learning_rate.png", "results.csv")
    }
    assert [path.name for path in run.iterdir()] == ["metrics.json"]


def test_several_runs_are_laid_over_each_other_beside_them(tmp_path, capsys):
    rows = [{"iteration": i, "lr": 0.1} for i in range(3)]
    runs = [str(write_run(tmp_path / name, *rows)) for name in "ab"]
    assert plot_metrics.main(runs) == 0
    printed = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert {path.name for path in printed} == {
        *("training_curves.png", "learning_rate.png", "results.csv")
    }
    assert {path.parent for path in printed} == {tmp_path / "comparison"}
    assert (tmp_path / "comparison" / "results.csv").read_text().count("\n") == 3
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["metrics.json"]


def test_a_foreign_table_is_refused_before_anything_is_drawn(tmp_path):
    run = write_run(tmp_path / "run", {"iteration": 0, "lr": 0.1})
    (tmp_path / "results.csv").write_text("mine\n")
    with pytest.raises(OutputExistsError, match=r"results\.csv"):
        plot_metrics.main([str(run), "--output", str(tmp_path)])
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize("runs", [1, 2])
def test_a_foreign_picture_is_refused_and_replaced_when_asked(tmp_path, runs):
    rows = [{"iteration": i, "lr": 0.1} for i in range(3)]
    folders = [str(write_run(tmp_path / str(number), *rows)) for number in range(runs)]
    picture = tmp_path / "out" / "learning_rate.png"
    picture.parent.mkdir()
    picture.write_bytes(b"mine")
    command = [*folders, "--output", str(picture.parent)]
    with pytest.raises(OutputExistsError, match=r"learning_rate\.png"):
        plot_metrics.main(command)
    assert [path.name for path in picture.parent.iterdir()] == ["learning_rate.png"]
    assert plot_metrics.main([*command, "--overwrite"]) == 0
    assert picture.read_bytes() != b"mine"
    assert plot_metrics.main(command) == 0  # ours by now


def test_a_run_without_a_scalar_to_plot_is_refused(tmp_path):
    run = write_run(tmp_path / "run", {"iteration": 0, "eta_seconds": 0.1})
    with pytest.raises(RunError, match="no loss, accuracy, AP or learning rate"):
        plot_metrics.main([str(run)])


def test_a_folder_without_metrics_is_refused_and_left_alone(tmp_path):
    with pytest.raises(RunError, match=r"metrics\.json"):
        plot_metrics.main([str(tmp_path)])
    assert list(tmp_path.iterdir()) == []

"""tools/plot_metrics.py: files, refusals and exit codes."""

from pathlib import Path

import plot_metrics
import pytest

from persondet.errors import OutputExistsError
from persondet.results import RunError
from tests.report.finished_run import write_metrics

ROW = {"iteration": 0, "time": 0.1}
FILES = {"speed.png", "results.csv"}


def printed(capsys):
    return [Path(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.slow
def test_the_plots_of_a_run_are_made_again_and_printed(tmp_path, capsys):
    run = write_metrics(tmp_path / "run", ROW)
    for _ in range(2):
        assert plot_metrics.main([str(run)]) == 0
        files = printed(capsys)
        assert sorted(files) == sorted((run / "plots").iterdir())
        assert {path.name for path in files} == FILES


def test_several_runs_are_laid_over_each_other_beside_them(tmp_path, capsys):
    runs = [str(write_metrics(tmp_path / name, ROW)) for name in "ab"]
    assert plot_metrics.main(runs) == 0
    files = printed(capsys)
    assert {path.name for path in files} == FILES | {"training_curves.png"}
    assert {path.parent for path in files} == {tmp_path / "comparison"}
    assert (tmp_path / "comparison" / "results.csv").read_text().count("\n") == 3
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["metrics.json"]


def test_a_file_elsewhere_is_kept_unless_asked(tmp_path):
    path = tmp_path / "out" / "results.csv"
    path.parent.mkdir()
    path.write_bytes(b"mine")
    command = [str(write_metrics(tmp_path / "run", ROW)), "--output", str(path.parent)]
    with pytest.raises(OutputExistsError, match="is there already"):
        plot_metrics.main(command)
    assert list(path.parent.iterdir()) == [path]
    assert plot_metrics.main([*command, "--overwrite"]) == 0
    assert path.read_bytes() != b"mine"


def test_a_run_without_a_scalar_to_plot_is_refused(tmp_path):
    with pytest.raises(RunError, match="no loss, accuracy, AP or learning rate"):
        plot_metrics.main([str(write_metrics(tmp_path / "run", {"iteration": 0, "eta": 0.1}))])
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["metrics.json"]

"""tools/make_report.py: files, refusals and exit codes."""

from __future__ import annotations

import shutil

import make_report
import pytest

from persondet.errors import OutputExistsError
from persondet.results import RunError
from tests.report.finished_run import write_finished_run, write_metrics


def test_it_writes_both_reports_and_prints_where(tmp_path, capsys):
    run = write_metrics(tmp_path / "run", {"iteration": 0, "time": 0.1})
    for _ in range(2):  # in the run folder they are made again
        assert make_report.main([str(run)]) == 0
        pages = [run / "report.html", run / "report.pdf"]
        assert capsys.readouterr().out.splitlines() == [str(page) for page in pages]
    assert "The speed of the training" in pages[0].read_text(encoding="utf-8")
    assert pages[1].read_bytes().startswith(b"%PDF-")


def test_a_report_elsewhere_is_refused_before_anything_is_drawn(tmp_path):
    run = write_finished_run(tmp_path / "run")
    shutil.rmtree(run / "plots")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "report.html").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"report\.html is there already"):
        make_report.main([str(run), "--output", str(tmp_path / "site")])
    assert not (run / "plots").exists()
    assert (tmp_path / "site" / "report.html").read_text() == "mine"
    with pytest.raises(RunError, match="is no run folder"):
        make_report.main([str(tmp_path)])


def test_a_run_folder_that_cannot_be_written_is_reported_elsewhere(tmp_path, capsys):
    run = write_metrics(tmp_path / "run", {"iteration": 0, "time": 0.1})
    (run / "plots").write_text("in the way")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "report.html").write_text("mine")
    assert make_report.main([str(run), "--output", str(tmp_path / "site"), "--overwrite"]) == 0
    page = (tmp_path / "site" / "report.html").read_text()
    assert "plots/speed.png is not in the run folder" in page
    assert len(capsys.readouterr().out.splitlines()) == 2

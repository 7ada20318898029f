"""tools/make_report.py: files, messages and exit codes."""

from __future__ import annotations

import shutil

import make_report
import pytest

from persondet.errors import OutputExistsError
from persondet.results import RunError
from tests.report.finished_run import write_finished_run


@pytest.mark.slow
def test_it_writes_both_reports_and_prints_where(tmp_path, capsys):
    run = write_finished_run(tmp_path / "run")
    assert make_report.main([str(run)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        str(run / "report.html"),
        str(run / "report.pdf"),
    ]
    assert (run / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert (run / "report.pdf").read_bytes().startswith(b"%PDF-")


def test_a_report_of_somebody_else_is_refused_before_anything_is_drawn(tmp_path):
    run = write_finished_run(tmp_path / "run")
    shutil.rmtree(run / "plots")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "report.html").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"report\.html is there already"):
        make_report.main([str(run), "--output", str(tmp_path / "site")])
    assert not (run / "plots").exists()
    assert (tmp_path / "site" / "report.html").read_text() == "mine"


@pytest.mark.slow
def test_a_run_folder_that_cannot_be_written_is_reported_elsewhere(tmp_path, capsys):
    run = write_finished_run(tmp_path / "run")
    shutil.rmtree(run / "plots")
    (run / "plots").write_text("in the way")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "report.html").write_text("mine")
    assert make_report.main([str(run), "--output", str(tmp_path / "site"), "--overwrite"]) == 0
    assert "The loss over the steps." in (tmp_path / "site" / "report.html").read_text()
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_folder_that_is_no_run_is_refused_and_left_alone(tmp_path):
    with pytest.raises(RunError):
        make_report.main([str(tmp_path)])
    assert list(tmp_path.iterdir()) == []

"""tools/make_report.py: files, refusals and exit codes."""

import make_report
import pytest

from persondet.errors import OutputExistsError
from persondet.results import RunError
from tests.report.finished_run import write_metrics

ROW = {"iteration": 0, "time": 0.1}


@pytest.mark.slow
def test_it_writes_both_reports_and_prints_where(tmp_path, capsys):
    run = write_metrics(tmp_path / "run", ROW)
    pages = [run / "report.html", run / "report.pdf"]
    pages[0].write_text("in the run folder they are made again")
    assert make_report.main([str(run)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(page) for page in pages]
    assert "The speed of the training" in pages[0].read_text(encoding="utf-8")
    assert pages[1].read_bytes().startswith(b"%PDF-")


def test_a_report_elsewhere_is_refused_before_anything_is_drawn(tmp_path):
    run = write_metrics(tmp_path / "run", ROW)
    page = tmp_path / "site" / "report.html"
    page.parent.mkdir()
    page.write_text("mine")
    command = [str(run), "--output", str(page.parent)]
    with pytest.raises(OutputExistsError, match=r"report\.html is there already"):
        make_report.main(command)
    assert not (run / "plots").exists() and page.read_text() == "mine"
    (run / "plots").write_text("in the way")  # a run folder that cannot be written
    assert make_report.main([*command, "--overwrite"]) == 0
    assert "plots/speed.png is not in the run folder" in page.read_text(encoding="utf-8")
    with pytest.raises(RunError, match="is no run folder"):
        make_report.main([str(tmp_path)])

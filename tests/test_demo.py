"""The demo: its table, what it refuses to replace, and (soak) what it must reach."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import pytest
import torch

from persondet.checkpoint.model_file import load_checkpoint
from persondet.demo import is_finished, refuse_foreign_folder, summary
from persondet.errors import OutputExistsError
from persondet.records import read_records
from persondet.report.build import build_document
from persondet.report.document import Note
from persondet.results import write_results
from persondet.video.reader import VideoReader
from tests.test_end_to_end import tool

RESULTS: dict[str, Any] = {
    "test": {"bbox": {"AP": 50.04, "AP50": 88.0}, "segm": {"AP": 40.0, "AP50": 77.25}},
    "video": {
        **{"recall": 0.91, "precision": 0.876, "mota": 0.6, "idf1": 0.5785, "hota": 0.46},
        **{"switches": 80, "fragments": 70, "unique": 19, "unique_truth": 11},
    },
    "seconds": {"train": 300.4, "video": 61.0},
}


def test_the_table_tells_scores_seconds_and_what_to_open() -> None:
    lines = summary(RESULTS, "output/demo").splitlines()
    assert lines[1].split() == ["box", "50.0", "88.0"]
    assert lines[2].split() == ["mask", "40.0", "77.2"]
    assert "91% of the people found, 88% of the boxes are people" in "\n".join(lines)
    assert (
        "tracks: MOTA 60.0, IDF1 57.9, HOTA 46.0, 80 switches, 70 fragments; "
        "19 people counted, 11 were there"
    ) in lines
    assert "train 300, video 61" in "\n".join(lines)
    for name in ("report.html", "report.pdf", "city_walk_annotated.mp4"):
        assert f"  output/demo/{name}" in lines


def test_only_an_earlier_demo_is_replaced(tmp_path: Path) -> None:
    refuse_foreign_folder(tmp_path / "new")
    refuse_foreign_folder(tmp_path)
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(OutputExistsError, match="not an earlier demo"):
        refuse_foreign_folder(tmp_path)
    (tmp_path / "pretrain").mkdir()
    refuse_foreign_folder(tmp_path)


def test_only_a_demo_with_its_report_is_finished_and_another_goes_on(tmp_path: Path) -> None:
    assert not is_finished(tmp_path)
    for seconds, finished in (({"train": 1.0}, False), ({"train": 1.0, "report": 2.0}, True)):
        write_results(tmp_path, {"test": {"bbox": {"AP": 1.0}}, "seconds": seconds})
        assert is_finished(tmp_path) == finished


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_the_demo_reaches_its_goals(tmp_path: Path) -> None:
    run, sample = tmp_path / "demo", tmp_path / "sample"
    tool("demo", "--output", run, "--sample", sample, limit=3000)
    results = json.loads((run / "results.json").read_text())
    assert results["test"]["images"] == 60
    assert results["test"]["bbox"]["AP50"] >= 85
    assert results["test"]["segm"]["AP50"] >= 75
    assert results["freeze_at"] >= 2

    before = load_checkpoint(run / "pretrain/model_final.pth")["model"]
    after = load_checkpoint(run / "model_best.pth")["model"]
    for name in after:
        if name.startswith(("backbone.bottom_up.stem", "backbone.bottom_up.res2")):
            assert torch.equal(before[name], after[name]), name

    clip = run / "city_walk_annotated.mp4"
    with VideoReader(sample / "city_walk.mp4") as source, VideoReader(clip) as annotated:
        assert len(list(source)) == len(list(annotated)) == 260
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.codec_tag, stream.pix_fmt) == ("avc1", "yuv420p")
    _, records = read_records(clip.with_suffix(".jsonl"))
    assert len(list(records)) == 260
    assert results["video"]["recall"] >= 0.7
    assert results["video"]["precision"] >= 0.7
    assert results["video"]["idf1"] >= 0.4
    assert results["video"]["mota"] >= 0.5
    assert results["video"]["unique_truth"] == 11
    assert 11 <= results["video"]["unique"] <= 33

    notes = [block for block in build_document(run).blocks() if isinstance(block, Note)]
    assert [note.text for note in notes if note.kind == "missing"] == []
    assert (run / "report.html").is_file()
    assert (run / "report.pdf").is_file()

"""The demo: its table, what it refuses to replace, and (soak) what it must reach."""

import json
from contextlib import nullcontext

import pytest
import torch

from persondet.checkpoint.conventions import timm_file
from persondet.checkpoint.model_file import load_checkpoint
from persondet.demo import is_finished, refuse_foreign_folder
from persondet.errors import OutputExistsError
from persondet.records import read_records
from persondet.report.build import build_document
from persondet.report.document import Note
from persondet.results import write_results
from persondet.video.reader import VideoReader
from tests.test_end_to_end import tool


def test_only_an_earlier_demo_on_this_sample_is_replaced(tmp_path):
    output, sample = tmp_path / "demo", tmp_path / "sample"
    refuse_foreign_folder(output, sample)
    output.mkdir()
    for root, foreign in (("", False), ("datasets/mine", True), (f"{sample}/people", False)):
        if root:
            (output / "config.yaml").write_text(f"DATASETS: {{ROBOFLOW: {{ROOT: {root}}}}}")
        with pytest.raises(OutputExistsError) if foreign else nullcontext():
            refuse_foreign_folder(output, sample)


def test_only_a_demo_with_its_report_is_finished_and_another_goes_on(tmp_path):
    assert not is_finished(tmp_path)
    for seconds, finished in (({"train": 1.0}, False), ({"train": 1.0, "report": 2.0}, True)):
        write_results(tmp_path, {"test": {"bbox": {"AP": 1.0}}, "seconds": seconds})
        assert is_finished(tmp_path) == finished


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_the_demo_reaches_its_goals(tmp_path):
    run, sample = tmp_path / "demo", tmp_path / "sample"
    tool("demo", "--output", run, "--sample", sample, limit=3000)
    results = json.loads((run / "results.json").read_text())
    assert results["test"]["images"] == 60
    assert results["test"]["bbox"]["AP50"] >= 85 and results["test"]["segm"]["AP50"] >= 75
    assert results["freeze_at"] >= 2
    # The frozen convolutions are ImageNet's, to the bit, whatever their names are.
    given = torch.load(timm_file("timm://tf_efficientnet_lite0"), weights_only=True)
    known = {tensor.numpy().tobytes() for tensor in given.values()}
    after = load_checkpoint(run / "model_best.pth")["model"]
    for name, tensor in after.items():
        if name.startswith("backbone.bottom_up.stem") and tensor.ndim == 4:
            assert tensor.contiguous().numpy().tobytes() in known, name

    clip = run / "city_walk_annotated.mp4"
    with VideoReader(sample / "city_walk.mp4") as source, VideoReader(clip) as annotated:
        assert len(list(source)) == len(list(annotated)) == 260
    assert len(list(read_records(clip.with_suffix(".jsonl"))[1])) == 260
    least = {"recall": 0.7, "precision": 0.7, "idf1": 0.4, "mota": 0.5, "unique": 11}
    assert {name for name in least if results["video"][name] < least[name]} == set()
    assert results["video"]["unique_truth"] == 11 >= results["video"]["unique"] / 3

    notes = [block for block in build_document(run).blocks() if isinstance(block, Note)]
    assert [note.text for note in notes if note.kind == "missing"] == []
    assert (run / "report.html").is_file() and (run / "report.pdf").is_file()

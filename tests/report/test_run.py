"""What counts as the score of a run: results.json, later evaluations, and of which model."""

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from persondet.report.build import build_document
from persondet.report.document import Listing
from persondet.report.plots.overlay import write_results_csv
from persondet.report.run import Run
from tests.report.finished_run import COUNTS, curves, edit, errors, results, write_json
from tests.report.shown import notes, rows, tables, words

DIGEST = hashlib.sha256(b"weights").hexdigest()  # of the checkpoint that write_finished_run writes
MODEL = {"file": "model_best.pth", "iteration": 899, "sha256": DIGEST}
OTHER = {"file": "model_0000299.pth", "iteration": 299, "sha256": "a" * 64}
OWN, EVALUATED = "52.1 (47.9 to 56.0)", "33.3 (31.3 to 35.3)"


def evaluate(folder: Path, dataset: str, model: Any = MODEL, ap: float = 33.3) -> Path:
    """Write what --eval-only writes; return the folder of the dataset's files."""
    scores = results(dataset)["test"]
    scores["bbox"] |= {"AP": ap}
    scores["intervals"]["bbox"]["AP"] = [ap - 2, ap + 2]
    point = {"task": "segm", "iou": 0.5, "threshold": 0.62, "tuned": True}
    record = {
        **{"schema": 1, "model": model, "iteration": 899, "classes": ["person"], "test": scores},
        "operating_point": point | {"valid": None, "test": COUNTS},
    }
    there = folder / "inference" / dataset
    write_json(there / "results.json", record)
    write_json(there / "errors.json", errors(dataset) | {"model": model})
    write_json(there / "curves.json", curves(dataset) | {"model": model})
    return there


def set_datasets(run: Path, **names: list[str]) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["DATASETS"] |= names
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def roles(run: Path) -> dict[str, str]:
    return {evaluation.dataset: evaluation.role for evaluation in Run(run).evaluations}


def csv_row(run: Path, path: Path) -> dict[str, str]:
    (row,) = csv.DictReader(write_results_csv([run], path).open())
    return row


def test_what_the_results_lack_is_taken_from_a_later_evaluation(run: Path) -> None:
    def old(value: dict[str, Any]) -> None:
        del value["test"]["intervals"], value["operating_point"]

    edit(run / "results.json", old)
    before = "\n".join(notes(build_document(run), "missing"))
    assert "no intervals" in before
    assert "No threshold is recorded" in before
    evaluate(run, "person_test")
    for killed in (False, True):
        if killed:
            (run / "results.json").unlink()
        document = build_document(run)
        assert EVALUATED in words(document, "asked")
        assert EVALUATED in words(document, "evaluation")
        assert "At the threshold 0.62" in words(document, "evaluation")
        assert not [text for text in notes(document, "missing") if "score" in text]


def test_a_folder_with_an_evaluation_only_says_so_and_names_the_split(tmp_path: Path) -> None:
    folder = tmp_path / "scored"
    evaluate(folder, "person_valid")
    names = {"TRAIN": ["person_train"], "VAL": ["person_valid"], "TEST": ["person_valid"]}
    config = {"DATASETS": names, "MODEL": {"WEIGHTS": "there/model_best.pth"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    document = build_document(folder)
    (answer,) = notes(document, "answer")
    assert "model_best.pth, after 900 steps, on the validation split person_valid." in answer
    keys = ["asked", "dataset", "evaluation", "video", "limits", "repetition"]
    assert [s.key for s in document.sections] == keys
    assert EVALUATED in words(document)
    assert "--resume" not in words(document)
    assert any("had a part in choosing the model" in text for text in notes(document, "warning"))
    row = csv_row(folder, tmp_path / "x.csv")
    assert (row["valid bbox AP"], row["valid bbox AP low"]) == ("33.3", "31.3")
    assert "test bbox AP" not in row


@pytest.mark.parametrize("recorded", [True, False])
def test_two_models_are_never_mixed(run: Path, recorded: bool) -> None:
    """The digest stands in results.json, or is that of the checkpoint in the folder."""
    if recorded:
        edit(run / "results.json", lambda value: value.update(model_sha256=DIGEST))
        (run / "model_best.pth").unlink()
    folder = evaluate(run, "person_test", OTHER, ap=11.1)
    document = build_document(run)  # the gallery names no model: it is as old as its neighbour
    (warning,) = (text for text in notes(document, "warning") if "another model" in text)
    assert "(model_0000299.pth, after 300 steps)" in warning
    assert f"--eval-only MODEL.WEIGHTS {run}/model_best.pth OUTPUT_DIR {run}" in warning
    shown = words(document, "evaluation")
    assert OWN in shown
    assert "11.1" not in shown
    assert not [c for c in tables(document) if c.startswith(("What each kind", "Recall"))]
    assert "3 of 5 people are missed" not in shown
    assert sum("is of another model" in text for text in notes(document, "missing")) == 3
    assert roles(run) == {}
    evaluate(run, "person_test", MODEL)
    edit(folder / "gallery/gallery.json", lambda value: value.update(model=MODEL))
    document = build_document(run)
    assert notes(document, "warning") == []
    assert [c for c in tables(document) if c.startswith("Recall")]
    assert roles(run) == {"person_test": "test"}


@pytest.mark.parametrize(
    ("record", "iteration", "own"),
    [
        (MODEL, None, True),
        (MODEL | {"file": "copy.pth", "iteration": None}, None, True),  # the bytes count
        (MODEL | {"sha256": "b" * 64}, None, False),
        ({"file": "model_best.pth", "iteration": 299, "sha256": None}, None, False),
        ("a/b/model_best.pth", 899, True),
        ("a/b/model_best.pth", 299, False),
        ([1], None, True),
    ],
)
def test_which_record_is_of_the_model(run: Path, record: Any, iteration: Any, own: bool) -> None:
    folder = evaluate(run, "person_test", record)
    edit(folder / "results.json", lambda value: value.update(iteration=iteration))
    assert (Run(run).other_models == {}) is own


def test_a_run_without_a_test_split_reports_its_validation_split(run: Path) -> None:
    def untested(value: dict[str, Any]) -> None:
        value["valid"] = value["test"] | {"dataset": "person_valid", "images": 40}
        value["test"] = value["operating_point"]["test"] = None

    edit(run / "results.json", untested)
    set_datasets(run, TEST=[])
    (run / "inference/person_test").rename(run / "inference/person_valid")
    document = build_document(run)
    assert notes(document, "missing") == []
    assert document.sections[5].title == "Evaluation on the validation split"
    for key in ("asked", "evaluation"):
        assert OWN in words(document, key)
    assert sum("had a part in choosing" in text for text in notes(document, "warning")) == 2
    assert "Recall: by size" in tables(document)
    lines = [b.lines for b in document.blocks() if isinstance(b, Listing)][-1]
    assert f"OUTPUT_DIR {run} DATASETS.TEST \"('person_valid',)\"" in lines[2]


def test_every_set_that_was_scored_has_its_table(run: Path) -> None:
    test = json.loads((run / "results.json").read_text())["test"]
    second = test | {"dataset": "night_test", "bbox": test["bbox"] | {"AP": 21.0, "AP@300": 53.4}}
    valid = test | {"dataset": "person_valid", "bbox": test["bbox"] | {"AP": 61.7}}
    sets = {"person_test": {"dataset": "person_test"}, "night_test": second}
    edit(run / "results.json", lambda value: value.update(tests=sets, valid=valid))
    set_datasets(run, TEST=["person_test", "night_test"])
    evaluate(run, "rain_test", ap=8.8)
    document = build_document(run)
    found = [caption.split(",")[0] for caption in tables(document) if "Scores on" in caption]
    assert found == ["Scores on person_test", "Scores on night_test", "Scores on rain_test"]
    assert rows(document, "Scores on night_test")["AP"][1] == "21.0 (47.9 to 56.0)"
    assert rows(document, "Scores on night_test")["AP@300"][1:] == ("53.4", "–")
    assert rows(document, "Scores on rain_test")["AP"][1] == "8.8 (6.8 to 10.8)"
    assert rows(document, "The same measures on the test and")["AP"][:2] == ("52.1", "61.7")
    row = csv_row(run, run / "x.csv")
    assert (row["test set night_test bbox AP"], row["test bbox AP"]) == ("21", "52.1")
    assert roles(run) == {"person_test": "test", "rain_test": ""}


def test_nobody_is_said_to_have_no_copy_where_nobody_has_looked(run: Path) -> None:
    edit(run / "results.json", lambda value: value["test"].update(leaks=None))
    path = run / "inference/person_test/dataset.json"
    (run / "dataset.json").rename(path)  # of --eval-only
    document = build_document(run)
    assert "No test image has a copy" in words(document, "evaluation")
    assert "Leaks between the splits" in tables(document)
    edit(path, lambda value: value.update(decoded=False))
    document = build_document(run)
    assert "No test image has a copy" not in words(document)
    assert sum("compared" in text for text in notes(document, "missing")) == 2
    assert [cells[1:3] for cells in rows(document, "Leaks").values()] == [("–", "–")] * 2
    assert "Nobody has compared the test images" in words(document, "limits")

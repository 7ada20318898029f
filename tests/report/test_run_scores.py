"""What counts as the score of a run: results.json, evaluations made later, and whose they are."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from persondet.report.build import build_document
from persondet.report.document import Document, Figure, Heading, Listing, Note, Table
from persondet.report.evaluation_files import read_run_scores
from persondet.report.plots import plot_run
from persondet.report.results_csv import write_results_csv
from persondet.report.run_data import read_run
from persondet.report.run_scores import RunModel, model_words
from tests.report.finished_run import COUNTS, errors, results, write_finished_run, write_json
from tests.report.run_files import curves

DIGEST = hashlib.sha256(b"weights").hexdigest()  # of the checkpoint that write_finished_run writes
MODEL = {"file": "model_best.pth", "iteration": 899, "sha256": DIGEST}
OTHER = {"file": "model_0000299.pth", "iteration": 299, "sha256": "a" * 64}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_finished_run(tmp_path_factory.mktemp("runs") / "finished")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def evaluate(
    folder: Path, dataset: str, model: Any = MODEL, *, ap: float = 33.3, tuned: bool = True
) -> Path:
    """Write what --eval-only writes; return the folder of the dataset's files."""
    scores = results(("person",), dataset)["test"]
    scores["bbox"] |= {"AP": ap}
    scores["intervals"]["bbox"]["AP"] = [ap - 2, ap + 2]
    point = {"task": "segm", "iou": 0.5, "threshold": 0.62, "tuned": tuned}
    record = {
        **{"schema": 1, "model": model, "iteration": 899, "classes": ["person"], "test": scores},
        "operating_point": point | {"valid": None, "test": COUNTS},
    }
    there = folder / "inference" / dataset
    write_json(there / "results.json", record)
    write_json(there / "errors.json", errors(dataset) | {"model": model})
    write_json(there / "curves.json", curves(dataset) | {"model": model})
    return there


def edit(path: Path, change: Any) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def set_datasets(run: Path, **names: list[str]) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["DATASETS"] |= names
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def notes(document: Document, kind: str) -> list[str]:
    return [b.text for b in document.blocks() if isinstance(b, Note) and b.kind == kind]


def tables(document: Document) -> dict[str, Table]:
    return {b.caption: b for b in document.blocks() if isinstance(b, Table)}


def section(document: Document, key: str) -> str:
    return repr(next(s for s in document.sections if s.key == key))


def test_a_killed_training_that_was_evaluated_later_has_its_score(run: Path) -> None:
    (run / "results.json").unlink()
    evaluate(run, "person_test")
    document = build_document(run)
    assert "33.3 (31.3 to 35.3)" in section(document, "asked")
    assert "33.3 (31.3 to 35.3)" in section(document, "evaluation")
    assert "At the threshold 0.62" in section(document, "evaluation")
    assert not [text for text in notes(document, "missing") if "score" in text]


def test_intervals_that_an_old_results_file_lacks_are_taken_from_the_evaluation(run: Path) -> None:
    def old(value: dict[str, Any]) -> None:
        del value["test"]["intervals"], value["operating_point"]

    edit(run / "results.json", old)
    before = notes(build_document(run), "missing")
    assert any("no intervals" in text for text in before)
    assert any("No threshold is recorded" in text for text in before)
    evaluate(run, "person_test")
    document = build_document(run)
    assert notes(document, "missing") == []
    assert "33.3 (31.3 to 35.3)" in section(document, "evaluation")


def test_a_folder_with_an_evaluation_only_says_so_and_names_the_split(tmp_path: Path) -> None:
    folder = tmp_path / "scored"
    evaluate(folder, "person_valid", MODEL | {"file": "model_best.pth"})
    names = {"TRAIN": ["person_train"], "VAL": ["person_valid"], "TEST": ["person_valid"]}
    config = {"DATASETS": names, "MODEL": {"WEIGHTS": "there/model_best.pth"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    document = build_document(folder)
    (answer,) = notes(document, "answer")
    assert answer.startswith("This folder holds an evaluation only: of the model model_best.pth, ")
    assert "after 900 steps, on the validation split person_valid." in answer
    assert [s.key for s in document.sections] == [
        *("asked", "dataset", "evaluation", "video", "limits", "repetition")
    ]
    assert document.sections[2].title == "Evaluation on the validation split"
    shown = repr(document)
    for wrong in ("--resume", "test pictures with", "the test split has", "0 of 900"):
        assert wrong not in shown
    assert "33.3 (31.3 to 35.3)" in shown
    assert any("had a part in choosing the model" in text for text in notes(document, "warning"))
    (row,) = csv.DictReader(write_results_csv([folder], tmp_path / "x.csv").open())
    assert row["valid bbox AP"] == "33.3"
    assert row["valid bbox AP low"] == "31.3"
    assert "test bbox AP" not in row


@pytest.mark.parametrize("recorded", [True, False])
def test_two_models_are_never_mixed(run: Path, recorded: bool) -> None:
    """The digest stands in results.json, or is that of the checkpoint in the folder."""
    if recorded:
        edit(run / "results.json", lambda value: value.update(model_sha256=DIGEST))
        (run / "model_best.pth").unlink()
    folder = evaluate(run, "person_test", OTHER, ap=11.1)
    edit(folder / "gallery/gallery.json", lambda value: value.update(model=OTHER))
    document = build_document(run)
    warnings = [text for text in notes(document, "warning") if "another model" in text]
    assert len(warnings) == 1
    assert "(model_0000299.pth, after 300 steps)" in warnings[0]
    assert f"--eval-only MODEL.WEIGHTS {run}/model_best.pth OUTPUT_DIR {run}" in warnings[0]
    shown = section(document, "evaluation")
    assert "52.1 (47.9 to 56.0)" in shown  # results.json's own
    assert "11.1" not in shown
    assert "What each kind of mistake costs, in points of AP50', header" not in shown
    assert not [c for c in tables(document) if c.startswith(("What each kind", "Recall"))]
    assert "3 of 5 people are missed" not in shown
    assert sum("is of another model" in text for text in notes(document, "missing")) == 3
    assert read_run(run).evaluations == ()
    evaluate(run, "person_test", MODEL)
    edit(folder / "gallery/gallery.json", lambda value: value.update(model=MODEL))
    document = build_document(run)
    assert notes(document, "warning") == []
    assert [c for c in tables(document) if c.startswith("Recall")]
    assert [e.dataset for e in read_run(run).evaluations] == ["person_test"]


def test_files_of_an_older_version_count_unless_their_neighbour_is_of_another_model(
    run: Path,
) -> None:
    folder = evaluate(run, "person_test", "output/x/model_0000299.pth")
    for name in ("errors.json", "curves.json"):
        edit(folder / name, lambda value: value.pop("model"))
    assert read_run(run).evaluations == ()
    edit(folder / "results.json", lambda value: value.update(model="old/place/model_best.pth"))
    assert [e.dataset for e in read_run(run).evaluations] == ["person_test"]
    (folder / "results.json").unlink()
    assert [e.dataset for e in read_run(run).evaluations] == ["person_test"]


def test_which_record_is_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "model_best.pth").write_bytes(b"weights")
    model = RunModel(tmp_path, "model_best.pth", 899)
    assert model.made(MODEL)
    assert model.made(MODEL | {"file": "copy.pth", "iteration": None})  # the bytes count
    assert not model.made(OTHER)
    assert not model.made(MODEL | {"sha256": "b" * 64})
    assert not model.made({"file": "model_best.pth", "iteration": 299, "sha256": None})
    assert model.made("a/b/model_best.pth", 899)
    assert not model.made("a/b/model_best.pth", 299)
    assert model.made(None)
    assert model.made([1])
    assert RunModel(tmp_path).made(OTHER)  # nothing is known of the run's own
    assert model_words(OTHER) == "model_0000299.pth, after 300 steps"
    assert model_words(7) == "a model without a name"


def test_a_run_without_a_test_split_reports_its_validation_split(run: Path) -> None:
    def untested(value: dict[str, Any]) -> None:
        value["valid"] = value["test"] | {"dataset": "person_valid", "images": 40}
        value["test"] = None
        value["operating_point"]["test"] = None

    edit(run / "results.json", untested)
    set_datasets(run, TEST=[])
    (run / "inference/person_test").rename(run / "inference/person_valid")
    document = build_document(run)
    assert notes(document, "missing") == []
    assert [s.title for s in document.sections][5] == "Evaluation on the validation split"
    for key in ("asked", "evaluation"):
        assert "52.1 (47.9 to 56.0)" in section(document, key)
    assert sum("had a part in choosing" in text for text in notes(document, "warning")) == 2
    assert "Recall: by size" in tables(document)
    assert "These are the validation pictures with" in section(document, "evaluation")
    lines = [b.lines for b in document.blocks() if isinstance(b, Listing)][-1]
    assert f"OUTPUT_DIR {run} DATASETS.TEST \"('person_valid',)\"" in lines[2]


def test_the_validation_score_stands_beside_the_test_score(run: Path) -> None:
    def both(value: dict[str, Any]) -> None:
        value["valid"] = json.loads(json.dumps(value["test"])) | {"dataset": "person_valid"}
        value["valid"]["bbox"]["AP"] = 61.7

    edit(run / "results.json", both)
    document = build_document(run)
    (short,) = (t for c, t in tables(document).items() if c.startswith("The answer in short"))
    assert ("AP of the boxes on the validation split", "61.7 (47.9 to 56.0)") in short.rows
    table = tables(document)["The same measures on the test and on the validation split"]
    assert table.header[1:3] == ("boxes, test", "boxes, validation")
    assert table.rows[0][:3] == ("AP", "52.1", "61.7")


def test_another_dataset_never_takes_the_place_of_the_test_split(run: Path) -> None:
    evaluate(run, "foo_test", ap=7.7)
    roles = {e.dataset: e.role for e in read_run(run).evaluations}
    assert roles == {"foo_test": "", "person_test": "test"}
    (run / "config.yaml").unlink()  # results.json names them too
    assert {e.dataset: e.role for e in read_run(run).evaluations} == roles
    document = build_document(run)
    assert "52.1 (47.9 to 56.0)" in section(document, "asked")
    assert "7.7" not in section(document, "asked")


def test_every_set_that_was_scored_has_its_table(run: Path) -> None:
    """Those of results.json, and one that --eval-only scored later."""
    second = json.loads((run / "results.json").read_text())["test"] | {"dataset": "night_test"}
    second["bbox"] = second["bbox"] | {"AP": 21.0}
    sets = {"person_test": {"dataset": "person_test"}, "night_test": second}
    edit(run / "results.json", lambda value: value.update(tests=sets))
    set_datasets(run, TEST=["person_test", "night_test"])
    evaluate(run, "rain", ap=8.8)
    document = build_document(run)
    found = [caption.split(",")[0] for caption in tables(document) if "Scores on" in caption]
    assert found == ["Scores on person_test", "Scores on night_test", "Scores on rain"]
    shown = section(document, "evaluation")
    assert "'21.0 (47.9 to 56.0)'" in shown
    assert "'8.8 (6.8 to 10.8)'" in shown
    (row,) = csv.DictReader(write_results_csv([run], run / "x.csv").open())
    assert row["test set night_test bbox AP"] == "21"
    assert row["test bbox AP"] == "52.1"


def test_the_score_with_more_detections_has_its_row(run: Path) -> None:
    edit(run / "results.json", lambda value: value["test"]["bbox"].update({"AP@300": 53.4}))
    (table,) = (t for c, t in tables(build_document(run)).items() if c.startswith("Scores on"))
    assert ("AP@300", "with up to 300 finds per picture", "53.4", "–") in table.rows


@pytest.mark.parametrize("decoded", [False, None])
def test_nobody_is_said_to_have_no_copy_where_nobody_has_looked(
    run: Path, decoded: bool | None
) -> None:
    edit(run / "results.json", lambda value: value["test"].update(leaks=None))
    document = build_document(run)  # the look at the pixels that dataset.json holds
    assert "No test picture has a copy" in section(document, "evaluation")
    edit(run / "dataset.json", lambda value: value.update(decoded=decoded))
    document = build_document(run)
    assert "No test picture has a copy" not in repr(document)
    assert sum("compared" in text for text in notes(document, "missing")) == 2
    table = tables(document)["Leaks between the splits"]
    assert [row[2:4] for row in table.rows] == [("–", "–")] * 2
    assert "Nobody has compared the test pictures" in section(document, "limits")
    assert "pictures known from" not in section(document, "asked")


def test_the_look_at_the_export_beside_an_evaluation_is_read(run: Path) -> None:
    edit(run / "results.json", lambda value: value["test"].update(leaks=None))
    (run / "dataset.json").rename(run / "inference/person_test/dataset.json")
    document = build_document(run)
    assert "No test picture has a copy" in section(document, "evaluation")
    assert "Leaks between the splits" in tables(document)


@pytest.mark.parametrize("images", [1, 60])
def test_a_split_without_objects_or_with_one_picture_sends_nobody_to_evaluate_again(
    run: Path, images: int
) -> None:
    def change(value: dict[str, Any]) -> None:
        del value["test"]["intervals"]
        value["test"]["images"] = images
        if images == 60:
            for task in ("bbox", "segm"):
                value["test"][task] = dict.fromkeys(value["test"][task])

    edit(run / "results.json", change)
    document = build_document(run)
    warnings = notes(document, "warning")
    sentence = "One picture gives no interval" if images == 1 else "no object is annotated"
    assert any(sentence in text for text in warnings)
    assert notes(document, "missing") == []
    if images == 60:
        assert sentence in section(document, "asked")


def test_the_steps_are_those_of_the_log_also_where_the_loss_is_no_number(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.json").read_text().splitlines()]
    rows = [row | ({"total_loss": float("nan")} if row["iteration"] > 100 else {}) for row in rows]
    rows = [row for row in rows if row["iteration"] < 600]
    (run / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    edit(run / "provenance.json", lambda r: r["starts"][0].update(exit=None, steps_done=None))
    (run / "results.json").unlink()
    document = build_document(run)
    assert "The training has taken 600 of 900 steps" in section(document, "training")
    warnings = notes(document, "warning")
    assert any(text.startswith("50 of the 60 logged losses are no finite") for text in warnings)


def test_the_command_for_an_evaluation_writes_where_the_report_reads(run: Path) -> None:
    moved = run.rename(run.with_name("moved here"))
    lines = [b.lines for b in build_document(moved).blocks() if isinstance(b, Listing)][-1]
    assert lines[2] == (
        f"python tools/train_net.py --config-file '{moved}/config.yaml' --eval-only MODEL.WEIGHTS "
        f"'{moved}/model_best.pth' OUTPUT_DIR '{moved}'"
    )


def test_the_area_under_the_curve_is_called_by_its_name(run: Path) -> None:
    figures = {b.caption: b for b in build_document(run).blocks() if isinstance(b, Figure)}
    reading = figures["Precision against recall."].reading
    assert reading.endswith("IoU 0.5 is AP50, that under the dotted one AP75.")


@pytest.mark.slow
def test_figures_and_table_after_an_evaluation_alone(tmp_path: Path) -> None:
    folder = tmp_path / "scored"
    evaluate(folder, "person_test")
    (folder / "config.yaml").write_text("DATASETS: {TEST: [person_test], VAL: [person_valid]}\n")
    assert {path.name for path in plot_run(folder)} == {
        *("pr_curve.png", "f1_curve.png", "score_histogram.png", "size_histogram.png"),
        *("errors.png", "recall_by.png"),
    }
    assert read_run(folder).operating_point == 0.62
    document = build_document(folder)
    headings = [b.text for b in document.blocks() if isinstance(b, Heading)]
    assert "The operating point" in headings
    assert read_run_scores(folder).results["model"] == "model_best.pth"

"""Which labels are suspicious, on scenes with known faults, and what an audit writes."""

import csv
import json
from contextlib import contextmanager
from types import SimpleNamespace

import cv2
import numpy as np
import prepare_dataset
import pytest
from detectron2.modeling import build_model

from persondet.data.roboflow import ANNOTATION_FILE, read_export
from persondet.errors import DatasetError, OutputExistsError
from persondet.inference.predictor import Predictor
from persondet.labelling import folds
from persondet.labelling.audit import rank_labels
from tests.evaluation.scenes import found, matches_of, person, scene
from tests.inference.tiny_model import save_run, tiny_cfg
from tests.tools.conftest import OnePerson

LARGE, SMALL = [20, 20, 40, 80], [120, 20, 8, 16]


def ranked(truth, predictions, **options):
    """The rows of a scene, each (finding, image, annotation, detection), and their suspicions."""
    coco, results = scene(truth, predictions, **options)
    corners = [
        tuple(
            np.array([[x, y, x + w, y + h] for x, y, w, h in (one["bbox"] for one in part)])
            .reshape(-1, 4)
            .astype(float)
            for part in parts
        )
        for parts in zip(predictions, truth, strict=True)
    ]
    rows = rank_labels(matches_of(coco, results, "bbox").images, corners)
    told = [(row.finding, row.image, row.annotation, row.detection) for row in rows]
    return told, [row.suspicion for row in rows]


def test_each_fault_is_found_and_comes_before_every_good_label():
    truth = [[person(LARGE)] for _ in range(40)]
    seen = [[found(LARGE, 0.9), found([150, 60, 20, 30], 0.2)] for _ in range(40)]
    truth[3] = []  # missing
    truth[7] = [person(LARGE), person([100, 10, 30, 60])]  # extra
    truth[11] = [person([50, 20, 40, 80])]  # shifted: IoU 1/7
    truth[15] = [person(LARGE, 2)]  # another class
    truth[19] = [person(LARGE), person([100, 0, 90, 90], crowd=1)]
    told, suspicions = ranked(truth, seen, classes=("person", "rider"))
    faults = {("missing", 3, None, 0), ("extra", 7, 1, None), ("box", 11, 0, 0)}
    assert set(told[:4]) == faults | {("class", 15, 0, 0)}
    assert suspicions == sorted(suspicions, reverse=True) and 0 < suspicions[3] < 1
    # Every other annotation has one row, the crowd none; a score of 0.2 is not listed.
    assert sorted(row[1] for row in told[4:]) == sorted({*range(40)} - {3, 11, 15})
    assert {row[0] for row in told[4:]} == {"agreed"}


def test_what_the_model_often_misses_speaks_against_the_model():
    truth = [[person(LARGE), person(SMALL)] for _ in range(40)]
    seen = [[found(LARGE, 0.9)] + [found(SMALL, 0.9)] * (n % 2) for n in range(40)]
    seen[5] = [found(SMALL, 0.9)]
    told, suspicions = ranked(truth, seen)
    assert told[0] == ("extra", 5, 0, None)
    small = [s for row, s in zip(told, suspicions, strict=True) if row[0] == "extra"][1:]
    assert len(small) == 20 and max(small) < 0.6 * suspicions[0]


def test_a_score_that_is_often_wrong_is_no_reason_to_doubt_the_label():
    truth = [[person(LARGE)] for _ in range(40)]
    seen = [[found(LARGE, 0.95), found([120, 50, 30, 40], 0.5)] for _ in range(40)]
    truth[2], seen[2] = [], [found(LARGE, 0.95), found([22, 22, 40, 80], 0.94)]
    told, suspicions = ranked(truth, seen)
    assert told[0] == ("missing", 2, None, 0)  # once, although it is found twice
    others = [s for row, s in zip(told, suspicions, strict=True) if row[0] == "missing"][1:]
    assert len(others) == 39 and max(others) < suspicions[0] / 3


def test_nothing_to_rank():
    assert ranked([[]], [[]]) == ([], [])
    assert ranked([[person(LARGE)]], [[]])[0] == [("extra", 0, 0, None)]


def audit(*words):
    return prepare_dataset.main(["audit", *map(str, words)])


class Finder(OnePerson):
    def predict_frames(self, images):
        return self.predict_batch(images)


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(Predictor, "from_run", lambda *_, **__: Finder())


@pytest.fixture
def export(tmp_path):
    folder = tmp_path / "export" / "train"
    folder.mkdir(parents=True)
    names = ["a.png", "<b>x.png", "gone.png"]
    for name in names[:2]:
        cv2.imwrite(str(folder / name), np.full((64, 96, 3), 90, np.uint8))
    images = [
        {"id": n, "file_name": name, "width": 96, "height": 64} for n, name in enumerate(names)
    ]
    boxes = {7: (0, [8, 20, 32, 36]), 0: (1, [60, 5, 20, 30])}
    annotations = [
        {"id": i, "image_id": n, "bbox": b, "category_id": 3} for i, (n, b) in boxes.items()
    ]
    coco = {"images": images, "annotations": annotations}
    coco["categories"] = [{"id": 3, "name": "person"}]
    (folder / ANNOTATION_FILE).write_text(json.dumps(coco))
    return tmp_path / "export"


def test_the_csv_names_the_json_s_own_ids_and_the_page_takes_names_as_text(
    model, export, tmp_path, capsys
):
    out = tmp_path / "out"
    assert audit(export, "--run", "r", "--output", out) == 0
    with (out / "audit.csv").open() as file:
        rows = {row["finding"]: row for row in csv.DictReader(file)}
    assert rows["agreed"]["annotation_id"] == "7" and rows["agreed"]["iou"] == "1.000"
    assert rows["extra"]["annotation_id"] == "0" and rows["extra"]["file_name"] == "<b>x.png"
    assert [rows["missing"][key] for key in ("x", "y", "width", "height")] == [
        *("8.0", "20.0", "32.0", "36.0")
    ]
    assert len(rows) == 3 and "1 a detection without annotation" in capsys.readouterr().out
    page = (out / "audit.html").read_text()
    assert page.count("<img") == 3 and "&lt;b&gt;x.png" in page and "<b>x" not in page
    with pytest.raises(OutputExistsError, match="--overwrite"):
        audit(export, "--run", "r", "--output", out)
    assert audit(export, "--run", "r", "--output", out, "--images", 1, "--overwrite") == 0
    assert (out / "audit.html").read_text().count("<img") == 1


def test_a_model_of_other_classes_is_refused(model, export, tmp_path):
    path = export / "train" / ANNOTATION_FILE
    path.write_text(path.read_text().replace('"person"', '"dog"'))
    with pytest.raises(DatasetError, match="classes dog, and the model person"):
        audit(export, "--run", "r", "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_fold_is_judged_by_a_model_that_has_not_seen_it(tiny_export, tmp_path, monkeypatch):
    trained = []

    @contextmanager
    def here(*_):
        yield SimpleNamespace(submit=lambda work, args: SimpleNamespace(result=lambda: work(args)))

    def train(args):
        data = read_export(args.opts[1])
        trained.append({image["file_name"] for image in data.splits["train"]["images"]})
        assert not args.resume and len(data.splits) == 1

    from persondet.config import get_cfg

    monkeypatch.setattr(folds, "process_pool", here)
    monkeypatch.setattr(folds, "_train", train)
    monkeypatch.setattr(folds, "carried_cfg", lambda _: get_cfg())
    export = read_export(tiny_export)
    judges = folds.train_folds(export, "run", tmp_path, folds=3)
    assert len(judges) == 12 and len(trained) == 3
    runs = sorted(set(judges.values()))
    for run, seen in zip(runs, trained, strict=True):
        own = {name for (_, name), judge in judges.items() if judge == run}
        assert len(own) == 4 and len(seen) == 8 and not own & seen
    with pytest.raises(DatasetError, match="12 images that differ, for 13 folds"):
        folds.train_folds(export, "run", tmp_path, folds=13)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_models_of_two_folds_are_trained_as_the_run_was(tiny_export, tmp_path, capsys):
    cfg = tiny_cfg()
    cfg.SOLVER.MAX_ITER = 2
    run = save_run(tmp_path / "run", build_model(cfg), cfg)
    words = [tiny_export, "--run", run, "--output", tmp_path / "out", "--folds", 2]
    assert audit(*words) == 0
    (home,) = (tmp_path / "out").glob("folds-*")
    for fold in ("fold_1", "fold_2"):
        assert (home / fold / "model_best.pth").is_file()
    first = (home / "fold_1" / "model_best.pth").stat().st_mtime_ns
    with (tmp_path / "out" / "audit.csv").open() as file:
        rows = list(csv.DictReader(file))
    labels = sum(len(coco["annotations"]) for coco in read_export(tiny_export).splits.values())
    assert sum(row["annotation_id"] != "" for row in rows) == labels
    assert audit(*words, "--overwrite") == 0  # nothing is trained again
    assert (home / "fold_1" / "model_best.pth").stat().st_mtime_ns == first

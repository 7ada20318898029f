"""The report in words: true and aligned, with the next step."""

import shlex
from pathlib import Path

import prepare_dataset
import pytest

from persondet.data.check import check_export, dataset_statistics
from persondet.data.check.text import report_lines
from persondet.data.findings import CODES, Findings
from persondet.errors import DatasetError
from tests.data.exports import (
    categories,
    coco_of,
    in_this_process,
    people,
    rle_string,
    without_mask,
    write_habit,
)


def coco(images=2, per_image=1):
    names = [f"{number}.jpg" for number in range(images)]
    return coco_of([people(per_image, without_mask)] * images, names, [(48, 64)] * images)


BOTH = {"train": coco(3, per_image=2), "test": coco(1)}


def lines_of(splits, *codes, leaks=None, folder="data", findings=None):
    findings = findings or Findings()
    for code in codes:
        findings.add(code, "train")
    report = {
        "folder": folder,
        "splits": {split: split for split in splits},
        "statistics": dataset_statistics(splits),
        "findings": findings.as_json(),
        "errors": len(findings.of("error")),
        "warnings": len(findings.of("warning")),
        "leaks": leaks or {},
    }
    return report_lines(report)


def leak(images, leaked, clip_mates=0):
    return {"images": images, "leaked": leaked, "share": 0.0, "clip_mates": clip_mates}


def test_what_is_there():
    lines = lines_of(BOTH)
    assert lines[0] == "data: 4 images, 7 objects"
    train, test = (line for line in lines if line.split()[:1] in (["train"], ["test"]))
    assert train.split() == ["train", "train", "3", "0", "6", "2.0", "2"]
    assert test.split() == ["test", "test", "1", "0", "1", "1.0", "1"]
    assert len(train) == len(test)  # numbers are aligned to the right
    text = "\n".join(lines)
    for part in ("objects per image: 1 in 1, 2 in 3", "100 % small", "4 of 64 x 48 px"):
        assert part in text
    assert lines[-1] == "Nothing to mend." and "no errors, no warnings" in lines


def test_leaks_are_a_sentence_each():
    splits = {"train": coco(), "valid": coco(), "test": coco()}
    leaks = {"test": leak(60, 3, 4), "valid": leak(40, 1)}
    text = " ".join(lines_of(splits, "leak-same-file", leaks=leaks))
    text = " ".join(text.split())
    assert "3 of 60 test images (5 %) have a version in train or valid: " in text
    assert "4 of 60 test images (7 %) are frames of a clip that is in train or valid too" in text
    assert "1 of 40 valid images (2 %) has a version in train:" in text
    assert text.endswith("clean data --output data-clean --drop-leaks")
    assert "leaks" not in "".join(lines_of({"test": coco()}, leaks={"test": leak(60, 0)}))


def test_findings_come_with_all_that_a_person_needs():
    findings = Findings()
    findings.add("area-of-box", "train", "a.jpg", 1)
    for number in range(5):
        findings.add("box-zero", "train", f"{number}.jpg", number, "0 x 12 px")
    findings.add("box-zero", "test", "t.jpg", "x")
    lines = lines_of(BOTH, findings=findings)
    start = lines.index("1 error, 1 warning")
    error, mend, *examples = lines[start + 1 : start + 6]
    assert error.startswith("ERROR box-zero (6: train 5, test 1): ")
    assert CODES["box-zero"].mend in mend and "training: mended in memory" in mend
    assert examples == [f"      train  {n}.jpg  annotation {n}  0 x 12 px" for n in range(3)]
    assert lines[start + 6].startswith("WARNING area-of-box (1): ")


@pytest.mark.parametrize(
    ("splits", "codes", "folder", "last"),
    [
        ({"train": coco()}, ["split-single"], "my data", "'my data' --output 'my data-split'"),
        (BOTH, ["train-missing", "box-zero"], "data", "clean data --output data-clean"),
        (BOTH, ["crowds-only", "leak-same-file"], "data", "--crowds object --drop-leaks"),
        (BOTH, ["box-zero"], "data/", "clean data/ --output data-clean"),
        (BOTH, ["box-zero"], ".", "clean . --output clean"),
        (BOTH, ["box-zero"], "a\x1bb", "clean DIR --output DIR2"),
        (BOTH, ["category-id-twice", "box-zero"], "data", "two categories"),
        (BOTH, ["box-tiny"], "data", "Nothing has to be mended"),
    ],
)
def test_the_next_step_fits_what_was_found(splits, codes, folder, last):
    assert last in lines_of(splits, *codes, folder=folder)[-1]


def crowd(cell, width, height):
    return rle_string(cell, width, height) | {"iscrowd": 1}


@pytest.mark.parametrize(
    ("splits", "missing", "commands", "left"),
    [
        ({"train": [people(2, crowd)] * 3, "valid": [people(1)]}, "", ["clean"], ""),
        ({"valid": [people(1)] * 4, "test": [people(1)] * 4}, "", ["split"], ""),
        ({"": [people(1)] * 9}, "", ["split"], ""),
        ({"train": [people(1)] * 3, "valid": [people(1)]}, "valid", ["clean", "split"], ""),
        ({"train": [people(1)], "valid": [people(1)] * 3}, "train", ["clean", "split"], ""),
        ({"train": [people(2)], "test": [people(2)]}, "*", [], "images-missing"),
        ({"train": [people(1) + people(3, without_mask)] + [people(4, without_mask)] * 2},
         "", ["split"], "masks-few"),
        ({"train": [people(1)], "valid": [people(1, category=2)]}, "", [], "class-not-in-train"),
        ({"train": [people(1)], "test": [people(1, category=2)]}, "", [], "class-not-in-test"),
    ],
)  # fmt: skip
def test_every_advised_command_runs_and_leads_to_a_dataset_without_errors(
    splits, missing, commands, left, tmp_path, capsys
):
    folder = write_habit(tmp_path / "in", splits, categories=categories((1, "person"), (2, "dog")))
    for path in folder.glob(f"{missing}/*.jpg") if missing else ():
        path.unlink()
    run = []
    with in_this_process():
        while True:
            report = check_export(folder)
            last = report_lines({"folder": str(folder), **report})[-1]
            if "prepare_dataset.py" not in last:
                break
            words = shlex.split(last.partition("prepare_dataset.py ")[2])
            run.append(words[0])
            assert len(run) < 3 and prepare_dataset.main(words) == 0
            folder = Path(words[words.index("--output") + 1])
        for command in ("clean", "split") if left == "images-missing" else ():
            with pytest.raises(DatasetError, match="no image of the export is there"):
                prepare_dataset.main([command, str(folder), "--output", str(tmp_path / "x")])
    assert run == commands
    found = {finding["code"] for finding in report["findings"]}
    assert left in found or (not left and not report["errors"])
    assert not found & {"crowds-only", "split-empty"}
    told = capsys.readouterr().out
    assert ("VALID IS LEFT OUT: " in told) == (missing == "valid")

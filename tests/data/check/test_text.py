"""The report in words: true and aligned, with the next step."""

import pytest

from persondet.data.check import dataset_statistics
from persondet.data.check.text import report_lines
from persondet.data.findings import CODES, Findings


def coco(images=2, names=("person",), per_image=1):
    return {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in range(images)
        ],
        "annotations": [
            {"id": 1, "image_id": i, "category_id": 0, "bbox": [0, 0, 8, 8], "segmentation": []}
            for i in range(images)
            for _ in range(per_image)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
    }


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
    text = " ".join(lines_of(splits, leaks={"test": leak(60, 3, 4), "valid": leak(40, 1)}))
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
        ({"train": coco()}, ["box-zero"], "my data", "split 'my data' --output 'my data-split'"),
        (BOTH, ["box-zero"], "data/", "clean data/ --output data-clean"),
        (BOTH, ["box-zero"], ".", "clean . --output clean"),
        (BOTH, ["box-zero"], "a\x1bb", "clean DIR --output DIR2"),
        (BOTH, ["category-id-twice", "box-zero"], "data", "two categories"),
        (BOTH, ["box-tiny"], "data", "Nothing has to be mended"),
    ],
)
def test_the_next_step_fits_what_was_found(splits, codes, folder, last):
    assert last in lines_of(splits, *codes, folder=folder)[-1]

"""The report in words: true, aligned, and harmless on a terminal."""

from __future__ import annotations

import pytest

from persondet.data.check import dataset_statistics
from persondet.data.check.text import WIDTH, report_lines
from persondet.data.findings import CODES, Findings
from persondet.text import columns


def report_of(splits, findings=None, leaks=None, folder="data"):
    findings = findings or Findings()
    return {
        "folder": folder,
        "version": 1,
        "splits": {split: split for split in splits},
        "statistics": dataset_statistics(splits),
        "findings": findings.as_json(),
        "errors": len(findings.of("error")),
        "warnings": len(findings.of("warning")),
        "leaks": leaks or {},
    }


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


def text_of(*args, **options):
    return "\n".join(report_lines(report_of(*args, **options)))


def leak(images, leaked, clip_mates=0):
    return {"images": images, "leaked": leaked, "share": 0.0, "clip_mates": clip_mates}


def test_what_is_there():
    lines = report_lines(report_of({"train": coco(3, per_image=2), "test": coco(1)}))
    assert lines[0] == "data: 4 images, 7 objects"
    train = next(line for line in lines if line.split()[:1] == ["train"])
    test = next(line for line in lines if line.split()[:1] == ["test"])
    assert train.split() == ["train", "train", "3", "0", "6", "2.0", "2"]
    assert test.split() == ["test", "test", "1", "0", "1", "1.0", "1"]
    assert len(train) == len(test)  # numbers are aligned to the right
    assert "  objects per image: 1 in 1, 2 in 3" in lines
    assert any("100 % small (under 32 x 32 px)" in line for line in lines)
    assert "  masks: 7 without a mask (box only) (100 %)" in lines
    assert "  image sizes: 4 of 64 x 48 px" in lines
    assert lines[-1] == "Nothing to mend." and "no errors, no warnings" in lines


def test_leaks_are_a_sentence_each():
    splits = {"train": coco(), "valid": coco(), "test": coco()}
    text = text_of(splits, leaks={"test": leak(60, 3, 4), "valid": leak(40, 1)})
    text = " ".join(text.split())
    assert (
        "leaks: 3 of 60 test images (5 %) have a version in train or valid: the score will look "
        "better than it is" in text
    )
    assert "4 of 60 test images (7 %) are frames of a clip that is in train or valid too" in text
    assert "1 of 40 valid images (2 %) has a version in train:" in text
    assert text.endswith("clean data --output data-clean --drop-leaks")
    none = text_of(splits, leaks={"test": leak(60, 0), "valid": leak(1, 0)})
    assert "leaks: none among 60 test images and 1 valid image\n" in none
    assert "leaks" not in text_of({"train": coco()})
    assert "leaks" not in text_of({"test": coco()}, leaks={"test": leak(60, 0)})


@pytest.mark.parametrize(
    ("part", "all_", "percent"),
    [
        (1, 1000, "0.1 %"),
        (1, 9999, "0.1 %"),
        (999, 1000, "99.9 %"),
        (1, 2, "50 %"),
        (2, 2, "100 %"),
    ],
)
def test_a_share_is_never_rounded_to_none_or_all(part, all_, percent):
    assert f"({percent})" in text_of(
        {"train": coco(), "test": coco()}, leaks={"test": leak(all_, part)}
    )


def test_findings_come_with_all_that_a_person_needs():
    findings = Findings()
    findings.add("area-of-box", "train", "a.jpg", 1)
    for number in range(5):
        findings.add("box-zero", "train", f"{number}.jpg", number, "0 x 12 px")
    findings.add("box-zero", "test", "t.jpg", "x")
    lines = report_lines(report_of({"train": coco(), "test": coco()}, findings))
    start = lines.index("1 error, 1 warning")
    assert lines[start + 1 : start + 9] == [
        "ERROR box-zero (6: train 5, test 1): width or height of the box is 0",
        f"      clean: {CODES['box-zero'].mend} · training: mended in memory",
        "      train  0.jpg  annotation 0  0 x 12 px",
        "      train  1.jpg  annotation 1  0 x 12 px",
        "      train  2.jpg  annotation 2  0 x 12 px",
        "WARNING area-of-box (1): `area` is the area of the box, not of the mask",
        "      clean: computed from the mask · training: mended in memory",
        "      train  a.jpg  annotation 1",
    ]
    assert lines[-1] == ("next: python tools/prepare_dataset.py clean data --output data-clean")


def test_the_next_step_fits_what_was_found():
    both = {"train": coco(), "test": coco()}

    def last(splits, *codes, **options):
        findings = Findings()
        for code in codes:
            findings.add(code, "train")
        return text_of(splits, findings, **options).splitlines()[-1]

    assert "split 'my data' --output 'my data-split'" in last(
        {"train": coco()}, "box-zero", folder="my data"
    )
    assert "clean data/ --output data-clean" in last(both, "box-zero", folder="data/")
    assert "clean . --output clean" in last(both, "box-zero", folder=".")
    assert "clean DIR --output DIR2" in last(both, "box-zero", folder="a\x1bb")
    assert "two categories" in last(both, "category-id-twice", "box-zero")
    assert "Nothing has to be mended" in last(both, "box-tiny")


NASTY = [
    *("\x1b[2J\x1b[31mred", "a\nb", "\r", "\u202egnp.exe", "日本語" * 40, "x" * 500, "", "\0"),
    *("<script>alert(1)</script>", "=cmd()", "$x$", "half \ud800", "e\u0301" * 60, "{}", "%s"),
]


@pytest.mark.parametrize("nasty", NASTY)
def test_names_of_strangers_stay_on_their_line(nasty):
    findings = Findings()
    for code in CODES:
        findings.add(code, "train", nasty, nasty or None, nasty)
    splits = {"train": coco(names=(nasty, "b")), "valid": coco(names=("b", nasty))}
    report = report_of(splits, findings, folder=nasty)
    report["splits"] = dict.fromkeys(splits, nasty)
    lines = report_lines(report)
    for line in lines:
        assert line.isprintable()
        assert columns(line) <= WIDTH or line.startswith("next: ")
    assert sum(line.startswith(("ERROR", "WARNING")) for line in lines) == len(CODES)

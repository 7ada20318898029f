"""Exports by somebody who means harm, through the command line: refused or neutralised."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cli
import prepare_dataset
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.data.exports import ANNOTATION_FILE, edit, in_this_process, people, picture, write_habit

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u202e]")  # what would move a terminal's cursor
Prepare = Callable[..., tuple[int, dict[str, int]]]


@pytest.fixture
def prepare(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Prepare:
    """Runs tools/prepare_dataset.py in this process, as the command line does.

    Returns the exit code, and the codes in the report of `check`. Checks each time what holds of
    every run: no traceback, no control characters, one sentence for a refusal, and no change below
    `tmp_path` but for the named output.
    """

    def run(
        command: str, root: Path, output: Path | None = None, *flags: object
    ) -> tuple[int, dict[str, int]]:
        report = tmp_path / "report.json"
        report.unlink(missing_ok=True)
        named = ["--output", output] if output else ["--json", report] if command == "check" else []
        words = [str(word) for word in (command, root, *named, *flags)]
        monkeypatch.setattr("sys.argv", ["prepare_dataset.py", *words])
        before = listing(tmp_path)
        with in_this_process(), pytest.raises(SystemExit) as end:
            cli.run(prepare_dataset.main)
        code = int(end.value.code or 0)
        out, err = capsys.readouterr()
        out.encode()
        assert "Traceback" not in out + err
        assert not CONTROL.search(out + err)
        assert len(re.findall("^error: ", err, re.M)) == (code == 2), err
        new = {report} if output is None or code == 2 else {report, output, *output.parents}
        after = {
            path: content
            for path, content in listing(tmp_path).items()
            if path not in new and not (code != 2 and output in path.parents)
        }
        assert after == {path: before[path] for path in before if path not in new}
        text = report.read_text(encoding="utf-8") if report.exists() else '{"findings": []}'
        findings = strict_json(text)["findings"]
        return code, {finding["code"]: finding["count"] for finding in findings}

    return run


def listing(root: Path) -> dict[Path, bytes | str]:
    """Everything below a folder, with its content or target."""
    found: dict[Path, bytes | str] = {}
    for path in root.rglob("*"):
        found[path] = path.read_bytes() if path.is_file() else ""
        if path.is_symlink():
            found[path] = os.readlink(path)
    return found


def strict_json(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def good_export(root: Path) -> Path:
    splits = {"train": [people(2)] * 3, "valid": [people(1)] * 2, "test": [people(1)] * 2}
    return write_habit(root, splits)


def cleaned_names(prepare: Prepare, root: Path, tmp_path: Path) -> list[str]:
    """Clean an export, check the result, and return the file names of its train split."""
    assert prepare("clean", root, tmp_path / "clean")[0] == 0
    assert prepare("check", tmp_path / "clean")[0] == 0
    text = (tmp_path / "clean/train" / ANNOTATION_FILE).read_text(encoding="utf-8")
    return [image["file_name"] for image in strict_json(text)["images"]]


def test_exit_codes(prepare: Prepare, tmp_path: Path) -> None:
    good = good_export(tmp_path / "in/good")
    assert prepare("check", good, None, "--strict")[0] == 0
    warned = edit(good_export(tmp_path / "warned"), lambda coco: coco["annotations"].clear())
    assert prepare("check", warned)[0] == 0
    assert prepare("check", warned, None, "--strict")[0] == 1
    wrong = edit(good_export(tmp_path / "wrong"), lambda coco: coco["annotations"][0].pop("bbox"))
    assert prepare("check", wrong) == (1, {"box-invalid": 1})
    assert prepare("clean", wrong, tmp_path / "clean")[0] == 0
    assert prepare("clean", wrong, tmp_path / "clean")[0] == 2  # it is there already
    assert prepare("clean", good, tmp_path / "x", "--classes", "persn")[0] == 2
    for command in ("clean", "split", "import"):
        assert prepare(command, tmp_path / "nowhere", tmp_path / "x")[0] == 2
        # The source is never written over.
        for output in (good, good / "train", good.parent):
            assert prepare(command, good, output)[0] == 2
            assert prepare(command, good, output, "--overwrite")[0] == 2


# File names

OUTSIDE = ["../x.jpg", "/etc/hostname", "a/../../../x.jpg", "..", "../train/../../x.jpg"]
NOWHERE = ["a\0.jpg", "x" * 5000, "\ud800.jpg", "nowhere/" * 300, "a.jpg/b.jpg", ".", ""]


def test_file_names_that_lead_astray_are_found_and_dropped(
    prepare: Prepare, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for path in (tmp_path / "x.jpg", tmp_path / "in/x.jpg"):
        path.write_bytes(picture(50)[1])
    root = write_habit(
        tmp_path / "in/export",
        {"train": [people(1)] * (len(OUTSIDE + NOWHERE) + 1)},
        name=lambda folder, index: f"{index}.jpg",
    )

    def rename(coco: dict[str, Any]) -> None:
        for image, name in zip(coco["images"], OUTSIDE + NOWHERE, strict=False):
            image["file_name"] = name

    edit(root, rename)
    code, found = prepare("check", root)
    assert code == 1
    # No file system stores NUL and half of a surrogate pair in a name.
    assert found["file-name-outside"] == len(OUTSIDE) + 2
    kinds = ("file-missing", "image-malformed", "image-unreadable")
    assert [found.get(kind, 0) for kind in kinds] == [len(NOWHERE) - 4, 1, 1]
    assert cleaned_names(prepare, root, tmp_path) == [f"{len(OUTSIDE + NOWHERE)}.jpg"]
    assert prepare("split", root, tmp_path / "cut")[0] == 2


def test_what_is_no_image_of_the_folder_is_left_behind(prepare: Prepare, tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(picture(50)[1])
    root = write_habit(tmp_path / "export", {"train": [people(1)] * 5})
    link, pipe, _, moved, _ = sorted((root / "train").glob("*.jpg"))
    for path in (link, pipe):
        path.unlink()
    link.symlink_to(tmp_path / "secret.jpg")
    os.mkfifo(pipe)
    (root / "train/images").mkdir()
    moved.rename(root / "train/images/moved.jpg")  # no fault

    def rename(coco: dict[str, Any]) -> None:
        coco["images"][2]["file_name"] = ANNOTATION_FILE
        coco["images"][3]["file_name"] = "images/moved.jpg"

    edit(root, rename)
    code, found = prepare("check", root)
    assert (code, found["file-name-outside"], found["image-unreadable"]) == (1, 1, 2)
    assert cleaned_names(prepare, root, tmp_path) == ["images/moved.jpg", "etrain.jpg"]
    assert (tmp_path / "clean/train/images/moved.jpg").read_bytes() == picture(3)[1]
    assert not any(path.is_symlink() for path in (tmp_path / "clean").rglob("*"))


# Names

NAMES = [
    *("<script>alert(1)</script>", "=cmd()", "$\\undefined{x}$", "a,b;\"c'", "../../x"),
    *("\x1b[31mred\x07", "line\nbreak\rback", "\u202egnp.exe", "\ud800", "x" * 3000, " ", "\0"),
]


def test_names_that_want_to_be_more_than_names(prepare: Prepare, tmp_path: Path) -> None:
    names = [name for name in NAMES if name.strip() and name not in ("\0", "\ud800")]
    root = write_habit(
        tmp_path / "export",
        {"train": [people(1)] * len(names)},
        name=lambda folder, index: f"{names[index].replace('/', '')[:100]}.jpg",
    )

    def change(coco: dict[str, Any]) -> None:
        coco["categories"] = [{"id": n, "name": name} for n, name in enumerate(NAMES, start=1)]
        coco["categories"] += [{"id": [[]], "name": "person"}, None]
        coco["images"].append(coco["images"][0] | {"id": 99, "file_name": "\ud800.jpg"})
        for number, annotation in enumerate(coco["annotations"]):
            annotation["category_id"] = number + 1
        # Findings name class and file, too.
        coco["annotations"][-1]["bbox"] = [1, 1, 0, 0]

    edit(root, change)
    code, found = prepare("check", root)
    assert (code, found["category-malformed"]) == (1, 3)  # no name at all, or no number
    assert cleaned_names(prepare, root, tmp_path)
    text = (tmp_path / "clean/train" / ANNOTATION_FILE).read_text(encoding="utf-8")
    assert set(names) <= {category["name"] for category in strict_json(text)["categories"]}


KEYS = "id image_id category_id file_name width height name bbox segmentation counts area iscrowd"
ATOMS = [None, True, -1, 0, 1, 2.5, 1e400, 10**30, "", "1", "39.0", "person", "afolder.jpg", "../x"]
anything = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS.split()), inner)
    ),
    max_leaves=12,
)
spoiled = st.lists(st.dictionaries(st.sampled_from(KEYS.split()), anything, max_size=4), max_size=2)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spoiled, spoiled, spoiled)
@example([], [{"image_id": ["1"]}], [])
def test_values_of_any_kind_are_judged_or_refused(
    prepare: Prepare, tmp_path: Path, images: Any, annotations: Any, classes: Any
) -> None:
    """Good records with some keys replaced, one good image beside them."""
    shutil.rmtree(tmp_path / "clean", ignore_errors=True)  # of the example before
    root = write_habit(tmp_path / "export", {"train": [people(1)] * 2})

    def spoil(coco: dict[str, Any]) -> None:
        for key, rows in zip(coco, (None, classes, images, annotations), strict=True):
            if rows is not None:
                coco[key] += [coco[key][0] | row for row in rows]

    edit(root, spoil)
    assert prepare("check", root)[0] in (0, 1, 2)
    if prepare("clean", root, tmp_path / "clean")[0] == 0:
        assert prepare("check", tmp_path / "clean")[0] == 0

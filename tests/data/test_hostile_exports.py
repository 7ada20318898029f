"""Exports by somebody who means harm, through the command line: refused or neutralised.

Each ends with a code and a sentence, never with a traceback, and leaves nothing outside its output.
"""

from __future__ import annotations

import copy
import json
import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cli
import prepare_dataset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.data.check import check_export
from persondet.data.check.text import report_lines
from persondet.data.clean import clean_dataset
from persondet.data.split import split_export
from persondet.errors import DatasetError
from tests.data.exports import ANNOTATION_FILE, picture, random_export
from tests.data.test_export_habits import people, write_habit
from tests.data.test_faults_property import in_this_process

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u202e]")  # what would move a terminal's cursor


def mostly_slow(values: Iterable[Any]) -> list[Any]:
    """The values for a parametrisation, all but the first two marked slow."""
    return [
        value if index < 2 else pytest.param(value, marks=pytest.mark.slow)
        for index, value in enumerate(values)
    ]


@dataclass
class Said:
    """What a command came to: its exit code, and the codes in the report of `check`."""

    code: int
    found: dict[str, int]


Prepare = Callable[..., Said]


@pytest.fixture
def prepare(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Prepare:
    """Runs tools/prepare_dataset.py in this process, as the command line does.

    Checks each time what holds of every run: no traceback, no control characters, one sentence for
    a refusal, and no change below `tmp_path` but for the named output.
    """

    def run(command: str, root: Path, output: Path | None = None, *flags: object) -> Said:
        report = tmp_path / "report.json"
        report.unlink(missing_ok=True)
        named = ["--output", output] if output else ["--json", report] if command == "check" else []
        words = [str(word) for word in (command, root, *named, *flags)]
        monkeypatch.setattr(sys, "argv", ["prepare_dataset.py", *words])
        before = listing(tmp_path)
        with pytest.raises(SystemExit) as end:
            cli.run(prepare_dataset.main)
        code = int(end.value.code or 0)
        out, err = capsys.readouterr()
        out.encode()
        assert "Traceback" not in out + err
        assert not CONTROL.search(out + err)
        assert len(re.findall("^error: ", err, re.M)) == (code == 2), err
        new = {report, *([output, *output.parents] if output and code != 2 else [])}
        after = {
            path: content
            for path, content in listing(tmp_path).items()
            if path not in new and not (code != 2 and output and output in path.parents)
        }
        assert after == {path: before[path] for path in before if path not in new}
        text = report.read_text(encoding="utf-8") if report.exists() else '{"findings": []}'
        findings = strict_json(text)["findings"]
        return Said(code, {finding["code"]: finding["count"] for finding in findings})

    return run


def listing(root: Path) -> dict[Path, bytes | str]:
    """Everything below a folder, with its content or target."""
    return {
        path: os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else ""
        for path in root.rglob("*")
    }


def strict_json(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def good_export(root: Path) -> Path:
    write_habit(root, {"train": [people(2)] * 3, "valid": [people(1)] * 2, "test": [people(1)] * 2})
    return root


def edit(root: Path, change: Callable[[dict[str, Any]], Any], split: str = "train") -> Path:
    """Change the json of a split."""
    path = root / split / ANNOTATION_FILE
    coco = json.loads(path.read_text())
    change(coco)
    path.write_text(json.dumps(coco))
    return root


def file_names(root: Path, split: str = "train") -> list[str]:
    coco = strict_json((root / split / ANNOTATION_FILE).read_text(encoding="utf-8"))
    return [image["file_name"] for image in coco["images"]]


def test_exit_codes(prepare: Prepare, tmp_path: Path) -> None:
    good = good_export(tmp_path / "good")
    assert prepare("check", good, None, "--strict").code == 0
    warned = edit(good_export(tmp_path / "warned"), lambda coco: coco["annotations"].clear())
    assert prepare("check", warned).code == 0
    assert prepare("check", warned, None, "--strict").code == 1
    wrong = edit(good_export(tmp_path / "wrong"), lambda coco: coco["annotations"][0].pop("bbox"))
    assert prepare("check", wrong) == Said(1, {"box-invalid": 1})
    assert prepare("clean", wrong, tmp_path / "clean").code == 0
    changes = json.loads((tmp_path / "clean/cleaning.json").read_text())["changes"]
    assert changes == {"box-invalid": 1}
    assert prepare("check", tmp_path / "clean", None, "--strict").code == 0
    assert prepare("clean", wrong, tmp_path / "clean").code == 2  # it is there already
    assert prepare("clean", good, tmp_path / "x", "--classes", "persn").code == 2
    for command in ("clean", "split", "import"):
        assert prepare(command, tmp_path / "nowhere", tmp_path / "x").code == 2


def test_the_source_is_never_written_over(prepare: Prepare, tmp_path: Path) -> None:
    root = good_export(tmp_path / "in/export")
    for command in ("clean", "split", "import"):
        for output in (root, root / "clean", root / "train", root.parent):
            for flags in ((), ("--overwrite",)):
                assert prepare(command, root, output, *flags).code == 2


# File names

OUTSIDE = ["../x.jpg", "/etc/hostname", "a/../../../x.jpg", "..", "../train/../../x.jpg"]
NOWHERE = ["a\0.jpg", "x" * 5000, "\ud800.jpg", "nowhere/" * 300, "a.jpg/b.jpg", ".", ""]


@pytest.mark.parametrize("name", mostly_slow(OUTSIDE + NOWHERE), ids=lambda name: ascii(name)[:20])
def test_a_file_name_that_leads_astray_is_found_and_dropped(
    prepare: Prepare, tmp_path: Path, name: str
) -> None:
    (tmp_path / "in").mkdir()
    for path in (tmp_path / "x.jpg", tmp_path / "in/x.jpg"):
        path.write_bytes(picture(50)[1])
    root = good_export(tmp_path / "in/export")
    edit(root, lambda coco: coco["images"][0].update(file_name=name))
    said = prepare("check", root)
    kinds = {"file-name-outside", "file-missing", "image-malformed", "image-unreadable"}
    assert said.code == 1
    assert sum(said.found.get(kind, 0) for kind in kinds) == 1, said
    assert name not in OUTSIDE or said.found["file-name-outside"] == 1
    assert prepare("clean", root, tmp_path / "clean").code == 0
    assert file_names(tmp_path / "clean") == ["btrain.jpg", "ctrain.jpg"]
    assert prepare("check", tmp_path / "clean").code == 0
    prepare("split", root, tmp_path / "cut")
    copied = [path.read_bytes() for path in (tmp_path / "cut").rglob("*.jpg")]
    assert picture(50)[1] not in copied


@pytest.mark.parametrize("kind", ["link", "pipe", "json"])
def test_what_is_no_image_of_the_folder_is_left_behind(
    prepare: Prepare, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "secret.jpg").write_bytes(picture(50)[1])
    root = good_export(tmp_path / "export")
    image = root / "train/atrain.jpg"
    image.unlink()
    if kind == "link":
        image.symlink_to(tmp_path / "secret.jpg")
    elif kind == "pipe":
        os.mkfifo(image)
    else:
        edit(root, lambda coco: coco["images"][0].update(file_name=ANNOTATION_FILE))
    said = prepare("check", root)
    assert said.code == 1
    assert said.found.get("file-name-outside", 0) == (kind == "link")
    assert prepare("clean", root, tmp_path / "clean").code == 0
    assert file_names(tmp_path / "clean") == ["btrain.jpg", "ctrain.jpg"]
    assert not any(path.is_symlink() for path in (tmp_path / "clean").rglob("*"))


def test_images_in_a_folder_of_the_split_are_no_fault(prepare: Prepare, tmp_path: Path) -> None:
    root = good_export(tmp_path / "export")
    (root / "train/images").mkdir()
    (root / "train/atrain.jpg").rename(root / "train/images/atrain.jpg")
    edit(root, lambda coco: coco["images"][0].update(file_name="images/atrain.jpg"))
    assert prepare("check", root, None, "--strict").code == 0
    assert prepare("clean", root, tmp_path / "clean").code == 0
    (name,) = [n for n in file_names(tmp_path / "clean") if "atrain" in n]
    assert (tmp_path / "clean/train" / name).read_bytes() == picture(0)[1]


# The json


def nan_and_huge(coco: dict[str, Any]) -> None:
    huge = 10**400
    coco["annotations"][0]["bbox"] = [float("nan"), huge, -huge, 1]
    coco["annotations"][1]["area"] = huge
    coco["annotations"][2]["segmentation"][0][0] = float("inf")
    coco["annotations"][3]["id"] = 10**30
    coco["annotations"][4]["image_id"] = huge
    coco["images"][2]["license"] = float("nan")


def test_nan_and_huge_integers_in_the_json(prepare: Prepare, tmp_path: Path) -> None:
    root = edit(good_export(tmp_path / "export"), nan_and_huge)
    said = prepare("check", root)
    assert said.code == 1
    for code in ("box-invalid", "polygon-invalid", "annotation-unknown-image", "area-invalid"):
        assert said.found[code] == 1
    assert prepare("clean", root, tmp_path / "clean").code == 0
    assert file_names(tmp_path / "clean")  # by a strict reader
    assert prepare("check", tmp_path / "clean").code == 0


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "null", "[]", "5", '"x"', "{}", '{"images": {}}', "[" * 100_000),
        *('{"images": [], "annotations": [], "categories": []}', "\x00\x01", '{"a": 1e}'),
        '{"images": null, "annotations": 5, "categories": "x"}',
        '{"images": [], "annotations": [], "categories": [], "x": ' + "9" * 10_000 + "}",
        "\udcff\udcfe",
    ],
    ids=lambda text: ascii(text[:12]),
)
def test_what_is_no_coco_json_is_refused(prepare: Prepare, tmp_path: Path, text: str) -> None:
    root = tmp_path / "export"
    (root / "train").mkdir(parents=True)
    (root / "train" / ANNOTATION_FILE).write_text(text, errors="surrogateescape")
    assert prepare("check", root).code == 2
    for command in ("clean", "split"):
        assert prepare(command, root, tmp_path / "out").code == 2


@pytest.mark.parametrize("number", mostly_slow([[[]], {}, None, "1", 1.5]))
def test_a_category_without_a_number(prepare: Prepare, tmp_path: Path, number: Any) -> None:
    """In the train split; the others have the same class with its number."""
    root = good_export(tmp_path / "export")
    edit(root, lambda coco: coco["categories"][0].update(id=number))
    assert prepare("check", root).found["category-malformed"] == 1
    assert prepare("clean", root, tmp_path / "clean").code == 0
    assert prepare("check", tmp_path / "clean").code == 0
    assert prepare("split", root, tmp_path / "cut").code in (0, 2)


# Names

NAMES = [
    *("<script>alert(1)</script>", "=cmd()", "$\\undefined{x}$", "%s%n{0}", "a,b;\"c'", "../../x"),
    *("\x1b[31mred\x07", "line\nbreak\rback", "\u202egnp.exe", "\ud800", "x" * 3000, " ", "\0"),
]
NAMES_TO_DRAW = {"$\\undefined{x}$", "\x1b[31mred\x07", "\ud800", "x" * 3000, "\0"}


@pytest.mark.parametrize("name", mostly_slow(NAMES), ids=lambda name: ascii(name)[:16])
def test_class_names_that_want_to_be_more_than_names(
    prepare: Prepare, tmp_path: Path, name: str
) -> None:
    root = good_export(tmp_path / "export")
    for split in ("train", "valid", "test"):
        edit(root, lambda coco: coco["categories"][0].update(name=name), split)
    # Findings name it too.
    edit(root, lambda coco: coco["annotations"][0].update(category_id=77))
    assert prepare("check", root).code == 1
    if name in NAMES_TO_DRAW:
        from persondet.report.dataset_page import write_dataset_page

        write_dataset_page({"folder": "x", **check_export(root)}, tmp_path / "page.png")
    said = prepare("clean", root, tmp_path / "clean")
    if not name.strip():  # no name at all: no class is left
        assert said.code == 2
        return
    coco = strict_json((tmp_path / "clean/train" / ANNOTATION_FILE).read_text(encoding="utf-8"))
    assert len(coco["categories"]) == 1
    assert name in ("\0", "\ud800") or coco["categories"][0]["name"] == name
    assert prepare("check", tmp_path / "clean").code == 0


@pytest.mark.parametrize(
    "name", mostly_slow(name for name in NAMES if "\0" not in name and len(name) < 200)
)
def test_file_names_that_want_to_be_more_than_names(
    prepare: Prepare, tmp_path: Path, name: str
) -> None:
    root = good_export(tmp_path / "export")
    edit(root, lambda coco: coco["images"][0].update(file_name=f"{name}.jpg"))
    if "/" not in name and "\ud800" not in name:
        (root / "train/atrain.jpg").rename(root / f"train/{name}.jpg")
    # A fault on it, so that it is named.
    edit(root, lambda coco: coco["annotations"][0].update(bbox=[1, 1, 0, 0]))
    assert prepare("check", root).code == 1
    assert prepare("clean", root, tmp_path / "clean").code == 0
    assert prepare("check", tmp_path / "clean").code == 0


# Anything at all in place of anything


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([10**25, -(10**400), 1e308, float("nan"), float("inf"), -0.0, 0.5]),
    st.text(max_size=4),
    st.sampled_from([[], {}, [[]], [None], [1, 2, 3, 4], {"counts": [], "size": [1, 1]}]),
)


def places(node: Any, path: tuple[Any, ...] = ()) -> dict[tuple[str, ...], list[tuple[Any, ...]]]:
    """The paths to all values inside a json, by the keys on the way (a few of each kind)."""
    found: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    if path:
        found[tuple(key for key in path if isinstance(key, str))] = [path]
    inner = node.items() if isinstance(node, dict) else ()
    for key, value in enumerate(node) if isinstance(node, list) else inner:
        for kind, paths in places(value, (*path, key)).items():
            found[kind] = [*found.get(kind, []), *paths][-12:]
    return found


def fuzz(seed: int, data: st.DataObject, folder: Path) -> None:
    export = random_export(seed)
    split = next(iter(export.splits))
    for _ in range(data.draw(st.integers(1, 4))):
        kinds = places(export.splits[split])
        kind = data.draw(st.sampled_from(sorted(kinds)))
        *path, last = data.draw(st.sampled_from(kinds[kind]))
        node = export.splits[split]
        for key in path:
            node = node[key]
        if data.draw(st.booleans()):
            # A copy: a later change must not reach what is drawn the next time.
            node[last] = copy.deepcopy(data.draw(ANYTHING))
        else:
            del node[last]
    root = export.write(folder / "export")
    report = or_one_sentence(lambda: check_export(root))
    if report is None:
        return
    strict_json(json.dumps(report, allow_nan=False))
    "\n".join(report_lines({"folder": "x", **report})).encode()
    if or_one_sentence(lambda: clean_dataset(root, folder / "clean")) is not None:
        assert check_export(folder / "clean")["errors"] == 0
    or_one_sentence(lambda: split_export(root, folder / "cut"))


def or_one_sentence(call: Callable[[], Any]) -> Any:
    """What a call returns; None when it refuses in one sentence."""
    try:
        return call()
    except DatasetError as refusal:
        said = str(refusal)
    assert said
    assert "\n" not in said
    return None


@settings(max_examples=25, derandomize=True)
@given(seed=st.integers(0, 10**6), data=st.data())
def test_anything_in_place_of_anything_is_no_crash(
    tmp_path_factory: pytest.TempPathFactory, seed: int, data: st.DataObject
) -> None:
    with in_this_process():
        fuzz(seed, data, tmp_path_factory.mktemp("fuzz"))

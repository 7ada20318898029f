"""Random valid exports, broken in k places in one way: `check` names it, `clean` mends only it."""

from __future__ import annotations

import contextlib
import json
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.data.check import check_export
from persondet.data.clean import clean_dataset
from persondet.data.findings import CODES
from tests.data.exports import (
    ANNOTATION_FILE,
    KINDS,
    Export,
    random_export,
    tag,
)
from tests.data.faults import FAULTS, Broken, Fault

# Warnings that a fault may bring along, because they are true then.
TRUE_OF_WHAT_IS_LEFT = {
    *("image-without-annotations", "class-unused", "classes-differ", "file-not-listed"),
    *("split-without-annotations", "mask-formats-mixed", "grouping-category", "box-beside-mask"),
}
KEPT_BY_CLEAN = {
    *("box-tiny", "box-beside-mask", "polygon-self-intersecting", "image-orientation"),
    *("image-without-annotations", "leak-same-file", "leak-same-source"),
}
# Not faults: what renumbering comes to.
NEW_NUMBERS = {"id-renumbered", "category-renumbered"}
CONSEQUENCES = {
    *("annotation-dropped", "annotation-of-dropped-image", "area-recomputed", "mask-from-box"),
    *NEW_NUMBERS,
}
SEEDS = st.integers(0, 2**31)


@contextlib.contextmanager
def in_this_process() -> Iterator[None]:
    """Read images here: a hundred small exports would start a thousand processes."""

    class Pool:
        def __init__(self, **_: Any) -> None: ...

        def schedule(self, function: Any, args: Any, timeout: float) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_result(function(*args))
            return future

        def stop(self) -> None: ...

        def join(self) -> None: ...

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pebble.ProcessPool", Pool)
        yield


@contextlib.contextmanager
def written(export: Export) -> Iterator[tuple[Path, Path]]:
    """Yield (an export on disk, an empty folder to write to)."""
    with tempfile.TemporaryDirectory() as folder:
        yield export.write(Path(folder) / "export"), Path(folder)


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a folder, with its bytes."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def jsons(root: Path) -> dict[str, Any]:
    """Split to the json text of a folder that `clean` wrote."""
    return {
        path.parent.name: path.read_text(encoding="utf-8")
        for path in sorted(root.glob(f"*/{ANNOTATION_FILE}"))
    }


def counts(report: dict[str, Any]) -> Counter[str]:
    return Counter({finding["code"]: finding["count"] for finding in report["findings"]})


def plain(record: dict[str, Any], *without: str) -> str:
    """A record byte for byte, but for some keys."""
    return json.dumps({key: value for key, value in record.items() if key not in without})


def names_of(coco: dict[str, Any]) -> dict[int, str]:
    return {category["id"]: category["name"] for category in coco["categories"]}


def test_every_code_about_an_annotation_or_an_image_has_a_way_to_break_it() -> None:
    whole = ("split-", "info-", "categor", "class", "grouping-", "masks-none", "no-")
    of_splits_and_categories = {name for name in CODES if name.startswith(whole)}
    elsewhere = {"leak-near-identical", "leak-same-clip", "mask-formats-mixed"}
    assert {fault.code for fault in FAULTS} == set(CODES) - of_splits_and_categories - elsewhere


# Valid exports


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=2)
@given(seed=SEEDS)
def test_a_valid_export_has_no_error_and_cleaning_changes_nothing(kind: str, seed: int) -> None:
    export = random_export(seed, kind)
    with in_this_process(), written(export) as (root, folder):
        before = tree(root)
        report = check_export(root)
        assert report["errors"] == 0, report["findings"]
        true_of_it = TRUE_OF_WHAT_IS_LEFT - {"box-beside-mask"} | {"split-missing", "masks-none"}
        assert set(counts(report)) <= true_of_it
        summary = clean_dataset(root, folder / "clean")
        assert set(summary["changes"]) <= {"grouping-category", *NEW_NUMBERS}, summary["changes"]
        assert tree(root) == before
        compare(export, folder / "clean", Broken(export))
        for split, name in export.files:
            assert (folder / "clean" / split / name).read_bytes() == export.files[split, name]


# Broken exports


def compare(valid: Export, cleaned_root: Path, broken: Broken) -> None:
    """Assert that a cleaned folder holds what was not touched, unchanged, and what was, mended."""
    cleaned = {split: json.loads(text) for split, text in jsons(cleaned_root).items()}
    assert set(cleaned) == set(valid.splits)
    for split, coco in cleaned.items():
        source = valid.splits[split]
        assert (coco["info"], coco["licenses"]) == (source["info"], source["licenses"])
        # Images
        originals = {i["file_name"]: i for i in source["images"]}
        kept = [name for name in originals if (split, name) not in broken.dropped_images]
        listed = [image["file_name"] for image in coco["images"]]
        assert listed[: len(kept)] == kept
        assert {(split, name) for name in listed[len(kept) :]} <= broken.added
        for image in coco["images"][: len(kept)]:
            if (split, image["file_name"]) not in broken.images:
                assert plain(image) == plain(originals[image["file_name"]])
        on_disk = {path.name for path in (cleaned_root / split).iterdir()}
        assert on_disk == {*listed, ANNOTATION_FILE}
        # Categories
        names, given_names = names_of(coco), names_of(source)
        had = {number: name for number, name in given_names.items() if name != "all-things"}
        assert list(names.values()) == list(had.values())
        # Annotations
        assert [a["id"] for a in coco["annotations"]] == [*range(1, len(coco["annotations"]) + 1)]
        valid_ones = {tag(a): a for a in source["annotations"]}
        now = {tag(a): a for a in broken.export.splits[split]["annotations"] if _is_whole(a)}
        expected = [n for n in valid_ones if n in now and n not in broken.dropped]
        assert [tag(a) for a in coco["annotations"]] == expected
        images = {image["id"]: image for image in coco["images"]}
        for annotation in coco["annotations"]:
            original = valid_ones[tag(annotation)]
            assert names[annotation["category_id"]] == given_names[original["category_id"]]
            verdict = broken.verdicts.get(tag(annotation))
            if verdict is not None:
                verdict(original, annotation, images[annotation["image_id"]])
                continue
            as_given = now[tag(annotation)]
            free = ("id", "area") + (() if names == had else ("category_id",))
            assert plain(annotation, *free) == plain(as_given, *free)
            if as_given["segmentation"]:
                assert annotation["area"] == as_given["area"]


def _is_whole(annotation: Any) -> bool:
    return isinstance(annotation, dict) and "attributes" in annotation


def break_check_clean(fault: Fault, seed: int, k: int, *, again_and_again: bool) -> None:
    valid, broken = fault.random(seed, k)
    with written(valid) as (root, _):
        usual = counts(check_export(root, decode=False))
    with written(broken.export) as (root, folder):
        before = tree(root)
        report = check_export(root)
        judge_report(fault, broken, report, usual)
        summary = clean_dataset(root, folder / "clean")
        assert tree(root) == before
        if fault.code in KEPT_BY_CLEAN:
            assert fault.code not in summary["changes"]
        elif fault.code != "file-not-listed":
            assert summary["changes"].get(fault.code) == broken.count, summary["changes"]
        assert set(summary["changes"]) <= {*CODES, *CONSEQUENCES}, summary["changes"]
        compare(valid, folder / "clean", broken)
        again = check_export(folder / "clean")
        assert again["errors"] == 0, again["findings"]
        assert set(counts(again)) - KEPT_BY_CLEAN <= TRUE_OF_WHAT_IS_LEFT | {
            *("split-missing", "masks-none")
        }
        if again_and_again:
            clean_dataset(root, folder / "clean 2")
            assert tree(folder / "clean") == tree(folder / "clean 2")
            clean_dataset(folder / "clean", folder / "clean 3")
            assert jsons(folder / "clean 3") == jsons(folder / "clean")


def judge_report(fault: Fault, broken: Broken, report: dict[str, Any], usual: Counter[str]) -> None:
    """Assert that a report names the fault, as often as it is there, and nothing untrue."""
    found = counts(report)
    code = CODES[fault.code]
    assert found[code.name] - usual[code.name] == broken.count, (dict(found), dict(usual))
    new = {name for name in found if found[name] > usual[name]} - {code.name}
    assert new <= {*code.implies, *TRUE_OF_WHAT_IS_LEFT}, (new, code.implies)
    finding = next(entry for entry in report["findings"] if entry["code"] == code.name)
    assert finding["severity"] == code.severity
    errors = sum(1 for entry in report["findings"] if entry["severity"] == "error")
    assert report["errors"] == errors
    assert report["warnings"] == len(report["findings"]) - errors
    if not usual[code.name]:
        assert {s: n for s, n in finding["splits"].items() if n} == dict(broken.counts)
        assert len(finding["examples"]) == min(3, broken.count)
        for example in finding["examples"]:
            assert example["split"] in broken.counts
            if isinstance(example["file"], str) and example["file"]:
                assert example["file"] in broken.files


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_named_as_often_as_it_is_there_and_nothing_else_is_touched(
    fault: Fault,
) -> None:
    seed = zlib.crc32(fault.name.encode())
    with in_this_process():
        break_check_clean(fault, seed, 1 + seed % 4, again_and_again=False)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
@settings(max_examples=2)
@given(seed=SEEDS, k=st.integers(1, 5))
def test_some_random_exports_of_each_fault(fault: Fault, seed: int, k: int) -> None:
    with in_this_process():
        break_check_clean(fault, seed, k, again_and_again=True)

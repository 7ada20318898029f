"""Random valid exports, broken in k places in one way: `check` names it, `clean` mends only it."""

from __future__ import annotations

import contextlib
import io
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
from pycocotools.coco import COCO

from persondet.data.check import check_export
from persondet.data.clean import clean_dataset
from persondet.data.findings import CODES
from tests.data.exports import (
    ANNOTATION_FILE,
    KINDS,
    Export,
    complaints,
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


# The generator, by another judge


def test_the_random_exports_are_valid_by_plain_rules_and_load_in_pycocotools() -> None:
    for seed in range(40):
        export = random_export(seed)
        assert complaints(export) == []
        with written(export) as (root, _), contextlib.redirect_stdout(io.StringIO()):
            for split, coco in export.splits.items():
                loaded = COCO(str(root / export.folders[split] / ANNOTATION_FILE))
                assert len(loaded.anns) == len(coco["annotations"])
                for annotation in coco["annotations"]:
                    if annotation["segmentation"]:
                        assert loaded.annToMask(annotation).sum() == annotation["area"]


def test_every_code_about_an_annotation_or_an_image_has_a_way_to_break_it() -> None:
    of_splits_and_categories = {
        name
        for name in CODES
        if name.startswith(
            ("split-", "info-", "categor", "class", "grouping-", "masks-none", "no-")
        )
    }
    elsewhere = {"leak-near-identical", "leak-same-clip", "mask-formats-mixed"}
    assert {fault.code for fault in FAULTS} == set(CODES) - of_splits_and_categories - elsewhere


# Valid exports


def valid_survives(seed: int, kind: str) -> None:
    export = random_export(seed, kind)
    with written(export) as (root, folder):
        before = tree(root)
        report = check_export(root)
        found = {finding["code"]: finding for finding in report["findings"]}
        assert report["errors"] == 0, found
        assert set(found) <= TRUE_OF_WHAT_IS_LEFT - {"box-beside-mask"} | {
            "split-missing",
            "masks-none",
        }, found
        summary = clean_dataset(root, folder / "clean")
        assert set(summary["changes"]) <= {"grouping-category", *NEW_NUMBERS}, summary["changes"]
        assert tree(root) == before
        compare(export, folder / "clean", Broken(export))
        for split, name in export.files:
            assert (folder / "clean" / split / name).read_bytes() == export.files[split, name]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=3)
@given(seed=SEEDS)
def test_a_valid_export_has_no_error_and_cleaning_changes_nothing(kind: str, seed: int) -> None:
    with in_this_process():
        valid_survives(seed, kind)


# Broken exports


def compare(valid: Export, cleaned_root: Path, broken: Broken) -> None:
    """Assert that a cleaned folder holds what was not touched, unchanged, and what was, mended."""
    cleaned = {split: json.loads(text) for split, text in jsons(cleaned_root).items()}
    assert set(cleaned) == set(valid.splits)
    valid_images = {(s, i["file_name"]): i for s, i in valid.images()}
    for split, coco in cleaned.items():
        source = valid.splits[split]
        assert coco["info"] == source["info"]
        assert coco["licenses"] == source["licenses"]
        # Images
        kept = [n for s, n in valid_images if s == split and (s, n) not in broken.dropped_images]
        added = [n for s, n in broken.added if s == split]
        listed = [image["file_name"] for image in coco["images"]]
        assert listed[: len(kept)] == kept
        assert set(listed[len(kept) :]) <= set(added)
        for image in coco["images"][: len(kept)]:
            original = valid_images[split, image["file_name"]]
            if (split, image["file_name"]) in broken.images:
                continue
            assert plain(image) == plain(original)
        on_disk = {path.name for path in (cleaned_root / split).iterdir()}
        assert on_disk == {*listed, ANNOTATION_FILE}
        # Categories
        had = [name for name in names_of(source).values() if name != "all-things"]
        assert list(names_of(coco).values()) == had
        renumbered = list(names_of(coco)) != [
            n for n, name in names_of(source).items() if name in had
        ]
        # Annotations
        assert [a["id"] for a in coco["annotations"]] == list(
            range(1, len(coco["annotations"]) + 1)
        )
        originals = {tag(a): a for a in source["annotations"]}
        now = {tag(a): a for a in broken.export.splits[split]["annotations"] if _is_whole(a)}
        tags = [tag(a) for a in coco["annotations"]]
        expected = [n for n in originals if n in now and n not in broken.dropped]
        assert tags == expected
        images = {image["id"]: image for image in coco["images"]}
        for annotation in coco["annotations"]:
            original = originals[tag(annotation)]
            assert (
                names_of(coco)[annotation["category_id"]]
                == names_of(source)[original["category_id"]]
            )
            free = ("id", "area") + (("category_id",) if renumbered else ())
            verdict = broken.verdicts.get(tag(annotation))
            if verdict is None:
                as_given = now.get(tag(annotation), original)
                assert plain(annotation, *free) == plain(as_given, *free)
                if as_given["segmentation"]:
                    assert annotation["area"] == original_area(as_given, original)
            else:
                verdict(original, annotation, images[annotation["image_id"]])


def original_area(as_given: dict[str, Any], original: dict[str, Any]) -> float:
    """The area under the mask: breakers that change the mask and keep it give its true area."""
    area: float = (as_given if as_given["segmentation"] != original["segmentation"] else original)[
        "area"
    ]
    return area


def _is_whole(annotation: Any) -> bool:
    return isinstance(annotation, dict) and "attributes" in annotation


def break_check_clean(fault: Fault, seed: int, k: int) -> None:
    valid, broken = fault.random(seed, k)
    with written(valid) as (root, _):
        usual = counts(check_export(root))
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
        break_check_clean(fault, seed, 1 + seed % 4)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
@settings(max_examples=5)
@given(seed=SEEDS, k=st.integers(1, 5))
def test_some_random_exports_of_each_fault(fault: Fault, seed: int, k: int) -> None:
    with in_this_process():
        break_check_clean(fault, seed, k)

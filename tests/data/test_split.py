"""Merging and splitting: nothing is lost, cut or told apart wrongly."""

from __future__ import annotations

import copy
import json
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.data.check.text import split_lines
from persondet.data.inspect.images import ImageFacts
from persondet.data.split import check_fractions, merge_coco, split_coco, split_export
from persondet.errors import DatasetError, OutputExistsError
from tests.data.leaks.scenes import COPIES, scene

JSON = "_annotations.coco.json"


def dataset(names: list[str], people: list[int]) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for image, count in enumerate(people):
        for _ in range(count):
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": image,
                    "category_id": 1,
                    "bbox": [1, 2, 3, image],
                }
            )
    return {
        "info": {"year": "2024"},
        "images": [
            {"id": i, "file_name": name, "width": 9, "height": 9, "extra": {"key": i}}
            for i, name in enumerate(names)
        ],
        "licenses": [{"id": 1}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}],
        "ours": "stays",
    }


def placed(splits: dict[str, Any]) -> dict[str, str]:
    return {image["file_name"]: split for split, c in splits.items() for image in c["images"]}


@st.composite
def datasets(draw: st.DrawFn) -> dict[str, Any]:
    versions = draw(st.lists(st.integers(1, 4), max_size=20))
    names = [
        f"street_{source}_jpg.rf.{version}.jpg"
        for source, count in enumerate(versions)
        for version in range(count)
    ]
    people = draw(st.lists(st.integers(0, 5), min_size=len(names), max_size=len(names)))
    return dataset(names, people)


@settings(max_examples=40)
@given(datasets(), st.sampled_from([(0.7, 0.2, 0.1), (0.5, 0.5, 0), (1, 0, 0)]), st.integers(0, 9))
def test_nothing_is_lost_changed_or_cut(coco, fractions, seed):
    before = json.dumps(coco)
    division = split_coco(coco, fractions=fractions, seed=seed)
    assert json.dumps(coco) == before
    for key in ("images", "annotations"):
        records = [record for part in division.splits.values() for record in part[key]]
        assert sorted(map(json.dumps, records)) == sorted(map(json.dumps, coco[key]))
    for part in division.splits.values():
        ids = {image["id"] for image in part["images"]}
        assert all(annotation["image_id"] in ids for annotation in part["annotations"])
        assert list(part) == list(coco)
        assert all(part[key] == coco[key] for key in ("info", "licenses", "categories", "ours"))
        assert part["images"] == [i for i in coco["images"] if i["id"] in ids]  # in their order
    sources: dict[str, set[str]] = {}
    for name, split in placed(division.splits).items():
        sources.setdefault(name.partition(".rf.")[0], set()).add(split)
    assert all(len(splits) == 1 for splits in sources.values())
    total, largest = len(coco["images"]), division.summary["groups"]["largest"]
    for split, fraction in zip(("train", "valid", "test"), fractions, strict=True):
        images = len(division.splits.get(split, {"images": ()})["images"])
        assert abs(images - fraction * total) <= largest + 1
        if fraction > 0 and len(sources) >= 3:
            assert images > 0
        if fraction == 0:
            assert images == 0


@settings(max_examples=20)
@given(datasets(), st.randoms(use_true_random=False))
def test_the_order_of_the_json_does_not_matter(coco, chance: random.Random):
    expected = placed(split_coco(coco, seed=3).splits)
    chance.shuffle(coco["images"])
    chance.shuffle(coco["annotations"])
    assert placed(split_coco(coco, seed=3).splits) == expected


def test_another_seed_is_another_division():
    coco = dataset([f"{i}.jpg" for i in range(30)], [1] * 30)
    results = {tuple(placed(split_coco(coco, seed=s).splits).items()) for s in range(4)}
    assert len(results) == 4


def test_the_same_bytes_and_clips_stay_together():
    coco = dataset(
        [f"walk_mp4-{i}.jpg" for i in range(20)] + [f"{i}.jpg" for i in range(20)], [1] * 40
    )
    facts = {f"{i}.jpg": ImageFacts(digest=bytes([i // 10])) for i in range(20)}
    where = placed(split_coco(coco, facts=[facts]).splits)
    for ten in (range(10), range(10, 20)):
        assert len({where[f"{i}.jpg"] for i in ten}) == 1
    assert len({where[f"walk_mp4-{i}.jpg"] for i in range(20)}) > 1
    where = placed(split_coco(coco, facts=[facts], group_clips=True).splits)
    assert len({where[f"walk_mp4-{i}.jpg"] for i in range(20)}) == 1


def test_what_could_not_be_helped_is_said():
    coco = dataset(
        [f"a_jpg.rf.{i}.jpg" for i in range(90)] + [f"{i}.jpg" for i in range(10)], [1] * 100
    )
    notes = split_coco(coco).summary["notes"]
    assert notes[0] == (
        "A group of 90 images (the first is 'a_jpg.rf.0.jpg') is larger than the share of train, "
        "70, and was not cut."
    )
    assert any(note.startswith("train has 90 images instead of 70") for note in notes)
    few = split_coco(dataset(["a.jpg", "b.jpg"], [1, 1])).summary
    assert (
        "test would be empty and is not written: 2 groups of images for 3 splits." in few["notes"]
    )
    assert set(few["splits"]) == {"train", "valid"}
    assert split_coco(dataset([f"{i}.jpg" for i in range(50)], [1] * 50)).summary["notes"] == []


def test_faults_go_to_train_as_they_are():
    coco = dataset([f"{i}.jpg" for i in range(20)], [1] * 20)
    strange: list[Any] = [{"id": 70}, {"id": "x", "file_name": "x.jpg"}, None]
    orphans = [{"id": 80, "image_id": 99, "category_id": 1}, {"image_id": None}, 4]
    coco["images"] += strange
    coco["annotations"] += orphans
    facts = {"3.jpg": ImageFacts("file-missing")}
    division = split_coco(coco, facts=[facts])
    assert [i for i in division.splits["train"]["images"] if i in strange] == strange
    assert division.splits["train"]["annotations"][-3:] == orphans
    assert (
        placed(
            {
                k: {"images": [i for i in v["images"] if i not in strange]}
                for k, v in division.splits.items()
            }
        )["3.jpg"]
        == "train"
    )
    notes = division.summary["notes"]
    assert any("4 image records" in note for note in notes)
    assert any("3 annotations without an image" in note for note in notes)


@pytest.mark.parametrize(
    "fractions",
    [(7, 2, 1), (0, 0.5, 0.5), (0.5, 0.5), (0.8, 0.3, -0.1), (float("nan"), 0, 1), (0.7, 0.2, 0.2)],
)
def test_fractions_that_are_none(fractions):
    with pytest.raises(DatasetError, match=r"--fractions 0\.7 0\.2 0\.1"):
        check_fractions(fractions)


def test_fractions():
    assert check_fractions((1, 0, 0)) == (1, 0, 0)
    assert sum(check_fractions((1 / 3, 1 / 3, 0.3333333))) == pytest.approx(1, abs=1e-15)


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """A flat export of 12 scenes, 4 of which have copies that only their pixels betray."""
    root = tmp_path / "flat"
    root.mkdir()
    rng = np.random.default_rng(5)
    names = []
    for number in range(12):
        picture = scene(rng)
        versions = {f"{number}.jpg": picture}
        if number < 4:
            versions[f"copy {number}.png"] = COPIES[sorted(COPIES)[3 * number]](picture)
        for name, pixels in versions.items():
            assert cv2.imwrite(str(root / name), pixels)
            names.append(name)
    (root / JSON).write_text(json.dumps(dataset(names, [i % 3 for i in range(16)])))
    (root / "README.dataset.txt").write_text("CC0")
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_split_export_keeps_copies_together(flat: Path, tmp_path: Path):
    before = contents(flat)
    seen: list[tuple[int, int | None]] = []
    summary = split_export(flat, tmp_path / "out", workers=1, progress=lambda *a: seen.append(a))
    assert contents(flat) == before
    assert seen[-1] == (16, 16)
    where = {}
    for split in ("train", "valid", "test"):
        coco = json.loads((tmp_path / "out" / split / JSON).read_text())
        for image in coco["images"]:
            where[image["file_name"]] = split
            path = tmp_path / "out" / split / image["file_name"]
            assert os.path.samefile(path, flat / image["file_name"])  # a hard link
    assert len(where) == 16
    assert all(where[f"{i}.jpg"] == where[f"copy {i}.png"] for i in range(4))
    assert summary["groups"] == {"count": 12, "of_several": 4, "largest": 2}
    assert json.loads((tmp_path / "out/splitting.json").read_text()) == summary
    assert (tmp_path / "out/README.dataset.txt").read_text() == "CC0"
    text = "\n".join(split_lines(summary))
    assert "4 groups of versions or near copies stay together" in text
    assert str(tmp_path) not in (tmp_path / "out/splitting.json").read_text()


def test_the_same_seed_gives_the_same_bytes(flat: Path, tmp_path: Path):
    split_export(flat, tmp_path / "a", seed=4, workers=1)
    split_export(flat, tmp_path / "b", seed=4, workers=1)
    split_export(flat, tmp_path / "c", seed=5, workers=1)
    assert contents(tmp_path / "a") == contents(tmp_path / "b") != contents(tmp_path / "c")


def test_splits_are_merged_first(tmp_path: Path, export_writer: Callable[..., None]):
    root = tmp_path / "export"
    export_writer(root, {"train": 6, "valid": 4})
    first = sorted((root / "train").glob("*.jpg"))[0]
    coco = json.loads((root / "valid" / JSON).read_text())
    old = coco["images"][0]["file_name"]
    (root / "valid" / old).rename(root / "valid" / first.name)
    coco["images"][0]["file_name"] = first.name
    (root / "valid" / JSON).write_text(json.dumps(coco))
    digests = Counter(p.read_bytes() for p in root.rglob("*.jpg"))
    summary = split_export(root, tmp_path / "out", fractions=(0.5, 0.3, 0.2), workers=1)
    assert summary["notes"][0] == "train and valid of the export were merged and divided anew."
    new = f"{first.stem}_2.jpg"
    assert summary["renamed"] == [{"from": f"valid/{first.name}", "to": new}]
    assert f"valid/{first.name}" in "\n".join(split_lines(summary))
    assert Counter(p.read_bytes() for p in (tmp_path / "out").rglob("*.jpg")) == digests
    for split in ("train", "valid", "test"):
        part = json.loads((tmp_path / "out" / split / JSON).read_text())
        assert all((tmp_path / "out" / split / i["file_name"]).is_file() for i in part["images"])


def test_a_missing_file_is_not_invented(flat: Path, tmp_path: Path):
    (flat / "11.jpg").unlink()
    split_export(flat, tmp_path / "out", workers=1)
    train = json.loads((tmp_path / "out/train" / JSON).read_text())
    assert "11.jpg" in {image["file_name"] for image in train["images"]}
    assert not list((tmp_path / "out").rglob("11.jpg"))


@pytest.mark.parametrize("name", ["/etc/hostname", "../x.jpg", "link.jpg"])
def test_names_that_lead_out_are_refused(flat: Path, tmp_path: Path, name: str):
    (tmp_path / "x.jpg").write_bytes((flat / "0.jpg").read_bytes())
    (flat / "link.jpg").symlink_to(tmp_path / "x.jpg")
    coco = json.loads((flat / JSON).read_text())
    coco["images"][0]["file_name"] = name
    (flat / JSON).write_text(json.dumps(coco))
    with pytest.raises(DatasetError, match="leads out of its folder.*clean"):
        split_export(flat, tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_unasked(flat: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        split_export(flat, out, workers=1)
    assert (out / "mine.txt").read_text() == "mine"
    split_export(flat, out, overwrite=True, workers=1)
    assert not (out / "mine.txt").exists()
    with pytest.raises(DatasetError, match="beside"):
        split_export(flat, flat / "inside", workers=1)


def test_an_ambiguous_id_is_refused_with_the_folder(flat: Path, tmp_path: Path):
    coco = json.loads((flat / JSON).read_text())
    coco["images"][1]["id"] = 0
    (flat / JSON).write_text(json.dumps(coco))
    with pytest.raises(DatasetError, match="flat: the image id 0 stands for.*clean first"):
        split_export(flat, tmp_path / "out", workers=1)


def coco(names: list[str], *, first: int = 0, category: tuple[int, str] = (1, "person")) -> Any:
    return {
        "info": {"description": names[0]},
        "images": [
            {"id": first + i, "file_name": name, "width": 9, "height": 9}
            for i, name in enumerate(names)
        ],
        "annotations": [
            {"id": first + i, "image_id": first + i, "category_id": category[0], "name": name}
            for i, name in enumerate(names)
        ],
        "categories": [{"id": category[0], "name": category[1]}],
    }


def owners(merged: Any) -> list[tuple[str, str]]:
    """For each annotation its own name, and the file name of its image."""
    images = {image["id"]: image["file_name"] for image in merged["images"]}
    return [(a["name"], images[a["image_id"]]) for a in merged["annotations"]]


def test_a_single_one_stays_as_it_is():
    one = coco(["a.jpg", "b.jpg"])
    merged = merge_coco([one])
    assert merged.coco is one
    assert merged.origins == [(0, "a.jpg"), (0, "b.jpg")]


def test_colliding_ids_are_told_apart_with_their_annotations():
    parts = [coco(["a.jpg", "b.jpg"]), coco(["c.jpg"]), coco(["d.jpg", "e.jpg"], first=-3)]
    before = copy.deepcopy(parts)
    merged = merge_coco(parts).coco
    assert parts == before
    for key in ("images", "annotations"):
        ids = [record["id"] for record in merged[key]]
        assert len(set(ids)) == 5
    assert [record["id"] for record in merged["images"]][:2] == [0, 1]
    assert owners(merged) == [(f"{n}.jpg", f"{n}.jpg") for n in "abcde"]
    assert merged["info"] == {"description": "a.jpg"}


def test_ids_that_do_not_collide_stay():
    merged = merge_coco([coco(["a.jpg"], first=5), coco(["b.jpg"], first=2)]).coco
    assert [record["id"] for record in merged["images"]] == [5, 2]


def test_file_names_that_collide_get_a_number():
    merged = merge_coco(
        [coco(["a.jpg", "d/a_2.jpg"]), coco(["a.jpg", "a_2.jpg"]), coco(["a.jpg", "d/a_2.jpg"])]
    )
    names = [image["file_name"] for image in merged.coco["images"]]
    assert names == ["a.jpg", "d/a_2.jpg", "a_3.jpg", "a_2.jpg", "a_4.jpg", "d/a_2_2.jpg"]
    assert [name for _, name in merged.origins] == [
        "a.jpg",
        "d/a_2.jpg",
        "a.jpg",
        "a_2.jpg",
        "a.jpg",
        "d/a_2.jpg",
    ]


@pytest.mark.parametrize(
    ("second", "categories", "annotation"),
    [
        ((1, "person"), [(1, "person")], 1),
        ((4, "person"), [(1, "person")], 1),
        ((4, "dog"), [(1, "person"), (4, "dog")], 4),
        ((1, "dog"), [(1, "person"), (2, "dog")], 2),
    ],
)
def test_classes_are_one_when_their_names_are(second, categories, annotation):
    merged = merge_coco([coco(["a.jpg"]), coco(["b.jpg"], category=second)]).coco
    assert [(c["id"], c["name"]) for c in merged["categories"]] == categories
    assert merged["annotations"][1]["category_id"] == annotation


def test_two_classes_of_one_name_stay_two():
    one = coco(["a.jpg"])
    one["categories"] = [{"id": 0, "name": "Person"}, {"id": 1, "name": "Person"}]
    other = copy.deepcopy(one)
    merged = merge_coco([one, other]).coco
    assert merged["categories"] == one["categories"]


def test_an_id_of_two_images_is_refused():
    one = coco(["a.jpg", "b.jpg"])
    one["images"][1]["id"] = 0
    with pytest.raises(DatasetError, match=r"id 0 .*'a.jpg'.*'b.jpg'.*clean first"):
        merge_coco([one])
    one["images"][1]["file_name"] = "a.jpg"  # listed twice, and clear
    merge_coco([one])


def test_faults_stay_faults():
    one, other = coco(["a.jpg"]), coco(["b.jpg"])
    strange: list[Any] = [None, 3, {"id": None}, {"id": "7", "file_name": 4}, {"id": True}]
    other["images"] += strange
    other["annotations"] += [*strange, {"id": 0, "image_id": 99, "category_id": None}]
    other["categories"] += [None, {"id": "x"}, {"id": 3, "name": None}]
    merged = merge_coco([one, other])
    assert merged.coco["images"][2:] == strange
    assert merged.coco["annotations"][2:-1] == strange
    orphan = merged.coco["annotations"][-1]
    assert orphan["image_id"] not in {image["id"] for image in merged.coco["images"][:2]}
    assert merged.coco["categories"][1:] == other["categories"][1:]
    assert merged.origins[2:] == [(1, None), (1, None), (1, None), (1, 4), (1, None)]

"""Merging and splitting: nothing is lost, cut or told apart wrongly."""

import copy
import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.data.check.text import split_lines
from persondet.data.inspect.images import ImageFacts
from persondet.data.split import check_fractions, deal_groups, merge_coco, split_coco, split_export
from persondet.errors import DatasetError
from tests.data.exports import edit, read_splits
from tests.data.fetch.conftest import contents
from tests.data.leaks.scenes import COPIES, scene

JSON = "_annotations.coco.json"
SPLITS = ("train", "valid", "test")


def dataset(names: list[str], people: list[int], first: int = 0) -> dict[str, Any]:
    annotations = [
        {"id": first + n, "image_id": first + image, "category_id": 1, "bbox": [1, 2, 3, image]}
        for n, image in enumerate(i for i, count in enumerate(people) for _ in range(count))
    ]
    return {
        "info": {"description": names[0] if names else ""},
        "images": [
            {"id": first + i, "file_name": name, "width": 9, "height": 9}
            for i, name in enumerate(names)
        ],
        "licenses": [{"id": 1}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}],
        "ours": "stays",
    }


def single(count: int) -> dict[str, Any]:
    return dataset([f"{i}.jpg" for i in range(count)], [1] * count)


def placed(splits: dict[str, Any]) -> dict[str, str]:
    return {image["file_name"]: split for split, c in splits.items() for image in c["images"]}


# Groups


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 20)), max_size=25),
    st.sampled_from([(0.7, 0.2, 0.1), (0.5, 0.5, 0.0), (1.0, 0.0, 0.0), (0.34, 0.33, 0.33)]),
    st.integers(0, 5),
)
def test_shares_are_as_close_as_groups_allow(sizes, fractions, seed):
    groups = [(images, people, 0) for images, people in sizes]
    dealt = deal_groups(groups, fractions, seed)
    assert dealt == deal_groups(groups, fractions, seed)
    assert len(dealt) == len(groups)
    wanted = {split for split, fraction in enumerate(fractions) if fraction > 0}
    assert set(dealt) <= wanted
    assert len(set(dealt)) == min(len(wanted), len(groups))
    counts = [images for images, _ in sizes]
    for split in wanted:
        got = sum(g[0] for g, s in zip(groups, dealt, strict=True) if s == split)
        assert abs(got - fractions[split] * sum(counts)) <= max(counts, default=1) + 1


def test_single_images_come_out_to_the_image_and_people_alike():
    people = [0] * 30 + [1] * 40 + [12] * 30
    groups = [(1, count, int(not count)) for count in people]
    for seed in range(3):
        dealt = deal_groups(groups, (0.7, 0.2, 0.1), seed)
        assert Counter(dealt) == {0: 70, 1: 20, 2: 10}
        for split in range(3):
            mine = [count for count, s in zip(people, dealt, strict=True) if s == split]
            assert abs(sum(mine) / len(mine) - 4.0) < 0.15
            assert abs(mine.count(0) / len(mine) - 0.3) < 0.06


# A COCO dict


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
@given(datasets(), st.sampled_from([(0.7, 0.2, 0.1), (0.5, 0.5, 0), (1, 0, 0)]), st.randoms())
def test_nothing_is_lost_changed_or_cut_whatever_the_order(coco, fractions, chance: random.Random):
    before = copy.deepcopy(coco)
    division = split_coco(coco, fractions=fractions, seed=3)
    assert coco == before
    for key in ("images", "annotations"):
        records = [record for part in division.splits.values() for record in part[key]]
        assert sorted(map(json.dumps, records)) == sorted(map(json.dumps, coco[key]))
    sources: dict[str, set[str]] = {}
    for split, part in division.splits.items():
        ids = {image["id"] for image in part["images"]}
        assert all(annotation["image_id"] in ids for annotation in part["annotations"])
        assert all(part[key] == coco[key] for key in ("info", "licenses", "categories", "ours"))
        assert part["images"] == [i for i in coco["images"] if i["id"] in ids]  # in their order
        for image in part["images"]:
            sources.setdefault(image["file_name"].partition(".rf.")[0], set()).add(split)
    assert all(len(splits) == 1 for splits in sources.values())
    total, largest = len(coco["images"]), division.summary["groups"]["largest"]
    for split, fraction in zip(SPLITS, fractions, strict=True):
        images = len(division.splits.get(split, {"images": ()})["images"])
        assert abs(images - fraction * total) <= largest + 1
    chance.shuffle(coco["images"])
    chance.shuffle(coco["annotations"])
    again = split_coco(coco, fractions=fractions, seed=3)
    assert placed(again.splits) == placed(division.splits)


def test_the_same_bytes_and_clips_stay_together():
    coco = dataset(
        [f"walk_mp4-{i}.jpg" for i in range(20)] + [f"{i}.jpg" for i in range(20)], [1] * 40
    )
    facts = {f"{i}.jpg": ImageFacts(digest=bytes([i // 10])) for i in range(20)}
    for clips in (False, True):
        where = placed(split_coco(coco, facts=[facts], group_clips=clips).splits)
        for ten in (range(10), range(10, 20)):
            assert len({where[f"{i}.jpg"] for i in ten}) == 1
        assert (len({where[f"walk_mp4-{i}.jpg"] for i in range(20)}) == 1) == clips


def test_what_could_not_be_helped_is_said():
    names = [f"a_jpg.rf.{i}.jpg" for i in range(90)] + [f"{i}.jpg" for i in range(10)]
    large, off = split_coco(dataset(names, [1] * 100)).summary["notes"][:2]
    assert "90 images (the first is 'a_jpg.rf.0.jpg')" in large
    assert off.startswith("train has 90 images instead of 70")
    few = split_coco(single(2)).summary
    assert "test would be empty" in few["notes"][0]
    assert set(few["splits"]) == {"train", "valid"}
    assert split_coco(single(50)).summary["notes"] == []


def test_faults_go_to_train_as_they_are():
    coco = single(20)
    strange: list[Any] = [{"id": 70}, {"id": "x", "file_name": "x.jpg"}, None]
    orphans = [{"id": 80, "image_id": 99, "category_id": 1}, {"image_id": None}, 4]
    coco["images"] += strange
    coco["annotations"] += orphans
    division = split_coco(coco, facts=[{"3.jpg": ImageFacts("file-missing")}])
    train, notes = division.splits["train"], " ".join(division.summary["notes"])
    assert train["images"][-3:] == strange
    assert "3.jpg" in {image["file_name"] for image in train["images"][:-3]}
    assert train["annotations"][-3:] == orphans
    assert "4 image records" in notes and "3 annotations without an image" in notes


def test_fractions_that_are_none():
    nan = float("nan")
    for fractions in ((7, 2, 1), (0, 0.5, 0.5), (0.5, 0.5), (0.8, 0.3, -0.1), (nan, 0, 1)):
        with pytest.raises(DatasetError, match=r"--fractions 0\.7 0\.2 0\.1"):
            check_fractions(fractions)
    assert check_fractions((1, 0, 0)) == (1, 0, 0)
    assert sum(check_fractions((1 / 3, 1 / 3, 0.3333333))) == pytest.approx(1, abs=1e-15)


# An export on disk


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


def test_copies_stay_together_and_the_same_seed_gives_the_same_bytes(flat: Path, tmp_path: Path):
    before, out = contents(flat), tmp_path / "out"
    seen: list[tuple[int, int | None]] = []
    summary = split_export(flat, out, workers=1, progress=lambda *a: seen.append(a))
    assert contents(flat) == before
    assert seen[-1] == (16, 16)
    where = placed(read_splits(out))
    assert len(where) == 16
    assert all(os.path.samefile(out / split / name, flat / name) for name, split in where.items())
    assert all(where[f"{i}.jpg"] == where[f"copy {i}.png"] for i in range(4))
    assert summary["groups"] == {"count": 12, "of_several": 4, "largest": 2}
    assert json.loads((out / "splitting.json").read_text()) == summary
    assert str(tmp_path) not in (out / "splitting.json").read_text()
    assert (out / "README.dataset.txt").read_text() == "CC0"
    assert "4 groups of versions or near copies stay together" in "\n".join(split_lines(summary))
    split_export(flat, tmp_path / "again", workers=1)
    split_export(flat, tmp_path / "other", seed=5, workers=1)
    assert contents(out) == contents(tmp_path / "again") != contents(tmp_path / "other")


def test_splits_are_merged_first(tmp_path: Path, export_writer: Any):
    root, out = tmp_path / "export", tmp_path / "out"
    export_writer(root, {"train": 6, "valid": 4})
    first = sorted((root / "train").glob("*.jpg"))[0]

    def rename(coco: dict[str, Any]) -> None:
        (root / "valid" / coco["images"][0]["file_name"]).rename(root / "valid" / first.name)
        coco["images"][0]["file_name"] = first.name

    edit(root, rename, "valid")
    digests = Counter(p.read_bytes() for p in root.rglob("*.jpg"))
    summary = split_export(root, out, fractions=(0.5, 0.3, 0.2), workers=1)
    assert summary["notes"][0].startswith("train and valid of the export were merged")
    assert summary["renamed"] == [{"from": f"valid/{first.name}", "to": f"{first.stem}_2.jpg"}]
    assert f"valid/{first.name}" in "\n".join(split_lines(summary))
    assert Counter(p.read_bytes() for p in out.rglob("*.jpg")) == digests
    assert all((out / split / name).is_file() for name, split in placed(read_splits(out)).items())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"file_name": "/etc/hostname"}, "leads out of its folder.*clean"),
        ({"file_name": "../x.jpg"}, "leads out of its folder.*clean"),
        ({"file_name": "link.jpg"}, "leads out of its folder.*clean"),
        ({"id": 0}, r"flat: the image id 0 .*'0.jpg'.*clean first"),
    ],
)
def test_names_that_lead_out_and_ambiguous_ids_are_refused(flat, tmp_path, change, says):
    (tmp_path / "x.jpg").write_bytes((flat / "0.jpg").read_bytes())
    (flat / "link.jpg").symlink_to(tmp_path / "x.jpg")
    edit(flat, lambda coco: coco["images"][1].update(change), "")
    with pytest.raises(DatasetError, match=says):
        split_export(flat, tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


# Merging


def one(*names: str, first: int = 0, category: tuple[int, str] = (1, "person")) -> dict[str, Any]:
    coco = dataset(list(names), [1] * len(names), first)
    coco["categories"] = [{"id": category[0], "name": category[1]}]
    for annotation, name in zip(coco["annotations"], names, strict=True):
        annotation |= {"category_id": category[0], "name": name}
    return coco


def test_ids_are_told_apart_with_their_annotations_where_they_collide():
    alone = one("a.jpg", "b.jpg")
    merged, origins = merge_coco([alone])
    assert merged is alone
    assert origins == [(0, "a.jpg"), (0, "b.jpg")]
    parts = [alone, one("c.jpg"), one("d.jpg", "e.jpg", first=-3)]
    before = copy.deepcopy(parts)
    merged, _ = merge_coco(parts)
    assert parts == before
    for key in ("images", "annotations"):
        assert len({record["id"] for record in merged[key]}) == 5
    assert [image["id"] for image in merged["images"]][:2] == [0, 1]
    images = {image["id"]: image["file_name"] for image in merged["images"]}
    assert [(a["name"], images[a["image_id"]]) for a in merged["annotations"]] == [
        (f"{n}.jpg", f"{n}.jpg") for n in "abcde"
    ]
    assert merged["info"] == {"description": "a.jpg"}
    merged, _ = merge_coco([one("a.jpg", first=5), one("b.jpg", first=2)])
    assert [record["id"] for record in merged["images"]] == [5, 2]


def test_file_names_that_collide_get_a_number():
    given_names = ["a.jpg", "d/a_2.jpg", "a.jpg", "a_2.jpg", "a.jpg", "d/a_2.jpg"]
    merged, origins = merge_coco([one(*given_names[i : i + 2]) for i in (0, 2, 4)])
    names = [image["file_name"] for image in merged["images"]]
    assert names == ["a.jpg", "d/a_2.jpg", "a_3.jpg", "a_2.jpg", "a_4.jpg", "d/a_2_2.jpg"]
    assert [name for _, name in origins] == given_names


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
    merged, _ = merge_coco([one("a.jpg"), one("b.jpg", category=second)])
    assert [(c["id"], c["name"]) for c in merged["categories"]] == categories
    assert merged["annotations"][1]["category_id"] == annotation


def test_faults_stay_faults():
    first, other = one("a.jpg"), one("b.jpg")
    for coco in (first, other):  # two classes of one name stay two
        coco["categories"].append({"id": 0, "name": "person"})
    strange: list[Any] = [None, 3, {"id": None}, {"id": "7", "file_name": 4}, {"id": True}]
    other["images"] += strange
    other["annotations"] += [*strange, {"id": 0, "image_id": 99, "category_id": None}]
    other["categories"] += [None, {"id": "x"}, {"id": 3, "name": None}]
    merged, origins = merge_coco([first, other, one("c.jpg")])
    assert merged["images"][2:-1] == strange
    assert merged["annotations"][2:-2] == strange
    orphan = merged["annotations"][-2]
    assert orphan["image_id"] not in {image["id"] for image in merged["images"][:2]}
    assert merged["categories"] == other["categories"]
    assert origins[2:-1] == [(1, None), (1, None), (1, None), (1, 4), (1, None)]

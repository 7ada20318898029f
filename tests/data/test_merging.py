from __future__ import annotations

import copy
from typing import Any

import pytest

from persondet.data.merging import merge_coco
from persondet.errors import DatasetError


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

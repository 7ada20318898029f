"""What a job consists of: every clip and image once, each with a target of its own."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persondet.batch.items import IMAGES_PER_SHARD, ItemTable
from persondet.batch.store import Store
from persondet.errors import MediaError


def files_in(root, *names, size=1):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)


def items_of(root, **more):
    with ItemTable() as table:
        table.list_files(Store(root), **more)
        found = list(table)
        assert len(table) == len(found)
        return found


def test_the_largest_clip_comes_first_and_images_come_last(tmp_path):
    files_in(tmp_path, "a/small.mp4", "photo.jpg", size=5)
    files_in(tmp_path, "large.mov", size=50)
    files_in(tmp_path, "middle.MP4", size=20)
    names = [item.name for item in items_of(tmp_path)]
    assert names == ["large.mov", "middle.MP4", "a/small.mp4", "images-00000"]


def test_results_hidden_files_and_the_output_are_no_input(tmp_path):
    files_in(tmp_path, "a.mp4", "a_annotated.mp4", "b.partial.mp4", ".hidden.mp4", ".x/b.mp4")
    files_in(tmp_path, "out/c.mp4", "out/night/d.jpg", "outside.mp4", "e.txt")
    with ItemTable() as table:
        table.list_files(Store(tmp_path), besides="out")
        assert {item.name for item in table} == {"a.mp4", "outside.mp4"}
        assert table.others == 1


def test_a_folder_without_anything_to_do_is_refused(tmp_path):
    files_in(tmp_path, "notes.txt")
    with pytest.raises(MediaError, match="neither a clip nor an image"):
        items_of(tmp_path)
    with pytest.raises(MediaError, match="no folder"):
        items_of(tmp_path / "missing")


def test_shards_are_of_one_folder_and_hold_500_images(tmp_path):
    files_in(tmp_path, *(f"b/{number:04d}.jpg" for number in range(IMAGES_PER_SHARD + 2)))
    files_in(tmp_path, "a/1.png", "c.jpg")
    shards = {item.name: len(item.files) for item in items_of(tmp_path)}
    assert shards == {
        "images-00000": 1,
        "a/images-00000": 1,
        "b/images-00000": 500,
        "b/images-00001": 2,
    }


NAMES = st.lists(
    st.tuples(
        st.sampled_from(["", "a/", "a/b/", "ü/"]),
        st.sampled_from(["x", "x.mp4", "y", "x_annotated", "z z"]),
        st.sampled_from([".mp4", ".mkv", ".jpg", ".png", ".txt", ".MOV"]),
    ).map("".join),
    min_size=1,
    max_size=12,
    unique_by=str.lower,
)


@given(NAMES)
def test_every_clip_and_image_is_in_one_item_and_targets_differ(tmp_path_factory, names):
    root = tmp_path_factory.mktemp("names")
    files_in(root, *names)
    wanted = {n for n in names if not n.endswith(".txt")}
    wanted -= {
        n
        for n in names
        if os.path.splitext(n)[0].endswith("_annotated") and not n.endswith((".jpg", ".png"))
    }
    if not wanted:
        return
    items = items_of(root)
    listed = [file.name for item in items for file in item.files]
    assert sorted(listed) == sorted(wanted)
    targets = [item.target for item in items]
    assert len(set(targets)) == len(targets)
    assert all(os.path.dirname(i.target) == os.path.dirname(i.files[0].name) for i in items)

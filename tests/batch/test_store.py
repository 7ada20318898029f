"""A folder and an address behave alike."""

import uuid

import pytest

from persondet.batch.store import Store
from persondet.errors import InstallationError, MediaError


@pytest.fixture(params=["folder", "memory"])
def store(request, tmp_path):
    if request.param == "folder":
        return Store(tmp_path / "root")
    return Store(f"memory://{uuid.uuid4().hex}/root")


def test_what_is_published_is_there_whole_and_under_its_name(store):
    store.write("a/b.txt", b"first\nsecond")
    store.write("a/b.txt", b"third\nfourth")
    store.write(".hidden", b"x")
    assert store.exists("a/b.txt") and not store.exists("a/c.txt")
    assert store.first_line("a/b.txt") == b"third" and store.first_line("nothing") is None
    assert store.read("a/b.txt") == b"third\nfourth"
    with store.fetched("a/b.txt") as path:
        assert (path.name, path.read_bytes()) == ("b.txt", b"third\nfourth")
    assert [(name, size) for name, size, _ in store.walk()] == [("a/b.txt", 12)]
    store.remove("a/b.txt")
    store.remove("a/b.txt")
    assert not store.exists("a/b.txt")


@pytest.mark.parametrize("place", [0, 2**20 - 1, 2**20, 3 * 2**20 - 1])
def test_a_digest_sees_both_ends_of_a_file(store, place):
    content = bytearray(3 * 2**20)
    store.write("clip", bytes(content))
    before = store.digest("clip", len(content))
    content[place] = 1
    store.write("clip", bytes(content))
    seen = place < 2**20 or place >= 2 * 2**20
    assert (store.digest("clip", len(content)) != before) == seen


def test_a_changed_file_says_so(store):
    store.write("a", b"one")
    ((_, _, before),) = store.walk()
    store.write("a", b"two")
    ((_, _, after),) = store.walk()
    assert before and before != after


def test_an_address_that_nothing_opens_is_one_sentence():
    with pytest.raises((MediaError, InstallationError), match="nothing://"):
        list(Store("nothing://bucket/clips").walk())


def test_a_label_shows_no_password():
    assert "secret" not in Store("ftp://user:secret@host/clips").label

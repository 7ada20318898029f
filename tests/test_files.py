"""A folder appears under its name whole or not at all."""

import multiprocessing
import os
import signal

import pytest

from persondet.errors import DatasetError, OutputExistsError
from persondet.files import atomic_folder, atomic_path, leads_out, path_inside


def test_a_folder_appears_when_it_is_complete_and_what_fails_leaves_what_was_there(tmp_path):
    target = tmp_path / "deep" / "a b[1]"
    with atomic_folder(target) as draft:
        assert not target.exists() and draft.parent == target.parent
        (draft / "old").write_text("1")
    with pytest.raises(OutputExistsError, match="--overwrite"), atomic_folder(target):
        pass
    with pytest.raises(FileNotFoundError), atomic_folder(target, overwrite=True) as draft:
        (draft / "old").rename(target / "moved")
    assert os.listdir(target) == ["old"]
    with atomic_folder(target, overwrite=True) as draft:
        (draft / "new").write_text("2")
    assert os.listdir(target) == ["new"]
    assert os.listdir(target.parent) == ["a b[1]"]


def test_a_file_may_have_as_long_a_name_as_the_file_system_allows(tmp_path):
    path = tmp_path / ("x" * 251 + ".jpg")
    with atomic_path(path) as temporary:
        assert temporary.suffix == ".jpg"
        temporary.write_text("whole")
    assert [*tmp_path.iterdir()] == [path] and path.read_text() == "whole"


def test_what_a_killed_process_had_moved_away_is_put_back(tmp_path):
    old = tmp_path / ".out.abc.replaced"
    old.mkdir()
    (old / "precious").write_text("1")
    with pytest.raises(OutputExistsError), atomic_folder(tmp_path / "out"):
        pass
    assert os.listdir(tmp_path / "out") == ["precious"]
    assert os.listdir(tmp_path) == ["out"]


def _killed_in_the_middle(target):
    with atomic_folder(target) as draft:
        (draft / "half").write_text("1")
        os.kill(os.getpid(), signal.SIGKILL)


def test_the_next_start_removes_what_a_killed_one_left_and_nothing_else(tmp_path):
    process = multiprocessing.get_context("spawn").Process(
        target=_killed_in_the_middle, args=(tmp_path / "out",)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".out.")
    with atomic_folder(tmp_path / "out") as draft:
        assert os.listdir(tmp_path) == [draft.name]
        # One that is being written holds its lock: another start leaves it alone.
        with atomic_folder(tmp_path / "out") as other:
            (other / "y").write_text("1")
        assert draft.is_dir()
        (tmp_path / "out" / "y").unlink()
    assert os.listdir(tmp_path) == ["out"]


OUT = ["/x", "../x", "a/../../x", "C:\\x", "..\\x", "a\0", "..", "", "\ud800", "up/x", "link"]
INSIDE = ["x.jpg", "a/b.jpg", "a..b.jpg", "café (1).jpg", "./x.jpg", "within"]


@pytest.mark.parametrize("name", OUT + INSIDE)
def test_paths_cannot_lead_out_by_name_or_link(tmp_path, name):
    root = tmp_path / "root"
    root.mkdir()
    for link, target in {"up": tmp_path, "link": tmp_path / "x", "within": "x.jpg"}.items():
        (root / link).symlink_to(target)
    assert leads_out(name) == (name in OUT[:-2])
    if name in INSIDE:
        assert path_inside(root, name) == root / name
    else:
        with pytest.raises(DatasetError, match="leads out"):
            path_inside(root, name)

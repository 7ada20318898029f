"""Which checkpoint a resume takes, which are removed, and what a file may hold."""

import numpy as np
import pytest
import torch

from persondet.checkpoint.checkpointer import newest_checkpoint, plain, remove_old_checkpoints
from persondet.checkpoint.model_file import load_checkpoint
from persondet.errors import CheckpointError


def write(folder, name, iteration):
    path = folder / name
    torch.save({"model": {"w": torch.ones(99)}, "iteration": iteration}, path)
    return path


@pytest.fixture
def run(tmp_path):
    for iteration in (9, 19, 29):
        write(tmp_path, f"model_{iteration:07d}.pth", iteration)
    write(tmp_path, "model_best.pth", 99)
    (tmp_path / "last_checkpoint").write_text("model_0000029.pth")
    return tmp_path


def newest(folder):
    found = newest_checkpoint(folder)
    assert found is not None
    path, checkpoint = found
    assert checkpoint["model"]["w"].sum() == 99
    return path.name


@pytest.mark.parametrize("damage", ["truncated", "empty", "missing", "tag empty", "tag wrong"])
def test_trap_16_what_a_kill_leaves_is_passed_over(run, damage, caplog):
    path, tag = run / "model_0000029.pth", run / "last_checkpoint"
    if damage == "missing":
        path.unlink()
    elif damage.startswith("tag"):
        tag.write_text("" if damage == "tag empty" else "model_0000039.pth")
    else:
        path.write_bytes(path.read_bytes()[: 500 if damage == "truncated" else 0])
    expected = "model_0000029.pth" if damage.startswith("tag") else "model_0000019.pth"
    with caplog.at_level("WARNING", "persondet"):
        assert newest(run) == expected
    assert ("goes on from" in caplog.text) is (damage != "tag empty")


def test_nothing_is_none_and_nothing_loadable_is_one_sentence(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    write(tmp_path, "model_best.pth", 9)
    assert newest_checkpoint(tmp_path) is None
    (tmp_path / "last_checkpoint").touch()
    with pytest.raises(CheckpointError, match="last_checkpoint is empty"):
        newest_checkpoint(tmp_path)
    (tmp_path / "model_0000009.pth").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="no checkpoint of .* can be resumed") as caught:
        newest_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


def test_old_ones_go_and_best_final_and_foreign_ones_stay(run):
    for name in ("model_final.pth", "model_0000019_mine.pth", "model_0000039.pth"):
        (run / name).touch()
    remove_old_checkpoints(run, keep=2, iteration=29)
    kept = {path.name for path in run.glob("*.pth")}
    assert kept == {
        *("model_0000019.pth", "model_0000029.pth", "model_0000039.pth"),
        *("model_best.pth", "model_final.pth", "model_0000019_mine.pth"),
    }
    remove_old_checkpoints(run, keep=0, iteration=99)
    assert {path.name for path in run.glob("*.pth")} == kept


def test_numpy_in_a_checkpoint_becomes_plain(tmp_path):
    state = {
        "best": np.float64(1.5),
        "list": [np.int64(2), (np.bool_(True), None)],
        np.int64(3): np.arange(3),
        "text": np.str_("x"),
    }
    torch.save({"model": {"w": torch.ones(1)}, "s": plain(state)}, tmp_path / "m.pth")
    loaded = load_checkpoint(tmp_path / "m.pth")["s"]
    assert loaded["best"] == 1.5
    assert loaded["list"] == [2, (True, None)]
    assert torch.equal(loaded[3], torch.arange(3))
    assert loaded["text"] == "x"
    with pytest.raises(TypeError, match="cannot hold a Path|cannot hold a Posix"):
        plain({"path": tmp_path})

"""When a run folder may be used, which model is its model, and how it moves."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from persondet.checkpoint.model_file import CARRIED, CarriedFacts, load_checkpoint
from persondet.engine.run_folder import (
    find_model,
    move_run,
    refuse_used_folder,
    remove_run,
    reserved,
)
from persondet.errors import CheckpointError, OutputExistsError
from persondet.files import sha256_of_file


@pytest.mark.parametrize("mark", ["metrics.json", "model_0000099.pth", "results.json"])
def test_a_used_folder_is_refused_unless_asked(tmp_path: Path, mark: str) -> None:
    refuse_used_folder(tmp_path / "new", resume=False, overwrite=False)
    refuse_used_folder(tmp_path, resume=False, overwrite=False)
    (tmp_path / "metrics.json").touch()  # what a start that failed leaves
    refuse_used_folder(tmp_path, resume=False, overwrite=False)
    (tmp_path / mark).write_text("{}")
    with pytest.raises(OutputExistsError, match="--resume.*--overwrite"):
        refuse_used_folder(tmp_path, resume=False, overwrite=False)
    refuse_used_folder(tmp_path, resume=True, overwrite=False)
    refuse_used_folder(tmp_path, resume=False, overwrite=True)


def test_overwriting_removes_the_run_and_nothing_else(tmp_path: Path) -> None:
    for name in ("metrics.json", "model_final.pth", "my_notes.txt", "log.txt", "log.txt.rank1"):
        (tmp_path / name).touch()
    (tmp_path / "inference").mkdir()
    remove_run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.txt", "my_notes.txt"]


def train_for_long(folder: Path, told: Any) -> None:
    with reserved(folder):
        worker = os.fork()  # a loader's worker, which outlives a training that is killed
        if worker:
            told.send(worker)
        time.sleep(60)


def test_two_trainings_in_one_folder_are_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    (tmp_path / ".model_0000009.x1y2z3.pth").touch()  # half of a checkpoint, from a kill
    (tmp_path / "model_0000004.pth").touch()
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    first = fork.Process(target=train_for_long, args=(tmp_path, there))
    first.start()
    worker = here.recv()
    try:
        with (
            pytest.raises(OutputExistsError, match="another process is training"),
            reserved(tmp_path),
        ):
            raise AssertionError("two trainings in one folder")
        first.kill()
        first.join()
        with reserved(tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
    assert [path.name for path in tmp_path.iterdir()] == ["model_0000004.pth"]


def test_the_best_model_goes_before_the_final_and_the_newest(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no model_best.pth"):
        find_model(tmp_path)
    for name in ("model_0000009.pth", "model_0000019.pth", "model_final.pth", "model_best.pth"):
        (tmp_path / name).touch()
        assert find_model(tmp_path).name == name


def test_a_moved_run_names_its_new_place_and_the_old_result_goes_last(tmp_path: Path) -> None:
    work, output = tmp_path / ".demo.unfinished", tmp_path / "out" / "demo"
    (work / "pretrain").mkdir(parents=True)
    output.mkdir(parents=True)
    (output / "old.txt").touch()
    text = f"MODEL:\n  WEIGHTS: {work}/pretrain/model_final.pth\nOUTPUT_DIR: {work}\n"
    (work / "config.yaml").write_text(text)
    (work / "pretrain" / "config.yaml").write_text(f"OUTPUT_DIR: {work}/pretrain\n")
    digest = hashlib.sha256(text.encode()).hexdigest()
    (work / "weights.txt").write_text(f"{work}/pretrain/model_final.pth: 170 tensors loaded")
    (work / "provenance.json").write_text(f'{{"OUTPUT_DIR": "{work}", "sha256": "{digest}"}}')
    torch.save({"model": {"w": torch.ones(2)}, CARRIED: {"config": text}}, work / "model_best.pth")
    made_by = [
        *(
            "results.json",
            "inference/person_test/results.json",
            "inference/person_test/curves.json",
        ),
        *("inference/person_test/errors.json", "inference/person_test/gallery/gallery.json"),
    ]
    (work / "inference/person_test/gallery").mkdir(parents=True)
    old = sha256_of_file(work / "model_best.pth")
    for name in made_by:
        (work / name).write_text(json.dumps({"model": {"sha256": old}}))
    move_run(work, output)
    for name in made_by:
        model = json.loads((output / name).read_text())["model"]
        assert old != model["sha256"] == sha256_of_file(output / "model_best.pth")
    expected = text.replace(str(work), str(output))
    assert (output / "config.yaml").read_text() == expected
    record = json.loads((output / "provenance.json").read_text())
    assert record == {
        "OUTPUT_DIR": str(output),
        "sha256": hashlib.sha256((output / "config.yaml").read_bytes()).hexdigest(),
    }
    assert (output / "weights.txt").read_text().startswith(f"{output}/pretrain/model_final.pth: ")
    assert (output / "pretrain/config.yaml").read_text() == f"OUTPUT_DIR: {output}/pretrain\n"
    carried = CarriedFacts.from_checkpoint(load_checkpoint(output / "model_best.pth"))
    assert carried.config == expected
    assert not work.exists()
    assert not (output / "old.txt").exists()
    assert [path.name for path in output.parent.iterdir()] == ["demo"]

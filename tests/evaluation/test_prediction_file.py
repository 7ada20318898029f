"""Predictions on disk: what is written is read back, and the file is COCO's."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest

from persondet.errors import PersondetError
from persondet.evaluation.predictions import PredictionFile, remove_abandoned


def record(image_id: int, score: float) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "category_id": 3,
        "bbox": [0.1, 2.0, 3.5, 1e-5],
        "score": score,
        "segmentation": {"size": [4, 5], "counts": '0"\\'},
    }


def test_what_is_added_is_read_back_in_any_order_and_published_as_json(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.json"
    with PredictionFile(path.parent) as file:
        file.add(7, [record(7, 0.25), record(7, 1 / 3)])
        file.add(2, [])
        file.add(5, [record(5, 0.5)])
        assert [found.score for found in file.read(5)] == [0.5]
        file.add(7, [record(7, 0.75)])  # an image that is looked at twice
        file.publish(path)
        assert [found.score for found in file.read(7)] == [0.25, 1 / 3, 0.75]
        assert file.read(7)[0].segmentation == record(7, 0)["segmentation"]
        assert file.read(2) == [] and file.read(99) == []
        assert file.image_ids == [7, 2, 5] and not file.is_empty
    assert json.loads(path.read_text()) == [
        record(7, 0.25),
        record(7, 1 / 3),
        record(5, 0.5),
        record(7, 0.75),
    ]
    assert [entry.name for entry in path.parent.iterdir()] == ["results.json"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def test_nothing_found_is_an_empty_list_and_an_unpublished_file_leaves_nothing(
    tmp_path: Path,
) -> None:
    with PredictionFile(tmp_path) as file:
        file.add(1, [])
        assert file.is_empty
        file.publish(tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text()) == []
    with PredictionFile(tmp_path) as file:
        file.add(1, [record(1, 0.5)])
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]


def test_another_files_content_is_taken_over_in_small_parts(tmp_path: Path) -> None:
    with PredictionFile(tmp_path) as first, PredictionFile(tmp_path) as second:
        first.add(1, [record(1, 0.1)])
        for number in range(2, 30):
            second.add(number, [record(number, number / 100)] * (number % 3))
        parts = list(second.blocks(500))
        assert len(parts) > 5
        for part in parts:
            first.extend(part)
        first.publish(tmp_path / "all.json")
        assert [found.score for found in first.read(5)] == [0.05, 0.05]
    scores = [found["score"] for found in json.loads((tmp_path / "all.json").read_text())]
    assert scores == [0.1] + [number / 100 for number in range(2, 30) for _ in range(number % 3)]


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    with PredictionFile(tmp_path) as file:
        original = file._file

        class Full:
            def seek(self, *_: int) -> None: ...

            def write(self, _: bytes) -> int:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        file._file = Full()  # type: ignore[assignment]
        with pytest.raises(PersondetError, match=r"No space left.*; make room"):
            file.add(1, [record(1, 0.5)])
        file._file = original


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def predict_for_long(folder: Path, told: Any) -> None:
    with PredictionFile(folder):
        told.send("open")
        time.sleep(60)


def test_what_a_killed_evaluation_left_goes_and_what_is_in_use_stays(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    other = fork.Process(target=predict_for_long, args=(tmp_path, there))
    other.start()
    assert here.recv() == "open"
    (tmp_path / "curves.json").touch()
    remove_abandoned(tmp_path)
    assert len(list(tmp_path.glob(".predictions.*"))) == 1
    other.kill()
    other.join()
    with PredictionFile(tmp_path) as own:
        remove_abandoned(tmp_path)
        assert len(list(tmp_path.glob(".predictions.*"))) == 1
        own.publish(tmp_path / "results.json")
    assert {path.name for path in tmp_path.iterdir()} == {"curves.json", "results.json"}
    remove_abandoned(tmp_path / "missing")

"""Predictions on disk: what is written is read back image by image, and the file is COCO's."""

import json
import multiprocessing
import os
import time
from collections import defaultdict

import msgspec
import numpy as np
import pytest

from persondet.errors import PersondetError
from persondet.evaluation.predictions import PredictionFile, PredictionReader, remove_abandoned


def record(image_id, score):
    return {
        "image_id": image_id,
        "category_id": 3,
        "bbox": [0.1, 2.0, 3.5, 1e-5],
        "score": score,
        "segmentation": {"size": [4, 5], "counts": '0"\\'},
    }


def test_what_is_added_is_read_back_in_any_order_and_published_as_json(tmp_path):
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


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def predict_for_long(folder, told):
    with PredictionFile(folder):
        told.send("open")
        time.sleep(60)


def test_what_a_killed_evaluation_left_goes_and_what_is_in_use_stays(tmp_path):
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


LINE = len(msgspec.json.encode(record(0, 0.5))) + 3  # of one prediction, and the first of a file


@pytest.mark.parametrize("lines", ["ours", "one line", "indented", "spread"])
def test_each_image_gets_what_the_whole_file_says_of_it(tmp_path, lines):
    rng = np.random.default_rng(1)
    path = tmp_path / "results.json"
    parts = {
        number: [record(number, float(rng.random())) for _ in range(rng.integers(0, 6))]
        for number in rng.permutation(12).tolist()
    }
    everything = [one for part in parts.values() for one in part]
    if lines == "ours":
        with PredictionFile(tmp_path) as file:
            for number, part in parts.items():
                file.add(number, part)
            everything.append(record(3, 0.75))
            file.add(3, everything[-1:])  # an image that is looked at twice
            file.publish(path)
    elif lines == "spread":  # a line for each prediction, and an image's not together
        everything.reverse()
        path.write_text("[" + ",\n".join(map(json.dumps, everything)) + "]\n")
    else:
        path.write_text(json.dumps(everything, indent=2 if lines == "indented" else None))
    expected = defaultdict(list)
    for one in everything:
        expected[one["image_id"]].append(one)
    reader = PredictionReader(path)
    for number in range(14):  # two are not there
        read = [msgspec.structs.asdict(one) for one in reader.read(number)]
        assert read == expected[number]


# Within a record, at the end of a line, before the closing bracket.
@pytest.mark.parametrize("cut", [1, 2, 3, 40, LINE, 2 * LINE - 1, -2, -3])
def test_a_damaged_file_is_one_sentence(tmp_path, cut):
    path = tmp_path / "results.json"
    with PredictionFile(tmp_path) as file:
        for number in range(3):
            file.add(number, [record(number, 0.5)])
        file.publish(path)
    content = path.read_bytes()
    for damaged in (content[:cut], content * 2, content + content[1:], content + b"x"):
        path.write_bytes(damaged)
        with pytest.raises(PersondetError, match=r"results\.json: not a list of COCO predictions"):
            PredictionReader(path)

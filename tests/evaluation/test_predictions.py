"""Predictions on disk: what is written is read back image by image, and the file is COCO's."""

import json

import msgspec
import pytest

from persondet.errors import PersondetError
from persondet.evaluation.predictions import PredictionFile, read_predictions


def record(image_id, score):
    return {
        "image_id": image_id,
        "category_id": 3,
        "bbox": [0.1, 2.0, 3.5, 1e-5],
        "score": score,
        "segmentation": {"size": [4, 5], "counts": '0"\\]'},
    }


def scores(detections):
    return [one.score for one in detections]


def test_what_is_added_is_read_back_in_any_order_and_published_as_json(tmp_path):
    path = tmp_path / "new" / "results.json"
    file = PredictionFile(path.parent)
    file.add(7, [record(7, 0.25), record(7, 1 / 3)])
    file.add(2, [])
    file.add(5, [record(5, 0.5)])
    assert scores(file.read(5)) == [0.5]
    file.add(7, [record(7, 0.75)])  # an image that is looked at twice
    assert list(path.parent.iterdir()) == []  # a killed process leaves nothing
    file.publish(path)
    assert scores(file.read(7)) == [0.25, 1 / 3, 0.75]
    assert msgspec.structs.asdict(file.read(7)[0]) == record(7, 0.25)
    assert file.read(2) == file.read(99) == [] and file.image_ids == [7, 2, 5]
    everything = [record(7, 0.25), record(7, 1 / 3), record(7, 0.75), record(5, 0.5)]
    assert json.loads(path.read_text()) == everything

    # A rank's file is appended to that of the first.
    first = PredictionFile()
    first.add(5, [record(5, 1.0)])
    first.extend(file.blocks())
    assert scores(first.read(5)) == [1.0, 0.5] and first.image_ids == [5, 7, 2]

    for content in (path.read_text(), json.dumps(everything)):  # ours, and another's one line
        path.write_text(content)
        read = read_predictions(path, [7, 2])
        assert (scores(read[7]), read[2]) == ([0.25, 1 / 3, 0.75], [])


@pytest.mark.parametrize("cut", [2, 40, -3, -20])
def test_a_damaged_file_is_one_sentence(tmp_path, cut):
    path = tmp_path / "results.json"
    file = PredictionFile(tmp_path)
    for number in range(3):
        file.add(number, [record(number, 0.5)])
    file.publish(path)
    content = path.read_bytes()
    for damaged in (content[:cut], content[:-2] + b"x", b'[{"image_id": 0}]', b"\x80"):
        path.write_bytes(damaged)
        with pytest.raises(PersondetError, match=r"results\.json: not a list of COCO predictions"):
            read_predictions(path, [0])


def test_a_full_disk_is_one_sentence():
    file = PredictionFile()
    file._file.close()
    file._file = open("/dev/full", "r+b")  # noqa: SIM115 - closed by the test
    with pytest.raises(PersondetError, match="cannot be written .No space left on device"):
        file.add(1, [record(1, 0.5)])

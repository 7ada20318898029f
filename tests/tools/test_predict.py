"""The command line of predict: outputs, messages and exit codes; the model is a stand-in."""

import json
import os

import cv2
import numpy as np
import predict
import pytest

from persondet.errors import MediaError, OutputExistsError, PartialResultError

pytestmark = pytest.mark.usefixtures("loaded")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for name, shape in (("a.png", (128, 192, 3)), ("b c.png", (64, 96, 3))):
        cv2.imwrite(str(tmp_path / "in" / name), np.full(shape, 90, np.uint8))
    return tmp_path / "in"


def run(*words):
    return predict.main(["--run", "some/run", *map(str, words)])


def test_images_and_results_are_written_and_a_second_run_passes_over_them(folder, capsys):
    for _ in range(2):
        assert run("--input", folder, "--output", folder / "out", "--overwrite") == 0
    out = folder / "out"
    assert sorted(os.listdir(out)) == [
        *("a.png", "b c.png", "images.json", "predictions.json", "records.jsonl")
    ]
    results = json.loads((out / "predictions.json").read_text())
    assert [row["bbox"] for row in results] == [[8, 20, 32, 36]] * 2
    drawn = cv2.imread(str(out / "a.png"))
    assert (drawn[20, 8:40] != 90).any(axis=1).all()  # the box's upper edge
    assert (drawn[:10, 8:60] != 90).any()  # the count
    small = cv2.imread(str(out / "b c.png"))
    assert (small[20, 8:40] != 90).any() and (small[:10, 8:60] == 90).all()  # no room for text
    assert capsys.readouterr().out.startswith("2 images, 2 people; written to")


def test_parts_of_the_drawing_can_be_left_out(folder, tmp_path):
    run("--input", folder, "--output", tmp_path / "out", "--no-labels", "--no-count")
    changed = (cv2.imread(str(tmp_path / "out" / "a.png")) != 90).any(axis=2)
    assert changed[20:56, 8:40].any()
    changed[20:56, 8:40] = False
    assert not changed.any()


def test_a_broken_image_ends_with_partial_and_its_name_does_not_steer_the_terminal(
    folder, tmp_path, capsys
):
    (folder / "new\nline\x1b[31m.png").write_bytes((folder / "a.png").read_bytes()[:90])
    with pytest.raises(PartialResultError, match="1 of 3 images"):
        run("--input", folder, "--output", tmp_path / "o\x1b[31mut")
    said = capsys.readouterr()
    assert "o\\x1b[31mut" in said.out
    (line,) = [line for line in said.err.splitlines() if line.startswith("skipped: ")]
    assert "new\\nline\\x1b[31m.png" in line


def test_one_kind_of_model_is_named(folder, tmp_path, capsys):
    rest = ["--input", str(folder), "--output", str(tmp_path / "out")]
    assert predict.main(["--model", "model.onnx", *rest]) == 0
    for words, told in (
        (["--run", "r", "--model", "m.onnx"], "exported model with --model"),
        ([], "exported model with --model"),
        (["--model", "m.onnx", "--tiles", "2", "2"], "whole images"),
        (["--model", "m.onnx", "--opts", "SEED", "1"], "carries its own config"),
    ):
        with pytest.raises(SystemExit):
            predict.main([*rest, *words])
        assert told in capsys.readouterr().err


def test_bad_input_is_refused_before_the_model_is_loaded(folder, tmp_path, loaded):
    with pytest.raises(MediaError, match="no image"):
        run("--input", tmp_path / "none.png", "--output", tmp_path / "out")
    with pytest.raises(OutputExistsError):
        run("--input", folder / "a.png", "--output", folder.parent)
    with pytest.raises(MediaError, match="source itself"):
        run("--input", folder, "--output", folder, "--overwrite")
    with pytest.raises(MediaError, match="is a file"):
        run("--input", folder, "--output", folder / "a.png")
    assert loaded == []

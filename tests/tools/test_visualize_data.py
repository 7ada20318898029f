"""tools/visualize_data.py: an export in, a contact sheet out, and the bad input in between."""

import json

import cv2
import numpy as np
import pytest
import visualize_data

from persondet.errors import ConfigError, DatasetError


def draw(root, output, *flags):
    return visualize_data.main(["--dataset", str(root), "--output", str(output), *flags])


@pytest.fixture
def root(export_writer, tmp_path):
    export_writer(tmp_path / "export", {"train": 4}, size=(120, 80))
    return tmp_path / "export"


def test_a_sheet_without_a_config(tmp_path, root, capsys):
    output = tmp_path / "sheet.png"
    assert draw(root, output, "--images", "2", "--augmentation", "none") == 0
    assert capsys.readouterr().out.split() == [str(output)]
    sheet = cv2.imread(str(output))
    assert [path.name for path in tmp_path.iterdir() if path != root] == ["sheet.png"]
    path = root / "train" / "_annotations.coco.json"
    path.write_text(path.read_text().replace('"segmentation"', '"was"'))
    assert draw(root, output, "--images", "2", "--augmentation", "none", "--overwrite") == 0
    boxes_only = cv2.imread(str(output))
    # The masks tint what boxes leave as it is.
    changed = (sheet != boxes_only).any(axis=2)
    assert 0.01 < changed.mean() < 0.5


def test_bad_input_writes_nothing(tmp_path, root):
    output = tmp_path / "sheet.png"
    for folder, flags, error, match in (
        (root, ["--split", "valid"], DatasetError, "no valid split"),
        (root, ["--split", "valid", "--cleaning"], DatasetError, "choose another --split"),
        (tmp_path / "missing", [], DatasetError, "no such"),
        (root, ["--augmentation", "streat"], ConfigError, "did you mean 'street'"),
    ):
        with pytest.raises(error, match=match):
            draw(folder, output, *flags)
    with pytest.raises(SystemExit):
        draw(root, tmp_path / "sheet.gif")
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_what_cleaning_changes_is_drawn_before_beside_after(tmp_path, root, capsys):
    assert draw(root, tmp_path / "sheet.png", "--cleaning") == 0
    assert "cleaning changes no box and no mask of train" in capsys.readouterr().out
    assert not (tmp_path / "sheet.png").exists()
    path = root / "train" / "_annotations.coco.json"
    coco = json.loads(path.read_text())
    coco["annotations"][0] |= {"bbox": [-30, 10, 40, 40], "segmentation": []}
    path.write_text(json.dumps(coco))
    assert draw(root, tmp_path / "sheet.png", "--cleaning") == 0
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    before, after = np.array_split(sheet, 2, axis=1)
    assert before.shape == after.shape
    assert (before != after).any()

"""tools/visualize_data.py: an export in, a contact sheet out, and the bad input in between."""

import json

import cv2
import numpy as np
import pytest
import visualize_data

from persondet.errors import ConfigError, DatasetError


def write_export(root, *, masks=True, images=3):
    """Write an export with a train split: a white square per image, annotated."""
    folder = root / "train"
    folder.mkdir(parents=True)
    shape = {"bbox": [20, 10, 40, 40], "area": 1600, "iscrowd": 0, "category_id": 1}
    shape["segmentation"] = [[20, 10, 60, 10, 60, 50, 20, 50]] if masks else []
    size = {"height": 80, "width": 120}
    picture = np.full((80, 120, 3), 60, dtype=np.uint8)
    picture[10:50, 20:60] = 255
    for index in range(images):
        cv2.imwrite(str(folder / f"street_{index}.png"), picture)
    coco = {
        "categories": [
            {"id": 0, "name": "people", "supercategory": "none"},
            {"id": 1, "name": "person", "supercategory": "people"},
        ],
        "images": [{"id": i, "file_name": f"street_{i}.png", **size} for i in range(images)],
        "annotations": [{"id": i, "image_id": i, **shape} for i in range(images)],
    }
    (folder / "_annotations.coco.json").write_text(json.dumps(coco))
    return root


def draw(root, output, *flags):
    return visualize_data.main(["--dataset", str(root), "--output", str(output), *map(str, flags)])


@pytest.mark.parametrize("masks", [True, False])
def test_a_sheet_without_a_config(tmp_path, capsys, masks):
    root = write_export(tmp_path / "export", masks=masks)
    assert draw(root, tmp_path / "sheet.png", "--images", 2, "--augmentation", "none") == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "sheet.png")]
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    rows = sheet.shape[0] // 2
    tiles = np.array_split(sheet[:rows], 4, axis=1)
    # The square is white in the picture; its mask tints it, a box leaves it as it is.
    white = [int((tile.min(axis=2) > 250).sum()) for tile in tiles]
    assert all(count < 500 for count in white) if masks else all(count > 5000 for count in white)
    assert [p.name for p in tmp_path.iterdir() if p.name != "export"] == ["sheet.png"]


def test_bad_input_writes_nothing(tmp_path):
    root, output = write_export(tmp_path / "export"), tmp_path / "sheet.png"
    with pytest.raises(DatasetError, match="no valid split"):
        draw(root, output, "--split", "valid")
    with pytest.raises(DatasetError, match="no such"):
        draw(tmp_path / "missing", output)
    with pytest.raises(ConfigError, match="did you mean 'street'"):
        draw(root, output, "--augmentation", "streat")
    with pytest.raises(SystemExit):
        draw(root, tmp_path / "sheet.gif")
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_what_cleaning_changes_is_drawn_before_beside_after(tmp_path, capsys):
    root = write_export(tmp_path / "export")
    assert draw(root, tmp_path / "sheet.png", "--cleaning") == 0
    assert "cleaning changes no box and no mask of train" in capsys.readouterr().out
    assert not (tmp_path / "sheet.png").exists()
    path = root / "train" / "_annotations.coco.json"
    coco = json.loads(path.read_text())
    coco["annotations"][1]["bbox"] = [-30, 10, 40, 40]
    coco["annotations"][1]["segmentation"] = coco["annotations"][1]["segmentation"][0]
    path.write_text(json.dumps(coco))
    assert draw(root, tmp_path / "sheet.png", "--cleaning") == 0
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    before, after = np.array_split(sheet, 2, axis=1)
    assert before.shape == after.shape
    assert (before != after).any()
    with pytest.raises(DatasetError, match="choose another --split"):
        draw(root, tmp_path / "valid.png", "--cleaning", "--split", "valid")

"""tools/visualize_data.py: an export in, a contact sheet out, and the bad input in between."""

import json

import cv2
import numpy as np
import pytest
import visualize_data

from persondet.errors import ConfigError, DatasetError


def write_export(root, *, masks=True):
    """Write an export with a train split: a white square per image, annotated."""
    folder = root / "train"
    folder.mkdir(parents=True)
    shape = {"bbox": [20, 10, 40, 40], "area": 1600, "iscrowd": 0, "category_id": 1}
    shape["segmentation"] = [[20, 10, 60, 10, 60, 50, 20, 50]] if masks else []
    pixels = np.full((80, 120, 3), 60, dtype=np.uint8)
    pixels[10:50, 20:60] = 255
    coco = {"categories": [{"id": 1, "name": "person"}], "images": [], "annotations": []}
    for number in range(3):
        name = f"street_{number}.png"
        cv2.imwrite(str(folder / name), pixels)
        image = {"id": number, "file_name": name, "height": 80, "width": 120}
        coco["images"].append(image)
        coco["annotations"].append({"id": number, "image_id": number, **shape})
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
    # The square is white in the image; its mask tints it, a box leaves it as it is.
    white = [int((tile.min(axis=2) > 250).sum()) for tile in tiles]
    assert all(count < 500 for count in white) if masks else all(count > 5000 for count in white)
    assert [p.name for p in tmp_path.iterdir() if p.name != "export"] == ["sheet.png"]


def test_bad_input_writes_nothing(tmp_path):
    root, output = write_export(tmp_path / "export"), tmp_path / "sheet.png"
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

"""Which images cleaning changes for the eye."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from persondet.data.cleaned_copy import changed_images
from persondet.errors import DatasetError


def test_changed_boxes_and_dropped_images_and_nothing_else(
    tiny_export: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(tiny_export, tmp_path / "export"))
    assert changed_images(root, "train") == []
    path = root / "train" / "_annotations.coco.json"
    coco = json.loads(path.read_text())
    first = coco["annotations"][0]
    first["bbox"], first["segmentation"] = [-9, 0, 40, 20], [[0, 0, 31, 0, 31, 20]]
    by_id = {image["id"]: image for image in coco["images"]}
    gone = by_id[max(by_id)]
    (root / "train" / gone["file_name"]).unlink()
    path.write_text(json.dumps(coco))
    clipped, dropped = changed_images(root, "train")
    assert clipped.path == root / "train" / by_id[first["image_id"]]["file_name"]
    assert clipped.before[0]["bbox"] == [-9, 0, 40, 20]
    assert clipped.after is not None
    assert clipped.after[0]["bbox"] == [0, 0, 31, 20]
    assert clipped.codes == ("box-outside",)
    assert clipped.origins == tuple(range(len(clipped.after)))
    assert dropped.after is None
    assert dropped.codes == ("file-missing",)
    shutil.rmtree(root / "test")
    with pytest.raises(DatasetError, match="choose another --split"):
        changed_images(root, "test")

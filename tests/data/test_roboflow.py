"""Where an export lies, and which of its folders are its splits."""

import hashlib
import itertools
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from detectron2.data import DatasetCatalog

from persondet.data.fetch.importing import import_export
from persondet.data.register import register_roboflow_coco
from persondet.data.roboflow import copy_readmes, find_export, match_names, read_export
from persondet.errors import DatasetError
from tests.data.exports import people, write_habit


def _make(root: Path, text: str) -> None:
    """Make what `text` lists: `a/` is an empty folder, `a/+` one with a json, `a/b` a file."""
    for name in text.split():
        path = root / name.replace("+", "_annotations.coco.json")
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_text("{}")


@pytest.mark.parametrize(
    ("files", "found", "splits"),
    [
        ("train/+ valid/+ test/+", "", "train=train valid=valid test=test"),
        ("Train/+ VAL/+ README.txt", "", "train=Train valid=VAL"),
        ("test/+ validation/+ train/ other/a.jpg", "", "valid=validation test=test"),
        ("My.v3/train/+ __MACOSX/train/+ .x/+", "My.v3", "train=train"),
        ("a/b/c/d/test/+", "a/b/c/d", "test=test"),
        ("+ a.jpg", "", "train=."),
        ("flat/+ flat/test/a.jpg", "flat", "train=."),  # a folder of images
        ("train/+ other/train/+", "", "train=train"),
    ],
)
def test_an_export_is_found(tmp_path: Path, files: str, found: str, splits: str) -> None:
    _make(tmp_path, files)
    root, folders = find_export(tmp_path)
    assert root == tmp_path / found
    pairs = [f"{split}={folder.relative_to(root)}" for split, folder in folders.items()]
    assert " ".join(pairs) == splits


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ("a.jpg images/a.jpg", "holds no export; expected a Roboflow export"),
        ("a/b/c/d/e/train/+", "holds no export"),
        ("train/a.jpg", "holds no export"),
        ("train/+ valid/a.jpg", r"valid/ has no _annotations\.coco\.json"),
        ("val/+ valid/+", r"val/ and valid/ .* \(valid\)"),
        ("+ valid/+", "itself and valid/ .* keep one"),
        ("one/train/+ two/train/+", "several exports, e.g. 'one' and 'two'"),
    ],
)
def test_what_is_no_single_export(tmp_path: Path, files: str, match: str) -> None:
    _make(tmp_path, files)
    with pytest.raises(DatasetError, match=match):
        find_export(tmp_path)


def test_no_folder_and_a_folder_behind_a_link(tmp_path: Path) -> None:
    _make(tmp_path, "export.zip root/ elsewhere/train/+")
    with pytest.raises(DatasetError, match="no such folder; expected a Roboflow export"):
        find_export(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="unpack it"):
        find_export(tmp_path / "export.zip")
    (tmp_path / "root/link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match="holds no export"):
        find_export(tmp_path / "root")
    assert find_export(tmp_path / "root/link")[0] == tmp_path / "root/link"


def test_readmes_are_copied_but_not_through_links(tmp_path: Path) -> None:
    _make(tmp_path, "in/README.dataset.txt in/readme.txt in/other.txt in/README.d.txt/ out/")
    (tmp_path / "in/README.link.txt").symlink_to("/etc/hostname")
    copy_readmes(tmp_path / "in", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("README.dataset.txt", "readme.txt"),
    }


# Other layouts and spellings: where the json and the images of a split lie, and their splits

THREE = ("train", "valid", "test")
LONG = {"train": "training", "valid": "validation", "test": "testing"}
LAYOUTS: dict[str, tuple[tuple[str, ...], Callable[[str], tuple[str, str]]]] = {
    "Roboflow": (THREE, lambda s: (f"{s}/_annotations.coco.json", s)),
    "upper case": (THREE, lambda s: (f"{s.upper()}/_annotations.coco.json", s.upper())),
    "long names": (THREE, lambda s: (f"{LONG[s]}/_annotations.coco.json", LONG[s])),
    "COCO": (THREE, lambda s: (f"annotations/instances_{s[:5]}2017.json", f"{s[:5]}2017")),
    "data": (THREE, lambda s: (f"data/annotations/{s}.json", f"data/images/{s}")),
    "CVAT": (("train",), lambda s: ("annotations/instances_default.json", "images/default")),
    "Label Studio": (("train",), lambda s: ("result.json", "images")),
}
SPELLINGS: dict[str, Callable[[str], str]] = {
    "the file's": str,
    "backslash": lambda name: f".\\{name}",
    "another Unicode form": lambda name: unicodedata.normalize("NFD", name),
    "case of the extension": lambda name: name.replace(".jpg", ".JPG"),
    "percent-escapes": quote,
    "Label Studio's": lambda name: f"..\\..\\media\\{name}",
    "absolute": lambda name: f"/srv/media/{name}",
    "an address": lambda name: f"s3://bucket/media/{name}",
}


def _registered(root: Path, work: Path) -> dict[str, list[dict[str, Any]]]:
    """What Detectron2 gets of a dataset, with the bytes of the images in place of their paths."""
    datasets = register_roboflow_coco("layout", root, output_dir=work)
    dicts: dict[str, list[dict[str, Any]]] = {}
    for split, name in datasets.names.items():
        dicts[split] = [dict(record) for record in DatasetCatalog.get(name)]
        for record in dicts[split]:
            content = Path(record.pop("file_name")).read_bytes()
            record["digest"] = hashlib.sha256(content).hexdigest()
    return dicts


def test_every_layout_and_spelling_registers_the_same_dataset(tmp_path: Path) -> None:
    plain = write_habit(
        tmp_path / "plain",
        {split: [people(1), people(2)] for split in THREE},
        name=lambda split, index: f"é {index}.jpg",  # the same names in every split
    )
    expected = _registered(plain, tmp_path)
    for number, (layout, spelling) in enumerate(itertools.product(LAYOUTS, SPELLINGS)):
        splits, places = LAYOUTS[layout]
        source, target = tmp_path / f"in{number}", tmp_path / f"out{number}"
        for split in splits:
            coco = json.loads((plain / split / "_annotations.coco.json").read_text())
            json_file, images = (source / place for place in places(split))
            images.mkdir(parents=True, exist_ok=True)
            json_file.parent.mkdir(parents=True, exist_ok=True)
            for image in coco["images"]:
                name = image["file_name"]
                (images / name).hardlink_to(plain / split / name)
                image["file_name"] = SPELLINGS[spelling](name)
            json_file.write_text(json.dumps(coco))
        assert import_export(source, target) == dict.fromkeys(splits, 2), (layout, spelling)
        found = _registered(target, tmp_path)
        assert found == {split: expected[split] for split in splits}, (layout, spelling)
        if layout == "Roboflow":  # which every command reads where it lies
            assert _registered(source, tmp_path) == expected, spelling


@pytest.mark.parametrize(
    ("names", "files", "means"),
    [
        ("a.jpg", "a.jpg A.JPG", "a.jpg=a.jpg"),
        ("x.jpg", "X.jpg X.JPG", ""),  # one of two
        ("x.jpg x.JPG", "X.jpg", ""),  # two for one
        ("x.jpg X.jpg", "X.jpg", "X.jpg=X.jpg"),
        ("b/1.jpg", "a/1.jpg", ""),  # another folder is more than another form
        ("../../1.jpg", "a/1.jpg", "../../1.jpg=a/1.jpg"),
        ("../../1.jpg", "a/1.jpg b/1.jpg", ""),
        ("s3://bucket/b/1.JPG", "a/1.jpg", "s3://bucket/b/1.JPG=a/1.jpg"),
        ("https://host/1.jpg http://other/1.jpg", "a/1.jpg", ""),
    ],
)
def test_a_name_means_one_file_alone(names: str, files: str, means: str) -> None:
    found = match_names(names.split(), files.split())
    assert " ".join(f"{name}={file}" for name, file in found.items()) == means


EMPTY = '{"images": [], "annotations": [], "categories": []}'


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({"via.json": '{"_via_img_metadata": {}}'}, "of the VGG Image Annotator; .* globox"),
        ({"via.json": '{"a1": {"filename": "a", "regions": []}}'}, "of the VGG Image Annotator"),
        ({"a.json": '{"shapes": [], "imagePath": "a.jpg"}'}, "of LabelMe; .* labelme2coco"),
        ({"tasks.json": '[{"annotations": [], "data": {}}]'}, "of Label Studio; export"),
        ({"train/labels/a.txt": "0 .5 .5 1 1", "data.yaml": ""}, "YOLO's labels; .* supervision"),
        ({"train/a.xml": "<annotation>"}, "Pascal VOC's annotations; .* supervision"),
        (
            {"a/train.json": EMPTY, "b/train.json": EMPTY},
            r"train\.json and .* are of the same split",
        ),
        ({"package.json": "{}"}, "holds no export; expected"),
    ],
)
def test_other_tools_are_named(tmp_path: Path, files: dict[str, str], match: str) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for layout in ("roboflow", "auto"):
        with pytest.raises(DatasetError, match=match):
            read_export(tmp_path, layout=layout)


def test_what_is_left_out_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("train", "extra"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "_annotations.coco.json").write_text(EMPTY)
    assert list(read_export(tmp_path).folders) == ["train"]
    assert "extra/ is left out" in caplog.text
    (tmp_path / "other").mkdir()
    for name in ("instances_train", "person_keypoints_train"):
        (tmp_path / f"other/{name}.json").write_text(EMPTY)
    with pytest.raises(DatasetError, match=r"instances_train\.json is COCO, but not in Roboflow's"):
        read_export(tmp_path / "other")
    assert "person_keypoints_train.json is left out" in caplog.text

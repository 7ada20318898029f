"""Registering an export: counts, Detectron2's own loader and evaluator as the judge, refusals."""

import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json, register_coco_instances
from pycocotools.coco import COCO

from persondet.data.register import class_colors, class_names, ground_truth, register_roboflow_coco
from persondet.errors import DatasetError
from tests.data.exports import edit
from tests.data.ground_truth_score import scores_of_ground_truth


@pytest.fixture(autouse=True)
def _forget_datasets() -> Iterator[None]:
    before = set(DatasetCatalog.keys())
    yield
    for name in set(DatasetCatalog.keys()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)


@pytest.fixture
def export(tiny_export: Path, tmp_path: Path) -> Path:
    """A copy of the tiny export that a test may break."""
    return Path(shutil.copytree(tiny_export, tmp_path / "export"))


def test_what_is_registered(tiny_export: Path, tmp_path: Path) -> None:
    datasets = register_roboflow_coco("tiny", tiny_export, output_dir=tmp_path)
    assert datasets.names == {"train": "tiny_train", "valid": "tiny_valid", "test": "tiny_test"}
    assert (datasets.classes, datasets.mask_format) == (("person",), "polygon")
    assert datasets.image_counts == {"train": 6, "valid": 3, "test": 3}
    dicts = DatasetCatalog.get("tiny_train")
    assert dicts[-1]["annotations"] == []
    assert all(Path(record["file_name"]).is_file() for record in dicts)
    metadata = MetadataCatalog.get("tiny_train")
    assert metadata.json_file == str(datasets.json_files["train"])
    assert Path(metadata.image_root) == (tiny_export / "train").resolve()
    assert len(set(class_colors(12))) == 12
    assert class_colors(3) == class_colors(12)[:3]
    # Processes that are spawned pickle the loader (trap 20).
    loader = pickle.loads(pickle.dumps(dict(DatasetCatalog)["tiny_train"]))
    assert loader() == dicts
    # The export's own json would give AP below 100: grouping category, ids from 0 (traps 8, 10).
    scores = scores_of_ground_truth("tiny_train", True, tmp_path)
    assert scores["bbox"]["AP"] == scores["segm"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize(("masks", "kept"), [("auto", "bitmask"), ("none", "")])
def test_loading_equals_detectron2s_load_coco_json(
    export: Path, tmp_path: Path, masks: str, kept: str
) -> None:
    def shuffle(coco: dict[str, Any]) -> None:
        coco["images"].reverse()
        coco["categories"].append({"id": 17, "name": "dog", "supercategory": "people"})
        coco["annotations"][0]["category_id"] = 17
        coco["annotations"][1]["iscrowd"] = 1
        coco["annotations"][2]["segmentation"] = {"size": [64, 96], "counts": [100, 64, 5980]}

    edit(export, shuffle)
    datasets = register_roboflow_coco("tiny", export, masks=masks, output_dir=tmp_path)
    assert datasets.classes == ("person", "dog")
    assert (datasets.mask_format, datasets.has_masks) == (kept, bool(kept))
    for split, name in datasets.names.items():
        metadata = MetadataCatalog.get(name)
        reference = f"reference_of_{name}"
        expected = load_coco_json(metadata.json_file, metadata.image_root, reference)
        assert DatasetCatalog.get(name) == expected
        judge = MetadataCatalog.get(reference)
        assert judge.thing_classes == metadata.thing_classes
        assert judge.thing_dataset_id_to_contiguous_id == metadata.thing_dataset_id_to_contiguous_id
        assert len(expected) == datasets.image_counts[split]
        MetadataCatalog.remove(reference)


def test_trap_08_other_content_is_another_file(export: Path, tmp_path: Path) -> None:
    first = register_roboflow_coco("tiny", export, output_dir=tmp_path)
    again = register_roboflow_coco("tiny", export, output_dir=tmp_path)
    assert again == first
    edit(export, lambda coco: coco["annotations"].pop())
    changed = register_roboflow_coco("tiny", export, output_dir=tmp_path)
    assert changed.json_files["train"] != first.json_files["train"]
    assert changed.json_files["valid"] == first.json_files["valid"]
    assert MetadataCatalog.get("tiny_train").json_file == str(changed.json_files["train"])
    assert sorted((tmp_path / "datasets").iterdir()) == sorted(
        {*first.json_files.values(), *changed.json_files.values()}
    )


def test_trap_10_pycocotools_reads_what_is_registered(export: Path, tmp_path: Path) -> None:
    edit(export, lambda coco: [coco.pop("info"), coco.pop("licenses")])
    datasets = register_roboflow_coco("tiny", export, output_dir=tmp_path)
    truth = COCO(str(datasets.json_files["train"]))
    assert min(truth.getAnnIds()) == 1
    box = {"image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}
    assert len(truth.loadRes([box]).anns) == 1


def test_refusals_name_the_export(export: Path, tmp_path: Path) -> None:
    def refused(match: str, name: str = "tiny", **options: Any) -> None:
        with pytest.raises(DatasetError, match=match):
            register_roboflow_coco(name, export, output_dir=tmp_path, **options)

    refused(r"export: the export has no class 'Person'", classes=["Person"])
    DatasetCatalog.register("taken_train", list)
    refused("'taken_train' belongs to another dataset", "taken")
    for path in sorted((export / "train").glob("*.jpg"))[:2]:
        path.unlink()
    refused(r"'scene_0_train.* is not there.*, and 1 more like it")
    for split in ("train", "valid", "test"):
        edit(export, lambda coco: coco.update(images=[], annotations=[]), split)
    refused("no split names an image")


def test_a_dataset_that_was_registered_elsewhere_has_its_class_numbers_as_categories(
    tiny_export: Path,
) -> None:
    DatasetCatalog.register("elsewhere", list)
    MetadataCatalog.get("elsewhere").set(thing_classes=["dog", "person"], json_file="/a.json")
    assert ground_truth("elsewhere") == (Path("/a.json"), (0, 1))
    DatasetCatalog.register("nameless", list)
    for name in ("nameless", "unknown"):
        with pytest.raises(DatasetError, match=f"{name}: not registered, or without thing_classes"):
            class_names(name)
    # Detectron2's own way names the classes when it reads the file.
    folder = tiny_export / "test"
    register_coco_instances("lazy", {}, str(folder / "_annotations.coco.json"), str(folder))
    assert class_names("lazy") == ("people", "person")
    assert ground_truth("lazy")[1] == (0, 1)

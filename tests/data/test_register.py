"""Registering an export: counts, Detectron2's own loader and evaluator as the judge, refusals."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json, register_coco_instances
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import BoxMode, Instances
from pycocotools.coco import COCO

from persondet.data.register import (
    RoboflowDatasets,
    class_colors,
    class_names,
    ground_truth,
    register_roboflow_coco,
)
from persondet.errors import DatasetError


@pytest.fixture(autouse=True)
def _forget_datasets() -> Iterator[None]:
    before = set(DatasetCatalog.keys())
    yield
    for name in set(DatasetCatalog.keys()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)


def _edit(root: Path, change: Callable[[dict[str, Any]], None], split: str = "train") -> None:
    path = root / split / "_annotations.coco.json"
    coco = json.loads(path.read_text())
    change(coco)
    path.write_text(json.dumps(coco))


@pytest.fixture
def export(tiny_export: Path, tmp_path: Path) -> Path:
    """A copy of the tiny export that a test may break."""
    return Path(shutil.copytree(tiny_export, tmp_path / "export"))


def test_what_is_registered(tiny_export: Path, tmp_path: Path) -> None:
    datasets = register_roboflow_coco("tiny", tiny_export, output_dir=tmp_path)
    assert datasets.names == {"train": "tiny_train", "valid": "tiny_valid", "test": "tiny_test"}
    assert datasets.classes == ("person",)
    assert datasets.has_masks
    assert datasets.mask_format == "polygon"
    assert datasets.image_counts == {"train": 6, "valid": 3, "test": 3}
    dicts = DatasetCatalog.get("tiny_train")
    assert len(dicts) == 6
    assert dicts[-1]["annotations"] == []
    for record in dicts:
        assert Path(record["file_name"]).is_absolute()
        assert Path(record["file_name"]).is_file()
        assert {a["category_id"] for a in record["annotations"]} <= {0}
        assert all(a["bbox_mode"] == BoxMode.XYWH_ABS for a in record["annotations"])
    metadata = MetadataCatalog.get("tiny_train")
    assert metadata.thing_classes == ["person"]
    assert metadata.evaluator_type == "coco"
    assert metadata.thing_dataset_id_to_contiguous_id == {1: 0}
    assert metadata.json_file == str(datasets.json_files["train"])
    assert Path(metadata.image_root) == (tiny_export / "train").resolve()
    assert len(metadata.thing_colors) == 1


def _same_as_detectron2(datasets: RoboflowDatasets) -> None:
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


def test_loading_equals_detectron2s_load_coco_json(export: Path, tmp_path: Path) -> None:
    def shuffle(coco: dict[str, Any]) -> None:
        coco["images"].reverse()
        coco["categories"].append({"id": 17, "name": "dog", "supercategory": "people"})
        coco["annotations"][0]["category_id"] = 17
        coco["annotations"][1]["iscrowd"] = 1
        coco["annotations"][2]["segmentation"] = {"size": [64, 96], "counts": [100, 64, 5980]}

    _edit(export, shuffle)
    datasets = register_roboflow_coco("tiny", export, output_dir=tmp_path)
    assert datasets.classes == ("person", "dog")
    assert datasets.mask_format == "bitmask"
    _same_as_detectron2(datasets)


def test_loading_without_masks_equals_detectron2s(tiny_export: Path, tmp_path: Path) -> None:
    datasets = register_roboflow_coco("tiny", tiny_export, masks="none", output_dir=tmp_path)
    assert not datasets.has_masks
    assert "segmentation" not in DatasetCatalog.get("tiny_train")[0]["annotations"][0]
    _same_as_detectron2(datasets)


def _truth_as_prediction(name: str, tmp_path: Path, *, masks: bool) -> dict[str, Any]:
    import numpy as np
    import pycocotools.mask as mask_util
    import torch
    from detectron2.structures import Boxes, polygons_to_bitmask

    evaluator = COCOEvaluator(name, ("bbox", "segm") if masks else ("bbox",), False, str(tmp_path))
    evaluator.reset()
    for record in DatasetCatalog.get(name):
        found = Instances((record["height"], record["width"]))
        annotations = [a for a in record["annotations"] if not a["iscrowd"]]
        boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
        found.pred_boxes = Boxes(torch.tensor(np.array(boxes).reshape(-1, 4)))
        found.scores = torch.ones(len(boxes))
        found.pred_classes = torch.tensor([a["category_id"] for a in annotations], dtype=torch.long)
        if masks:
            bits = [
                mask_util.decode(a["segmentation"])
                if isinstance(a["segmentation"], dict)
                else polygons_to_bitmask(a["segmentation"], record["height"], record["width"])
                for a in annotations
            ]
            shape = (0, record["height"], record["width"])
            found.pred_masks = torch.tensor(np.array(bits).reshape(-1, *shape[1:])).bool()
        evaluator.process([record], [{"instances": found}])
    result: dict[str, Any] = evaluator.evaluate()
    return result


def test_trap_08_the_evaluator_reads_the_truth_that_the_loader_reads(
    tiny_export: Path, tmp_path: Path
) -> None:
    # The export's own json would give AP below 100: grouping category, ids from 0 (trap 10).
    register_roboflow_coco("tiny", tiny_export, output_dir=tmp_path)
    scores = _truth_as_prediction("tiny_train", tmp_path, masks=True)
    assert scores["bbox"]["AP"] == pytest.approx(100)
    assert scores["segm"]["AP"] == pytest.approx(100)


def test_trap_08_other_content_is_another_file(export: Path, tmp_path: Path) -> None:
    first = register_roboflow_coco("tiny", export, output_dir=tmp_path)
    again = register_roboflow_coco("tiny", export, output_dir=tmp_path)
    assert again == first
    _edit(export, lambda coco: coco["annotations"].pop())
    changed = register_roboflow_coco("tiny", export, output_dir=tmp_path)
    assert changed.json_files["train"] != first.json_files["train"]
    assert changed.json_files["valid"] == first.json_files["valid"]
    assert MetadataCatalog.get("tiny_train").json_file == str(changed.json_files["train"])
    assert sorted((tmp_path / "datasets").iterdir()) == sorted(
        {*first.json_files.values(), *changed.json_files.values()}
    )


def test_a_split_that_another_export_lacks_is_forgotten(
    export: Path, export_writer: Callable[..., None], tmp_path: Path
) -> None:
    register_roboflow_coco("tiny", export, output_dir=tmp_path)
    export_writer(tmp_path / "other", {"train": 2, "val": 1}, seed=5)
    datasets = register_roboflow_coco("tiny", tmp_path / "other", output_dir=tmp_path)
    assert datasets.image_counts == {"train": 2, "valid": 1}
    assert "tiny_test" not in DatasetCatalog
    assert len(DatasetCatalog.get("tiny_train")) == 2


def test_trap_10_pycocotools_reads_what_is_registered(export: Path, tmp_path: Path) -> None:
    _edit(export, lambda coco: [coco.pop("info"), coco.pop("licenses")])
    datasets = register_roboflow_coco("tiny", export, output_dir=tmp_path)
    truth = COCO(str(datasets.json_files["train"]))
    assert min(truth.getAnnIds()) == 1
    box = {"image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}
    assert len(truth.loadRes([box]).anns) == 1


def test_trap_20_the_loader_can_be_pickled_for_spawned_processes(
    tiny_export: Path, tmp_path: Path
) -> None:
    register_roboflow_coco("tiny", tiny_export, output_dir=tmp_path)
    loader = pickle.loads(pickle.dumps(dict(DatasetCatalog)["tiny_valid"]))
    assert loader() == DatasetCatalog.get("tiny_valid")


@pytest.mark.parametrize("name", ["/etc/hostname", "../train/x.jpg", "C:\\x.jpg", "a/../../x"])
def test_trap_15_a_name_that_leads_out_is_refused(export: Path, tmp_path: Path, name: str) -> None:
    _edit(export, lambda coco: coco["images"][0].update(file_name=name))
    with pytest.raises(DatasetError, match="leads out of the split's folder"):
        register_roboflow_coco("tiny", export, output_dir=tmp_path)


def test_trap_15_a_link_that_leads_out_is_refused(export: Path, tmp_path: Path) -> None:
    picture = next((export / "train").glob("*.jpg"))
    picture.rename(tmp_path / "elsewhere.jpg")
    os.symlink(tmp_path / "elsewhere.jpg", picture)
    with pytest.raises(DatasetError, match="leads out of the split's folder"):
        register_roboflow_coco("tiny", export, output_dir=tmp_path)
    assert "tiny_train" not in DatasetCatalog


def test_missing_images_are_counted(export: Path, tmp_path: Path) -> None:
    for picture in sorted((export / "train").glob("*.jpg"))[:2]:
        picture.unlink()
    with pytest.raises(DatasetError, match=r"'scene_0_train.* is not there.*, and 1 more like it"):
        register_roboflow_coco("tiny", export, output_dir=tmp_path)


def test_images_may_lie_in_a_sub_folder(export: Path, tmp_path: Path) -> None:
    picture = next((export / "valid").glob("scene_1*.jpg"))
    (export / "valid" / "more").mkdir()
    picture.rename(export / "valid" / "more" / picture.name)
    _edit(export, lambda c: c["images"][1].update(file_name=f"more/{picture.name}"), "valid")
    register_roboflow_coco("tiny", export, output_dir=tmp_path)
    assert Path(DatasetCatalog.get("tiny_valid")[1]["file_name"]).is_file()


def test_refusals_name_the_export(export: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"export: the export has no class 'Person', did you"):
        register_roboflow_coco("tiny", export, classes=["Person"], output_dir=tmp_path)
    DatasetCatalog.register("taken_train", list)
    with pytest.raises(DatasetError, match="'taken_train' belongs to another dataset"):
        register_roboflow_coco("taken", export, output_dir=tmp_path)
    for split in ("train", "valid", "test"):
        _edit(export, lambda coco: coco.update(images=[], annotations=[]), split)
    with pytest.raises(DatasetError, match="no split names an image"):
        register_roboflow_coco("tiny", export, output_dir=tmp_path)


def test_a_split_without_images_is_left_out(export: Path, tmp_path: Path) -> None:
    _edit(export, lambda coco: coco.update(images=[], annotations=[]), "test")
    datasets = register_roboflow_coco("tiny", export, output_dir=tmp_path)
    assert list(datasets.names) == ["train", "valid"]


def test_what_was_mended_is_one_line(
    tiny_export: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="persondet.data.register"):
        register_roboflow_coco("tiny", tiny_export, output_dir=tmp_path)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "6 train, 3 valid, 3 test images, classes person, polygon masks" in line
    assert "grouping-category: 1" in line
    assert "area-of-box: " in line


def test_colors_are_distinct_and_stable() -> None:
    colors = class_colors(12)
    assert len(set(colors)) == 12
    assert class_colors(3) == colors[:3]
    assert all(0 <= channel <= 255 for color in colors for channel in color)


@pytest.mark.parametrize(
    ("folder", "images", "annotations", "classes", "masks"),
    [
        ("roboflow-drone-person-polygons", (85, 24, 12), (100, 31, 16), ("person",), "polygon"),
        ("roboflow-heads-boxes-only", (174, 16, 9), (255, 24, 11), ("Person",), ""),
        (
            "roboflow-multimodal-human-polygons/dataset",
            (241, 66, 33),
            (241, 66, 33),
            ("person",),
            "polygon",
        ),
    ],
)
def test_real_exports(
    real_data: Path,
    tmp_path: Path,
    folder: str,
    images: tuple[int, ...],
    annotations: tuple[int, ...],
    classes: tuple[str, ...],
    masks: str,
) -> None:
    datasets = register_roboflow_coco("real", real_data / folder, output_dir=tmp_path)
    assert tuple(datasets.image_counts.values()) == images
    assert list(datasets.names) == ["train", "valid", "test"]
    counts = [
        sum(len(record["annotations"]) for record in DatasetCatalog.get(name))
        for name in datasets.names.values()
    ]
    assert tuple(counts) == annotations
    assert datasets.classes == classes
    assert datasets.mask_format == masks
    _same_as_detectron2(datasets)
    scores = _truth_as_prediction("real_test", tmp_path, masks=bool(masks))
    assert all(score["AP"] == pytest.approx(100) for score in scores.values())


def test_real_oddities(real_data: Path, tmp_path: Path) -> None:
    cats = register_roboflow_coco("flat", real_data / "bad-flat-polygons", output_dir=tmp_path)
    assert cats.image_counts == {"test": 8}
    assert cats.mask_format == "polygon"
    _same_as_detectron2(cats)
    tiny = real_data / "tiny-roboflow-variants" / "tests" / "assets"
    mixed = register_roboflow_coco(
        "mixed", tiny / "coco_dataset/coco_roboflow", output_dir=tmp_path
    )
    assert list(mixed.names) == ["train", "valid"]
    assert mixed.mask_format == "bitmask"
    _same_as_detectron2(mixed)


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

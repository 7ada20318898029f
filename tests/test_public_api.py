"""`import persondet` is free, and its names are there when they are used."""

import contextlib
import doctest
import shutil
import subprocess
import sys
from argparse import Namespace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import detectron2.config
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.engine import TrainerBase
from detectron2.evaluation import inference_on_dataset

import persondet
from persondet.data.coco_json import read_coco
from persondet.data.leaks.find import ExportImage
from persondet.data.roboflow import read_export
from tests.inference.tiny_model import NARROW

CONFIGS = Path(__file__).resolve().parents[1] / "configs"

HEAVY = ("torch", "detectron2", "numpy", "cv2", "av", "matplotlib", "albumentations", "yaml")


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("persondet persondet.environment persondet.files persondet.results", HEAVY),
        ("persondet.report.build", ("torch", "detectron2", "matplotlib")),
        ("persondet.report.plots", ("torch", "detectron2", "matplotlib.pyplot")),
        ("persondet.video.reader persondet.video.writer", ("torch", "detectron2")),
    ],
)
def test_what_is_light_imports_nothing_heavy(modules, heavy):
    modules = modules.replace(" ", ", ")
    code = f"import sys, {modules}; print([m for m in {heavy!r} if m in sys.modules])"
    assert run(code) == "[]"


def test_the_names_are_there_and_an_unknown_one_is_an_attribute_error():
    names = set(persondet.__all__) - {"__version__"}
    assert all(getattr(persondet, name).__name__ == name for name in names)
    assert names <= set(dir(persondet))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = persondet.no_such_name


def test_without_detectron2_the_first_use_says_what_to_run():
    code = """
import sys
sys.modules |= {"detectron2": None, "av": None, "torch": sys}  # torch is there
import persondet
persondet.load_events  # needs none of them
for name in ("add_persondet_config", "VideoReader"):
    try:
        getattr(persondet, name)
    except Exception as error:
        print(type(error).__name__, error)
"""
    message, other = run(code).splitlines()
    assert message.startswith("InstallationError") and "install_detectron2.py" in message
    assert other.startswith("ModuleNotFoundError") and "av" in other


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, tiny_export: Path) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(tiny_export, folder / "datasets" / "person")
    (folder / "configs").symlink_to(CONFIGS, target_is_directory=True)
    image = cv2.imread(str(next((tiny_export / "test").glob("*.jpg"))))
    cv2.imwrite(str(folder / "street.jpg"), image)
    with persondet.VideoWriter(folder / "clip.mp4", width=96, height=64, fps=Fraction(25)) as clip:
        for _ in range(5):
            clip.write(image)
    with contextlib.chdir(folder):
        cfg = persondet.setup(_arguments("output/person"))
        trained = persondet.Trainer(cfg)
        trained.checkpointer.save_model("model_best", iteration=0)
        Path("output/person/metrics.json").write_text('{"iteration": 0, "total_loss": 0.5}\n')
        cfg = persondet.setup(_arguments("output/new"))
        model = persondet.Trainer.build_model(cfg)
    functions = (Fraction, Namespace, ExportImage, inference_on_dataset, read_coco, read_export)
    return {name: getattr(persondet, name) for name in persondet.__all__} | {
        **{function.__name__: function for function in functions},
        **{"cv2": cv2, "np": np, "torch": torch, "detectron2": detectron2},
        **{"DatasetCatalog": DatasetCatalog, "folder": folder, "cfg": cfg, "model": model},
    }


def _arguments(output: str) -> Namespace:
    opts = ["DATASETS.ROBOFLOW.ROOT", "datasets/person", "OUTPUT_DIR", output]
    opts += ["MODEL.DEVICE", "cpu", "SOLVER.MAX_ITER", "2", "TEST.EVAL_PERIOD", "2"]
    opts += ["DATALOADER.NUM_WORKERS", "0", *NARROW]
    config = "configs/quick_schedules/person_mask_rcnn_R_18_FPN_instant_test.yaml"
    return Namespace(config_file=config, opts=opts)


SLOW = {"Trainer", "annotate_video"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name in persondet.__all__
        if name != "__version__"
    ],
)
def test_every_public_name_has_an_example_that_runs(
    name: str, workplace: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace["folder"])
    names = workplace | {"trainer": TrainerBase()}
    text = getattr(persondet, name).__doc__
    example = doctest.DocTestParser().get_doctest(text, names, name, None, None)
    assert len(example.examples) >= 2
    told: list[str] = []
    assert doctest.DocTestRunner().run(example, out=told.append).failed == 0, "".join(told)

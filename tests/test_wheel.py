"""What is installed without a checkout beside it: configs, pipelines, templates, tools' parts."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from persondet.engine import load_cfg
from persondet.environment import config_folder
from persondet.errors import ConfigError
from tests.conftest import write_export
from tests.inference.tiny_model import NARROW
from tests.video.clips import squares, write_clip

ROOT = Path(__file__).resolve().parents[1]


def test_a_config_is_found_by_its_name_unless_a_file_has_it(tmp_path, monkeypatch):
    assert config_folder() == ROOT / "configs"
    monkeypatch.chdir(tmp_path)
    name = "quick_schedules/person_mask_rcnn_R_18_FPN_instant_test.yaml"
    found = [load_cfg(path) for path in (name, f"configs/{name}", ROOT / "configs" / name)]
    assert found[0] == found[1] == found[2]
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "person_mask_rcnn_R_50_FPN.yaml").write_text("SEED: 77\n")
    assert load_cfg("configs/person_mask_rcnn_R_50_FPN.yaml").SEED == 77
    for missing in ("nowhere.yaml", "configs/../configs/nowhere.yaml", "../setup.py"):
        with pytest.raises(ConfigError, match="no such config file"):
            load_cfg(missing)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the tools, a dataset, and what a wheel of the project installs."""
    root = tmp_path_factory.mktemp("no checkout")
    source = root / "source"
    for name in ("persondet", "configs"):
        hidden = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=hidden)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "wheel -q --no-deps --no-build-isolation --no-index -w".split()
    subprocess.run([sys.executable, "-m", "pip", *build, root, source], check=True)
    (wheel,) = root.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            archive.extract(name, root / "installed")
    shutil.rmtree(source)
    shutil.copytree(ROOT / "tools", root / "tools")
    write_export(root / "export")
    return root


def use(place, *command, expect=0):
    """Run Python where nothing of the checkout is to be found; return what it printed."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(place / "installed")},
        timeout=200,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_wheel_holds_every_file_of_the_package_and_the_configs(place):
    where = use(place, "-c", "import persondet; print(persondet.__file__)")
    installed = place / "installed" / "persondet"
    assert Path(where.strip()) == installed / "__init__.py"
    files = [path for path in (ROOT / "persondet").rglob("*") if path.is_file()]
    wanted = {
        path: path.relative_to(ROOT / "persondet")
        for path in files
        if "__pycache__" not in str(path)
    }
    configs = [path for path in (ROOT / "configs").rglob("*") if path.is_file()]
    wanted |= {path: path.relative_to(ROOT) for path in configs}
    assert len(configs) > 14
    for path, name in wanted.items():
        assert (installed / name).read_bytes() == path.read_bytes(), name


@pytest.mark.slow
def test_the_tools_work_with_what_is_installed(place):
    checked = use(place, "tools/prepare_dataset.py", "check", "export", expect=1)
    assert "next: python tools/prepare_dataset.py clean" in checked
    sheet = ("--output", "sheet.png", "--augmentation", "street", "--images", "1")
    use(place, "tools/visualize_data.py", "--dataset", "export", *sheet)
    demo = "import persondet.demo as demo, persondet.sample.export; assert demo.CONFIG.is_file()"
    use(place, "-c", demo)


@pytest.fixture(scope="module")
def run(place):
    config = "configs/quick_schedules/person_mask_rcnn_R_18_FPN_instant_test.yaml"
    use(place, "tools/train_net.py", "--config-file", config, *TRAINING, "OUTPUT_DIR", "run")
    return "run"


TRAINING = """DATASETS.ROBOFLOW.ROOT export MODEL.DEVICE cpu SOLVER.MAX_ITER 2 TEST.EVAL_PERIOD 2
    DATALOADER.NUM_WORKERS 0""".split()
TRAINING += NARROW


@pytest.mark.slow
def test_a_training_its_report_and_its_model_need_no_checkout(place, run):
    use(place, "tools/make_report.py", "run")
    assert (place / "run" / "report.html").is_file() and (place / "run" / "report.pdf").is_file()
    use(place, "tools/predict.py", "--run", "run", "--input", "export/test", "--output", "drawn")
    assert (place / "drawn" / "predictions.json").is_file()


# Each tool, and a file that it writes.
TOOLS = {
    "plot_metrics.py run --output plots": "plots",
    "compare_settings.py --config-file configs/quick_schedules/"
    "person_mask_rcnn_R_18_FPN_instant_test.yaml --output compared --seeds 1 "
    "--variant two MODEL.BACKBONE.FREEZE_AT 2 --variant none MODEL.BACKBONE.FREEZE_AT 0 "
    "--opts " + " ".join(TRAINING): "compared",
    "export_model.py --run run --output model.onnx --count 1": "model.onnx",
    "video_demo.py --run run --video-input clips/walk.mp4 --output walk.mp4": "walk.jsonl",
    "video_demo.py --model model.onnx --video-input clips/walk.mp4 --output onnx.mp4": "onnx.mp4",
    "annotate_folder.py --run run --input clips --output annotated": "annotated/walk_annotated.mp4",
    "draw_areas.py clips/walk.mp4 --output grid.png": "grid.png",
    "analyze_clip.py walk.jsonl --areas areas.yaml --output analysis": "analysis/analysis.json",
    "mine_frames.py --run run --video-input clips --output mined --count 2": "mined/frames.html",
    "prepare_dataset.py audit export --run run --output audit": "audit/audit.html",
    "prepare_dataset.py clean export --output clean": "clean/train",
    "model_page.py --help": "",
    "score_tracks.py --help": "",
    "make_sample.py --help": "",
    "demo.py --help": "",
}


@pytest.mark.soak
def test_every_tool_works_with_what_is_installed(place, run):
    (place / "clips").mkdir()
    write_clip(place / "clips" / "walk.mp4", squares(40))
    zone = "zones: {middle: [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]]}"
    (place / "areas.yaml").write_text(zone)
    for command, written in TOOLS.items():
        use(place, *f"tools/{command}".split())
        assert (place / written).exists(), command
    use(place, "-c", "import persondet.page.guard, persondet.page.server, persondet.page.trials")
    known = {command.partition(" ")[0] for command in TOOLS} | {"make_report.py", "predict.py"}
    known |= {"train_net.py", "visualize_data.py"}
    # Those that install, and one that times a checkout's own benchmarks.
    known |= {"benchmark.py", "install_detectron2.py", "make_environment.py"}
    tools = {path.name for path in (ROOT / "tools").glob("*.py") if "__main__" in path.read_text()}
    assert tools <= known

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
    config = "configs/quick_schedules/person_mask_rcnn_R_18_FPN_instant_test.yaml"
    opts = ["DATASETS.ROBOFLOW.ROOT", "export", "OUTPUT_DIR", "run", "MODEL.DEVICE", "cpu"]
    opts += ["SOLVER.MAX_ITER", "2", "TEST.EVAL_PERIOD", "2", "DATALOADER.NUM_WORKERS", "0"]
    use(place, "tools/train_net.py", "--config-file", config, *opts, *NARROW)
    use(place, "tools/make_report.py", "run")
    assert (place / "run" / "report.html").is_file() and (place / "run" / "report.pdf").is_file()
    use(place, "tools/predict.py", "--run", "run", "--input", "export/test", "--output", "drawn")
    assert (place / "drawn" / "predictions.json").is_file()
    demo = "import persondet.demo as demo, persondet.sample.export; assert demo.CONFIG.is_file()"
    use(place, "-c", demo)

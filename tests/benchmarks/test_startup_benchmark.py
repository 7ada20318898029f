"""The startup benchmark: what ends the clock, and that both sides start the same training."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import yaml
from detectron2.config import get_cfg

from persondet.benchmarks import startup
from persondet.engine.defaults import load_cfg
from persondet.errors import PersondetError

WRITER = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
marker = pathlib.Path(sys.argv[1])
marker.with_suffix(".pid").write_text(str(child.pid))
marker.write_text("no line yet")
time.sleep(0.5)
marker.write_text("a line\\n")
time.sleep(60)
"""


def test_the_clock_stops_at_the_line_and_the_processes_end(tmp_path):
    marker = tmp_path / "marker"
    start = time.perf_counter()
    seconds = startup._until(marker, [sys.executable, "-c", WRITER, str(marker)], tmp_path / "run")
    assert 0.5 <= seconds < time.perf_counter() - start < 20
    child = (tmp_path / "marker.pid").read_text()
    for _ in range(100):
        state = subprocess.run(["ps", "-o", "stat=", "-p", child], capture_output=True, text=True)
        if not state.stdout.strip().strip("Z"):
            break
        time.sleep(0.05)
    else:
        pytest.fail("the child of the measured process is still there")


def test_a_side_that_ends_without_a_step_is_an_error_with_its_last_words(tmp_path):
    with pytest.raises(PersondetError, match="first step; it said last: .*no such luck"):
        startup._until(
            tmp_path / "marker",
            [sys.executable, "-c", "raise SystemExit('no such luck')"],
            tmp_path / "run",
        )


def test_both_sides_read_the_same_small_config(tmp_path):
    """Detectron2 alone merges it, so it has none of our keys; and we take it as it is."""
    path = tmp_path / "small.yaml"
    path.write_text(startup._SMALL.format(device="cpu"))
    stock = get_cfg()
    stock.merge_from_file(str(path))
    ours = load_cfg(path)
    for group in ("RESNETS", "FPN", "RPN", "ROI_HEADS", "ROI_BOX_HEAD", "ROI_MASK_HEAD"):
        assert stock.MODEL[group] == ours.MODEL[group]
    assert stock.SOLVER.IMS_PER_BATCH == ours.SOLVER.IMS_PER_BATCH
    assert (stock.MODEL.RESNETS.DEPTH, stock.MODEL.DEVICE) == (18, "cpu")


def test_the_stock_side_of_the_default_is_our_default_without_our_keys(tmp_path):
    path = tmp_path / "default.yaml"
    ours = load_cfg(startup._DEFAULT)
    path.write_text(startup._stock_yaml(ours))
    stock = get_cfg()
    stock.merge_from_file(str(path))  # a key that it does not know would raise
    assert stock.MODEL.RPN == ours.MODEL.RPN
    assert stock.INPUT.MIN_SIZE_TRAIN == ours.INPUT.MIN_SIZE_TRAIN
    assert stock.SOLVER.IMS_PER_BATCH == ours.SOLVER.IMS_PER_BATCH
    assert stock.SOLVER.AMP.ENABLED is False
    assert "ALBUMENTATIONS" not in yaml.safe_load(path.read_text())["INPUT"]


@pytest.mark.slow
def test_both_sides_come_to_a_first_step(tmp_path):
    startup.write_export(tmp_path / "export", {"train": 4, "valid": 1})
    config = tmp_path / "small.yaml"
    config.write_text(startup._SMALL.format(device="cpu"))
    numbers = startup.count()
    assert startup._start_ours(tmp_path, config, numbers) > 0.5
    assert startup._start_stock(tmp_path, config, numbers) > 0.5
    assert (tmp_path / "run_0" / "metrics.json").is_file()
    assert not list((tmp_path / "run_1").glob("*.pth"))

"""Several settings with several seeds: the request, the table, and a comparison that goes on."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from persondet.engine import comparison
from persondet.engine.comparison import Variant, compare, comparison_table, run_folder
from persondet.errors import ConfigError, InterruptedRun, OutputExistsError
from persondet.results import METRICS, write_results

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs/quick_schedules/person_mask_rcnn_R_18_FPN_instant_test.yaml"


def finish(output, variant, seed, box, mask):
    """Write the scores that a finished run leaves."""
    folder = run_folder(output, variant, seed)
    folder.mkdir(parents=True)
    scores = {
        task: dict.fromkeys(METRICS, value) for task, value in (("bbox", box), ("segm", mask))
    }
    write_results(folder, {"test": scores | {"images": 3}, "seconds": {"train": 1.0}})


@pytest.fixture
def finished(tmp_path):
    """A comparison of two variants with two seeds each, all trained before."""
    variants = [Variant("frozen", ("MODEL.BACKBONE.FREEZE_AT", "2")), Variant("free")]
    for name, box, mask in (("frozen", 50, 40), ("free", 30, 20)):
        for seed in (1, 2):
            finish(tmp_path, name, seed, box + seed, mask + 2 * seed)
    request = {
        "schema": 1,
        "config_file": str(CONFIG),
        "opts": [],
        "variants": [{"name": v.name, "opts": list(v.opts)} for v in variants],
    }
    (tmp_path / "request.json").write_text(json.dumps(request))
    return tmp_path, variants


def test_finished_runs_are_not_trained_again_and_make_the_table(finished):
    output, variants = finished
    said = []
    result = compare(output, variants, config_file=CONFIG, seeds=(1, 2), announce=said.append)
    assert said == [
        f"{name}, seed {seed}: done before" for seed in (1, 2) for name in ("frozen", "free")
    ]
    assert result["variants"][0]["bbox"]["AP"] == {"mean": 51.5, "low": 51.0, "high": 52.0}
    table = comparison_table(result).splitlines()
    assert table[0] == "| variant | box AP | box AP50 | mask AP | mask AP50 |"
    assert table[3].startswith("| free | 31.5 (31.0 to 32.0) | ")
    assert table[3].endswith("| 23.0 (22.0 to 24.0) |")
    assert json.loads((output / "comparison.json").read_text()) == result
    with pytest.raises(OutputExistsError, match="--overwrite"):  # another comparison
        compare(output, variants, config_file=CONFIG, seeds=(1,), opts=("SOLVER.MAX_ITER", "5"))
    assert (run_folder(output, "frozen", 1) / "results.json").is_file()


@pytest.mark.parametrize(
    ("variants", "seeds", "said"),
    [
        ([Variant("a"), Variant("a")], (1,), "name of its own"),
        ([Variant("../a")], (1,), "no name for a folder"),
        ([Variant("a", ("SEED",))], (1,), "without a value"),
        ([Variant("a")], (1, 1), "different numbers"),
    ],
)
def test_a_request_that_is_none_is_refused(tmp_path, variants, seeds, said):
    with pytest.raises(ConfigError, match=said):
        compare(tmp_path / "new", variants, config_file=CONFIG, seeds=seeds)
    assert not (tmp_path / "new").exists()


def slow_training(arguments, threads, folder):
    """Take the place of a training, which Ctrl-C reaches too."""
    (folder.parent.parent / f"began {folder.parent.name}").touch()
    try:
        time.sleep(30)
    except KeyboardInterrupt:
        raise InterruptedRun("saved") from None
    return 30.0


def interrupted_comparison(output):
    """Compare three variants, in a process of its own."""
    # A job in the background would ignore Ctrl-C, and so would its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    comparison._train = slow_training
    try:
        compare(output, [Variant(name) for name in "abc"], config_file=CONFIG, seeds=(1,))
    except InterruptedRun as error:
        (Path(output) / "said").write_text(str(error))


@pytest.mark.slow
def test_an_interruption_ends_the_comparison_and_starts_no_further_training(tmp_path):
    code = "import sys; from tests.test_comparison import *; interrupted_comparison(sys.argv[1])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 60
        while not (tmp_path / "began a").exists() and time.monotonic() < end:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        process.wait(timeout=20)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert [path.name for path in tmp_path.glob("began *")] == ["began a"]
    assert "the same command goes on" in (tmp_path / "said").read_text()


@pytest.mark.slow
def test_the_tool_trains_scores_and_goes_on(tmp_path, tiny_export, capsys):
    import compare_settings  # a tool is no package, which the process above would have to know

    command = [
        *("--config-file", str(CONFIG), "--output", str(tmp_path / "c"), "--seeds", "1"),
        *("--jobs", "2", "--variant", "frozen", "MODEL.BACKBONE.FREEZE_AT", "2"),
        *("--variant", "free", "MODEL.BACKBONE.FREEZE_AT", "0"),
        *("--opts", "DATASETS.ROBOFLOW.ROOT", str(tiny_export), "SOLVER.MAX_ITER", "1"),
        *("INPUT.MIN_SIZE_TEST", "48", "TEST.VAL_LOSS.ENABLED", "False"),
    ]
    assert compare_settings.main(command) == 0
    assert "| frozen |" in capsys.readouterr().out
    for variant, freeze_at in (("frozen", 2), ("free", 0)):
        results = json.loads((tmp_path / "c" / variant / "seed_1/results.json").read_text())
        assert results["freeze_at"] == freeze_at
    assert compare_settings.main(command) == 0
    assert capsys.readouterr().out.count("done before") == 2

"""Several settings with several seeds: the request, the table, and a comparison that goes on."""

import json

import compare_settings
import pytest

from persondet.engine.comparison import Variant, compare, comparison_table, run_folder
from persondet.errors import ConfigError, OutputExistsError
from persondet.results import METRICS, write_results
from tests.engine.toy_training import CONFIG


def finish(output, variant, seed, box, mask):
    folder = run_folder(output, variant, seed)
    folder.mkdir(parents=True)
    scores = {"bbox": dict.fromkeys(METRICS, box), "segm": dict.fromkeys(METRICS, mask)}
    write_results(folder, {"test": scores | {"images": 3}, "seconds": {"train": 1.0}})


def test_finished_runs_are_not_trained_again_and_make_the_table(tmp_path):
    variants = [Variant("frozen", ("MODEL.BACKBONE.FREEZE_AT", "2")), Variant("free")]
    request = {"schema": 1, "config_file": str(CONFIG), "opts": []}
    request["variants"] = [{"name": v.name, "opts": list(v.opts)} for v in variants]
    (tmp_path / "request.json").write_text(json.dumps(request))
    for name, box, mask in (("frozen", 50, 40), ("free", 30, 20)):
        for seed in (1, 2):
            finish(tmp_path, name, seed, box + seed, mask + 2 * seed)
    said = []
    result = compare(tmp_path, variants, config_file=CONFIG, seeds=(1, 2), announce=said.append)
    assert len(said) == 4 and all(words.endswith("done before") for words in said)
    assert result["variants"][0]["bbox"]["AP"] == {"mean": 51.5, "low": 51.0, "high": 52.0}
    table = comparison_table(result).splitlines()
    assert table[0] == "| variant | box AP | box AP50 | mask AP | mask AP50 |"
    assert table[3].startswith("| free | 31.5 (31.0 to 32.0) | ")
    assert table[3].endswith("| 23.0 (22.0 to 24.0) |")
    assert json.loads((tmp_path / "comparison.json").read_text()) == result
    with pytest.raises(OutputExistsError, match="--overwrite"):  # another comparison
        compare(tmp_path, variants, config_file=CONFIG, seeds=(1,), opts=("SOLVER.MAX_ITER", "5"))
    assert (run_folder(tmp_path, "frozen", 1) / "results.json").is_file()


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


@pytest.mark.slow
def test_the_tool_trains_scores_and_goes_on(tmp_path, tiny_export, capsys):
    command = [
        *("--config-file", str(CONFIG), "--output", str(tmp_path / "c"), "--seeds", "1"),
        *("--variant", "frozen", "MODEL.BACKBONE.FREEZE_AT", "2", "--opts"),
        *("DATASETS.ROBOFLOW.ROOT", str(tiny_export), "SOLVER.MAX_ITER", "1"),
        *("INPUT.MIN_SIZE_TEST", "48", "INPUT.MIN_SIZE_TRAIN", "(48,)"),
    ]
    for said in ("| frozen |", "done before"):
        assert compare_settings.main(command) == 0
        assert said in capsys.readouterr().out
    results = json.loads((tmp_path / "c/frozen/seed_1/results.json").read_text())
    assert results["freeze_at"] == 2

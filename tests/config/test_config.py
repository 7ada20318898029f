"""Keys, their mistakes, and the rules between them."""

from pathlib import Path

import pytest

from persondet.config import check_cfg, get_cfg, merge_opts, merge_yaml
from persondet.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize(
    "path", sorted(CONFIGS.glob("*.yaml")) + sorted(CONFIGS.glob("quick_schedules/*.yaml"))
)
def test_every_config_merges_and_passes_the_checks(path):
    cfg = get_cfg()
    merge_yaml(cfg, path)
    check_cfg(cfg)
    assert cfg.SEED == 42


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (["SOLVER.MAX_ITR", "3"], "did you mean SOLVER.MAX_ITER?"),
        (["MODEL.ROI_HEAD.NUM_CLASSES", "3"], "did you mean MODEL.ROI_HEADS.NUM_CLASSES?"),
        (["MODEL.FREEZE_AT", "2"], "did you mean MODEL"),
        (["SOLVER.MAX_ITER", "many"], "of another type"),
        (["MODEL", "3"], "is a group of keys"),
    ],
)
def test_a_wrong_override_is_one_sentence_with_the_mend(opts, words):
    with pytest.raises(ConfigError) as caught:
        merge_opts(get_cfg(), opts)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("SOLVER.OPTIMIZER", "adam", "choose one of SGD, AdamW"),
        ("MODEL.BACKBONE.FREEZE_AT", "6", "choose one of 0, 1, 2, 3, 4, 5"),
        ("DATASETS.ROBOFLOW.MASKS", "rle", "auto, polygon"),
        ("LOG_PERIOD", "0", "at least 1"),
        ("INPUT.ALBUMENTATIONS.MIN_VISIBILITY", "1.5", "at most 1"),
        ("SOLVER.BEST_CHECKPOINT.METRIC", "segm/AP", "MODEL.MASK_ON"),
        ("SOLVER.BEST_CHECKPOINT.METRIC", "foo/AP", "use 'auto'"),
        ("INPUT.CROP.ENABLED", "True", "INPUT.ALBUMENTATIONS.PIPELINE"),
        ("INPUT.RANDOM_FLIP", "none", "INPUT.ALBUMENTATIONS.PIPELINE"),
        ("SOLVER.BASE_LR", "-1.0", "at least 0"),
        ("SEED", "4294967296", "at most 4294967295"),
        ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full", "choose one of norm, value"),
        ("SOLVER.WARMUP_METHOD", "cubic", "choose one of linear, constant"),
        ("SOLVER.EARLY_STOPPING.PATIENCE", "-1", "at least 0"),
    ],
)
def test_a_wrong_value_is_refused_with_what_would_work(key, value, words):
    cfg = get_cfg()
    merge_opts(cfg, [key, value])
    with pytest.raises(ConfigError, match=words):
        check_cfg(cfg)


@pytest.mark.parametrize(("rate", "end"), [("0.0", "0.0"), ("0.01", "0.1")])
def test_a_cosine_that_climbs_is_refused(rate, end):
    cfg = get_cfg()
    merge_opts(cfg, ["SOLVER.BASE_LR", rate, "SOLVER.BASE_LR_END", end])
    check_cfg(cfg)
    merge_opts(cfg, ["SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR"])
    with pytest.raises(ConfigError, match="SOLVER.BASE_LR_END"):
        check_cfg(cfg)


@pytest.mark.parametrize("where", ["top", "base"])
def test_yaml_tags_run_nothing(tmp_path, where):
    marker = tmp_path / "ran"
    evil = tmp_path / "evil.yaml"
    evil.write_text(f"OUTPUT_DIR: !!python/object/apply:os.mkdir ['{marker}']\n")
    config = evil
    if where == "base":
        config = tmp_path / "config.yaml"
        config.write_text("_BASE_: evil.yaml\n")
    with pytest.raises(ConfigError, match="not a plain YAML"):
        merge_yaml(get_cfg(), config)
    assert not marker.exists()


def test_an_unknown_key_in_a_file_names_the_file(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("SOLVER:\n  BASE_RL: 0.1\n")
    with pytest.raises(ConfigError, match=r"mine.yaml: .*did you mean SOLVER.BASE_LR\?"):
        merge_yaml(get_cfg(), config)

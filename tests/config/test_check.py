"""What a config may say: files, overrides, values, anchors."""

from pathlib import Path

import pytest

from persondet.config import check_cfg, get_cfg, merge_opts, merge_yaml, training_anchors
from persondet.config.check import AT_MOST
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
    ("key", "value", "words"),
    [
        ("SOLVER.MAX_ITR", "3", "did you mean SOLVER.MAX_ITER?"),
        ("MODEL.ROI_HEAD.NUM_CLASSES", "3", "did you mean MODEL.ROI_HEADS.NUM_CLASSES?"),
        ("SOLVER.MAX_ITER", "many", "of another type"),
        ("MODEL", "3", "is a group of keys"),
    ],
)
def test_a_wrong_override_is_one_sentence_with_the_mend(key, value, words):
    with pytest.raises(ConfigError) as caught:
        merge_opts(get_cfg(), [key, value])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("SOLVER.OPTIMIZER", "adam", "choose one of SGD, AdamW"),
        ("MODEL.BACKBONE.FREEZE_AT", "6", "choose one of 0, 1, 2, 3, 4, 5"),
        ("LOG_PERIOD", "0", "at least 1"),
        ("INPUT.ALBUMENTATIONS.MIN_VISIBILITY", "1.5", "at most 1"),
        ("SOLVER.BEST_CHECKPOINT.METRIC", "segm/AP", "MODEL.MASK_ON"),
        ("SOLVER.BEST_CHECKPOINT.METRIC", "foo/AP", "use 'auto'"),
        ("INPUT.CROP.ENABLED", "True", "INPUT.ALBUMENTATIONS.PIPELINE"),
        ("INPUT.RANDOM_FLIP", "none", "INPUT.ALBUMENTATIONS.PIPELINE"),
        ("SOLVER.EARLY_STOPPING.PATIENCE", "-1", "at least 0"),
    ],
)
def test_a_wrong_value_is_refused_with_what_would_work(key, value, words):
    cfg = get_cfg()
    merge_opts(cfg, [key, value])
    with pytest.raises(ConfigError, match=words):
        check_cfg(cfg)


def test_a_cosine_that_climbs_is_refused():
    for rate, end in (("0.0", "0.0"), ("0.01", "0.1")):
        cfg = get_cfg()
        merge_opts(cfg, ["SOLVER.BASE_LR", rate, "SOLVER.BASE_LR_END", end])
        check_cfg(cfg)
        merge_opts(cfg, ["SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR"])
        with pytest.raises(ConfigError, match="SOLVER.BASE_LR_END"):
            check_cfg(cfg)


@pytest.mark.parametrize("base", ["", "evil.yaml", "[evil.yaml]", "nested.yaml", "{}/evil.yaml"])
@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir", "!!python/name:os"]
)
def test_trap_15_yaml_tags_run_nothing_in_a_config_or_its_bases(tmp_path, base, tag):
    marker, config = tmp_path / "ran", tmp_path / "evil.yaml"
    config.write_text(f"OUTPUT_DIR: {tag} ['{marker}']\n")
    (tmp_path / "nested.yaml").write_text("_BASE_: evil.yaml\n")
    if base:
        config = tmp_path / "config.yaml"
        config.write_text(f"_BASE_: {base.format(tmp_path)}\n")
    with pytest.raises(ConfigError, match="not a plain YAML") as caught:
        merge_yaml(get_cfg(), config)
    assert "\n" not in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "keys and values"),
        ("- a\n- b\n", "keys and values"),
        ("_BASE_: 5\n", "keys and values"),
        ("_BASE_: config.yaml\n", "leads back to itself"),
        ("_BASE_: none.yaml\n", "none.yaml cannot be read"),
        ("_BASE_: http://127.0.0.1:9/a.yaml\n", "names an address; download"),
        ("_BASE_: detectron2://a.yaml\n", "names an address; download"),
        ("_BASE_: .\n", "cannot be read"),
        ("VERSION: 1\nSEED: 3\n", "VERSION 2"),
        ("SEED: [\n", "not a plain YAML"),
        ("SOLVER: {BASE_RL: 0.1}\n", r"config.yaml: .*did you mean SOLVER.BASE_LR\?"),
    ],
)
def test_a_file_that_is_no_config_is_one_sentence(tmp_path, text, words):
    config = tmp_path / "config.yaml"
    config.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        merge_yaml(get_cfg(), config)
    assert "\n" not in str(caught.value)


def test_bases_may_be_near_below_home_absolute_or_several(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.yaml").write_text("SEED: 3\nLOG_PERIOD: 4\n")
    (tmp_path / "b.yaml").write_text("SEED: 5\n")
    (tmp_path / "sub").mkdir()
    near = dict.fromkeys(("../a.yaml", f"{tmp_path}/a.yaml", "~/a.yaml"), 3)
    for base, seed in {**near, "[../a.yaml, ../b.yaml]": 5}.items():
        (tmp_path / "sub" / "c.yaml").write_text(f"_BASE_: {base}\n")
        cfg = get_cfg()
        merge_yaml(cfg, tmp_path / "sub" / "c.yaml")
        assert (seed, 4) == (cfg.SEED, cfg.LOG_PERIOD)


def test_the_anchors_of_the_default_config(tmp_path):
    anchors = training_anchors(CONFIGS / "person_mask_rcnn_R_50_FPN.yaml")
    assert anchors["sizes"] == [32, 64, 128, 256, 512]
    assert 640 <= anchors["shortest_edge"] <= 800
    assert anchors["longest_edge"] == 1333
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        training_anchors(tmp_path / "none.yaml")


@pytest.mark.parametrize("key", AT_MOST)
def test_a_bound_is_itself_a_value_that_may_be_chosen(key):
    cfg = get_cfg()
    merge_opts(cfg, [key, str(AT_MOST[key] if key == "SEED" else float(AT_MOST[key]))])
    check_cfg(cfg)

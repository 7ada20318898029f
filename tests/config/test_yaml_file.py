"""Configs of strangers: nothing runs, nothing is fetched, and every mistake is one sentence."""

import pytest

from persondet.config import get_cfg, merge_yaml
from persondet.errors import ConfigError


@pytest.mark.parametrize("base", ["evil.yaml", "[evil.yaml]", "nested.yaml", "{folder}/evil.yaml"])
@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir", "!!python/name:os"]
)
def test_trap_15_tags_run_nothing_however_far_down_the_base_chain(tmp_path, base, tag):
    marker = tmp_path / "ran"
    (tmp_path / "evil.yaml").write_text(f"OUTPUT_DIR: {tag} ['{marker}']\n")
    (tmp_path / "nested.yaml").write_text("_BASE_: [evil.yaml]\n")
    config = tmp_path / "config.yaml"
    config.write_text(f"_BASE_: {base.format(folder=tmp_path)}\n")
    with pytest.raises(ConfigError, match="not a plain YAML") as caught:
        merge_yaml(get_cfg(), config)
    assert "\n" not in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9/a.yaml", "https://x.invalid/a.yaml", "detectron2://a.yaml"]
)
def test_a_base_is_never_fetched(tmp_path, address):
    config = tmp_path / "config.yaml"
    config.write_text(f"_BASE_: {address}\n")
    with pytest.raises(ConfigError, match="names an address; download"):
        merge_yaml(get_cfg(), config)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "keys and values"),
        ("- a\n- b\n", "keys and values"),
        ("_BASE_: 5\n", "keys and values"),
        ("_BASE_: config.yaml\n", "leads back to itself"),
        ("_BASE_: none.yaml\n", "not there"),
        ("_BASE_: .\n", "cannot be read"),
        ("VERSION: 1\nSEED: 3\n", "VERSION 2"),
        ("SEED: [\n", "not a plain YAML"),
    ],
)
def test_a_file_that_is_no_config_is_one_sentence(tmp_path, text, words):
    config = tmp_path / "config.yaml"
    config.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        merge_yaml(get_cfg(), config)
    assert "\n" not in str(caught.value) and "config.yaml" in str(caught.value)


def test_bases_may_be_near_below_home_absolute_or_several(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.yaml").write_text("SEED: 3\nLOG_PERIOD: 4\n")
    (tmp_path / "b.yaml").write_text("SEED: 5\n")
    (tmp_path / "sub").mkdir()
    for base, seed in (
        ("../a.yaml", 3),
        (f"{tmp_path}/a.yaml", 3),
        ("~/a.yaml", 3),
        ("[../a.yaml, ../b.yaml]", 5),
    ):
        (tmp_path / "sub" / "c.yaml").write_text(f"_BASE_: {base}\n")
        cfg = get_cfg()
        merge_yaml(cfg, tmp_path / "sub" / "c.yaml")
        assert (seed, 4) == (cfg.SEED, cfg.LOG_PERIOD)

"""What boxes are held against: a config's anchors and the size at which it trains."""

from pathlib import Path

import pytest

from persondet.config import training_anchors
from persondet.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def test_the_default_config():
    anchors = training_anchors(CONFIGS / "person_mask_rcnn_R_50_FPN.yaml")
    assert anchors["sizes"] == [32, 64, 128, 256, 512]
    assert 640 <= anchors["shortest_edge"] <= 800
    assert anchors["longest_edge"] == 1333


def test_a_missing_config_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        training_anchors(tmp_path / "none.yaml")

"""The config: Detectron2's keys and ours, their defaults, and the rules between them."""

from persondet.config.check import check_cfg, merge_opts, merge_yaml, training_anchors
from persondet.config.defaults import add_persondet_config, get_cfg

__all__ = [
    "add_persondet_config",
    "check_cfg",
    "get_cfg",
    "merge_opts",
    "merge_yaml",
    "training_anchors",
]

"""The flags that choose a model, and the predictor that they make; part of the tools that use one.

Standard library only until `load_predictor` is called, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import cli

if TYPE_CHECKING:
    from persondet.inference.predictor import Predictor


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--run`, `--confidence-threshold` and the config flags to `parser`."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--run",
        metavar="DIR",
        default=argparse.SUPPRESS,
        help="run folder (its best model) or checkpoint file, instead of --config-file",
    )
    group.add_argument(
        "--confidence-threshold",
        metavar="SCORE",
        type=_score,
        default=argparse.SUPPRESS,
        help="drop detections below it (default: VISUALIZATION.SCORE_THRESH, else the model's, "
        "else 0.5)",
    )
    cli.add_config_arguments(parser)


def check_model_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a usage error unless exactly one of `--run` and `--config-file` is given."""
    run = getattr(args, "run", "")
    if bool(run) == bool(args.config_file):
        parser.error("give a trained run with --run DIR, or a config with --config-file FILE")
    if run and args.opts:
        parser.error("KEY VALUE overrides go with --config-file; a run carries its own config")


def load_predictor(args: argparse.Namespace) -> Predictor:
    """Return the predictor that the flags ask for; loads the model."""
    from persondet.environment import require_detectron2

    require_detectron2()
    from persondet.inference.predictor import Predictor

    threshold = getattr(args, "confidence_threshold", None)
    if getattr(args, "run", ""):
        return Predictor.from_run(args.run, confidence_threshold=threshold)
    from persondet.engine.defaults import load_cfg

    cfg = load_cfg(args.config_file, args.opts)
    return Predictor.from_cfg(cfg, confidence_threshold=threshold)


def at_least_one(text: str) -> int:
    """Return `text` as a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def _score(text: str) -> float:
    """Return `text` as a number from 0 to 1."""
    number = float(text)
    if not 0.0 <= number <= 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return number

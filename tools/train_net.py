"""Train a detector on a Roboflow export, follow it on the validation split, score it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import cli


def get_parser() -> argparse.ArgumentParser:
    """Return the parser; the flags are those of Detectron2's own train_net."""
    parser = cli.build_parser(
        "Train Mask R-CNN on the people of a Roboflow COCO export, choose the best model by the "
        "validation split, and score it on the test split.",
        example="python tools/train_net.py --config-file configs/person_mask_rcnn_R_50_FPN.yaml "
        "DATASETS.ROBOFLOW.ROOT datasets/person OUTPUT_DIR output/person",
    )
    add = cli.adder(parser, "run")
    add("--resume", "continue the run in OUTPUT_DIR")
    more = "score MODEL.WEIGHTS (with --resume: the best model in OUTPUT_DIR) on DATASETS.TEST"
    add("--eval-only", more)
    add("--overwrite", "replace the run in OUTPUT_DIR")
    add = cli.adder(parser.add_mutually_exclusive_group())
    add("--quiet", "show only warnings, errors and the final scores")
    add("--verbose", "show every loss, and Detectron2's own log")
    add = cli.adder(parser, "several processes")
    add(
        "--num-gpus",
        "processes per machine, each with a GPU; without GPUs they share the cores. "
        "Omit these flags under torchrun, because it starts the processes",
        "N",
        type=int,
        default=1,
    )
    add("--num-machines", "machines", "N", type=int, default=1)
    add("--machine-rank", "this machine", "N", type=int, default=0)
    add("--dist-url", "where the ranks meet, tcp://host:port", "URL", default="auto")
    cli.add_config_arguments(parser, required=True)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, launch the processes, train."""
    args = cli.parse(get_parser(), argv)
    with cli.many_imports():
        from persondet.environment import require_detectron2

        require_detectron2()
        from persondet.engine.launch import launch_run
        from persondet.engine.run import run

    args.command = cli.command_words(__file__, argv)
    launch_run(run, args)
    return 0


if __name__ == "__main__":
    cli.run(main)

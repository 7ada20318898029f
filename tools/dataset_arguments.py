"""The command line of prepare_dataset.py: its sub-commands and their flags."""

from __future__ import annotations

import argparse
from pathlib import Path

import cli
from argument_types import names, page
from fetch_arguments import PROGRAM, Commands, add_download, add_import, add_output


def build_dataset_parser() -> argparse.ArgumentParser:
    """Return the parser; `command` names the sub-command."""
    parser = cli.build_parser(
        "Bring a Roboflow export (COCO format) to a dataset that trains: fetch it, see what is "
        "wrong with it, mend it, divide it. Each command has its own --help.",
        example=f"{PROGRAM} import export.zip --output datasets/person\n"
        f"  {PROGRAM} check datasets/person\n"
        f"  {PROGRAM} clean datasets/person --output datasets/person_clean",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    add_download(commands)
    add_import(commands)
    _check(commands)
    _clean(commands)
    _split(commands)
    return parser


def _check(commands: Commands) -> None:
    parser = cli.add_command(
        commands,
        "check",
        "Read everything, change nothing, and say what is there and what is wrong. Exits with 1 "
        "when there are errors. What each code means stands in docs/dataset_codes.md.",
        example=f"{PROGRAM} check datasets/person --plot person.png",
    )
    _folder(parser)
    parser.add_argument("--strict", action="store_true", help="exit with 1 for warnings too")
    group = parser.add_argument_group("output")
    group.add_argument("--json", metavar="FILE", type=Path, help="the report, for programs")
    group.add_argument("--plot", metavar="FILE", type=page, help="one page of plots: .png or .pdf")
    group.add_argument(
        "--config-file",
        metavar="FILE",
        default="",
        help="whose anchors and image size the plot compares the boxes with (default: R_50_FPN's)",
    )
    group.add_argument("--overwrite", action="store_true", help="replace existing files")


def _clean(commands: Commands) -> None:
    parser = cli.add_command(
        commands,
        "clean",
        "Write a mended copy of a dataset. Images are hard links where possible, the source is "
        "not touched, and cleaning.json counts every change.",
        example=f"{PROGRAM} clean datasets/person --output datasets/person_clean --classes person",
    )
    _folder(parser)
    group = parser.add_argument_group("what to keep")
    group.add_argument(
        "--classes",
        metavar="A,B",
        type=names,
        default=(),
        help="these classes, in this order (default: all)",
    )
    group.add_argument(
        "--masks",
        choices=["auto", "polygon", "bitmask", "box", "none"],
        default="auto",
        help="auto: as they are, and the filled box where a few are missing; box: the filled box "
        "where one is missing, so that a dataset of boxes trains Mask R-CNN; none: boxes only",
    )
    group.add_argument(
        "--drop-leaks",
        action="store_true",
        help="drop from train (and valid) what a later split has a version of",
    )
    add_output(parser)


def _split(commands: Commands) -> None:
    parser = cli.add_command(
        commands,
        "split",
        "Divide a dataset into train, valid and test. Versions of one image stay together; "
        "people are spread evenly; the same seed gives the same splits.",
        example=f"{PROGRAM} split datasets/flat --output datasets/divided "
        "--fractions 0.7 0.2 0.1 --seed 0",
    )
    _folder(parser)
    group = parser.add_argument_group("how to divide")
    group.add_argument(
        "--fractions",
        metavar=("TRAIN", "VALID", "TEST"),
        nargs=3,
        type=float,
        default=[0.7, 0.2, 0.1],
        help="shares of the images; 0 makes no such split",
    )
    group.add_argument(
        "--seed", metavar="N", type=int, default=0, help="another seed, other splits"
    )
    group.add_argument(
        "--group-clips", action="store_true", help="keep the frames of one clip together as well"
    )
    add_output(parser)


def _folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DIR", type=Path, help="folder of the export")

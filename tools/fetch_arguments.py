"""The sub-commands of prepare_dataset.py that bring an export here: download and import."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeAlias

import cli
from argument_types import positive

PROGRAM = "python tools/prepare_dataset.py"

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_download(commands: Commands) -> None:
    """Add `download`."""
    parser = cli.add_command(
        commands,
        "download",
        "Fetch a version of a project from Roboflow. The key is read from the environment variable "
        "ROBOFLOW_API_KEY and from nowhere else. What was fetched of an interrupted download is "
        "continued by the same command.",
        example=f"ROBOFLOW_API_KEY=… {PROGRAM} download --workspace acme --project crosswalk "
        "--version 3 --output datasets/crosswalk",
    )
    group = parser.add_argument_group("what to fetch")
    group.add_argument("--workspace", metavar="W", required=True, help="as in the project's URL")
    group.add_argument("--project", metavar="P", required=True, help="as in the project's URL")
    group.add_argument("--version", metavar="N", type=positive, required=True, help="its number")
    group.add_argument(
        "--format",
        choices=["coco-segmentation", "coco"],
        default="coco-segmentation",
        help="coco has boxes only",
    )
    group.add_argument(
        "--timeout",
        metavar="S",
        type=positive,
        default=900,
        help="seconds to wait until Roboflow has made the export",
    )
    add_output(parser)


def add_import(commands: Commands) -> None:
    """Add `import`."""
    parser = cli.add_command(
        commands,
        "import",
        "Unpack or copy an export to train/, valid/ and test/. It may be a zip or a folder, flat "
        "or nested; valid may be called val or validation; splits may be missing.",
        example=f"{PROGRAM} import ~/Downloads/export.zip --output datasets/person",
    )
    parser.add_argument("source", metavar="SRC", type=Path, help="zip file or folder")
    add_output(parser)


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add `--output` and `--overwrite`."""
    group = parser.add_argument_group("output")
    group.add_argument("--output", metavar="DIR", type=Path, required=True, help="folder to write")
    group.add_argument("--overwrite", action="store_true", help="replace an existing output")

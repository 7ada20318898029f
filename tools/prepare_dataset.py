"""Fetch, import, check, clean and split datasets."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import cli
from progress import Progress

PROGRAM = "python tools/prepare_dataset.py"
CONFIG = Path(__file__).resolve().parents[1] / "configs" / "person_mask_rcnn_R_50_FPN.yaml"
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def get_parser() -> argparse.ArgumentParser:
    """Return the parser; `command` names the sub-command."""
    parser = cli.build_parser(
        "Turn a Roboflow export (COCO format) into a dataset that trains: fetch, "
        "check, clean and split it. Each command has its own --help.",
        example=f"{PROGRAM} import export.zip --output datasets/person\n"
        f"  {PROGRAM} check datasets/person\n"
        f"  {PROGRAM} clean datasets/person --output datasets/person_clean",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_download(commands)
    _add_import(commands)
    _add_check(commands)
    _add_clean(commands)
    _add_split(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sub-command; return the exit code."""
    args = get_parser().parse_args(argv)
    cli.show_log()
    commands = {run.__name__.strip("_"): run for run in (download, import_, check, clean, split)}
    return commands[args.command](args)


def download(args: argparse.Namespace) -> int:
    """Fetch a version of a project."""
    from persondet.data.fetch.transfer import download_export

    with Progress(args.project, "MB", size=1_000_000) as progress:
        images = download_export(
            args.workspace,
            args.project,
            args.version,
            args.output,
            dataset_format=args.format,
            overwrite=args.overwrite,
            timeout=args.timeout,
            progress=progress,
        )
    return _say([f"{name}: {count} images" for name, count in images.items()], args.output)


def import_(args: argparse.Namespace) -> int:
    """Unpack or copy an export."""
    from persondet.data.fetch.importing import import_export

    with Progress(str(args.source), "MB", size=1_000_000) as progress:
        images = import_export(
            args.source, args.output, overwrite=args.overwrite, progress=progress
        )
    return _say([f"{name}: {count} images" for name, count in images.items()], args.output)


def check(args: argparse.Namespace) -> int:
    """Print the report; 1 when it has errors."""
    from persondet.data.check import check_export
    from persondet.data.check.text import report_lines
    from persondet.files import refuse_existing, write_json

    for path in filter(None, (args.json, args.plot)):
        refuse_existing(path, overwrite=args.overwrite)
    if args.plot:
        from persondet.config import training_anchors

        anchors = training_anchors(args.config_file or CONFIG)  # refused before the work
    with Progress(str(args.dataset), "images") as progress:
        report = {"folder": str(args.dataset), **check_export(args.dataset, progress=progress)}
    print(*report_lines(report), sep="\n")
    if args.json:
        write_json(args.json, report)
    if args.plot:
        from persondet.report.dataset_page import write_dataset_page

        write_dataset_page(report, args.plot, anchors=anchors)
    return 1 if report["errors"] + (report["warnings"] if args.strict else 0) else 0


def clean(args: argparse.Namespace) -> int:
    """Write the mended copy, and say what was changed."""
    from persondet.data.check.text import cleaning_lines
    from persondet.data.clean import clean_dataset

    with Progress(str(args.dataset), "images") as progress:
        record = clean_dataset(
            args.dataset,
            args.output,
            classes=args.classes,
            masks=args.masks,
            drop_leaks=args.drop_leaks,
            overwrite=args.overwrite,
            progress=progress,
        )
    return _say(cleaning_lines(record), args.output)


def split(args: argparse.Namespace) -> int:
    """Write the divided copy, and say how it came out."""
    from persondet.data.check.text import split_lines
    from persondet.data.split import split_export

    with Progress(str(args.dataset), "images") as progress:
        summary = split_export(
            args.dataset,
            args.output,
            fractions=tuple(args.fractions),
            seed=args.seed,
            group_clips=args.group_clips,
            overwrite=args.overwrite,
            progress=progress,
        )
    return _say(split_lines(summary), args.output)


def _say(lines: Sequence[str], output: Path) -> int:
    print(*lines, f"next: {PROGRAM} check {shlex.quote(str(output))}", sep="\n")
    return 0


def _add_download(commands: Commands) -> None:
    """Add `download`."""
    parser = cli.add_command(
        commands,
        "download",
        "Fetch a version of a project from Roboflow. The key comes from the "
        "environment variable ROBOFLOW_API_KEY only. Run the same command again to "
        "continue an interrupted download.",
        example=f"ROBOFLOW_API_KEY=… {PROGRAM} download --workspace acme --project crosswalk "
        "--version 3 --output datasets/crosswalk",
    )
    group = parser.add_argument_group("what to fetch")
    group.add_argument("--workspace", metavar="W", required=True, help="as in the project's URL")
    group.add_argument("--project", metavar="P", required=True, help="as in the project's URL")
    group.add_argument(
        "--version", metavar="N", type=cli.positive, required=True, help="its number"
    )
    group.add_argument(
        "--format",
        choices=["coco-segmentation", "coco"],
        default="coco-segmentation",
        help="coco has boxes only",
    )
    group.add_argument(
        "--timeout",
        metavar="S",
        type=cli.positive,
        default=900,
        help="seconds to wait until Roboflow has made the export",
    )
    _add_output(parser)


def _add_import(commands: Commands) -> None:
    """Add `import`."""
    parser = cli.add_command(
        commands,
        "import",
        "Unpack or copy an export to train/, valid/ and test/. It may be a zip or a folder, flat "
        "or nested; valid may be called val or validation; splits may be missing.",
        example=f"{PROGRAM} import ~/Downloads/export.zip --output datasets/person",
    )
    parser.add_argument("source", metavar="SRC", type=Path, help="zip file or folder")
    _add_output(parser)


def _add_output(parser: argparse.ArgumentParser) -> None:
    """Add `--output` and `--overwrite`."""
    group = parser.add_argument_group("output")
    group.add_argument("--output", metavar="DIR", type=Path, required=True, help="folder to write")
    group.add_argument("--overwrite", action="store_true", help="replace an existing output")


def _add_check(commands: Commands) -> None:
    parser = cli.add_command(
        commands,
        "check",
        "Read everything, change nothing, and report statistics and faults. Exits "
        "with 1 on errors. docs/dataset.md explains every code.",
        example=f"{PROGRAM} check datasets/person --plot person.png",
    )
    _add_folder(parser)
    parser.add_argument("--strict", action="store_true", help="exit with 1 for warnings too")
    group = parser.add_argument_group("output")
    group.add_argument("--json", metavar="FILE", type=Path, help="the report, for programs")
    group.add_argument("--plot", metavar="FILE", type=_page, help="one page of plots: .png or .pdf")
    group.add_argument(
        "--config-file",
        metavar="FILE",
        default="",
        help="config with the anchors and image size to compare boxes with (default: R_50_FPN's)",
    )
    group.add_argument("--overwrite", action="store_true", help="replace existing files")


def _add_clean(commands: Commands) -> None:
    parser = cli.add_command(
        commands,
        "clean",
        "Write a repaired copy of a dataset. Images become hard links where possible,"
        " the source stays unchanged, and cleaning.json counts every change.",
        example=f"{PROGRAM} clean datasets/person --output datasets/person_clean --classes person",
    )
    _add_folder(parser)
    group = parser.add_argument_group("what to keep")
    group.add_argument(
        "--classes",
        metavar="A,B",
        type=_names,
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
        help="drop images from train and valid when a later split has a version of them",
    )
    _add_output(parser)


def _add_split(commands: Commands) -> None:
    parser = cli.add_command(
        commands,
        "split",
        "Split a dataset into train, valid and test. Versions of one image stay "
        "together; objects are spread evenly; the same seed gives the same splits.",
        example=f"{PROGRAM} split datasets/flat --output datasets/divided "
        "--fractions 0.7 0.2 0.1 --seed 0",
    )
    _add_folder(parser)
    group = parser.add_argument_group("how to divide")
    group.add_argument(
        "--fractions",
        metavar=("TRAIN", "VALID", "TEST"),
        nargs=3,
        type=float,
        default=[0.7, 0.2, 0.1],
        help="shares of the images; 0 makes no such split",
    )
    group.add_argument("--seed", metavar="N", type=int, default=0, help="seed of the split")
    group.add_argument(
        "--group-clips", action="store_true", help="keep the frames of one clip together as well"
    )
    _add_output(parser)


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DIR", type=Path, help="folder of the export")


def _page(text: str) -> Path:
    """Return `text` as the path of a page that can be written."""
    if not text.lower().endswith((".png", ".pdf")):
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .png or .pdf")
    return Path(text)


def _names(text: str) -> tuple[str, ...]:
    """Return the names in a list with commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


if __name__ == "__main__":
    cli.run(main)

"""Fetch, import, check, clean, split and audit datasets."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import cli
from progress import Progress

PROGRAM = "python tools/prepare_dataset.py"
CONFIG = "person_mask_rcnn_R_50_FPN.yaml"
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def get_parser() -> argparse.ArgumentParser:
    """Return the parser; `command` names the sub-command."""
    parser = cli.build_parser(
        "Turn a Roboflow export (COCO format) into a dataset that trains: fetch, "
        "check, clean, split and audit it. Each command has its own --help.",
        example=f"{PROGRAM} import export.zip --output datasets/person\n"
        f"  {PROGRAM} check datasets/person\n"
        f"  {PROGRAM} clean datasets/person --output datasets/person-clean",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in (_add_download, _add_import, _add_check, _add_clean, _add_split, _add_audit):
        add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sub-command; return the exit code."""
    args = get_parser().parse_args(argv)
    cli.show_log()
    every = (download, import_, check, clean, split, audit)
    return {run.__name__.strip("_"): run for run in every}[args.command](args)


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
            args.source,
            args.output,
            layout=args.layout,
            overwrite=args.overwrite,
            progress=progress,
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
            crowds=args.crowds,
            reorder_corners=args.reorder_corners,
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


def audit(args: argparse.Namespace) -> int:
    """Write the ranked labels, and say how many there are of each kind."""
    with cli.many_imports():
        from persondet.environment import require_detectron2

        require_detectron2()
        from persondet.labelling.audit import FINDINGS, audit_export

    with Progress(str(args.dataset), "images") as progress:
        counts = audit_export(
            args.dataset,
            args.output,
            args.run,
            folds=args.folds or 0,
            seed=args.seed,
            images=args.images,
            listed_score=args.confidence_threshold,
            overwrite=args.overwrite,
            progress=progress,
        )
    print(*(f"{counts[name]:>6} {FINDINGS[name]} ({name})" for name in counts), sep="\n")
    print(f"open {args.output / 'audit.html'}; all rows are in {args.output / 'audit.csv'}")
    return 0


def _say(lines: Sequence[str], output: Path) -> int:
    print(*lines, f"next: {PROGRAM} check {shlex.quote(str(output))}", sep="\n")
    return 0


def _add_download(commands: Commands) -> None:
    parser = cli.add_command(
        commands,
        "download",
        "Fetch a version of a project from Roboflow. The key comes from the "
        "environment variable ROBOFLOW_API_KEY only. Run the same command again to "
        "continue an interrupted download.",
        example=f"ROBOFLOW_API_KEY=… {PROGRAM} download --workspace acme --project crosswalk "
        "--version 3 --output datasets/crosswalk",
    )
    add = cli.adder(parser, "what to fetch")
    add("--workspace", "as in the project's URL", "W", required=True)
    add("--project", "as in the project's URL", "P", required=True)
    add("--version", "its number", "N", type=cli.positive, required=True)
    formats = ["coco-segmentation", "coco"]
    add("--format", "coco has boxes only", choices=formats, default=formats[0])
    more = "seconds to wait until Roboflow has made the export"
    add("--timeout", more, "S", type=cli.positive, default=900)
    cli.add_output(parser, "DIR", "folder to write")


def _add_import(commands: Commands) -> None:
    parser = cli.add_command(
        commands,
        "import",
        "Unpack or copy an export to train/, valid/ and test/. It may be a zip or a folder, flat "
        "or nested, in Roboflow's layout or another of COCO's (CVAT, Label Studio); valid may be "
        "called val, validation, dev or eval; splits may be missing.",
        example=f"{PROGRAM} import ~/Downloads/export.zip --output datasets/person",
    )
    add = cli.adder(parser)
    add("source", "zip file or folder", "SRC", type=Path)
    more = "roboflow: each json beside its images; coco: jsons and images in any folders"
    add("--layout", more, choices=["auto", "roboflow", "coco"], default="auto")
    cli.add_output(parser, "DIR", "folder to write")


def _add_check(commands: Commands) -> None:
    parser = cli.add_command(
        commands,
        "check",
        "Read everything, change nothing, and report statistics and faults. Exits "
        "with 1 on errors. docs/dataset.md explains every code.",
        example=f"{PROGRAM} check datasets/person --plot person.png",
    )
    add = cli.adder(parser)
    add("dataset", "folder of the export", "DIR", type=Path)
    add("--strict", "exit with 1 for warnings too")
    add = cli.adder(parser, "output")
    add("--json", "the report, for programs", "FILE", type=Path)
    add("--plot", "one page of plots: .png or .pdf", "FILE", type=_page)
    more = "config with the anchors and image size to compare boxes with (default: R_50_FPN's)"
    add("--config-file", more, "FILE", default="")
    add("--overwrite", "replace existing files")


def _add_clean(commands: Commands) -> None:
    parser = cli.add_command(
        commands,
        "clean",
        "Write a repaired copy of a dataset. Images become hard links where possible,"
        " the source stays unchanged, and cleaning.json counts every change.",
        example=f"{PROGRAM} clean datasets/person --output datasets/person-clean --classes person",
    )
    cli.adder(parser)("dataset", "folder of the export", "DIR", type=Path)
    add = cli.adder(parser, "what to keep")
    more = "these classes, in this order (default: all)"
    add("--classes", more, "A,B", type=_names, default=())
    add(
        "--masks",
        "auto: keep masks and fill the box where some are missing, or drop all if fewer than a "
        "tenth of the annotations have one; polygon: refuse RLE masks; bitmask: treat all as "
        "rasters; box: fill the box wherever a mask is missing, so that a dataset of boxes trains "
        "Mask R-CNN; none: boxes only",
        choices=["auto", "polygon", "bitmask", "box", "none"],
        default="auto",
    )
    more = "object: make an object of every crowd (`iscrowd` 1), as for masks drawn by brush"
    add("--crowds", more, choices=["keep", "object"], default="keep")
    add("--reorder-corners", "put four corners in order where their outline crosses itself")
    more = "drop images from train and valid when a later split has a version of them"
    add("--drop-leaks", more)
    cli.add_output(parser, "DIR", "folder to write")


def _add_split(commands: Commands) -> None:
    parser = cli.add_command(
        commands,
        "split",
        "Split a dataset into train, valid and test. Versions of one image stay "
        "together; objects are spread evenly; the same seed gives the same splits.",
        example=f"{PROGRAM} split datasets/flat --output datasets/divided "
        "--fractions 0.7 0.2 0.1 --seed 0",
    )
    cli.adder(parser)("dataset", "folder of the export", "DIR", type=Path)
    add = cli.adder(parser, "how to divide")
    parts: dict[str, Any] = {"nargs": 3, "type": float, "default": [0.7, 0.2, 0.1]}
    more = "shares of the images; 0 makes no such split"
    add("--fractions", more, ("TRAIN", "VALID", "TEST"), **parts)
    add("--seed", "seed of the split", "N", type=int, default=0)
    add("--group-clips", "keep the frames of one clip together as well")
    cli.add_output(parser, "DIR", "folder to write")


def _add_audit(commands: Commands) -> None:
    parser = cli.add_command(
        commands,
        "audit",
        "Rank labels by how far a trained model contradicts them. Lists annotations where it finds "
        "nothing, detections without annotation, boxes that disagree and classes that may be "
        "swapped, the most suspicious first, as a csv and a page of images.",
        example=f"{PROGRAM} audit datasets/person --run output/person --output audit",
    )
    add = cli.adder(parser)
    add("dataset", "folder of the export", "DIR", type=Path)
    add = cli.adder(parser, "model")
    add("--run", "run folder (its best model) or checkpoint file", "DIR", required=True)
    more = "train N models as the run was, each without the images that it judges (default: none)"
    add("--folds", more, "N", type=cli.number(int, 2, 20))
    add("--seed", "seed of the folds", "N", type=int, default=0)
    more = "list detections without annotation from this score on"
    add("--confidence-threshold", more, "SCORE", type=cli.share, default=0.3)
    cli.add_output(parser, "DIR", "folder for audit.csv and audit.html")
    add = cli.adder(parser)
    add("--images", "rows that the page shows", "N", type=cli.positive, default=60)


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

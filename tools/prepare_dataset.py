"""Fetch, import, check, clean and split datasets."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

import cli
from dataset_arguments import build_dataset_parser
from fetch_arguments import PROGRAM
from progress import Progress

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "person_mask_rcnn_R_50_FPN.yaml"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sub-command; return the exit code."""
    args = build_dataset_parser().parse_args(argv)
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
    from persondet.data.check.text import report_lines
    from persondet.data.check.validate import check_export
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
    from persondet.data.cleaned_copy import clean_dataset

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
    from persondet.data.split import split_export, split_lines

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


if __name__ == "__main__":
    cli.run(main)

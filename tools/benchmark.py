"""Measure speed and memory against what there is without this project."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cli
from progress import Progress

MODES = {
    "dataset": "checking images, mending the json, searching for leaks",
    "train": "a training step of the default model against Detectron2's SimpleTrainer",
    "mapper": "training samples per second and core against two other mappers",
    "startup": "from the command to the end of the first step against Detectron2's train_net",
    "evaluate": "scoring 5,000 images against Detectron2's COCOEvaluator with pycocotools",
    "video": "annotated frames per second against DefaultPredictor with VideoVisualizer",
}


def get_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = cli.build_parser(
        "Measure speed and memory. Both sides of a ratio run in turns, and the median of the "
        "ratios is printed with its spread (10th to 90th percentile). Keep the machine quiet "
        "meanwhile.",
        example="python tools/benchmark.py train mapper startup --json benchmark.json",
    )
    parser.add_argument(
        "modes",
        metavar="MODE",
        nargs="+",
        choices=list(MODES),
        help="; ".join(f"{name}: {what}" for name, what in MODES.items()),
    )
    parser.add_argument("--pairs", metavar="N", type=int, default=10, help="turns of each side")
    parser.add_argument(
        "--images",
        metavar="N",
        type=int,
        default=None,
        help="images (default: 600 for dataset, 16 for mapper, 24 for startup, 5000 for evaluate, "
        "60 frames for video)",
    )
    parser.add_argument("--run", metavar="DIR", type=Path, help="trained run, for two video rows")
    parser.add_argument("--clip", metavar="FILE", type=Path, help="clip that the run annotates")
    parser.add_argument(
        "--show-baseline",
        action="store_true",
        help="print the source of what each mode is measured against, and measure nothing",
    )
    group = parser.add_argument_group("output")
    group.add_argument("--json", metavar="FILE", type=Path, help="keep the numbers")
    group.add_argument("--overwrite", action="store_true", help="replace an existing file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks, print a line for each ratio; return the exit code."""
    parser = get_parser()
    args = parser.parse_args(argv)
    if min(args.images or 1, args.pairs) < 1 or args.images == 0:
        parser.error("--images and --pairs must be at least 1")
    if bool(args.run) != bool(args.clip):
        parser.error("--run and --clip belong together")

    from persondet.benchmarks.table import baseline, lines_of
    from persondet.files import refuse_existing, write_json

    if args.show_baseline:
        print("\n".join(baseline(mode) for mode in args.modes))
        return 0
    if args.json:
        refuse_existing(args.json, overwrite=args.overwrite)
    from persondet.environment import environment_report, require_detectron2

    if set(args.modes) != {"dataset"}:
        require_detectron2()
    found: dict[str, Any] = {"environment": environment_report()}
    for mode in dict.fromkeys(args.modes):
        with Progress(mode, "turns") as progress:
            found[mode] = _benchmark(mode, args, progress)
        print("\n".join(lines_of(mode, found[mode])), flush=True)
        if args.json:  # after each mode, so that an interruption costs one
            write_json(args.json, found)
    report = found["environment"].items()
    print(", ".join(f"{name} {value}" for name, value in report if value != ""))
    return 0


def _benchmark(mode: str, args: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    options: dict[str, Any] = {"pairs": args.pairs, "progress": progress}
    if args.images and mode != "train":
        options["frames" if mode == "video" else "images"] = args.images
    if mode == "video":
        options |= {"run": args.run, "clip": args.clip}
    module = importlib.import_module(f"persondet.benchmarks.{mode}")
    found: dict[str, Any] = getattr(module, f"benchmark_{mode}")(**options)
    return found


if __name__ == "__main__":
    cli.run(main)

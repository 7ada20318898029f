"""Measure speed and memory against what there is without this project."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cli
from progress import Progress

HOME = Path(__file__).resolve().parents[1] / "tests" / "benchmarks"
MODES = {
    "dataset": "checking images, cleaning annotations, finding leaks",
    "train": "training steps of two models against Detectron2's SimpleTrainer",
    "cores": "training and inference with one of two cores taken, for three waiting policies",
    "memory": "what training keeps when hardly two images have the same size",
    "mapper": "training samples per second and core against two other mappers",
    "evaluate": "scoring 5,000 images against Detectron2's COCOEvaluator with pycocotools",
    "video": "annotated frames per second against DefaultPredictor with VideoVisualizer",
    "counts": "people counted at lines on drawn streets, against counting by box centres",
    "hiding": "how much of the people in rendered clips is hidden, and of the rest (needs --run)",
    "relinking": "tracks of people who come back, with --relink and without (needs --run)",
    "cluster": "what a job over many items costs beside the work, and how it scales on Ray",
}


def get_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = cli.build_parser(
        "Measure speed and memory. Both sides of a ratio run in turns; the table "
        "shows the median ratio and its spread (10th to 90th percentile). Run nothing"
        " else meanwhile.",
        example="python tools/benchmark.py train mapper --json benchmark.json",
    )
    add = cli.adder(parser)
    what = "; ".join(f"{name}: {what}" for name, what in MODES.items())
    add("modes", what, "MODE", nargs="+", choices=list(MODES))
    add("--pairs", "turns of each side", "N", type=int, default=10)
    more = "600 for dataset, 100 for memory, 16 for mapper, 5000 for evaluate, 60 frames for video"
    more = f"images (default: {more}), or items (100000 for cluster)"
    add("--images", more, "N", type=int)
    more = "trained run, for counts, hiding, relinking and four video rows"
    add("--run", more, "DIR", type=Path)
    add("--clip", "clip that the run annotates", "FILE", type=Path)
    more = "python of an environment with Ultralytics 8.4, for two rows more with --run"
    add("--yolo", more, "FILE", type=Path)
    more = "print the source of what each mode is measured against, and measure nothing"
    add("--show-baseline", more)
    add = cli.adder(parser, "output")
    add("--json", "keep the numbers", "FILE", type=Path)
    add("--overwrite", "replace an existing file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks, print a table of the ratios; return the exit code."""
    parser = get_parser()
    args = parser.parse_args(argv)
    if min(args.images or 1, args.pairs) < 1 or args.images == 0:
        parser.error("--images and --pairs must be at least 1")
    if "video" in args.modes and bool(args.run) != bool(args.clip):
        parser.error("--run and --clip belong together")
    if {"hiding", "relinking"} & set(args.modes) and not args.run:
        parser.error("hiding and relinking need a trained run with --run DIR")

    from persondet.errors import PersondetError
    from persondet.files import refuse_existing, write_json

    if not (HOME / "bm_pairs.py").is_file():
        raise PersondetError(
            "the benchmarks lie in tests/benchmarks of the source, which is not beside this tool; "
            "run tools/benchmark.py in a checkout of the project."
        )
    if args.show_baseline:
        files = ("bm_dataset.py" if mode == "dataset" else "bm_stock.py" for mode in args.modes)
        print("\n".join((HOME / file).read_text(encoding="utf-8") for file in dict.fromkeys(files)))
        return 0
    if args.json:
        refuse_existing(args.json, overwrite=args.overwrite)
    from persondet.environment import environment_report, require_detectron2

    if set(args.modes) != {"dataset"}:
        require_detectron2()
    sys.path.insert(0, str(HOME))
    table = importlib.import_module("bm_pairs").table
    found: dict[str, Any] = {"environment": environment_report()}
    for mode in dict.fromkeys(args.modes):
        module = importlib.import_module(f"bm_{mode}")
        with Progress(mode, "turns") as progress:
            found[mode] = module.main(pairs=args.pairs, progress=progress, **_options(mode, args))
        print(f"{table(found[mode])}\n", flush=True)
        if args.json:  # after each mode, so that an interruption costs one
            write_json(args.json, found)
    report = found["environment"].items()
    print(", ".join(f"{name} {value}" for name, value in report if value != ""))
    return 0


def _options(mode: str, args: argparse.Namespace) -> dict[str, Any]:
    options = {"images": args.images} if args.images and mode not in ("train", "cores") else {}
    if mode == "video":
        options |= {"run": args.run, "clip": args.clip, "yolo": args.yolo}
    return options | ({"run": args.run} if mode in ("counts", "hiding", "relinking") else {})


if __name__ == "__main__":
    cli.run(main)

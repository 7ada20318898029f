"""Measure speed and memory against what there is without this project."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cli
from progress import Progress


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark, print its table; return the exit code."""
    parser = cli.build_parser(
        "Measure speed and memory. Both sides of a ratio run in turns in one process, and the "
        "median of the ratios is printed with its spread. Keep the machine quiet meanwhile.",
        example="python tools/benchmark.py dataset --json dataset.json",
    )
    parser.add_argument(
        "mode",
        choices=["dataset"],
        help="dataset: checking pictures, mending the json, searching for leaks",
    )
    parser.add_argument("--images", metavar="N", type=int, default=600, help="pictures to check")
    parser.add_argument("--pairs", metavar="N", type=int, default=10, help="turns of each side")
    group = parser.add_argument_group("output")
    group.add_argument("--json", metavar="FILE", type=Path, help="keep the numbers")
    group.add_argument("--overwrite", action="store_true", help="replace an existing file")
    args = parser.parse_args(argv)
    if min(args.images, args.pairs) < 1:
        parser.error("--images and --pairs must be at least 1")

    from persondet.benchmarks.dataset import benchmark_dataset
    from persondet.files import refuse_existing, write_json

    if args.json:
        refuse_existing(args.json, overwrite=args.overwrite)
    with Progress("dataset", "steps") as progress:
        found = benchmark_dataset(images=args.images, pairs=args.pairs, progress=progress)
    check, mending, leaks = found["check"], found["json"], found["leaks"]
    print(
        f"check: {check['ratio']:.2f} x the speed of a bare parallel cv2.imread "
        f"({check['low']:.2f} to {check['high']:.2f}); {check['check_images_per_second']:.0f} "
        f"against {check['decode_images_per_second']:.0f} images per second"
    )
    print(
        f"json: {mending['annotations']} annotations read, cleaned and written in "
        f"{mending['seconds']:.1f} s with at most {mending['peak_mb']:.0f} MB"
    )
    print(f"leaks: {leaks['hashes']} hashes searched in {leaks['seconds']:.1f} s")
    if args.json:
        write_json(args.json, found)
    return 0


if __name__ == "__main__":
    cli.run(main)

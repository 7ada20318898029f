"""Write the synthetic sample: an export in Roboflow's layout and a clip with ground truth."""

from __future__ import annotations

import os
from collections.abc import Sequence

import cli
from progress import Progress


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, write the sample and print its shares."""
    parser = cli.build_parser(
        "Draw the bundled sample: street scenes with walking people (people/) and a clip with "
        "ground truth (city_walk.mp4).",
        example="python tools/make_sample.py --output datasets/sample --seed 7",
    )
    cli.add_output(parser, "DIR", "folder to write", type=str)
    add = cli.adder(parser)
    add("--seed", "the same seed gives the same bytes", "SEED", type=int, default=7)
    workers = "number of processes; does not change the result"
    add("--workers", workers, "WORKERS", type=int, default=os.cpu_count() or 1)
    args = cli.parse(parser, argv)
    if args.seed < 0:
        parser.error("--seed must be 0 or more")

    from persondet.sample.export import make_sample

    with Progress("sample", "images and frames") as progress:
        record = make_sample(
            args.output,
            args.seed,
            overwrite=args.overwrite,
            workers=args.workers,
            progress=progress,
        )
    print(f"{'':24}images  objects  occluded  under 48 px  without")
    for split, row in record["people"].items():
        print(
            f"{'people/' + split:24}{row['images']:6}{row['objects']:9}{row['occluded']:10.1%}"
            f"{row['small']:13.1%}{row['empty_images']:9}"
        )
    told = "city_walk.mp4: {frames} frames at {fps} per second, {people} people"
    print(told.format(**record["city_walk"]))
    print(f"written: {args.output}")
    return 0


if __name__ == "__main__":
    cli.run(main)

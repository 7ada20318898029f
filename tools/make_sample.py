"""Write the synthetic sample: two exports in Roboflow's layout and a clip with ground truth."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, write the sample and print its shares."""
    parser = cli.build_parser(
        "Draw the bundled sample: street scenes with walking people (people/), the same streets "
        "with objects (street_objects/), and a clip with ground truth (city_walk.mp4).",
        example="python tools/make_sample.py --output datasets/sample --seed 7",
    )
    parser.add_argument(
        "--output", metavar="DIR", required=True, help="folder to write", default=None
    )
    parser.add_argument("--seed", type=int, default=7, help="the same seed gives the same bytes")
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="processes; number of processes; does not change the result",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the folder when it exists"
    )
    args = cli.parse(parser, argv)
    if args.seed < 0:
        parser.error("--seed must be 0 or more")

    from tqdm import tqdm

    from persondet.sample.export import make_sample

    interval = 1.0 if sys.stderr.isatty() else 15.0
    with tqdm(desc="images and frames", file=sys.stderr, mininterval=interval) as bar:

        def progress(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        record = make_sample(
            args.output,
            args.seed,
            overwrite=args.overwrite,
            workers=args.workers,
            progress=progress,
        )
    print(f"{'':24}images  objects  occluded  under 48 px  without")
    for kind in ("people", "street_objects"):
        for split, row in record[kind].items():
            print(
                f"{kind + '/' + split:24}{row['images']:6}{row['objects']:9}{row['occluded']:10.1%}"
                f"{row['small']:13.1%}{row['empty_images']:9}"
            )
    clip = record["city_walk"]
    print(
        f"city_walk.mp4: {clip['frames']} frames at {clip['fps']} per second, {clip['people']} people"
    )
    print(f"written: {args.output}")
    return 0


if __name__ == "__main__":
    cli.run(main)

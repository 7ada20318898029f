"""Draw the curves of a training run: loss, accuracy, average precision, learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Write the PNG files and print their paths; return the exit code."""
    parser = cli.build_parser(
        "Draw the curves of a training run from its metrics.json: training and validation loss "
        "(total and components), accuracy, average precision, learning rate. The plots of an "
        "earlier call are replaced.",
        example="python tools/plot_metrics.py output/demo",
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="OUTPUT_DIR of a training")
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        help="folder for the PNG files (default: RUN_DIR/plots)",
    )
    args = cli.parse(parser, argv)

    import logging

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from persondet.report.plots import plot_run
    from persondet.results import RunError

    written = plot_run(args.run_dir, args.output)
    if not written:
        raise RunError(f"{args.run_dir}/metrics.json has no loss, accuracy, AP or learning rate.")
    for path in written:
        print(path)
    return 0


if __name__ == "__main__":
    cli.run(main)

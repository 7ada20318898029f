"""Train the same thing under several settings with several seeds, and compare the scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing, print the table, draw the figure; return the exit code."""
    parser = cli.build_parser(
        "Train several settings with several seeds each and compare their test "
        "scores, because one score may be luck. Each training is a complete run in "
        "OUTPUT/<variant>/seed_<n>. Run the same command again to continue an "
        "interrupted comparison.",
        example="python tools/compare_settings.py "
        "--config-file configs/person_mask_rcnn_R_50_FPN.yaml --output output/freezing \\\n"
        "    --variant frozen MODEL.BACKBONE.FREEZE_AT 2 --variant free MODEL.BACKBONE.FREEZE_AT 0 "
        "\\\n    --seeds 1 2 3 --opts DATASETS.ROBOFLOW.ROOT datasets/person",
    )
    group = parser.add_argument_group("what to compare")
    group.add_argument(
        "--variant",
        metavar=("NAME", "KEY VALUE"),
        nargs="+",
        action="append",
        required=True,
        help="name and config overrides of a setting; give two or more",
    )
    group.add_argument(
        "--seeds", metavar="N", nargs="+", type=int, default=[1, 2, 3], help="values of SEED"
    )
    group.add_argument("--jobs", metavar="N", type=int, default=1, help="trainings at a time")
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output", metavar="DIR", type=Path, required=True, help="folder for the runs"
    )
    output.add_argument(
        "--overwrite", action="store_true", help="replace the runs of an earlier comparison"
    )
    cli.add_config_arguments(parser, required=True)
    args = cli.parse(parser, argv)

    from persondet.engine.comparison import Variant, compare, comparison_table, run_folder
    from persondet.environment import require_detectron2
    from persondet.files import write_text
    from persondet.report.plots.comparison import plot_comparison

    require_detectron2()
    result = compare(
        args.output,
        [Variant(name, tuple(opts)) for name, *opts in args.variant],
        config_file=args.config_file,
        seeds=args.seeds,
        opts=args.opts,
        jobs=args.jobs,
        overwrite=args.overwrite,
        announce=lambda line: print(line, flush=True),
    )
    table = comparison_table(result)
    write_text(args.output / "comparison.md", table + "\n")
    runs = {
        row["name"]: [run_folder(args.output, row["name"], seed) for seed in args.seeds]
        for row in result["variants"]
    }
    plot_comparison(result, runs, args.output / "comparison.png")
    print(f"\nTest split, mean of {len(args.seeds)} seeds (lowest to highest):\n\n{table}\n")
    for name in ("comparison.json", "comparison.md", "comparison.png"):
        print(args.output / name)
    return 0


if __name__ == "__main__":
    cli.run(main)

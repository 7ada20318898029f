"""Train the same thing under several settings with several seeds, and compare the scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    add = cli.adder(parser, "what to compare")
    more = "name and config overrides of a setting; give two or more"
    many: dict[str, Any] = {"nargs": "+", "action": "append", "required": True}
    add("--variant", more, ("NAME", "KEY VALUE"), **many)
    add("--seeds", "values of SEED", "N", nargs="+", type=int, default=[1, 2, 3])
    add("--jobs", "trainings at a time", "N", type=int, default=1)
    cli.add_output(parser, "DIR", "folder for the runs")
    cli.add_config_arguments(parser, required=True)
    args = cli.parse(parser, argv)

    from persondet.engine.comparison import Variant, compare, comparison_table, run_folder
    from persondet.environment import require_detectron2
    from persondet.files import write_text
    from persondet.report.plots.overlay import plot_comparison

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

"""Draw the curves of one training run, or of several over each other, and a table of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Write the PNG files and results.csv, print their paths, and return the exit code."""
    parser = cli.build_parser(
        "Plot training runs, finished or not: loss and its components, accuracy, "
        "average precision, learning rate, speed; if present, evaluation curves, "
        "mistakes, and people over time in an annotated clip. Several runs share each"
        " plot. results.csv gets a row of numbers per run. In the folder of a single run, the tool "
        "replaces earlier files; elsewhere it keeps them unless you pass --overwrite.",
        example="python tools/plot_metrics.py output/demo output/other",
    )
    add = cli.adder(parser)
    add("run_dirs", "OUTPUT_DIR of a training", "RUN_DIR", nargs="+", type=Path)
    more = "RUN_DIR/plots; of several runs the folder comparison/ beside them"
    add("--output", f"folder for the files (default: {more})", "DIR", type=Path)
    add("--overwrite", "replace files outside the run folder too")
    args = cli.parse(parser, argv)

    import logging

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from persondet.report.plots import FOLDER, default_folder, plot_run, plot_runs
    from persondet.report.plots.overlay import FILE_NAME, write_results_csv
    from persondet.report.run import refuse_elsewhere
    from persondet.results import RunError

    runs, overwrite = args.run_dirs, args.overwrite
    folder = args.output or (runs[0] / FOLDER if len(runs) == 1 else default_folder(runs))
    refuse_elsewhere(runs, [folder / FILE_NAME], overwrite=overwrite)
    if len(runs) == 1:
        written = plot_run(runs[0], folder, overwrite=overwrite)
    else:
        written = plot_runs(runs, folder, overwrite=overwrite)
    if not written:
        raise RunError(f"{runs[0]}/metrics.json has no loss, accuracy, AP or learning rate.")
    table = write_results_csv(runs, folder / FILE_NAME, overwrite=overwrite)
    for path in [*written, table]:
        print(path)
    return 0


if __name__ == "__main__":
    cli.run(main)

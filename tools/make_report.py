"""Write the report of a run: report.html and report.pdf."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the plots, write both reports, print their paths, and return the exit code."""
    parser = cli.build_parser(
        "Write the report of a run, finished or not: config, dataset, transfer, "
        "augmentation, training, evaluation, video, limits, how to repeat it. It is "
        "one HTML file that needs no network, and the same as PDF (A4). The tool draws"
        " the plots and stills first. Reports inside the run folder are regenerated; "
        "elsewhere existing files need --overwrite.",
        example="python tools/make_report.py output/demo",
    )
    add = cli.adder(parser)
    add("run_dir", "OUTPUT_DIR of a training", "RUN_DIR", type=Path)
    add("--output", "folder for report.html and report.pdf (default: RUN_DIR)", "DIR", type=Path)
    add("--overwrite", "replace reports in a folder outside the run folder")
    args = cli.parse(parser, argv)
    cli.show_log()
    from persondet.errors import OutputExistsError
    from persondet.report.build import build_report, check_output, check_run
    from persondet.report.plots import plot_run
    from persondet.results import RunError
    from persondet.video.clip_files import write_stills

    run, output, overwrite = args.run_dir, args.output, args.overwrite
    check_run(run)
    check_output(run, output, overwrite=overwrite)
    # Nothing is logged yet, or the run folder cannot be written: the report says what is missing.
    with suppress(RunError, OutputExistsError):
        plot_run(run)
    with suppress(OutputExistsError):
        write_stills(run)
    for path in build_report(run, output, overwrite=overwrite):
        print(path)
    return 0


if __name__ == "__main__":
    cli.run(main)

"""Annotate every clip and image of a folder, once; here or on a Ray cluster."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import cli
from progress import Progress

if TYPE_CHECKING:
    from persondet.batch.job import JobSummary
    from persondet.batch.pools import Pool
    from persondet.batch.worker import Outcome, Worker


def get_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = cli.build_parser(
        "Annotate every clip and image of a folder and its sub-folders. What is finished and was "
        "made of the same source, model and options is skipped, so the same command goes on after "
        "an interruption. A bad item does not stop the others. ledger.jsonl and summary.csv say "
        "what became of each.",
        example="python tools/annotate_folder.py --run output/demo --input clips/ --output "
        "annotated/ --contact-sheet\n  python tools/annotate_folder.py --run RUN --input "
        "s3://bucket/clips \\\n    --output s3://bucket/annotated --ray auto --actors 64 "
        "--gpus-per-actor 0.5",
    )
    add = cli.adder(parser, "folders")
    more = "folder, or address such as s3://bucket/clips"
    add("--input", more, "DIR", required=True)
    add("--output", "the same, for results; has the input's sub-folders", "DIR", required=True)
    add("--overwrite", "replace results that were made of something else")
    add("--contact-sheet", "write contact_sheet.html, a page with a frame of each clip")
    add = cli.adder(parser, "workers")
    add(
        "--ray",
        "work on a Ray cluster: its address, `auto` for the one of this machine, `local` to start "
        "one here (pip install persondet[cluster])",
        "ADDRESS",
        default="",
    )
    add("--actors", "workers, each with a model of its own", "N", type=cli.positive, default=1)
    share = cli.number(float, 0)
    add("--cpus-per-actor", "processor cores of each", "N", type=share, default=1.0)
    add("--gpus-per-actor", "GPUs of each, also a part of one", "N", type=share, default=0.0)
    more = "give an item up after this long (default: never)"
    add("--timeout-per-item", more, "SECONDS", type=cli.number(float, 1e-3))
    more = "with --no-tracking, cut longer clips into parts of this length, each an item with a "
    more += "result of its own; tracks cannot go from part to part (default: never)"
    add("--span", more, "SECONDS", type=cli.number(float, 1e-3))
    cli.add_annotation_arguments(parser)
    cli.add_model_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Annotate; print a line per item that is not done, and a table at the end."""
    parser = get_parser()
    args = cli.parse(parser, argv)
    chosen = cli.annotation_options(parser, args)
    cli.check_model_arguments(parser, args)
    if args.span and (chosen["tracking"] or chosen["start"] or chosen["end"]):
        parser.error("--span needs --no-tracking, and neither --start nor --end")
    if not args.ray:  # on a cluster the workers need PyTorch, and this process does not
        from persondet.environment import require_detectron2

        require_detectron2()
    from persondet.batch.job import annotate_folder
    from persondet.batch.options import AnnotationOptions
    from persondet.batch.store import Store
    from persondet.batch.worker import Worker, load_model
    from persondet.errors import PartialResultError

    if args.areas:  # as below
        chosen["areas"] = args.areas.resolve()
    options = AnnotationOptions.of(chosen)
    load = functools.partial(
        load_model,
        # Workers may stand in another folder.
        args.run and str(Path(args.run).resolve()),
        args.config_file and str(Path(args.config_file).resolve()),
        args.opts,
        model=args.model and str(Path(args.model).resolve()),
        confidence_threshold=args.confidence_threshold,
        least_score=options.hiding.threshold if options.hiding else None,
        tiles=args.tiles,
        threads=1,  # several frames at once instead
    )
    source, output = Store(args.input), Store(args.output)
    worker = Worker(
        load,
        source,
        output,
        options,
        overwrite=args.overwrite,
        stills=args.contact_sheet,
        threads=max(1, round(args.cpus_per_actor)) if args.ray else None,
    )
    with Progress("items", "items") as bar:
        summary = annotate_folder(
            source,
            output,
            _pool(worker, args),
            contact_sheet=args.contact_sheet,
            span=args.span and Fraction(args.span).limit_denominator(1000),
            progress=lambda done, items, frames: bar(done, items, note=f"{frames} frames"),
            on_outcome=_show,
        )
    for line in _table(summary):
        print(line)
    if summary.states["done"] < summary.items:
        missing = summary.items - summary.states["done"]
        raise PartialResultError(
            f"{missing} of {summary.items} items are not annotated to the end; "
            f"{output.label}/ledger.jsonl says why."
        )
    return 0


def _pool(worker: Worker, args: argparse.Namespace) -> Pool:
    """Return who does the work."""
    from persondet.batch.pools import HerePool, RayPool, TimedPool

    if args.ray:
        return RayPool(
            worker,
            args.ray,
            actors=args.actors,
            cpus=args.cpus_per_actor,
            gpus=args.gpus_per_actor,
            timeout=args.timeout_per_item,
        )
    return TimedPool(worker, args.timeout_per_item) if args.timeout_per_item else HerePool(worker)


def _show(outcome: Outcome) -> None:
    """Print what went wrong with an item."""
    if outcome.state != "done":
        named = outcome.reason.startswith(f"{outcome.source}:")
        what = outcome.reason if named else f"{outcome.source}: {outcome.reason}"
        line = f"{outcome.state}: {what}"
        print(cli.printable(line), file=sys.stderr)


def _table(summary: JobSummary) -> list[str]:
    """Return the lines of a table of what became of the job."""
    rows = [("done", summary.states["done"]), ("of these before", summary.finished_before)]
    rows += [(state, summary.states[state]) for state in ("partial", "failed", "refused")]
    rows += [("frames", summary.frames), ("detections", summary.people)]
    if summary.other_files:
        rows.append(("other files, passed over", summary.other_files))
    return [*(f"{name:<26}{count:>12}" for name, count in rows), f"{summary.seconds:.1f} s in all"]


if __name__ == "__main__":
    cli.run(main)

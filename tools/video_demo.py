"""Annotate clips with the objects that a model detects in them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cli
from progress import Progress

if TYPE_CHECKING:
    from persondet.errors import MediaError
    from persondet.video.pipeline import VideoSummary


def get_parser() -> argparse.ArgumentParser:
    """Return the parser; `--video-input --output --opts` are those of Detectron2's demo."""
    parser = cli.build_parser(
        "Detect the people in a clip, or in each clip of a folder, track them, and write an "
        "annotated H.264 clip that browsers play, with its records (one JSON line per frame) "
        "beside it. A killed run leaves <stem>.partial.mp4, and that file plays.",
        example="python tools/video_demo.py --run output/demo --video-input walk.mp4 "
        "--output walk_annotated.mp4\n  python tools/video_demo.py --run output/demo --video-input "
        "walk.mp4 \\\n    --output part.mp4 --start 1:30 --end 2:00 --stride 2 --save-mot\n  "
        "python tools/video_demo.py --run output/demo --video-input walk.mp4 --output hidden.mp4 "
        "\\\n    --anonymize pixelate --mute --no-boxes --no-labels\n  "
        "python tools/video_demo.py --config-file configs/person_mask_rcnn_R_50_FPN.yaml \\\n    "
        "--video-input clips/ --output annotated/",
    )
    _add_clip_arguments(parser)
    cli.add_annotation_arguments(parser)
    cli.add_model_arguments(parser)
    return parser


def _add_clip_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which clips, and where to."""
    add = cli.adder(parser, "clips")
    more = "clip, folder of clips, or address such as https://…"
    add("--video-input", more, "PATH", required=True)
    add(
        "--output",
        ".mp4, .mov or .mkv for one clip; a folder gets <stem>_annotated.mp4 of each clip (the "
        "name for the stem where two share it). The records (.jsonl) lie beside the clip",
        "PATH",
        required=True,
        type=Path,
    )
    add("--recursive", "search the sub-folders of a folder too")
    add(
        "--overwrite",
        "replace existing outputs; a folder's clips that are finished are skipped otherwise",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Check all clips, load the model, annotate; print a line per clip and where the time went."""
    parser = get_parser()
    args = cli.parse(parser, argv)
    chosen = cli.annotation_options(parser, args)
    cli.check_model_arguments(parser, args)
    from persondet.errors import MediaError, PartialMediaError, PartialResultError
    from persondet.files import refuse_existing
    from persondet.video.clip_files import check_areas, check_clips, plan_clips

    folder = Path(args.video_input).is_dir()
    plan = plan_clips(args.video_input, args.output, recursive=args.recursive)
    readable, faults, existing = check_clips(
        plan,
        folder=folder,
        save_mot=args.save_mot,
        overwrite=args.overwrite,
        start=args.start,
        end=args.end,
    )
    for reason in faults:
        _say(f"skipped: {reason}")
    if args.areas:
        check_areas(args.areas, [clip for clip, _ in readable])
        for _, target in readable:
            refuse_existing(_analysis_folder(target), overwrite=args.overwrite)
    done, failed, finished = _annotate_all(readable, existing, chosen, args, alone=not folder)
    faults += [str(error) for error in failed] + [one.damage for one in done if one.damage]
    if not done and not finished:
        kept = any(isinstance(error, PartialMediaError) for error in failed)
        raise (PartialMediaError if kept else MediaError)(faults[-1])
    for line in _stage_table(done):
        print(line)
    if faults:
        rest = "; the rest is" if len(faults) < len(plan) else ""
        raise PartialResultError(
            f"{len(faults)} of {len(plan)} clips are not annotated to the end{rest}."
        )
    return 0


def _annotate_all(
    clips: Sequence[tuple[str | Path, Path]],
    existing: Sequence[tuple[str | Path, Path]],
    chosen: dict[str, Any],
    args: argparse.Namespace,
    *,
    alone: bool,
) -> tuple[list[VideoSummary], list[MediaError], int]:
    """Load the model and annotate clips.

    Returns: what was done, what failed unless `alone`, and how many existing results are what this
        call would make.
    """
    from persondet.environment import require_detectron2

    require_detectron2()
    from persondet.batch.options import AnnotationOptions, annotate_clip, existing_difference
    from persondet.errors import MediaError
    from persondet.inference.predictor import load_predictor
    from persondet.video.source import shown_name

    options = AnnotationOptions.of(chosen)
    predictor = load_predictor(
        args.run,
        args.config_file,
        args.opts,
        model=args.model,
        confidence_threshold=args.confidence_threshold,
        least_score=options.hiding.threshold if options.hiding else None,
        tiles=args.tiles,
        threads=1,  # several frames at once instead
    )
    done: list[VideoSummary] = []
    failed: list[MediaError] = []
    for clip, target in existing:
        why = existing_difference(Path(clip), target, predictor, options)
        if why:
            failed.append(MediaError(f"{target} is there already and {why}; add --overwrite."))
            _say(f"failed: {failed[-1]}")
        else:
            print(cli.printable(f"{shown_name(clip)}: finished before; {target}"))
    finished = len(existing) - len(failed)
    for clip, target in clips:
        try:
            with Progress(cli.printable(shown_name(clip)), "frames") as progress:
                done.append(
                    annotate_clip(
                        clip,
                        target,
                        predictor,
                        options,
                        overwrite=args.overwrite,
                        progress=progress,
                    )
                )
        except MediaError as error:
            if alone:
                raise
            failed.append(error)
            _say(f"failed: {error}")
        else:
            _show_summary(shown_name(clip), done[-1])
            if args.areas:
                _analyze(target, args)
    return done, failed, finished


def _analysis_folder(target: Path) -> Path:
    return target.with_name(f"{target.stem}_analysis")


def _analyze(target: Path, args: argparse.Namespace) -> None:
    """Write the analysis of an annotated clip beside it, and print its sums."""
    from persondet.analysis.clip import analyze_clip
    from persondet.files import atomic_folder
    from persondet.records import records_path
    from persondet.report.plots.areas import write_analysis
    from persondet.video.clip_files import frame_beneath

    records = records_path(target)
    analysis = analyze_clip(records, args.areas)
    with atomic_folder(_analysis_folder(target), overwrite=args.overwrite) as folder:
        write_analysis(analysis, folder, frame_beneath(records, analysis.header))
    for line in analysis.describe():
        print(cli.printable(line))


def _say(line: str) -> None:
    """Print a line to standard error; escape control characters in the names of files."""
    print(cli.printable(line), file=sys.stderr)


def _show_summary(name: str, summary: VideoSummary) -> None:
    """Print what was done with the clip `name`; notes and damage go to standard error."""
    print(cli.printable(f"{name}: {_describe(summary)}"), flush=True)
    for note in summary.notes:
        _say(f"note: {name}: {note}")
    if summary.damage:
        _say(f"incomplete: {name}: {summary.damage}; {summary.frames} were annotated")


def _describe(summary: VideoSummary) -> str:
    """Return what was done with a clip, in one line."""
    unique = summary.unique_people
    return (
        f"{summary.frames} frames in {summary.seconds:.1f} s ({summary.fps:.1f} per second), "
        f"{summary.people_mean:.1f} people per frame, {summary.people_max} at most"
        f"{'' if unique is None else f', {unique} different ones'}; written to {summary.output}"
    )


def _stage_table(summaries: Sequence[VideoSummary]) -> list[str]:
    """Return the lines of a table: for each stage its work and its waiting, all clips together.

    The stages run at the same time, so their seconds do not add up to the time of the run. The
    slowest stage hardly waits; all others wait for it.
    """
    frames = sum(summary.frames for summary in summaries)
    busy: dict[str, float] = {}
    waiting: dict[str, float] = {}
    for stage in (stage for summary in summaries for stage in summary.stages):
        busy[stage.name] = busy.get(stage.name, 0.0) + stage.busy
        waiting[stage.name] = waiting.get(stage.name, 0.0) + stage.waiting
    if not busy:
        return []
    slowest = max(busy, key=lambda name: busy[name])
    lines = [f"{'stage':<8}{'works':>10}{'waits':>10}{'per frame':>13}"]
    for name in busy:
        each = 1000 * busy[name] / max(frames, 1)
        mark = "  the slowest" if name == slowest else ""
        lines.append(f"{name:<8}{busy[name]:>8.1f} s{waiting[name]:>8.1f} s{each:>10.1f} ms{mark}")
    return lines


if __name__ == "__main__":
    cli.run(main)

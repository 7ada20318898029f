"""Annotate clips with the objects that a model detects in them."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cli
from progress import Progress

if TYPE_CHECKING:
    from persondet.errors import MediaError
    from persondet.inference.predictor import Predictor
    from persondet.video.pipeline import VideoSummary

_TIME = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)")


def get_parser() -> argparse.ArgumentParser:
    """Return the parser; `--video-input --output --opts` are those of Detectron2's demo."""
    parser = cli.build_parser(
        "Detect the people in a clip, or in each clip of a folder, track them, and write an "
        "annotated H.264 clip that browsers play, with its records (one JSON line per frame) "
        "beside it. A killed run leaves <stem>.partial.mp4, and that file plays.",
        example="python tools/video_demo.py --run output/demo --video-input walk.mp4 "
        "--output walk_annotated.mp4\n  python tools/video_demo.py --run output/demo --video-input "
        "walk.mp4 \\\n    --output part.mp4 --start 1:30 --end 2:00 --stride 2 --save-mot\n  "
        "python tools/video_demo.py --config-file configs/person_mask_rcnn_R_50_FPN.yaml \\\n    "
        "--video-input clips/ --output annotated/",
    )
    _add_clip_arguments(parser)
    cli.add_model_arguments(parser)
    return parser


def _add_clip_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the groups `clips`, `part of the clip`, `output`, `people` to `parser`."""
    moment: dict[str, Any] = {"metavar": "TIME", "type": clip_time}
    count: dict[str, Any] = {"metavar": "N", "type": cli.positive}
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
    add("--overwrite", "replace existing outputs, which a folder's clips skip otherwise")
    add = cli.adder(parser, "part of the clip")
    add("--start", "first moment: 90, 1:30 or 0:01:30.5 (default: the beginning)", **moment)
    add("--end", "end of the part, exclusive (default: the end of the clip)", **moment)
    add("--stride", "annotate every n-th frame (default: VIDEO.STRIDE)", **count)
    add("--max-frames", "stop after this many frames (default: all)", **count)
    add = cli.adder(parser, "output")
    more = "0 (lossless; many players and browsers cannot play it) to 51 (worst; default: 20)"
    add("--crf", f"H.264 quality from {more}", "N", type=cli.number(int, 0, 51))
    add("--save-mot", "write MOT-challenge text (.txt) too")
    add = cli.adder(parser, "people")
    add("--no-tracking", "do not follow people from frame to frame")
    add("--no-masks", "do not draw masks")
    add("--no-labels", "do not draw class, score and track")
    add("--no-count", "do not draw the number of people in view")


def _check_clip_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a usage error where `--end` is not after `--start`, or MOT text has no tracks."""
    start = args.start or Fraction(0)
    if args.end is not None and args.end <= start:
        parser.error(f"--end {float(args.end):g} must be later than --start {float(start):g}")
    if args.save_mot and args.no_tracking:
        parser.error("--save-mot writes tracks, and --no-tracking makes none; leave one out")


def clip_time(text: str) -> Fraction:
    """Return seconds, exact: `text` is seconds, minutes:seconds or hours:minutes:seconds."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 90, 1:30 or 0:01:30.5")
    hours, minutes, seconds = match.groups()
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + Fraction(seconds)


def main(argv: Sequence[str] | None = None) -> int:
    """Check all clips, load the model, annotate; print a line per clip and where the time went."""
    parser = get_parser()
    args = cli.parse(parser, argv)
    _check_clip_arguments(parser, args)
    cli.check_model_arguments(parser, args)
    from persondet.errors import MediaError, PartialMediaError, PartialResultError
    from persondet.video.clip_files import check_clips, plan_clips

    plan = plan_clips(args.video_input, args.output, recursive=args.recursive)
    readable, faults, existing = check_clips(
        plan,
        save_mot=args.save_mot,
        overwrite=args.overwrite,
        start=args.start,
        end=args.end,
    )
    for reason in (*faults, *existing):
        _say(f"skipped: {reason}")
    done, failed = _annotate_all(readable, args, alone=len(plan) == 1) if readable else ([], [])
    faults += [str(error) for error in failed] + [one.damage for one in done if one.damage]
    if not done and not existing:
        kept = any(isinstance(error, PartialMediaError) for error in failed)
        raise (PartialMediaError if kept else MediaError)(faults[-1])
    for line in _stage_table(done):
        print(line)
    if faults:
        raise PartialResultError(
            f"{len(faults)} of {len(plan)} clips are not annotated to the end; the rest is."
        )
    return 0


def _annotate_all(
    clips: Sequence[tuple[str | Path, Path]], args: argparse.Namespace, *, alone: bool
) -> tuple[list[VideoSummary], list[MediaError]]:
    """Load the model and annotate clips; return what was done, and what failed unless `alone`."""
    from persondet.environment import require_detectron2

    require_detectron2()
    from persondet.errors import MediaError
    from persondet.inference.predictor import load_predictor
    from persondet.video.source import shown_name

    predictor = load_predictor(
        args.run,
        args.config_file,
        args.opts,
        confidence_threshold=args.confidence_threshold,
        tiles=args.tiles,
    )
    done: list[VideoSummary] = []
    failed: list[MediaError] = []
    for clip, target in clips:
        try:
            done.append(annotate(clip, target, predictor, args))
        except MediaError as error:
            if alone:
                raise
            failed.append(error)
            _say(f"failed: {error}")
        else:
            _show_summary(shown_name(clip), done[-1])
    return done, failed


def annotate(
    clip: str | Path, target: Path, predictor: Predictor, args: argparse.Namespace
) -> VideoSummary:
    """Annotate one clip with a visualizer of its own, as colours belong to one clip."""
    from persondet.video.pipeline import annotate_video
    from persondet.video.source import shown_name
    from persondet.visualization.visualizer import PersonVideoVisualizer

    visualizer = PersonVideoVisualizer(
        predictor.metadata,
        masks=not args.no_masks,
        labels=not args.no_labels,
        count=not args.no_count,
    )
    chosen = {name: getattr(args, name) for name in ("start", "end", "max_frames", "crf")}
    with Progress(cli.printable(shown_name(clip)), "frames") as progress:
        return annotate_video(
            clip,
            target,
            predictor,
            visualizer=visualizer,
            tracker=None if args.no_tracking else "auto",
            stride=args.stride or predictor.cfg.VIDEO.STRIDE,
            save_mot=args.save_mot,
            overwrite=args.overwrite,
            progress=progress,
            **chosen,
        )


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

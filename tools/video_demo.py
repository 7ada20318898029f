"""Annotate clips with the people that a model finds in them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cli
from model_arguments import (
    add_model_arguments,
    at_least_one,
    check_model_arguments,
    load_predictor,
)
from progress import Progress

if TYPE_CHECKING:
    from persondet.predictor import Predictor
    from persondet.video.pipeline import VideoSummary


def get_parser() -> argparse.ArgumentParser:
    """Return the parser; `--video-input --output --opts` are those of Detectron2's demo."""
    parser = cli.build_parser(
        "Find the people in a clip, or in each clip of a folder, and write an annotated H.264 clip "
        "that browsers play, with its records (one JSON line per frame) beside it.",
        example="python tools/video_demo.py --run output/demo --video-input walk.mp4 "
        "--output walk_annotated.mp4\n  python tools/video_demo.py --config-file "
        "configs/person_mask_rcnn_R_50_FPN.yaml --video-input clips/ --output annotated/",
    )
    group = parser.add_argument_group("clips")
    group.add_argument(
        "--video-input",
        metavar="PATH",
        type=Path,
        required=True,
        help="clip or folder of clips",
        default=argparse.SUPPRESS,
    )
    group.add_argument(
        "--output",
        metavar="PATH",
        type=Path,
        required=True,
        default=argparse.SUPPRESS,
        help=".mp4, .mov or .mkv for one clip, or a folder, which gets <stem>_annotated.mp4",
    )
    group.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    group.add_argument(
        "--stride",
        metavar="N",
        type=at_least_one,
        help="annotate every n-th frame (default: VIDEO.STRIDE)",
        default=argparse.SUPPRESS,
    )
    group.add_argument(
        "--max-frames",
        metavar="N",
        type=at_least_one,
        help="stop after this many frames",
        default=argparse.SUPPRESS,
    )
    group = parser.add_argument_group("drawing")
    for part, text in (
        ("masks", "masks"),
        ("labels", "class and score"),
        ("count", "the number of people in view"),
    ):
        group.add_argument(f"--no-{part}", action="store_true", help=f"do not draw {text}")
    add_model_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Check all clips, load the model, annotate; print one line per clip."""
    parser = get_parser()
    args = cli.parse(parser, argv)
    check_model_arguments(parser, args)
    from persondet.errors import MediaError, PartialResultError
    from persondet.video.clips import plan_clips
    from persondet.video.io import VideoReader
    from persondet.video.pipeline import check_output

    plan = plan_clips(args.video_input, args.output)
    failed = 0
    readable = []
    for clip, target in plan:
        check_output(clip, target, overwrite=args.overwrite)
        try:
            VideoReader(clip).close()
            readable.append((clip, target))
        except MediaError as error:
            if len(plan) == 1:
                raise
            print(f"skipped: {error}", file=sys.stderr)
            failed += 1
    if not readable:
        raise MediaError(f"{args.video_input}: none of its {failed} clips can be read.")
    predictor = load_predictor(args)
    for clip, target in readable:
        summary = annotate(clip, target, predictor, args)
        people = f"{summary.people_mean:.1f} people per frame, {summary.people_max} at most"
        print(
            f"{clip.name}: {summary.frames} frames in {summary.seconds:.1f} s "
            f"({summary.fps:.1f} per second), {people}; written to {summary.output}"
        )
        if summary.damage:
            print(f"incomplete: {clip}: {summary.damage}", file=sys.stderr)
            failed += 1
    if failed:
        raise PartialResultError(
            f"{failed} of {len(plan)} clips could not be read to the end; the rest is written."
        )
    return 0


def annotate(
    clip: Path, target: Path, predictor: Predictor, args: argparse.Namespace
) -> VideoSummary:
    """Annotate one clip with a visualizer of its own, as colours belong to one clip."""
    from persondet.video.pipeline import annotate_video
    from persondet.visualization.visualizer import PersonVideoVisualizer

    visualizer = PersonVideoVisualizer(
        predictor.metadata,
        masks=not args.no_masks,
        labels=not args.no_labels,
        count=not args.no_count,
    )
    with Progress(clip.name, "frames") as progress:
        return annotate_video(
            clip,
            target,
            predictor,
            visualizer=visualizer,
            stride=getattr(args, "stride", predictor.cfg.VIDEO.STRIDE),
            max_frames=getattr(args, "max_frames", None),
            overwrite=args.overwrite,
            progress=progress,
        )


if __name__ == "__main__":
    cli.run(main)

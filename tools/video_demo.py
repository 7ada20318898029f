"""Annotate clips with the people that a model finds in them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cli
import model_arguments
from progress import Progress

if TYPE_CHECKING:
    from persondet.predictor import Predictor
    from persondet.video.pipeline import VideoSummary

UNSET = argparse.SUPPRESS


def get_parser() -> argparse.ArgumentParser:
    """Return the parser; `--video-input --output --opts` are those of Detectron2's demo."""
    parser = cli.build_parser(
        "Find the people in a clip, or in each clip of a folder, and write an annotated H.264 clip "
        "that browsers play, with its records (one JSON line per frame) beside it.",
        example="python tools/video_demo.py --run output/demo --video-input walk.mp4 "
        "--output walk_annotated.mp4\n  python tools/video_demo.py --config-file "
        "configs/person_mask_rcnn_R_50_FPN.yaml --video-input clips/ --output annotated/",
    )
    add = parser.add_argument_group("clips").add_argument
    path: dict[str, Any] = {"metavar": "PATH", "type": Path, "required": True, "default": UNSET}
    number: dict[str, Any] = {
        "metavar": "N",
        "type": model_arguments.at_least_one,
        "default": UNSET,
    }
    add("--video-input", **path, help="clip, or folder of clips")
    add(
        "--output",
        **path,
        help=".mp4, .mov or .mkv for one clip, or a folder, which gets <stem>_annotated.mp4",
    )
    add("--overwrite", action="store_true", help="replace existing outputs")
    add("--stride", **number, help="annotate every n-th frame (default: VIDEO.STRIDE)")
    add("--max-frames", **number, help="stop after this many frames (default: all)")
    add = parser.add_argument_group("drawing").add_argument
    add("--no-masks", action="store_true", help="do not draw masks")
    add("--no-labels", action="store_true", help="do not draw class and score")
    add("--no-count", action="store_true", help="do not draw the number of people in view")
    model_arguments.add_model_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Check all clips, load the model, annotate; print one line per clip."""
    parser = get_parser()
    args = cli.parse(parser, argv)
    model_arguments.check_model_arguments(parser, args)
    from persondet.errors import PartialResultError
    from persondet.video.clips import check_clips, plan_clips

    plan = plan_clips(args.video_input, args.output)
    readable, faults = check_clips(plan, overwrite=args.overwrite)
    for fault in faults:
        print(f"skipped: {fault}", file=sys.stderr)
    predictor = model_arguments.load_predictor(args)
    for clip, target in readable:
        summary = annotate(clip, target, predictor, args)
        print(
            f"{clip.name}: {summary.frames} frames in {summary.seconds:.1f} s "
            f"({summary.fps:.1f} per second), {summary.people_mean:.1f} people per frame, "
            f"{summary.people_max} at most; written to {summary.output}"
        )
        if summary.damage:
            faults.append(summary.damage)
            print(
                f"incomplete: {clip}: {summary.damage}; {summary.frames} were annotated",
                file=sys.stderr,
            )
    if faults:
        raise PartialResultError(
            f"{len(faults)} of {len(plan)} clips could not be read to the end; the rest is written."
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

"""Annotate clips with the people that a model finds in them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cli
import clip_arguments
import model_arguments
from progress import Progress
from video_lines import say, show_summary, stage_table

if TYPE_CHECKING:
    from persondet.inference.predictor import Predictor
    from persondet.video.pipeline import VideoSummary


def get_parser() -> argparse.ArgumentParser:
    """Return the parser; `--video-input --output --opts` are those of Detectron2's demo."""
    parser = cli.build_parser(
        "Find the people in a clip, or in each clip of a folder, follow them, and write an "
        "annotated H.264 clip that browsers play, with its records (one JSON line per frame) "
        "beside it. A run that is killed leaves <stem>.partial.mp4, which plays.",
        example="python tools/video_demo.py --run output/demo --video-input walk.mp4 "
        "--output walk_annotated.mp4\n  python tools/video_demo.py --run output/demo --video-input "
        "walk.mp4 \\\n    --output part.mp4 --start 1:30 --end 2:00 --stride 2 --save-mot\n  "
        "python tools/video_demo.py --config-file configs/person_mask_rcnn_R_50_FPN.yaml \\\n    "
        "--video-input clips/ --output annotated/",
    )
    clip_arguments.add_clip_arguments(parser)
    model_arguments.add_model_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Check all clips, load the model, annotate; print a line per clip and where the time went."""
    parser = get_parser()
    args = cli.parse(parser, argv)
    clip_arguments.check_clip_arguments(parser, args)
    model_arguments.check_model_arguments(parser, args)
    from persondet.errors import MediaError, PartialMediaError, PartialResultError
    from persondet.video.outputs import check_clips, plan_clips
    from persondet.video.source import shown_name

    plan = plan_clips(args.video_input, args.output)
    readable, faults = check_clips(
        plan,
        save_mot=args.save_mot,
        overwrite=args.overwrite,
        start=getattr(args, "start", None),
        end=getattr(args, "end", None),
    )
    for fault in faults:
        say(f"skipped: {fault}")
    predictor = model_arguments.load_predictor(args)
    done = []
    kept = False
    for clip, target in readable:
        try:
            summary = annotate(clip, target, predictor, args)
        except MediaError as error:
            if len(plan) == 1:
                raise
            faults.append(str(error))
            kept |= isinstance(error, PartialMediaError)
            say(f"failed: {error}")
            continue
        done.append(summary)
        show_summary(shown_name(clip), summary)
        if summary.damage:
            faults.append(summary.damage)
    if not done:
        raise (PartialMediaError if kept else MediaError)(faults[-1])
    print("\n".join(stage_table(done)))
    if faults:
        raise PartialResultError(
            f"{len(faults)} of {len(plan)} clips could not be read to the end; the rest is written."
        )
    return 0


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
    chosen = {name: getattr(args, name, None) for name in ("start", "end", "max_frames", "crf")}
    with Progress(cli.printable(shown_name(clip)), "frames") as progress:
        return annotate_video(
            clip,
            target,
            predictor,
            visualizer=visualizer,
            tracker=None if args.no_tracking else "auto",
            stride=getattr(args, "stride", predictor.cfg.VIDEO.STRIDE),
            save_mot=args.save_mot,
            overwrite=args.overwrite,
            progress=progress,
            **chosen,
        )


if __name__ == "__main__":
    cli.run(main)

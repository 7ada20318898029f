"""Pick the frames of clips that are worth labelling, with a model's people as pre-labels."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cli
from progress import Progress


def get_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = cli.build_parser(
        "Pick the frames that a trained model is unsure of, no two of a kind, and write them as an "
        "export (COCO, Roboflow's layout) with what the model finds as pre-labels, and as a page "
        "that says why. --upload sends an export to a Roboflow project; the key comes from the "
        "environment variable ROBOFLOW_API_KEY only.",
        example="python tools/mine_frames.py --run output/person --video-input clips "
        "--output to_label --count 200\n"
        "  ROBOFLOW_API_KEY=… python tools/mine_frames.py --output to_label "
        "--upload acme/crosswalk",
    )
    add = cli.adder(parser, "frames")
    add("--run", "run folder (its best model) or checkpoint file", "DIR", default="")
    add("--video-input", "clip, or folder of clips; without it --output is uploaded as it is", "IN")
    add("--recursive", "search the sub-folders of a folder too")
    add("--count", "how many frames to pick", "N", type=cli.positive, default=200)
    more = "seconds from one frame that is looked at to the next"
    add("--every", more, "SECONDS", type=cli.number(float, 0.02, 3600), default=0.5)
    more = "pre-label from this score on (default: the model's threshold, else 0.5)"
    add("--confidence-threshold", more, "SCORE", type=cli.number(float, 0.01, 1))
    cli.add_output(parser, "DIR", "folder for train/, frames.csv and frames.html")
    add = cli.adder(parser, "Roboflow")
    add("--upload", "send the export to this project", "WORKSPACE/PROJECT")
    add("--batch", "name of the batch there", "NAME", default="frames worth labelling")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Pick and write the frames, send them if asked to; return the exit code."""
    parser = get_parser()
    args = parser.parse_args(argv)
    if not args.video_input and not args.upload:
        parser.error("give clips with --video-input, or --upload an --output that is there")
    if args.video_input and not args.run:
        parser.error("--video-input needs a model: give a trained run with --run DIR")
    cli.show_log()
    if args.upload:
        from persondet.data.fetch.roboflow_link import api_key
        from persondet.data.fetch.roboflow_upload import ProjectName, upload_export

        project = ProjectName.of(args.upload)
        api_key()  # refused before the work
    if args.video_input:
        mine(args)
    if args.upload:
        with Progress(str(project), "images") as progress:
            sent = upload_export(args.output, project, batch=args.batch, progress=progress)
        print(f"{sent} images are in the batch {args.batch!r} of {project}")
    return 0


def mine(args: argparse.Namespace) -> None:
    """Pick and write the frames, and say what to open."""
    with cli.many_imports():
        from persondet.environment import require_detectron2

        require_detectron2()
        from persondet.files import refuse_existing
        from persondet.labelling.frames import mine_frames, unsure_predictor
        from persondet.video.clip_files import plan_clips

    refuse_existing(args.output, overwrite=args.overwrite)
    plan = plan_clips(args.video_input, args.output, recursive=args.recursive)
    predictor, threshold = unsure_predictor(args.run, args.confidence_threshold)
    with Progress(args.video_input, "frames") as progress:
        picked = mine_frames(
            [Path(clip) for clip, _ in plan],
            args.output,
            predictor,
            threshold,
            count=args.count,
            every=args.every,
            overwrite=args.overwrite,
            progress=progress,
        )
    people = sum(len(one.boxes) for one in picked)
    more = "" if len(picked) == args.count else " (the others are of a kind with them)"
    print(f"{len(picked)} frames picked{more}, {people} pre-labels")
    print(f"open {args.output / 'frames.html'}; import {args.output / 'train'}")


if __name__ == "__main__":
    cli.run(main)

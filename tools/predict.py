"""Annotate images with the people that a model detects in them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import cli
from progress import Progress


def get_parser() -> argparse.ArgumentParser:
    """Return the parser; `--input --output --opts` are those of Detectron2's demo."""
    parser = cli.build_parser(
        "Detect the people in images; write annotated images, predictions.json (COCO results "
        "format), images.json (image_id to file name) and records.jsonl (a line per image) into "
        "a folder.",
        example="python tools/predict.py --run output/demo --input street.jpg photos/ 'more/*.png' "
        "--output annotated/",
    )
    add = cli.adder(parser, "images")
    add("--input", "files, folders, glob patterns", "PATH", nargs="+", required=True)
    cli.add_output(parser, "DIR", "folder for the results")
    cli.add_drawing_arguments(parser, "drawing")
    cli.add_model_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Check the inputs, load the model, annotate; print what was written."""
    parser = get_parser()
    args = cli.parse(parser, argv)
    cli.check_model_arguments(parser, args)
    from persondet.environment import require_detectron2

    require_detectron2()
    from persondet.errors import PartialResultError
    from persondet.inference.images import check_image_output, find_images, predict_images
    from persondet.inference.predictor import load_predictor
    from persondet.visualization.visualizer import draw_instances

    images = find_images(args.input, output=args.output)
    check_image_output(images, args.output, overwrite=args.overwrite)
    predictor = load_predictor(
        args.run,
        args.config_file,
        args.opts,
        model=args.model,
        confidence_threshold=args.confidence_threshold,
        tiles=args.tiles,
    )
    with Progress(str(args.output), "images") as progress:
        summary = predict_images(
            images,
            args.output,
            predictor,
            lambda image, instances: draw_instances(
                image,
                instances,
                predictor.metadata,
                masks=not args.no_masks,
                labels=not args.no_labels,
                count=not args.no_count,
            ),
            overwrite=args.overwrite,
            progress=progress,
        )
    told = f"{summary.images} images, {summary.people} people; written to {args.output}"
    print(cli.printable(told))
    for _, reason in summary.skipped:
        print(f"skipped: {cli.printable(reason)}", file=sys.stderr)
    if summary.skipped:
        raise PartialResultError(
            f"{len(summary.skipped)} of {len(images)} images could not be read; "
            "the rest is written."
        )
    return 0


if __name__ == "__main__":
    cli.run(main)

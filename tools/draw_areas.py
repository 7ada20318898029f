"""Draw a frame of a clip with a grid to read coordinates from, or with lines and zones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Write the image, print what to do with it, and return the exit code."""
    parser = cli.build_parser(
        "Draw a frame of a clip with a grid in pixels, from which the points of lines and zones "
        "are read, and print the beginning of an areas.yaml. --check draws the areas of such a "
        "file: an arrow shows which way across a line is in.",
        example="python tools/draw_areas.py datasets/sample/city_walk.mp4 --output grid.png\n  "
        "python tools/draw_areas.py datasets/sample/city_walk.mp4 --check areas.yaml "
        "--output areas.png",
    )
    add = cli.adder(parser, "what to draw")
    add("clip", "the clip, annotated or not", "CLIP")
    add("--check", "lines and zones to draw, see docs/analysis.md", "YAML", type=Path)
    more = "the frame's moment: 90, 1:30 or 0:01:30.5 (default: the beginning)"
    add("--at", more, "TIME", type=cli.clip_time)
    cli.add_output(parser, "FILE", "PNG or JPEG")
    args = cli.parse(parser, argv)
    if args.output.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        parser.error(f"--output must end in .png or .jpg, not {args.output.suffix!r}")
    from persondet.analysis.areas import read_areas, template
    from persondet.data.image_file import write_image
    from persondet.files import refuse_existing
    from persondet.video.reader import VideoReader
    from persondet.visualization.areas import draw_areas, draw_grid

    refuse_existing(args.output, overwrite=args.overwrite)
    with VideoReader(args.clip, start=args.at) as reader:
        image = next(iter(reader)).image.copy()
        name, width, height = reader.name, reader.width, reader.height
    if args.check:
        draw_areas(image, read_areas(args.check, width, height, name))
    draw_grid(image)
    write_image(args.output, image)
    if not args.check:
        for line in template(name, width, height):
            print(cli.printable(line))
    print(cli.printable(f"written to {args.output}"))
    return 0


if __name__ == "__main__":
    cli.run(main)

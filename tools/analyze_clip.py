"""Count and measure the people of an annotated clip at lines and in zones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Write the tables and figures of each records file; print the sums; return the exit code."""
    parser = cli.build_parser(
        "Count who crosses lines, in and out, and who visits zones, for how long, by the records "
        "of annotated clips alone: a clip is annotated once and asked many times. All times come "
        "from time stamps. draw_areas.py helps to place lines and zones.",
        example="python tools/analyze_clip.py output/demo/city_walk_annotated.jsonl \\\n    "
        "--areas areas.yaml --clip datasets/sample/city_walk.mp4 --output output/demo/analysis",
    )
    add = cli.adder(parser, "what to analyze")
    more = "the .jsonl beside an annotated clip; of several, each gets a folder of its stem"
    add("records", more, "RECORDS", type=Path, nargs="+")
    add("--areas", "lines and zones, see docs/analysis.md", "YAML", type=Path, required=True)
    more = "draw on its first frame (default: the annotated clip beside the records, else grey)"
    add("--clip", more, "CLIP")
    cli.add_output(parser, "DIR", "folder for tables, figures and analysis.json")
    args = cli.parse(parser, argv)
    stems = [path.stem for path in args.records]
    if len(set(stems)) < len(stems):
        parser.error("two of the records have the same stem, and would get the same folder")
    cli.show_log()
    from persondet.analysis.clip import analyze_clip
    from persondet.files import atomic_folder
    from persondet.report.plots.areas import write_analysis
    from persondet.video.clip_files import frame_beneath

    with atomic_folder(args.output, overwrite=args.overwrite) as folder:
        for records in args.records:
            analysis = analyze_clip(records, args.areas)
            place = folder / records.stem if len(args.records) > 1 else folder
            frame = frame_beneath(records, analysis.header, args.clip)
            write_analysis(analysis, place, frame)
            for line in analysis.describe():
                print(cli.printable(line))
    print(cli.printable(f"written to {args.output}"))
    return 0


if __name__ == "__main__":
    cli.run(main)

"""Score the tracks of an annotated clip against its ground truth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Print the scores of the tracks; return the exit code."""
    parser = cli.build_parser(
        "Score how well people keep their numbers in an annotated clip: MOTA, IDF1, "
        "HOTA, identity switches and fragments. Skipped frames (--stride, --start, "
        "--end) do not count.",
        example="python tools/score_tracks.py output/demo/city_walk_annotated.jsonl "
        "datasets/sample/city_walk_groundtruth.json",
    )
    add = cli.adder(parser)
    add("records", "the .jsonl beside the clip", "RECORDS", type=Path)
    more = "ground truth: the json beside the sample's clip, or a MOT-challenge gt.txt"
    add("truth", more, "TRUTH", type=Path)
    more = "leave out people when less than this share of them is visible"
    add("--min-visible", more, "SHARE", type=cli.share, default=0.2)
    more = "leave out people smaller than this"
    add("--min-height", more, "PIXELS", type=cli.number(float, 0), default=24.0)
    add("--json", "print JSON instead of a table")
    args = cli.parse(parser, argv)
    cli.show_log()
    from persondet.inference.tracking import read_ground_truth, score_tracks, tracked_frames
    from persondet.records import read_records

    ground_truth = read_ground_truth(args.truth)
    _, frames = read_records(args.records)
    tracks, people = tracked_frames(frames, ground_truth, args.records)
    score = score_tracks(tracks, people, min_visible=args.min_visible, min_height=args.min_height)
    print(json.dumps(asdict(score), indent=2) if args.json else table(asdict(score)))
    return 0


def table(score: dict[str, float]) -> str:
    """Return a score as lines of text: name, value."""
    shares = {"mota": "MOTA", "idf1": "IDF1", "hota": "HOTA", "deta": "DetA", "assa": "AssA"}
    lines = [f"{title:<14}{100 * score[name]:>8.1f}" for name, title in shares.items()]
    rest = [name for name in score if name not in shares]
    return "\n".join(lines + [f"{name.replace('_', ' '):<14}{score[name]:>8.0f}" for name in rest])


if __name__ == "__main__":
    cli.run(main)

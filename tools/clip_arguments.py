"""The flags that say which part of which clip is annotated, and how; part of video_demo.

Standard library only, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

from argument_types import positive

UNSET = argparse.SUPPRESS
_TIME = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)")
_CRF_WORST = 51


def add_clip_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the groups `clips`, `part of the clip`, `output`, `people` to `parser`."""
    required: dict[str, Any] = {"metavar": "PATH", "required": True, "default": UNSET}
    moment: dict[str, Any] = {"metavar": "TIME", "type": clip_time, "default": UNSET}
    count: dict[str, Any] = {"metavar": "N", "type": positive, "default": UNSET}
    add = parser.add_argument_group("clips").add_argument
    add("--video-input", **required, help="clip, folder of clips, or address such as https://…")
    add(
        "--output",
        **(required | {"type": Path}),
        help=".mp4, .mov or .mkv for one clip, or a folder, which gets <stem>_annotated.mp4; the "
        "records lie beside it, named .jsonl",
    )
    add("--overwrite", action="store_true", help="replace existing outputs")
    add = parser.add_argument_group("part of the clip").add_argument
    add("--start", **moment, help="first moment: 90, 1:30 or 0:01:30.5 (default: the beginning)")
    add("--end", **moment, help="first moment that is left out (default: the end of the clip)")
    add("--stride", **count, help="annotate every n-th frame (default: VIDEO.STRIDE)")
    add("--max-frames", **count, help="stop after this many frames (default: all)")
    add = parser.add_argument_group("output").add_argument
    add(
        "--crf",
        metavar="N",
        type=crf,
        default=UNSET,
        help="quality of the H.264: 0 lossless, which many players and browsers do not play, 51 worst (default: 20)",
    )
    add("--save-mot", action="store_true", help="write MOT-challenge text, too, named .txt")
    add = parser.add_argument_group("people").add_argument
    add("--no-tracking", action="store_true", help="do not follow people from frame to frame")
    add("--no-masks", action="store_true", help="do not draw masks")
    add("--no-labels", action="store_true", help="do not draw class, score and track")
    add("--no-count", action="store_true", help="do not draw the number of people in view")


def check_clip_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a usage error where `--end` is not after `--start`, or MOT text has no tracks."""
    start, end = getattr(args, "start", Fraction(0)), getattr(args, "end", None)
    if end is not None and end <= start:
        parser.error(f"--end {float(end):g} must be later than --start {float(start):g}")
    if args.save_mot and args.no_tracking:
        parser.error("--save-mot writes tracks, and --no-tracking makes none; leave one out")


def clip_time(text: str) -> Fraction:
    """Return seconds, exact: `text` is seconds, minutes:seconds or hours:minutes:seconds."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 90, 1:30 or 0:01:30.5")
    hours, minutes, seconds = match.groups()
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + Fraction(seconds)


def crf(text: str) -> int:
    """Return `text` as one of x264's constant qualities."""
    number = int(text)
    if not 0 <= number <= _CRF_WORST:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 (lossless) to {_CRF_WORST} (worst)")
    return number

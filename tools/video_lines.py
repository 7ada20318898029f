"""What video_demo prints: a line per clip, and where the time went."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cli

if TYPE_CHECKING:
    from persondet.video.pipeline import VideoSummary


def say(line: str) -> None:
    """Print a line to standard error, with the names of strangers' files as terminals may show."""
    print(cli.printable(line), file=sys.stderr)


def show_summary(name: str, summary: VideoSummary) -> None:
    """Print what was done with the clip `name`, and to standard error what the user should know."""
    print(cli.printable(f"{name}: {describe(summary)}"), flush=True)
    for note in summary.notes:
        say(f"note: {name}: {note}")
    if summary.damage:
        say(f"incomplete: {name}: {summary.damage}; {summary.frames} were annotated")


def describe(summary: VideoSummary) -> str:
    """Return what was done with a clip, in one line."""
    unique = summary.unique_people
    return (
        f"{summary.frames} frames in {summary.seconds:.1f} s ({summary.fps:.1f} per second), "
        f"{summary.people_mean:.1f} people per frame, {summary.people_max} at most"
        f"{'' if unique is None else f', {unique} different ones'}; written to {summary.output}"
    )


def stage_table(summaries: Sequence[VideoSummary]) -> list[str]:
    """Return the lines of a table: for each stage its work and its waiting, all clips together.

    The stages run side by side, so their seconds do not add up to the time of the run; the one
    that hardly waits is the one that all others wait for.
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

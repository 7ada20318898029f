"""Section 7: the annotated clips: stills, and how many were counted over time."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

from persondet.report.document import Block, Figure, Heading, Note, Paragraph, Section, Table
from persondet.report.facts import Facts
from persondet.report.people_counts import record_files
from persondet.report.run_state import RunState
from persondet.report.wording import DASH, duration, plain, points, share, whole

SCHEMA = "persondet-video-records"
STILLS = "plots/video_stills.json"
_MOST_CLIPS = 20


@dataclass(frozen=True)
class ClipCounts:
    """What the records of one clip say: its header, and the number of finds in each frame.

    unique: how many different people a tracker has counted; None without.
    """

    name: str
    header: Facts
    counts: tuple[int, ...]
    seconds: float
    unique: int | None = None


def video(state: RunState) -> Section:
    """Show what the detector does with a clip."""
    clips = [
        clip
        for path in record_files(state.run.path)[:_MOST_CLIPS]
        if (clip := read_counts(path)) is not None
    ]
    blocks: list[Block] = [
        Paragraph(
            "A clip is a row of pictures, its frames. The detector looks at each frame by itself, "
            "draws what it finds, and writes beside the video a file of records: for every frame "
            "the boxes, masks and scores. A tracker then gives each person a number, by where the "
            "boxes are and how they move, and counts how many different people it has seen.",
        )
    ]
    if not clips:
        text = (
            "No annotated clip with its records lies in the run folder. To make one: python "
            f"tools/video_demo.py --run {state.run.word} --video-input CLIP.mp4 --output "
            f"{state.run.word}/CLIP_annotated.mp4"
        )
        return Section("video", "The video", (*blocks, Note("missing", text)))
    blocks += [_clip_table(clips), *_score(state), *_stills(state), *_over_time(state)]
    return Section("video", "The video", tuple(blocks))


def read_counts(path: Path) -> ClipCounts | None:
    """Read how many finds each frame has; a line that cannot be read ends the clip.

    Returns: None when the file is no video records, or has no frame.
    """
    counts: list[int] = []
    time, unique = 0.0, None
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            header = Facts(json.loads(next(lines, "")))
            if header["schema"].text() != SCHEMA:
                return None
            for line in lines:
                frame = Facts(json.loads(line))
                counts.append(len(frame["people"].entries()))
                time = frame["time"].number() or time
                unique = frame["unique"].count() or unique
    except (OSError, ValueError, RecursionError):
        if not counts:
            return None
    rate = header["fps"].number() or 0
    seconds = time + (1 / rate if rate > 0 else 0)
    return ClipCounts(path.stem, header, tuple(counts), seconds, unique) if counts else None


def _clip_table(clips: list[ClipCounts]) -> Table:
    rows = []
    for clip in clips:
        width, height = (clip.header[key].number() for key in ("width", "height"))
        threshold = clip.header["confidence_threshold"].number()
        rows.append(
            (
                clip.name,
                f"{whole(width)} × {whole(height)}",
                duration(clip.seconds),
                whole(len(clip.counts)),
                DASH if threshold is None else f"{threshold:.2f}",
                plain(statistics.fmean(clip.counts), 3),
                whole(max(clip.counts)),
                whole(clip.unique),
            )
        )
    header = (
        *("clip", "pixels", "length", "frames", "threshold", "finds per frame", "at most"),
        "different people",
    )
    return Table("The annotated clips", header, tuple(rows), (3, 4, 5, 6, 7))


def _score(state: RunState) -> list[Block]:
    score = state.results["video"]
    recall, precision = score["recall"].number(), score["precision"].number()
    if recall is None or precision is None:
        return []
    rate = score["frames_per_second"].number()
    speed = "" if rate is None else f" It was annotated at {points(rate)} frames per second."
    return [
        *([] if score["idf1"].number() is None else [_track_score(score)]),
        Paragraph(
            "For this clip the truth is known. Over all frames the detector finds "
            f"{share(recall)} of the objects, and {share(precision)} of its boxes are right (boxes "
            f"with an IoU of 0.5 or more).{speed}",
        ),
    ]


def _track_score(score: Facts) -> Table:
    """Show how well people keep their numbers in the clip whose truth is known."""
    found, there = score["unique"].number(), score["unique_truth"].number()
    rows = (
        ("MOTA", share(score["mota"].number()), "1 minus misses, false alarms and switches"),
        ("IDF1", share(score["idf1"].number()), "sightings with the right number throughout"),
        ("HOTA", share(score["hota"].number()), "finding and keeping apart, together"),
        ("switches", whole(score["switches"].number()), "a person's number changes"),
        ("fragments", whole(score["fragments"].number()), "a person is lost and found again"),
        ("different people", whole(found), f"counted; {whole(there)} are in the truth"),
    )
    return Table("How well people keep their numbers", ("what", "score", "meaning"), rows, (1,))


def _stills(state: RunState) -> list[Block]:
    blocks: list[Block] = [Heading("Stills")]
    for still in state.run.facts(STILLS)["stills"].entries()[:6]:
        seconds, people = still["time"].number(), still["people"].count()
        when = "" if seconds is None else f" at {seconds:.1f} seconds"
        count = "" if people is None else f": {whole(people)} found"
        clip = still["clip"].text() or "the clip"
        name = f"plots/{still['file'].text()}"
        blocks.append(state.run.figure(name, f"A frame of {clip}{when}{count}."))
    if any(isinstance(block, Figure) for block in blocks):
        reading = (
            "Each find has a colour, its box, its score in percent and the number that a tracker "
            "gave it. The same number in the next frame most often is the same person, but nothing "
            "guarantees that."
        )
        return [blocks[0], Paragraph(reading, "How to read them:"), *blocks[1:]]
    text = (
        "There are no stills of the clip. python tools/make_report.py "
        f"{state.run.word} takes them from the annotated video, where it lies beside its records."
    )
    return [Heading("Stills"), Note("missing", text)]


def _over_time(state: RunState) -> list[Block]:
    return [
        Heading("Counts over time"),
        state.run.figure(
            "plots/people_over_time.png",
            "How many were found in each frame of the clip.",
            "Slow changes are people who come and go. Single dips and spikes are frames in which "
            "the detector missed somebody or saw one too many.",
            how=f"It is drawn by: python tools/plot_metrics.py {state.run.word}",
        ),
    ]

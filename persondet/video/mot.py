"""Tracks as MOT-challenge text, which other programs for tracking read and score.

One line per person and frame: `frame,id,left,top,width,height,score,-1,-1,-1`. Frames count from 1
over the frames of the annotated clip, pixels from 1 too: the corner of a picture is (1, 1).
Source: Leal-Taixé et al., "MOTChallenge 2015", arXiv:1504.01942, table of the file format.
"""

from __future__ import annotations

from pathlib import Path

from persondet.files import atomic_path
from persondet.video.records import PersonRecord, read_records


def mot_path(output: str | Path) -> Path:
    """Return where the MOT-challenge text of an annotated clip lies: beside it, named .txt."""
    return Path(output).with_suffix(".txt")


def write_mot(records: str | Path, target: str | Path) -> int:
    """Write records as MOT-challenge text, whole or not at all.

    Args:
        records: the .jsonl of an annotated clip; the .partial.jsonl of a killed run will do.
        target: the text file; replaced when it is there.

    Returns: the number of lines; without tracking every id is -1.

    Raises: MediaError: when the records cannot be read. OutputExistsError: when the text cannot be
        written.
    """
    _, frames = read_records(records)
    lines = 0
    with atomic_path(target) as temporary, open(temporary, "w", encoding="ascii") as file:
        for number, frame in enumerate(frames, start=1):
            file.writelines(_line(number, person) for person in frame.people)
            lines += len(frame.people)
    return lines


def _line(number: int, person: PersonRecord) -> str:
    """Return one person's line."""
    x0, y0, x1, y1 = person.box
    place = f"{x0 + 1:.2f},{y0 + 1:.2f},{x1 - x0:.2f},{y1 - y0:.2f}"
    track = -1 if person.track_id is None else person.track_id
    return f"{number},{track},{place},{person.score:.4f},-1,-1,-1\n"

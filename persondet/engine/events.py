"""The files of the event log, `metrics.json` and TensorBoard's, also across a resume."""

from __future__ import annotations

import json
import math
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.utils.events import EventWriter, TensorboardXWriter, get_event_storage
from PIL import Image

from persondet.files import write_text

# Losses are written as medians over so many iterations, as Detectron2 does.
WINDOW = 20
METRICS = "metrics.json"
JPEG_QUALITY = 85


def event_writers(folder: str | Path, *, start: int = 0) -> list[EventWriter]:
    """Return the writers of a run's event files.

    Args:
        folder: the run folder.
        start: rows of this iteration and later ones are removed: they come from a run that went
            further than the checkpoint from which this one goes on, and will be written again.
    """
    metrics = MetricsWriter(Path(folder) / METRICS, start=start)
    return [metrics, TensorBoardWriter(str(folder), start=start, last_row=metrics.last_row)]


class MetricsWriter(EventWriter):
    """Writes `metrics.json` as Detectron2's `JSONWriter` does: a JSON object per line.

    It goes on where the file ends: half a line and the rows from `start` on are removed, and what
    the other rows hold is not written twice. A number that is not finite is written as `null`,
    because `NaN` is no JSON. Each row is on disk when `write` returns.

    Attributes:
        last_row: the largest iteration that has been written; -1: none.
    """

    def __init__(self, path: Path, *, start: int = 0) -> None:
        """Open the file, and make it, when it is missing."""
        self.last_row = keep_rows_before(path, start)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - until close()

    def write(self) -> None:
        """Write what is newer than the last row, a row for each iteration."""
        rows: dict[int, dict[str, Any]] = {}
        newest = get_event_storage().latest_with_smoothing_hint(WINDOW)
        for name, (value, iteration) in newest.items():
            if iteration > self.last_row:
                row = rows.setdefault(iteration, {"iteration": iteration})
                row[name] = value if math.isfinite(value) else None
        for iteration in sorted(rows):
            self._file.write(json.dumps(rows[iteration], sort_keys=True, allow_nan=False) + "\n")
        self.last_row = max([self.last_row, *rows])
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoardWriter(TensorboardXWriter):
    """Detectron2's writer of TensorBoard events, whose later events of an older run are hidden.

    What `write` was given is in the file when it returns, as in `metrics.json`. Images of bytes
    are stored as JPEG, at about an eighth of the PNG that the stock writer makes of them.
    """

    def __init__(self, folder: str, *, start: int = 0, last_row: int = -1) -> None:
        """Write to `folder`; events from `start` on give way, those of `last_row` are there."""
        super().__init__(folder, window_size=WINDOW, **({"purge_step": start} if start else {}))
        self._last_write = last_row

    def write(self) -> None:
        """Write what is newer than the last row, and the images of the event storage."""
        storage, others = get_event_storage(), []
        for name, image, step in storage._vis_data:  # theirs reads it in the same way
            if isinstance(image, np.ndarray) and image.dtype == np.uint8:
                self._add_jpeg(name, image, step)
            else:
                others.append((name, image, step))
        storage._vis_data = others
        super().write()
        self._writer.flush()

    def _add_jpeg(self, name: str, image: np.ndarray, step: int) -> None:
        """Add an image: uint8, (3, H, W), RGB."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        _, height, width = image.shape
        content = BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(content, "JPEG", quality=JPEG_QUALITY)
        encoded = Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=content.getvalue()
        )
        summary = Summary(value=[Summary.Value(tag=name, image=encoded)])
        self._writer.file_writer.add_summary(summary, step)


def keep_rows_before(path: Path, start: int) -> int:
    """Remove from a `metrics.json` the rows of iterations from `start` on, and half a last line.

    Lines that hold no row stay where they are. The file is replaced whole or not at all.

    Returns: the largest iteration that is left; -1 when there is none.
    """
    if not path.is_file():
        return -1
    text = path.read_text(encoding="utf-8", errors="replace")
    kept, last = [], -1
    for line in text.splitlines(keepends=True):
        iteration = _iteration(line)
        if iteration is None and not line.endswith("\n"):
            continue
        if iteration is None or iteration < start:
            kept.append(line if line.endswith("\n") else f"{line}\n")
            last = max(last, -1 if iteration is None else iteration)
    if "".join(kept) != text:
        write_text(path, "".join(kept))
    return last


def last_row(path: Path) -> int:
    """Return the largest iteration of a `metrics.json`; -1 when there is none."""
    if not path.is_file():
        return -1
    with path.open(encoding="utf-8", errors="replace") as lines:
        found = [_iteration(line) for line in lines]
    return max((number for number in found if number is not None), default=-1)


def _iteration(line: str) -> int | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    number = row.get("iteration") if isinstance(row, dict) else None
    return number if isinstance(number, int) else None

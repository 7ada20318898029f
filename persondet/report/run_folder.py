"""A run folder as the report sees it: its files, its pictures, and sentences about what lacks.

Nothing here raises for a file that is missing or damaged: what is there is reported.
"""

from __future__ import annotations

import io
import json
import shlex
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from PIL import Image

from persondet.errors import DatasetError
from persondet.files import path_inside
from persondet.report.document import Block, Figure, Note, Picture
from persondet.report.events import Events, load_events
from persondet.report.facts import Facts
from persondet.results import RunError

WIDEST = 1600  # pixels; wider pictures are made smaller, since a page shows no more
_LONGEST_TEXT = 2_000_000  # bytes of a text file that is read


@dataclass
class RunFolder:
    """The files of one run, each read at most once.

    Attributes:
        path: the folder, as the user gave it.
        plots: where the files of its `plots/` lie; None: there.
    """

    path: Path
    plots: Path | None = None
    _read: dict[str, tuple[Facts, str]] = field(default_factory=dict)
    _events: Events | None = None

    @property
    def word(self) -> str:
        """The folder as a word of a command line."""
        return shlex.quote(str(self.path))

    def facts(self, name: str) -> Facts:
        """Return what a JSON or YAML file says; nothing when it is missing or damaged."""
        return self._reading(name)[0]

    def why_not(self, name: str) -> str:
        """Return why a file says nothing: "is not in the run folder", or how it is damaged."""
        return self._reading(name)[1]

    def text(self, name: str) -> str:
        """Return a text file, empty when it is missing."""
        path = self.inside(name)
        try:
            with path.open("rb") if path else io.BytesIO() as file:
                return file.read(_LONGEST_TEXT).decode("utf-8", "replace")
        except OSError:
            return ""

    def events(self) -> Events | None:
        """Return the scalars of metrics.json, None when it is missing or holds no row."""
        if self._events is None:
            try:
                self._events = load_events(self.path)
            except RunError:
                return None
        return self._events

    def inside(self, name: str) -> Path | None:
        """Return the path of a file of this run, None when the name leads out of the folder."""
        try:
            if self.plots is not None and name.startswith("plots/"):
                return path_inside(self.plots, name.removeprefix("plots/"))
            return path_inside(self.path, name)
        except (DatasetError, OSError, ValueError):
            return None

    def figure(
        self, name: str, caption: str, reading: str = "", *, why: str = "", how: str = ""
    ) -> Block:
        """Return a picture of the run as a figure, or a note that it is missing.

        Args:
            name: the file, relative to the run folder.
            caption, reading: as in `Figure`.
            why: when the picture is expected to be missing, the sentence that says so.
            how: the sentence that says which command makes it.
        """
        path = self.inside(name)
        picture = read_picture(path) if path else None
        if picture is not None:
            return Figure(picture, caption, reading)
        what = "cannot be read" if path and path.is_file() else "is not in the run folder"
        return Note("missing", " ".join(filter(None, (why or f"{name} {what}.", how))))

    def missing(self, name: str, what: str, how: str) -> Note:
        """Return the note for a file without which `what` (a sentence) holds."""
        reason = self.why_not(name) or "does not say it"
        return Note("missing", f"{what} {name} {reason}. {how}")

    def _reading(self, name: str) -> tuple[Facts, str]:
        if name not in self._read:
            self._read[name] = self._read_now(name)
        return self._read[name]

    def _read_now(self, name: str) -> tuple[Facts, str]:
        path = self.inside(name)
        if path is None or not path.is_file():
            return Facts(), "is not in the run folder"
        try:
            text = path.read_bytes().decode("utf-8", "replace")
            value = yaml.safe_load(text) if name.endswith(".yaml") else json.loads(text)
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            return Facts(), "is damaged and cannot be read"
        if not isinstance(value, dict):
            return Facts(), "is damaged: it holds no object"
        return Facts(value), ""


def read_picture(path: Path) -> Picture | None:
    """Return a PNG or JPEG file, made smaller when it is wider than `WIDEST` pixels.

    Returns: None when the file is missing, damaged, or of another kind.
    """
    try:
        data = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
            opened.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Warning):
        return None  # Pillow raises SyntaxError for a broken PNG
    jpeg = opened.format == "JPEG"
    image: Image.Image = opened
    if image.width > WIDEST:
        height = max(1, round(image.height * WIDEST / image.width))
        image = image.convert("RGB").resize((WIDEST, height), Image.Resampling.LANCZOS)
        target = io.BytesIO()
        if jpeg:
            image.save(target, "JPEG", quality=88)
        else:
            image.save(target, "PNG")
        data = target.getvalue()
    return Picture(data, "image/jpeg" if jpeg else "image/png", image.width, image.height)

"""What the files of a run say, and how the report says it.

`Facts` is a value that can be of no wrong kind; `Model`, `TaskCurves`, `Evaluation` and `Clip` are
made of it. `points`, `share` and the other functions put numbers and names into a reader's words.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Concatenate, NamedTuple, ParamSpec

import numpy as np
import numpy.typing as npt

from persondet import text
from persondet.results import TASKS

FloatArray = npt.NDArray[np.float64]
DASH = "–"
LONGEST_NAME = 40
TEMPLATES = Path(__file__).parent / "templates"
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Facts:
    """A value out of JSON or YAML, or of nothing; `facts["a"]["b"]` never fails.

    Every method answers with nothing where the file has nothing of that kind, so a chapter of the
    report needs no exceptions.
    """

    value: Any = None

    def __getitem__(self, key: str | int) -> Facts:
        if isinstance(self.value, dict):
            return Facts(self.value.get(key))
        if isinstance(self.value, list) and isinstance(key, int):
            return Facts(self.value[key] if -len(self.value) <= key < len(self.value) else None)
        return Facts()

    def __bool__(self) -> bool:
        """Return whether there is a value, and it is not empty."""
        return self.value is not None and self.value not in ("", [], {})

    def number(self) -> float | None:
        """Return a finite number, None where there is none."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            return None
        return float(self.value) if abs(self.value) < 1e300 and math.isfinite(self.value) else None

    def count(self) -> int | None:
        """Return a whole number that is not negative, None where there is none."""
        number = self.number()
        return int(number) if number is not None and number >= 0 and number % 1 == 0 else None

    def text(self) -> str:
        """Return a string, empty where there is none."""
        return self.value if isinstance(self.value, str) else ""

    def shown(self) -> str:
        """Return a plain value or a flat list of such as text; empty for anything else."""
        if isinstance(self.value, list):
            return ", ".join(item for entry in self.entries() if (item := entry.shown()))
        if isinstance(self.value, float):
            return f"{self.value:.6g}"
        return str(self.value) if isinstance(self.value, str | int) else ""

    def entries(self) -> list[Facts]:
        """Return the items of a list, none where there is no list."""
        return [Facts(item) for item in self.value] if isinstance(self.value, list) else []

    def items(self) -> list[tuple[str, Facts]]:
        """Return the (key, value) pairs of an object, none where there is no object."""
        pairs = self.value.items() if isinstance(self.value, dict) else ()
        return [(str(key), Facts(value)) for key, value in pairs]

    def texts(self) -> list[str]:
        """Return the strings of a list."""
        return [text for entry in self.entries() if (text := entry.text())]

    def array(self) -> FloatArray:
        """Return a list of numbers, null as NaN: (N,); empty for anything else."""
        entries = self.entries()
        known = all(entry.value is None or entry.number() is not None for entry in entries)
        return np.array([entry.number() for entry in entries] if known else [], dtype=np.float64)

    def columns(self, *names: str, edges: int = 0) -> tuple[FloatArray, ...]:
        """Return lists of numbers of one length, (N,) each; all empty where one is another.

        `edges` is 1 when the first list has the N + 1 edges of a histogram.
        """
        first, *others = (self[name].array() for name in names)
        fit = all(len(column) == len(first) - edges for column in others)
        return (first, *others) if fit else tuple(np.zeros(0) for _ in names)


class Model(NamedTuple):
    """A checkpoint as a file of scores names it.

    file: its name; empty: unknown. iteration: from 0; None: unknown. sha256: empty: unknown.
    """

    file: str = ""
    iteration: int | None = None
    sha256: str = ""

    @classmethod
    def of(cls, record: Facts, iteration: Facts = Facts()) -> Model:
        """Return the model of a field `model`: an object, or a path beside a field `iteration`."""
        if record.text():
            record = Facts({"file": record.value, "iteration": iteration.value})
        digest = record["sha256"].text()
        digest = digest if _DIGEST.fullmatch(digest) else ""
        file = PurePosixPath(record["file"].text()).name
        return cls(file, record["iteration"].count(), digest)

    def words(self) -> str:
        """Return it in words: "model_0000599.pth, after 600 steps"."""
        steps = "" if self.iteration is None else f", after {self.iteration + 1:,} steps"
        return (self.file or "a model without a name") + steps


class Point(NamedTuple):
    """Precision, recall and F1 (0 to 1) of the detections that reach `threshold` (0 to 1)."""

    threshold: float
    precision: float
    recall: float
    f1: float

    @classmethod
    def of(cls, facts: Facts) -> Point | None:
        """Return the point of a JSON object; None where a number is missing."""
        values = [facts[name].number() for name in cls._fields]
        return cls(*values) if None not in values else None  # type: ignore[arg-type]


@dataclass(frozen=True)
class TaskCurves:
    """The curves of one task, boxes or masks.

    Attributes:
        iou: from which IoU on a detection counts as right, 0 to 1; NaN: unknown.
        thresholds, precision, recall, f1: (N,), thresholds increase, all 0 to 1; or empty.
        best: the point with the best F1; None where there is none.
        at_threshold: the point at the threshold in use; None where there is none.
        pr_recall: recall of the precision-recall curves, (R,).
        pr_precision: IoU in percent ("50", "75") → precision at each of `pr_recall`, (R,), the
            mean over the classes.
        pooled: (recall, precision), (R,) each, at IoU 0.5 with the detections of all classes in one
            row; empty where the file has none.
        score_edges, score_true, score_false: score histogram: (B + 1,), right and wrong
            detections (B,).
    """

    iou: float
    thresholds: FloatArray
    precision: FloatArray
    recall: FloatArray
    f1: FloatArray
    best: Point | None
    at_threshold: Point | None
    pr_recall: FloatArray
    pr_precision: dict[str, FloatArray]
    pooled: tuple[FloatArray, FloatArray]
    score_edges: FloatArray
    score_true: FloatArray
    score_false: FloatArray

    @classmethod
    def of(cls, facts: Facts) -> TaskCurves:
        """Return the curves of one entry under `tasks` in curves.json."""
        pr, iou = facts["pr"], facts["iou"].number()
        recall = pr["recall"].array()
        precisions = {
            key.removeprefix("precision@"): pr.columns(key, "recall")[0]
            for key, _ in sorted(pr.items())
            if key.startswith("precision@")
        }
        values: tuple[Any, ...] = (
            math.nan if iou is None else iou,
            *facts.columns("thresholds", "precision", "recall", "f1"),
            Point.of(facts["best"]),
            Point.of(facts["at_threshold"]),
            recall,
            {key: values for key, values in precisions.items() if len(values)},
            facts["pooled"].columns("recall", "precision"),
            *facts["score_histogram"].columns("edges", "true", "false", edges=1),
        )
        return cls(*values)

    def at(self, threshold: float) -> Point | None:
        """Return the point at a threshold: the file's own, else that of the closest threshold.

        None where there is none.
        """
        own = self.at_threshold
        if own is not None and abs(own.threshold - threshold) < 1e-9:
            return own
        if not len(self.thresholds):
            return None
        index = int(np.argmin(np.abs(self.thresholds - threshold)))
        values = (self.precision[index], self.recall[index], self.f1[index])
        return Point(threshold, *map(float, values)) if np.isfinite(values[:2]).all() else None


@dataclass(frozen=True)
class Evaluation:
    """One dataset's evaluation.

    Attributes:
        dataset: its name, which anybody may have chosen.
        role: "valid", "test", or "" for another dataset.
        images: number of images; None: unknown.
        curves: "bbox" and "segm" → their curves.
        sizes: edges (√area in pixels, (B + 1,)), ground truth (B,), found (B,); or empty.
        errors: `errors.json`; nothing where it is missing.
    """

    dataset: str
    role: str
    images: int | None
    curves: dict[str, TaskCurves]
    sizes: tuple[FloatArray, FloatArray, FloatArray]
    errors: Facts

    @classmethod
    def of(cls, dataset: str, role: str, curves: Facts, errors: Facts) -> Evaluation:
        """Return what curves.json and errors.json hold; either may be missing."""
        tasks = curves["tasks"]
        found = {task: TaskCurves.of(tasks[task]) for task in TASKS if tasks[task].items()}
        sizes: Any = curves["sizes"].columns("edges", "ground_truth", "found", edges=1)
        return cls(dataset, role, curves["images"].count(), found, sizes, errors)


@dataclass(frozen=True)
class Clip:
    """An annotated clip, by its records.

    Attributes:
        path: the records.
        header: their first line.
        times: seconds from the start of the clip, float64 (N,), increasing.
        counts: detections in the frame at that time, int64 (N,).
        people: how many different people the tracker counted; None: there was no tracker.
    """

    path: Path
    header: Facts
    times: FloatArray
    counts: npt.NDArray[np.int64]
    people: int | None

    @property
    def source(self) -> str:
        """File name of the clip, which anybody may have chosen."""
        return self.header["source"].text() or self.path.name

    @property
    def seconds(self) -> float:
        """The length of the clip."""
        rate = self.header["fps"].number() or 0
        return float(self.times[-1]) + (1 / rate if rate > 0 else 0)


Number = Facts | float | None
More = ParamSpec("More")


def _or_dash(
    words: Callable[Concatenate[float, More], str],
) -> Callable[Concatenate[Number, More], str]:
    """Let a function take a value of a file too, and return a dash where there is no number."""

    @functools.wraps(words)
    def words_or_dash(value: Number, *args: More.args, **kwargs: More.kwargs) -> str:
        number = value.number() if isinstance(value, Facts) else value
        return DASH if number is None else words(number, *args, **kwargs)

    return words_or_dash


@_or_dash
def points(value: float) -> str:
    """Return an average precision, 0 to 100, with one decimal."""
    return f"{round(value, 1) + 0.0:.1f}"  # no "-0.0"


@_or_dash
def share(value: float) -> str:
    """Return a share, 0 to 1, in percent; one that is neither 0 nor 1 is not rounded to them."""
    percent = 100 * value
    near = 0 < percent < 0.95 or 99.05 < percent < 100
    return f"{percent:.1f} %" if near else f"{percent:.0f} %"


@_or_dash
def whole(value: float) -> str:
    """Return a count with commas between the thousands."""
    return f"{value:,.0f}"


@_or_dash
def decimals(value: float) -> str:
    """Return a score or threshold, 0 to 1, with two decimals."""
    return f"{value:.2f}"


@_or_dash
def plain(value: float, digits: int = 4) -> str:
    """Return a number with `digits` figures that count, without an exponent where it can be."""
    shown = f"{value:.{digits}g}"
    if "e" not in shown or not 1e-8 < abs(value) < 1e15:
        return shown
    return f"{value:,.0f}" if abs(value) >= 1 else f"{value:.10f}".rstrip("0")


@_or_dash
def duration(seconds: float) -> str:
    """Return seconds as a reader would say them: "41 seconds", "14 minutes", "2 h 5 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} seconds"
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def several(count: float, noun: str, plural: str = "") -> str:
    """Return a count with its noun: "1 image", "60 images"."""
    return f"{whole(count)} {noun if count == 1 else plural or noun + 's'}"


def listed(words: Sequence[str], *, last: str = "and", most: int = 12) -> str:
    """Return words as an enumeration; of more than `most` only the first are named."""
    words = [*words]
    if len(words) > most:
        words = [*words[: most - 1], f"{len(words) - most + 1} more"]
    return f" {last} ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def one_line(name: object, limit: int = LONGEST_NAME) -> str:
    """Return a name as `persondet.text.one_line` does; "(no name)" for one without letters."""
    return text.one_line(name, limit) or "(no name)"


def distinct(names: Sequence[str], limit: int = LONGEST_NAME) -> list[str]:
    """Return `names`, each as `one_line`, with a number behind those that look alike then."""
    short = [one_line(name, limit) for name in names]
    return [
        f"{name} ({short[:i].count(name) + 1})" if short.count(name) > 1 else name
        for i, name in enumerate(short)
    ]


def read_template(name: str) -> str:
    """Return a file of `templates/`."""
    return (TEMPLATES / name).read_text(encoding="utf-8")

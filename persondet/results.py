"""The numbers of a run on disk: `results.json`, written once at the end and read by everyone else.

    {"schema": 1, "model": "model_best.pth", "model_sha256": "9f2c...", "iteration": 350,
     "classes": ["person"],
     "test": {"dataset": "person_test", "images": 60,
              "bbox": {"AP": 52.1, "AP50": 88.7, ...}, "segm": {"AP": ..., ...},
              "intervals": {"bbox": {"AP": [46.0, 58.3], ...}, "segm": {...}},
              "notes": ["No predictions on person_test: box and mask AP is 0."],
              "leaks": {"images": 3, "share": 0.05, "clip_mates": 0,
                        "with": {"train": 2, "valid": 1}}},
     "valid": {...}, "tests": {"person_test": {...}, "other_test": {...}},
     "constant_box": {"bbox": {"AP": ..., ...}, "segm": ...},
     "seconds": {"train": 301.5, ...}}

Average precision is in points, 0 to 100; a number that does not exist (no ground truth of that
size) is null. `tests` is there for several test sets only; `test` is the first of them. `intervals`
are the 95 % bootstrap intervals over images (`persondet.evaluation`), null where too few images
hold what is measured, which `notes` says; `leaks` counts the images of the split that an earlier
split knows, and as `clip_mates` those of which it knows the clip alone, null where nobody looked.

The file of one dataset, `inference/<dataset>/results.json`, has that dataset's numbers as `test`,
and `model` is `{"file": "model_best.pth", "iteration": 350, "sha256": "9f2c..."}`.

Only the standard library is used here, so that a report needs no torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from persondet.errors import PersondetError
from persondet.files import write_json

SCHEMA = 1
FILE_NAME = "results.json"
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR")
TASKS = {"bbox": "box", "segm": "mask"}
DEFAULT_THRESHOLD = 0.5
"""The least score that counts as a detection, where neither a config nor a model names one."""


class RunError(PersondetError):
    """A run folder lacks one of its files, or the file is damaged."""


def write_results(run_dir: str | Path, results: Mapping[str, Any]) -> Path:
    """Write `results` to `run_dir/results.json`, whole or not at all, and return the path.

    The schema version is added, numpy numbers become plain ones, and NaN and infinities become
    null, because JSON has neither.

    Raises: RunError: when `results` has no "test" and no "valid", or their numbers are not 0..100.
    """
    path = Path(run_dir) / FILE_NAME
    plain = {"schema": SCHEMA, **{k: as_json(v) for k, v in results.items() if k != "schema"}}
    _check(plain, path)
    write_json(path, plain)
    return path


def read_results(run_dir: str | Path) -> dict[str, Any]:
    """Return what `write_results` wrote into `run_dir`; numbers that do not exist are None.

    Raises: RunError: when the file is missing, damaged, or of a newer version.
    """
    path = Path(run_dir) / FILE_NAME
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise RunError(
            f"{path} cannot be read; a run writes it when its final evaluation ends, "
            "so finish the training or evaluate with --eval-only."
        ) from None
    except ValueError as error:
        raise RunError(f"{path} is not JSON ({error}); evaluate again with --eval-only.") from None
    _check(results, path)
    return results


def leak_figure(report: Mapping[str, Any], split: str) -> dict[str, Any] | None:
    """Return how many images of a split an earlier split knows.

    Args:
        report: what a `dataset.json` holds.
        split: `train`, `valid` or `test`.

    Returns: `images` (how many), `share` (0 to 1), `clip_mates` (further images of which it has
    other frames of their clip) and `with` (split to how many of `images`); None when nobody has
    looked at the pixels, or there is no split before this one.
    """
    try:
        share = report["leaks"][split] if report["decoded"] else None
        return share and {
            "images": share["leaked"],
            "share": share["share"],
            "clip_mates": share.get("clip_mates", 0),
            "with": share.get("with", {}),
        }
    except (LookupError, TypeError):
        return None  # by another hand: the scores do not depend on it


def format_results_table(results: Mapping[str, Any], split: str = "test") -> str:
    """Return the average precisions of one split as a plain-text table, without a final newline.

    Rows are box and mask (those that were evaluated), each with its 95 % intervals below it, and,
    on the test split, what the same box on every image scores
    (`persondet.evaluation.evaluator`). Columns are AP, AP50, AP75, APs, APm, APl, AR and, where
    more than 100 detections were allowed on an image, `AP@<number>`, all in points (0 to 100); a
    dash stands for a number that does not exist. Below the table: what the intervals are, how many
    images leaked, and the notes.

    `results` is what `read_results` returns, and `split` is "test" or "valid".

    Raises: RunError: when `results` has no numbers of that split.
    """
    scores = results.get(split)
    if not scores:
        raise RunError(f"these results have no numbers of the {split} split; evaluate it first.")
    tasks = {task: name for task, name in TASKS.items() if isinstance(scores.get(task), Mapping)}
    above_100 = {key: None for task in tasks for key in scores[task] if key.startswith("AP@")}
    columns = [*METRICS, *above_100]
    intervals = {
        task: known
        for task, known in (scores.get("intervals") or {}).items()
        if known and any(known.values())
    }
    rows = [["", *columns]]
    for task, name in tasks.items():
        rows.append([name, *(_cell(scores[task].get(column)) for column in columns)])
        if intervals.get(task):
            rows.append(["  95 %", *(_spread(intervals[task].get(column)) for column in columns)])
    rows += [
        [f"constant box, {name}", *(_cell(constant[task].get(column)) for column in columns)]
        for task, name in TASKS.items()
        if split == "test" and (constant := results.get("constant_box") or {}).get(task)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]
    title = str(scores.get("dataset") or split)
    if scores.get("images") is not None:
        title += f", {scores['images']} images"
    return "\n".join([title, *lines, *_below(scores, any(map(intervals.get, tasks)))])


def _below(scores: Mapping[str, Any], has_intervals: bool) -> list[str]:
    """Return the lines below the table."""
    lines = []
    if has_intervals:
        lines.append(
            "95 %: where the number would lie, 19 times in 20, had other images been in the split."
        )
    leaks = scores.get("leaks")
    if leaks:
        splits = " and ".join(name for name, count in (leaks.get("with") or {}).items() if count)
        lines.append(
            f"{leaks['images']} of {scores.get('images', '?')} images "
            f"({100 * leaks['share']:.0f} %) are in {splits} too: the scores flatter the model."
            if leaks["images"]
            else "No image of this split is in an earlier split."
        )
        if mates := leaks.get("clip_mates"):
            lines.append(
                f"{mates} of {scores.get('images', '?')} images are frames of a clip that an "
                "earlier split has frames of: the scores may flatter the model."
            )
    return lines + [str(note) for note in scores.get("notes") or ()]


def _spread(interval: Any) -> str:
    """Return an interval as `low-high`; a dash for none."""
    return "-" if not interval or None in interval else f"{interval[0]:.1f}-{interval[1]:.1f}"


def _cell(value: Any) -> str:
    """Return a number with one decimal; a dash for None and for what is not finite."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.1f}"


def as_json(value: Any) -> Any:
    """Return `value` made of what JSON has: numpy numbers as plain ones, NaN as None."""
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # numpy numbers and arrays, without importing numpy
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _check(results: Any, path: Path) -> None:
    """Raise RunError unless `results` has the form that this module's docstring shows."""
    again = "evaluate again with --eval-only."
    if not isinstance(results, dict):
        raise RunError(f"{path}: the top level is not an object; {again}")
    schema = results.get("schema")
    if type(schema) is not int or schema < 1:
        raise RunError(f'{path}: the field "schema" is {schema!r}, not a version; {again}')
    if schema > SCHEMA:
        raise RunError(
            f"{path} has schema {schema} and this persondet knows up to {SCHEMA}; update persondet."
        )
    entries = {key: results[key] for key in ("test", "valid") if results.get(key) is not None}
    if not entries:
        raise RunError(f'{path}: neither "test" nor "valid" has numbers; {again}')
    several = results.get("tests")
    if several is not None:
        if not isinstance(several, dict):
            raise RunError(f'{path}: "tests" is not an object; {again}')
        entries |= {f"tests.{name}": scores for name, scores in several.items()}
    for split, scores in entries.items():
        _check_scores(scores, f'{path}: "{split}', again)


def _check_scores(scores: Any, where: str, again: str) -> None:
    """Raise RunError unless `scores` are an object whose metrics are from 0 to 100."""
    if not isinstance(scores, dict):
        raise RunError(f'{where}" is not an object; {again}')
    for task in TASKS:
        if scores.get(task) is None:
            continue
        if not isinstance(scores[task], dict):
            raise RunError(f'{where}.{task}" is not an object; {again}')
        for metric, value in scores[task].items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and 0 <= value <= 100):
                raise RunError(
                    f'{where}.{task}.{metric}" is {value!r}, not a number from 0 to 100; {again}'
                )

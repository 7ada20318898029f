"""The categories of an export: its classes with their names and numbers."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from persondet.data.coco_json import CocoDict
from persondet.data.findings import Findings
from persondet.errors import DatasetError
from persondet.text import printable

_MAX_ID = 2**31 - 1

Pair = tuple[int, str]  # a category's id and name, as a json has them


@dataclass(frozen=True)
class ClassTable:
    """The classes of an export, from the categories of all splits.

    Attributes:
        names: the classes in the order of their contiguous numbers.
        ids: class name to its id in the cleaned json, rising in the order of `names`.
        class_of: per split, category id of the raw json to class name; None when the category is
            known and its class was not asked for.
        records: class name to its category record in the cleaned json.
    """

    names: tuple[str, ...]
    ids: dict[str, int]
    class_of: dict[str, dict[int, str | None]]
    records: dict[str, dict[str, Any]]


def class_table(
    splits: Mapping[str, CocoDict], keep: Sequence[str], findings: Findings
) -> ClassTable:
    """Decide the classes of an export, and report the faults of its categories.

    A category counts as grouping only if another one of its split names it as its supercategory
    and no annotation of any split uses it: in some exports id 0 is a real class, and in others two
    categories share one name. Categories whose names differ only in case or spaces are one class,
    under the spelling with the most annotations. Ids are kept when all splits agree on them and
    they rise in the order of the classes; otherwise they are numbered from 1.

    Args:
        splits: split to a COCO dict of any content; the order of the splits decides ties.
        keep: the classes to keep, in this order; empty: all.
        findings: gets what is found.

    Raises: DatasetError: when one of `keep` is unknown or named twice.
    """
    pairs = {split: _pairs(split, coco, findings) for split, coco in splits.items()}
    uses = _uses(splits, pairs)
    grouping = _grouping(splits, pairs, uses)
    _report_grouping(pairs, grouping, findings)
    _report_equal_names(pairs, findings)
    spelling = _spellings(pairs, grouping, uses, findings)
    found = {
        split: dict.fromkeys(spelling[pair[1]] for pair in own if pair not in grouping)
        for split, own in pairs.items()
    }
    every = list(dict.fromkeys(name for names in found.values() for name in names))
    _report_classes(every, found, uses, spelling, findings)
    names = _kept(every, keep)
    class_of: dict[str, dict[int, str | None]] = {}
    for split, own in pairs.items():
        table: dict[int, str | None] = {}
        for number, name in own:
            is_kept = (number, name) not in grouping and spelling[name] in names
            table.setdefault(number, spelling[name] if is_kept else None)
        class_of[split] = table
    ids = _ids(names, class_of)
    return ClassTable(names, ids, class_of, _records(splits, names, ids, class_of))


def _records(
    splits: Mapping[str, CocoDict],
    names: tuple[str, ...],
    ids: dict[str, int],
    class_of: Mapping[str, Mapping[int, str | None]],
) -> dict[str, dict[str, Any]]:
    """Return the cleaned category records: other keys (skeletons, ...) are the first split's."""
    records: dict[str, dict[str, Any]] = {}
    for split, coco in splits.items():
        for category in coco["categories"]:
            if isinstance(category, dict) and type(category.get("id")) is int:
                name = class_of[split].get(category["id"])
                if name is not None:
                    own = {"id": ids[name], "name": name, "supercategory": "none"}
                    records.setdefault(name, {**category, **own})
    bare = {name: {"id": ids[name], "name": name, "supercategory": "none"} for name in names}
    return {name: records.get(name, bare[name]) for name in names}


def _pairs(split: str, coco: CocoDict, findings: Findings) -> dict[Pair, str]:
    """Return (id, name) of the categories by rising id; the value is the supercategory or ""."""
    pairs: dict[Pair, str] = {}
    for category in coco["categories"]:
        number = category.get("id") if isinstance(category, dict) else None
        name = category.get("name") if isinstance(category, dict) else None
        if type(number) is not int or not isinstance(name, str) or not name.strip():
            findings.add("category-malformed", split, detail=repr(category)[:60])
            continue
        above = category.get("supercategory")
        pairs.setdefault((number, name), above if isinstance(above, str) else "")
    for number, count in Counter(number for number, _ in pairs).items():
        if count > 1:
            meant = " and ".join(repr(name) for other, name in pairs if other == number)
            findings.add("category-id-twice", split, detail=f"id {number} is {meant}")
    return dict(sorted(pairs.items(), key=lambda item: item[0][0]))


def _uses(splits: Mapping[str, CocoDict], pairs: Mapping[str, Mapping[Pair, str]]) -> Counter[Pair]:
    """Return how many annotations use each (id, name), over all splits."""
    uses: Counter[Pair] = Counter()
    for split, coco in splits.items():
        counts = Counter(
            number
            for annotation in coco["annotations"]
            if isinstance(annotation, dict) and type(number := annotation.get("category_id")) is int
        )
        for number, name in pairs[split]:
            uses[number, name] += counts[number]
    return uses


def _grouping(
    splits: Mapping[str, CocoDict],
    pairs: Mapping[str, Mapping[Pair, str]],
    uses: Counter[Pair],
) -> set[Pair]:
    groups: set[Pair] = set()
    for split in splits:
        # A category that names itself as its supercategory groups nothing.
        above = Counter(pairs[split].values())
        for pair, own in pairs[split].items():
            if not uses[pair] and above[pair[1]] > (own == pair[1]):
                groups.add(pair)
    return groups


def _report_grouping(
    pairs: Mapping[str, Mapping[Pair, str]], grouping: set[Pair], findings: Findings
) -> None:
    for pair, split in _first_seen(pairs):
        if pair in grouping:
            findings.add("grouping-category", split, detail=f"{pair[1]!r} (id {pair[0]})")


def _report_equal_names(pairs: Mapping[str, Mapping[Pair, str]], findings: Findings) -> None:
    """Report each category that repeats a name of its split; once over all splits."""
    reported: set[Pair] = set()
    for split, own in pairs.items():
        first: dict[str, int] = {}
        for number, name in own:
            if first.setdefault(name, number) != number and (number, name) not in reported:
                reported.add((number, name))
                detail = f"ids {first[name]} and {number} are both {name!r}"
                findings.add("category-name-twice", split, detail=detail)


def _first_seen(pairs: Mapping[str, Mapping[Pair, str]]) -> Iterator[tuple[Pair, str]]:
    """Yield each (id, name) once, with the first split that has it."""
    seen: set[Pair] = set()
    for split, own in pairs.items():
        for pair in own:
            if pair not in seen:
                seen.add(pair)
                yield pair, split


def _spellings(
    pairs: Mapping[str, Mapping[Pair, str]],
    grouping: set[Pair],
    uses: Counter[Pair],
    findings: Findings,
) -> dict[str, str]:
    """Return each spelling of a class to the name that it gets."""
    count: Counter[str] = Counter()
    split_of: dict[str, str] = {}
    for pair, split in _first_seen(pairs):
        if pair not in grouping:
            count[pair[1]] += uses[pair]
            split_of.setdefault(pair[1], split)
    variants: dict[str, list[str]] = {}
    for name in split_of:
        variants.setdefault(" ".join(name.split()).casefold(), []).append(name)
    spelling: dict[str, str] = {}
    for names in variants.values():
        usual = max(names, key=lambda name: count[name])  # the first of equals
        best = usual if len(names) == 1 else " ".join(usual.split())
        for name in names:
            spelling[name] = best
            if name != usual:
                detail = f"{name!r} and {usual!r}"
                findings.add("category-name-case", split_of[name], detail=detail)
    return spelling


def _report_classes(
    every: Sequence[str],
    found: Mapping[str, Mapping[str, None]],
    uses: Counter[Pair],
    spelling: Mapping[str, str],
    findings: Findings,
) -> None:
    used: Counter[str] = Counter()
    for (_, name), count in uses.items():
        if name in spelling:
            used[spelling[name]] += count
    for name in every:
        if not used[name]:
            split = next(split for split, names in found.items() if name in names)
            findings.add("class-unused", split, detail=repr(name))
        for split, names in found.items():
            if name not in names:
                findings.add("classes-differ", split, detail=f"{name!r} is not in {split}")


def _kept(every: Sequence[str], keep: Sequence[str]) -> tuple[str, ...]:
    for name in keep:
        if name not in every:
            close = difflib.get_close_matches(name, every, n=1, cutoff=0.5)
            hint = f", did you mean {close[0]!r}?" if close else ""
            raise DatasetError(f"the export has no class {name!r}{hint} (it has {_listed(every)}).")
    if len(set(keep)) < len(keep):
        raise DatasetError(f"a class is named twice in {', '.join(keep)}; name each once.")
    return tuple(keep) if keep else tuple(every)


def _ids(
    names: tuple[str, ...], class_of: Mapping[str, Mapping[int, str | None]]
) -> dict[str, int]:
    numbers: dict[str, set[int]] = {name: set() for name in names}
    for table in class_of.values():
        for number, name in table.items():
            if name is not None:
                numbers[name].add(number)
    if names and all(len(found) == 1 for found in numbers.values()):
        ids = [next(iter(numbers[name])) for name in names]
        rising = ids == sorted(set(ids))
        if rising and ids[0] >= 0 and ids[-1] <= _MAX_ID:
            return dict(zip(names, ids, strict=True))
    return {name: number for number, name in enumerate(names, start=1)}


def _listed(names: Sequence[str]) -> str:
    """Return the first names of a list as printable text."""
    shown = [printable(name, 40) for name in names[:12]]
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return (", ".join(shown) or "none") + more

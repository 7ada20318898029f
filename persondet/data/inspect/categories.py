"""The classes of an export: which categories are real, their names and their numbers."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from persondet.data.coco_json import CocoDict
from persondet.data.findings import Findings
from persondet.errors import DatasetError
from persondet.text import listed

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


def text_and_id(record: Any, key: str) -> tuple[str | None, int | None]:
    """Return the text under a key of a record and its whole-number id, each None if it is none."""
    fields = record if isinstance(record, dict) else {}
    text, number = fields.get(key), fields.get("id")
    return text if isinstance(text, str) else None, number if type(number) is int else None


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
    first: dict[Pair, str] = {}  # the first split that has it
    for split, own in pairs.items():
        first |= {pair: split for pair in own if pair not in first}
    grouping = _grouping(pairs.values(), uses)
    for pair, split in first.items():
        if pair in grouping:
            findings.add("grouping-category", split, detail=f"{pair[1]!r} (id {pair[0]})")
    _report_equal_names(pairs, findings)
    real = {pair: split for pair, split in first.items() if pair not in grouping}
    spelling = _spellings(real, uses, findings)
    found = {
        split: dict.fromkeys(spelling[pair[1]] for pair in own if pair in real)
        for split, own in pairs.items()
    }
    every = list(dict.fromkeys(name for names in found.values() for name in names))
    used = {spelling[pair[1]] for pair in real if uses[pair]}
    for name in every:
        having = [split for split, own in found.items() if name in own]
        if name not in used:
            findings.add("class-unused", having[0], detail=repr(name))
        for split in (split for split in found if split not in having):
            findings.add("classes-differ", split, detail=f"{name!r} is not in {split}")
    names = _kept(every, keep)
    class_of: dict[str, dict[int, str | None]] = {split: {} for split in pairs}
    for split, own in pairs.items():
        for number, name in own:
            is_kept = (number, name) in real and spelling[name] in names
            class_of[split].setdefault(number, spelling[name] if is_kept else None)
    ids = _ids(names, class_of)
    return ClassTable(names, ids, class_of, _records(splits, ids, class_of))


def _records(
    splits: Mapping[str, CocoDict],
    ids: Mapping[str, int],
    class_of: Mapping[str, Mapping[int, str | None]],
) -> dict[str, dict[str, Any]]:
    """Return the cleaned category records: other keys (skeletons, ...) are the first split's."""
    own = {name: {"id": i, "name": name, "supercategory": "none"} for name, i in ids.items()}
    records: dict[str, dict[str, Any]] = {}
    for split, coco in splits.items():
        for category in coco["categories"]:
            _, number = text_and_id(category, "name")
            name = class_of[split].get(number) if number is not None else None
            if name is not None:
                records.setdefault(name, {**category, **own[name]})
    return {name: records.get(name, own[name]) for name in ids}


def _pairs(split: str, coco: CocoDict, findings: Findings) -> dict[Pair, str]:
    """Return (id, name) of the categories by rising id; the value is the supercategory or ""."""
    pairs: dict[Pair, str] = {}
    for category in coco["categories"]:
        name, number = text_and_id(category, "name")
        if number is None or name is None or not name.strip():
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
        numbers = [a.get("category_id") for a in coco["annotations"] if isinstance(a, dict)]
        counts = Counter(number for number in numbers if type(number) is int)
        for number, name in pairs[split]:
            uses[number, name] += counts[number]
    return uses


def _grouping(pairs: Iterable[Mapping[Pair, str]], uses: Counter[Pair]) -> set[Pair]:
    groups: set[Pair] = set()
    for split in pairs:
        # A category that names itself as its supercategory groups nothing.
        above = Counter(split.values())
        for pair, own in split.items():
            if not uses[pair] and above[pair[1]] > (own == pair[1]):
                groups.add(pair)
    return groups


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


def _spellings(
    splits: Mapping[Pair, str], uses: Counter[Pair], findings: Findings
) -> dict[str, str]:
    """Return each spelling of a class to the name that it gets."""
    count: Counter[str] = Counter()
    split_of: dict[str, str] = {}
    for pair, split in splits.items():
        count[pair[1]] += uses[pair]
        split_of.setdefault(pair[1], split)
    variants: dict[str, list[str]] = {}
    for name in split_of:
        variants.setdefault(" ".join(name.split()).casefold(), []).append(name)
    spelling: dict[str, str] = {}
    for names in variants.values():
        usual = max(names, key=count.__getitem__)  # the first of equals
        best = usual if len(names) == 1 else " ".join(usual.split())
        for name in names:
            spelling[name] = best
            if name != usual:
                detail = f"{name!r} and {usual!r}"
                findings.add("category-name-case", split_of[name], detail=detail)
    return spelling


def _kept(every: Sequence[str], keep: Sequence[str]) -> tuple[str, ...]:
    for name in keep:
        if name not in every:
            close = difflib.get_close_matches(name, every, n=1, cutoff=0.5)
            hint = f", did you mean {close[0]!r}?" if close else ""
            raise DatasetError(f"the export has no class {name!r}{hint} (it has {listed(every)}).")
    if len(set(keep)) < len(keep):
        raise DatasetError(f"a class is named twice in {', '.join(keep)}; name each once.")
    return tuple(keep) if keep else tuple(every)


def _ids(
    names: tuple[str, ...], class_of: Mapping[str, Mapping[int, str | None]]
) -> dict[str, int]:
    pairs = {pair for table in class_of.values() for pair in table.items()}
    ids = [number for name in names for number, own in sorted(pairs, key=str) if own == name]
    rising = len(ids) == len(names) and ids == sorted(set(ids))
    if not rising or any(not 0 <= number <= _MAX_ID for number in ids):
        ids = list(range(1, len(names) + 1))
    return dict(zip(names, ids, strict=True))

"""A dataset at the start of a run in a few digests, and how it differs now."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_NAMED = 3


@dataclass(frozen=True)
class DatasetState:
    """The images of a dataset in order, with a digest of each.

    Attributes:
        annotations: how many there are.
        names: file name of each image, without its folder: a dataset may move.
        digests: of each image's size and annotations, 16 hexadecimal digits.
    """

    annotations: int
    names: tuple[str, ...]
    digests: tuple[str, ...]

    @classmethod
    def of(cls, dicts: Iterable[Mapping[str, Any]]) -> DatasetState:
        """Return the state of Detectron2's standard dicts."""
        records = list(dicts)
        return cls(
            annotations=sum(len(record.get("annotations", ())) for record in records),
            names=tuple(Path(record["file_name"]).name for record in records),
            digests=tuple(_digest(record) for record in records),
        )

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> DatasetState:
        """Return the dataset that `state` describes."""
        return cls(state["annotations"], tuple(state["names"]), tuple(state["digests"]))

    def state(self) -> dict[str, Any]:
        """Return it as plain containers, for a checkpoint."""
        return {
            "annotations": self.annotations,
            "names": list(self.names),
            "digests": list(self.digests),
        }

    def difference(self, now: DatasetState) -> str:
        """Return how `now` differs from this one, as half a sentence; empty when it does not."""
        if self == now:
            return ""
        ours, theirs = _by_name(self), _by_name(now)
        lists = {
            "missing": [name for name in ours if name not in theirs],
            "new": [name for name in theirs if name not in ours],
            "changed": [name for name in ours if theirs.get(name, ours[name]) != ours[name]],
        }
        found = "; ".join(f"{kind}: {_listed(names)}" for kind, names in lists.items() if names)
        return (
            f"had {len(self.names)} images and {self.annotations} annotations, and has "
            f"{len(now.names)} and {now.annotations} now; {found or 'their order is another'}"
        )


def _by_name(state: DatasetState) -> dict[str, list[str]]:
    images: dict[str, list[str]] = {}
    for name, digest in zip(state.names, state.digests, strict=True):
        images.setdefault(name, []).append(digest)
    return images


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _digest(record: Mapping[str, Any]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    digest.update(f"{record.get('width')}x{record.get('height')}".encode())
    for annotation in record.get("annotations", ()):
        numbers = (annotation["category_id"], annotation.get("iscrowd", 0), *annotation["bbox"])
        digest.update(np.asarray(numbers, np.float64).tobytes())
        mask = annotation.get("segmentation")
        if isinstance(mask, dict):
            counts = mask["counts"]
            digest.update(counts if isinstance(counts, bytes) else str(counts).encode())
        elif mask:
            for polygon in mask:
                digest.update(np.asarray(polygon, np.float64).tobytes())
                digest.update(b"|")
    return digest.hexdigest()

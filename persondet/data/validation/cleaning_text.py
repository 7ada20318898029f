"""What cleaning did, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from persondet.data.clean import CHANGES
from persondet.data.validation.codes import CODES
from persondet.data.validation.terminal_text import padded, printable

_SHOWN = 5  # dropped images that are named


def cleaning_lines(record: Mapping[str, Any]) -> list[str]:
    """Return the text that `clean` prints.

    Args:
        record: what stands in `cleaning.json`, see `persondet.data.cleaning.clean_dataset`.
    """
    lines = []
    for split, counts in record["splits"].items():
        lines.append(
            f"{split}: {counts['images']} of {counts['images_before']} images, "
            f"{counts['annotations']} of {counts['annotations_before']} annotations"
        )
    classes = ", ".join(printable(name, 40) for name in record["classes"][:12])
    more = f" and {len(record['classes']) - 12} more" if len(record["classes"]) > 12 else ""
    masks = {"polygon": "polygons", "bitmask": "RLE among them", "": "none, boxes only"}
    lines.append(f"classes: {classes}{more}; masks: {masks[record['masks']]}")
    changes = record["changes"]
    lines.append("changed:" if changes else "nothing had to be changed")
    width = max(map(len, changes), default=0)
    for name, count in changes.items():
        words = CODES[name].mend if name in CODES else CHANGES[name]
        lines.append(f"  {padded(name, width)}  {count:>7}  {words}")
    dropped = [
        (split, name, code)
        for split, names in record["dropped_images"].items()
        for name, code in names.items()
    ]
    for split, name, code in dropped[:_SHOWN]:
        lines.append(f"  dropped: {split}/{printable(name, 60)} ({code})")
    if len(dropped) > _SHOWN:
        lines.append(f"  and {len(dropped) - _SHOWN} more images: see cleaning.json")
    if changes.get("mask-from-box"):
        lines.append(
            "A mask that is a filled box teaches boxes: the model's masks of such people will be "
            "boxes too."
        )
    return lines

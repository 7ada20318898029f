"""The image records of one split: which are usable, and what has to change.

`ImageFacts` is what a look at one image file says, whatever the json claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from persondet.data.findings import Findings
from persondet.files import leads_out


@dataclass(frozen=True)
class ImageFacts:
    """The facts about one image file of an export.

    Attributes:
        problem: "" when the image can be read, else one of the codes `file-name-outside`,
            `file-missing`, `file-of-other-split`, `image-unreadable`, `image-truncated`,
            `image-too-large`.
        detail: a few words about the problem.
        width, height: the size in pixels as stored, before EXIF turns the image; 0: not known.
        orientation: EXIF's, 1 (upright) to 8.
        digest: SHA-256 of the file's bytes, 32 bytes; b"" when only the header was read.
        hashes: perceptual hashes of the image turned and mirrored in 8 ways, uint64, (8,), see
            `persondet.data.leaks.hashing`; None when only the header was read.
        thumbnail: the grey image in small, uint8, (64, 64); None when only the header was read.
    """

    problem: str = ""
    detail: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1
    digest: bytes = b""
    hashes: npt.NDArray[np.uint64] | None = None
    thumbnail: npt.NDArray[np.uint8] | None = None

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height in pixels after EXIF turned the image: what training sees."""
        turned = self.orientation in (5, 6, 7, 8)
        return (self.height, self.width) if turned else (self.width, self.height)


_MISSING = ImageFacts("file-missing")
_MAX_ID = 2**53  # beyond it a float, and so numpy and a browser, cannot tell ids apart


@dataclass(eq=False)
class ImageUse:
    """How the annotations of one image id are used.

    Attributes:
        record: the image's record as it goes into the cleaned json; None: the image is dropped,
            and its annotations go with it.
        code: why it is dropped, a code, or "".
        turn: the EXIF orientation (5 to 8) by which annotations have to be turned; 1: not at all.
        size: width and height in pixels that the annotations refer to (before they are turned).
    """

    record: dict[str, Any] | None
    code: str = ""
    turn: int = 1
    size: tuple[int, int] = (0, 0)


def inspect_images(
    split: str, images: Sequence[Any], facts: Mapping[str, ImageFacts] | None, findings: Findings
) -> dict[int, ImageUse]:
    """Inspect the image records of a split; return what to do with the annotations of each id.

    Args:
        split: for the findings.
        images: records of any content.
        facts: what the files are, by `file_name` as the json has it; None: files are not looked
            at, and the json is believed.
        findings: gets what is found.

    Returns: image id of the raw json to its use. The ids of two records of one file share one
    `ImageUse`; ids that are not in it are unknown.
    """
    by_id: dict[int, list[dict[str, Any]]] = {}
    for image in images:
        if fault := _malformed(image):
            name = image.get("file_name") if isinstance(image, dict) else None
            file = name if isinstance(name, str) else ""
            findings.add("image-malformed", split, file, detail=fault)
        else:
            by_id.setdefault(image["id"], []).append(image)
    uses: dict[int, ImageUse] = {}
    by_file: dict[str, ImageUse] = {}
    for number, (image, *more) in by_id.items():
        name = image["file_name"]
        file = str(PurePosixPath(name))  # one spelling for all names of one file
        if any(str(PurePosixPath(other["file_name"])) != file for other in more):
            for other in more:
                detail = f"id {number} is also {name!r}"
                findings.add("image-id-twice", split, other["file_name"], detail=detail)
            uses[number] = ImageUse(None, "image-id-twice")
            continue
        for _ in (*more, image) if file in by_file else more:
            detail = f"listed again with the id {number}"
            findings.add("image-listed-twice", split, name, detail=detail)
        if file not in by_file:
            by_file[file] = _use(split, image, facts, findings)
        uses[number] = by_file[file]
    return uses


def _malformed(image: Any) -> str:
    """Return the fault of a malformed image record, "" for a good one."""
    if not isinstance(image, dict):
        return f"not an object: {image!r}"[:60]
    number, name = image.get("id"), image.get("file_name")
    if type(number) is not int or abs(number) > _MAX_ID:
        return f"id {_short(number)}"
    if not isinstance(name, str) or not name:
        return f"image {number} has the file name {_short(name)}"
    return ""


def _short(value: Any) -> str:
    if type(value) is int and abs(value) > _MAX_ID:
        return f"of {value.bit_length() * 3 // 10 + 1} digits"
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _use(
    split: str, image: dict[str, Any], facts: Mapping[str, ImageFacts] | None, findings: Findings
) -> ImageUse:
    name = image["file_name"]
    fact = ImageFacts() if facts is None else facts.get(name, _MISSING)
    outside = leads_out(name)
    problem = "file-name-outside" if outside else fact.problem
    if problem:
        findings.add(problem, split, name, detail="" if outside else fact.detail)
        return ImageUse(None, problem)
    size = (image.get("width"), image.get("height"))
    said: Any = size if all(type(side) is int and 0 < side < 2**31 for side in size) else None
    if said is None:
        detail = f"{_short(size[0])} x {_short(size[1])} in the json"
        findings.add("image-size-invalid", split, name, detail=detail)
        if not fact.width:
            return ImageUse(None, "image-size-invalid")
        width, height = fact.upright_size
        return ImageUse({**image, "width": width, "height": height}, size=(width, height))
    if not fact.width:
        return ImageUse(image, size=said)
    return _compared(split, image, said, fact, findings)


def _compared(
    split: str, image: dict[str, Any], said: tuple[int, int], fact: ImageFacts, findings: Findings
) -> ImageUse:
    """Compare the size in the json with that of the file."""
    name, upright, stored = image["file_name"], fact.upright_size, (fact.width, fact.height)
    detail = f"{said[0]} x {said[1]} in the json, {upright[0]} x {upright[1]} in the file"
    if said == upright:
        if fact.orientation != 1 and upright == stored:
            what = f"EXIF orientation {fact.orientation}"
            findings.add("image-orientation", split, name, detail=what)
        return ImageUse(image, size=said)
    if said == stored:
        detail += f", turned by EXIF orientation {fact.orientation}"
        findings.add("image-rotated", split, name, detail=detail)
        record = {**image, "width": upright[0], "height": upright[1]}
        return ImageUse(record, turn=fact.orientation, size=said)
    if said == upright[::-1]:
        detail += ": width and height are exchanged"
    findings.add("image-size-differs", split, name, detail=detail)
    return ImageUse(None, "image-size-differs")

"""Which images of an export lie in two splits: as a file, a version, a copy, a frame of one clip.

Names tell a part of it. Roboflow names what it exports `<source>_<suffix>.rf.<digest>.jpg`: the
versions that augmentation makes of one image share what stands before `.rf.`. Frames that it cuts
from a clip are called `<clip>_<suffix of the clip>-<number>_<suffix>`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from persondet.data.findings import Findings
from persondet.data.leaks.verification import near_identical_pairs

SAME_FILE, SAME_SOURCE = "leak-same-file", "leak-same-source"
NEAR_IDENTICAL, SAME_CLIP = "leak-near-identical", "leak-same-clip"
VERSIONS = (SAME_FILE, SAME_SOURCE, NEAR_IDENTICAL)
"""The kinds that make an image a version of another, the strongest first."""
_ORDER = {"train": 0, "valid": 1, "test": 2}
_VIDEO = "mp4|mov|avi|mkv|webm|m4v|mpe?g|wmv|flv|mts|m2ts|3gp|ogv"
_ENDING = re.compile(r"[_.](?:jpe?g|png|bmp|webp|tiff?|gif|avif|heic)$", re.IGNORECASE)
_OF_CLIP = (
    # walk_mp4-0012, walk.mp4_frame_12
    re.compile(rf"(.+[_.](?:{_VIDEO}))[-_ .](?:frame[-_ ]?)?\d+", re.IGNORECASE),
    # walk_frame_000123, 1_1_2_frame85
    re.compile(r"(.*[^-_ .])[-_ .]+frame[-_ .]?\d+", re.IGNORECASE),
    # video3-0012, clip_00017: a counter of frames has more digits than a count of clips
    re.compile(r"((?:.*[-_ .])?(?:clip|video)[-_ ]?\d{0,3})[-_ .]\d{4,7}", re.IGNORECASE),
)
_LONGEST = 255  # no file system has longer names, and a stranger's json may
# A frame that hangs on a wall, or holds a pane.
_NO_CLIP = re.compile(r"(?:picture|photo|window|door|bike|bicycle|bed)$", re.IGNORECASE)


@dataclass(frozen=True)
class ExportImage:
    """What is known of one image; what is not known is not compared.

    Attributes:
        split: `train`, `valid` or `test`.
        file_name: as the json has it.
        digest: SHA-256 of the file, b"": not known.
        hashes: uint64, (8,), see `image_signature`; None: not known.
        thumbnail: uint8, (64, 64); None: not known.
    """

    split: str
    file_name: str
    digest: bytes = b""
    hashes: npt.NDArray[np.uint64] | None = None
    thumbnail: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Leak:
    """An image of a split that is scored, and its partner in a split that learns.

    Attributes:
        split, file_name: the image, in `valid` or `test`.
        partner_split, partner: the other, in an earlier split.
    """

    split: str
    file_name: str
    partner_split: str
    partner: str


@dataclass(frozen=True)
class Share:
    """How many images of a split leaked.

    Attributes:
        images: the images of the split.
        leaked: those with a version in an earlier split (of `test`: in `train` or `valid`).
        clip_mates: those without one, but with another frame of their clip in an earlier split.
    """

    images: int
    leaked: int
    clip_mates: int


@dataclass
class Leaks:
    """What splits share.

    Attributes:
        kinds: code to leaks. An image stands under its strongest kind only, and once.
        shares: `valid` and `test`, those that there are, to their shares.
        to_drop: split to the sorted names of images that have a version in a later split.
        not_compared: how many images the budget of the search left without a full comparison.
    """

    kinds: dict[str, list[Leak]] = field(default_factory=dict)
    shares: dict[str, Share] = field(default_factory=dict)
    to_drop: dict[str, list[str]] = field(default_factory=dict)
    not_compared: int = 0

    def add_to(self, findings: Findings) -> None:
        """Count each leak under its code, in the split that is scored."""
        for code, leaks in self.kinds.items():
            for leak in leaks:
                detail = f"in {leak.partner_split}: {leak.partner}"
                findings.add(code, leak.split, leak.file_name, detail=detail)

    def as_json(self) -> dict[str, dict[str, Any]]:
        """Return the shares as plain dicts: `images`, `leaked`, `share`, `clip_mates`, `with`.

        `with` says in which earlier split those that leaked have their partner, and how many.
        """
        versions = [leak for kind in VERSIONS for leak in self.kinds.get(kind, ())]
        return {
            split: {
                "images": share.images,
                "leaked": share.leaked,
                "share": share.leaked / share.images if share.images else 0.0,
                "clip_mates": share.clip_mates,
                "with": dict(
                    Counter(leak.partner_split for leak in versions if leak.split == split)
                ),
            }
            for split, share in self.shares.items()
        }


def find_leaks(images: Sequence[ExportImage]) -> Leaks:
    """Return which images of `valid` and `test` are known from a split before them.

    An image that is known in several ways counts once, by the strongest: the same file (digest),
    the same source (name before `.rf.`), nearly the same image (turned or mirrored, too), a frame
    of the same clip (by name). The order of `images` does not matter.

    Args:
        images: all images of all splits.

    Raises: ValueError: when a split is none of `train`, `valid`, `test`.

    Example:
        >>> train = ExportImage("train", "street_jpg.rf.0a1b.jpg")
        >>> test = ExportImage("test", "street_jpg.rf.9f8e.jpg")
        >>> find_leaks([train, test]).shares["test"].leaked
        1
    """
    unknown = {image.split for image in images} - _ORDER.keys()
    if unknown:
        raise ValueError(f"a split is one of {', '.join(_ORDER)}, not {', '.join(sorted(unknown))}")
    images = sorted(images, key=lambda p: (_ORDER[p.split], p.file_name, p.digest))
    near, not_compared = _by_likeness(images)
    partners = {
        SAME_FILE: _by_key(images, lambda p: p.digest),
        SAME_SOURCE: _by_key(images, lambda p: source_name(p.file_name)),
        NEAR_IDENTICAL: near,
        SAME_CLIP: _by_key(images, lambda p: clip_name(p.file_name)),
    }
    leaks = Leaks(kinds={kind: [] for kind in partners}, not_compared=not_compared)
    leaked: dict[str, Counter[str]] = {kind: Counter() for kind in partners}
    # Test first: it is the number that counts.
    for index in reversed(range(len(images))):
        one = images[index]
        for kind, partner in partners.items():
            known = (images[o] for o in sorted(partner.get(index, ())))  # those of train first
            other = next((p for p in known if _ORDER[p.split] < _ORDER[one.split]), None)
            if other is not None:
                leak = Leak(one.split, one.file_name, other.split, other.file_name)
                leaks.kinds[kind].append(leak)
                leaked[kind][one.split] += 1
                break
    for kind in leaks.kinds:
        leaks.kinds[kind].sort(key=lambda leak: (-_ORDER[leak.split], leak.file_name))
    counts = Counter(image.split for image in images)
    for split in ("valid", "test"):
        if count := counts[split]:
            versions = sum(leaked[kind][split] for kind in VERSIONS)
            leaks.shares[split] = Share(count, versions, leaked[SAME_CLIP][split])
    drop = {
        (images[index].split, images[index].file_name)
        for kind in VERSIONS
        for index, others in partners[kind].items()
        if any(_ORDER[images[o].split] > _ORDER[images[index].split] for o in others)
    }
    for split, name in sorted(drop):
        leaks.to_drop.setdefault(split, []).append(name)
    return leaks


def _by_key(
    images: Sequence[ExportImage], key: Callable[[ExportImage], Hashable]
) -> Mapping[int, list[int]]:
    """ExportImage to one partner in each other split that has the same key; an empty key is
    none.
    """
    first: dict[Hashable, dict[str, int]] = defaultdict(dict)
    for index, image in enumerate(images):
        if key(image):
            first[key(image)].setdefault(image.split, index)
    return {
        index: [o for split, o in found.items() if split != image.split]
        for index, image in enumerate(images)
        if len(found := first.get(key(image), {})) > 1
    }


def _by_likeness(images: Sequence[ExportImage]) -> tuple[Mapping[int, list[int]], int]:
    """Image to a partner in each other split that nearly repeats it; and how many were skipped."""
    known = [
        (index, image.hashes, image.thumbnail)
        for index, image in enumerate(images)
        if image.hashes is not None and image.thumbnail is not None
    ]
    partners: dict[int, list[int]] = defaultdict(list)
    if not known:
        return partners, 0
    places, hashes, thumbnails = zip(*known, strict=True)
    pairs, skipped = near_identical_pairs(
        np.stack(hashes),
        np.stack(thumbnails),
        groups=np.array([_ORDER[images[index].split] for index in places]),
    )
    for one, other in pairs.tolist():
        partners[places[one]].append(places[other])
        partners[places[other]].append(places[one])
    return partners, skipped


def source_name(file_name: str) -> str:
    """Return the name of the image that an exported file is a version of.

    `street_0001_jpg.rf.0f3a.jpg` is a version of `street_0001_jpg`. A file that was exported,
    uploaded and exported again goes back to its first name.

    Args:
        file_name: as the json has it, a folder in front stays.

    Returns:
        what stands before `.rf.`, or "" when the name does not tell.
    """
    source, mark, _ = file_name.partition(".rf.")
    return source if mark and source and not source.endswith("/") else ""


def clip_name(file_name: str) -> str:
    """Return the name of the clip that an image was cut from, as far as its name tells.

    A number alone says nothing: `IMG_0001.jpg` and `IMG_0002.jpg` are two images. Asked for is
    the suffix of a video before the number, or the word `frame`, or `clip` or `video` before a
    number of four digits or more; and a frame must name its clip: of `frame_0001.jpg` any clip may
    be the origin.

    Args:
        file_name: as the json has it, a folder in front stays.

    Returns:
        the part that all frames of the clip share, or "" when it does not look like a frame.
    """
    stem = source_name(file_name) or file_name
    stem = _ENDING.sub("", stem)
    folder, _, name = stem.rpartition("/")
    if len(name) > _LONGEST:
        return ""
    for pattern in _OF_CLIP:
        match = pattern.fullmatch(name)
        if match and not _NO_CLIP.search(match[1]):
            return f"{folder}/{match[1]}" if folder else match[1]
    return ""

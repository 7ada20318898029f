"""Findings: the faults of an export, how often they occur, and where to look.

The table `CODES` gives each fault a stable code, a severity, and what cleaning and training do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Example:
    """Where a fault occurs: split, image file (or ""), annotation id (or None), and a detail."""

    split: str
    file: str = ""
    annotation: Any = None
    detail: str = ""


@dataclass
class Finding:
    """One code: its count by split, and all examples."""

    code: Code
    counts: Counter[str] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How often, over all splits."""
        return self.counts.total()


class Findings:
    """All findings of an export. An annotation or image counts once per code."""

    def __init__(self) -> None:
        """Start with nothing found."""
        self._by_code: dict[str, Finding] = {}

    def add(
        self, code: str, split: str, file: str = "", annotation: Any = None, detail: str = ""
    ) -> None:
        """Count one fault, and keep it as an example.

        Args:
            code: a name of `persondet.data.findings.CODES`.
            split: `train`, `valid` or `test`.
            file: the image's `file_name` as the json has it, or "".
            annotation: the annotation's id as the json has it, or None.
            detail: a few words, e.g. "641 x 480 in the json, 640 x 480 in the file".

        Raises: KeyError: when the code is not in the table.
        """
        finding = self._by_code.setdefault(code, Finding(CODES[code]))
        finding.counts[split] += 1
        finding.examples.append(Example(split, file, annotation, detail))

    def counts(self) -> dict[str, int]:
        """Return code to count, of all codes found, in the order of the table."""
        return {finding.code.name: finding.count for finding in self}

    def of(self, severity: str) -> list[Finding]:
        """Return the findings of one severity, in the order of the table."""
        return [finding for finding in self if finding.code.severity == severity]

    def refused(self) -> list[Finding]:
        """Return the findings for which training refuses the folder as it is."""
        return [finding for finding in self if finding.code.training == "refused"]

    def __iter__(self) -> Iterator[Finding]:
        """Iterate over the findings in the order of the table."""
        return (self._by_code[name] for name in CODES if name in self._by_code)

    def as_json(self) -> list[Mapping[str, Any]]:
        """Return the findings as plain lists and dicts."""
        return [
            {
                "code": finding.code.name,
                "severity": finding.code.severity,
                "count": finding.count,
                "splits": dict(finding.counts),
                "meaning": finding.code.meaning,
                "clean": finding.code.mend,
                "training": finding.code.training,
                "examples": [asdict(example) for example in finding.examples],
            }
            for finding in self
        ]


Severity = Literal["error", "warning"]
Training = Literal["mended", "refused", "kept", "boxes"]


@dataclass(frozen=True)
class Code:
    """One kind of fault.

    Attributes:
        name: the stable code.
        severity: `"error"` when training or scoring on the files as they are, by Detectron2 and
            pycocotools alone, would fail or be wrong; else `"warning"`.
        meaning: what is the case, one clause.
        mend: what `clean` does about it, one clause.
        training: what training on the folder as it is does: `"mended"` in memory like `clean`,
            `"refused"` with a sentence, `"kept"` as it is, `"boxes"` without masks.
        implies: the codes that this fault may bring along on the same annotation or image.
        remedy: the arguments of `prepare_dataset` that mend it, where plain `clean` does not.
    """

    name: str
    severity: Severity
    meaning: str
    mend: str
    training: Training
    implies: tuple[str, ...] = ()
    remedy: str = ""

    @property
    def changes(self) -> bool:
        """Whether `clean` mends it without being asked."""
        return not self.mend.startswith(("kept", "nothing", "refused"))


def remedy(codes: Iterable[str]) -> str:
    """Return the arguments of `prepare_dataset` to run next, for all of these codes together.

    Returns: `"clean"` with its flags, `"split"`, `"export"` when no command helps, or "".
    """
    found = [CODES[code] for code in codes]
    if any(code.mend.startswith("refused") and not code.remedy for code in found):
        return "export"
    flags = [code.remedy.removeprefix("clean") for code in found if "--" in code.remedy]
    if flags or any(code.changes and code.severity == "error" for code in found):
        return "clean" + "".join(dict.fromkeys(flags))
    return "split" if any(code.remedy == "split" for code in found) else ""


_TABLE = (
    # Splits and the json as a whole
    Code("train-missing", "error", "there is no split to learn from",
         "nothing; `split` makes one", "refused", remedy="split"),
    Code("split-single", "warning", "there is one split only, so nothing to measure a model on",
         "nothing; `split` makes the missing ones", "kept", remedy="split"),
    Code("split-missing", "warning", "there is no split of this name",
         "nothing; `split` divides all images anew", "kept"),
    Code("split-empty", "warning", "the split names no image",
         "left out", "mended"),
    Code("split-without-annotations", "warning", "the split has images but no annotation",
         "kept", "kept"),
    Code("images-missing", "error", "no image of the export is there",
         "refused: export the dataset again with its images", "refused",
         ("file-missing",)),
    Code("no-annotations", "error", "no split has an annotation that can be used",
         "refused: there is nothing to learn", "refused", ("split-without-annotations",)),
    Code("coordinates-relative", "error",
         "every box lies between 0 and 1: its numbers are shares of the image, not pixels",
         "refused: export the dataset with pixels", "refused"),
    Code("crowds-only", "error", "every object of train is a crowd, which no model learns from",
         "refused: --crowds object makes objects of them", "refused",
         remedy="clean --crowds object"),
    Code("crowds-many", "warning", "many objects are crowds, neither learned nor scored",
         "kept; --crowds object makes objects of them", "kept"),
    Code("number-spelling", "error", "a number is text, or a whole number has a point",
         "taken as that number", "mended"),
    Code("no-class", "error", "the json names no class that could be learned",
         "refused: name the classes in `categories`", "refused"),
    Code("info-missing", "error", "the json has no `info`, which pycocotools asks for",
         "an empty one is added", "mended"),
    # Categories
    Code("category-malformed", "error", "a category without a whole-number id and a name",
         "dropped", "mended", ("annotation-unknown-category",)),
    Code("category-id-twice", "error", "one id stands for two categories of different names",
         "refused: which one is meant is yours to say", "refused"),
    Code("category-name-twice", "error", "two categories of a split share one name",
         "merged into one", "mended"),
    Code("category-name-case", "error", "names of categories differ only in case or spaces",
         "merged under the spelling that is used most", "mended"),
    Code("grouping-category", "warning",
         "a category that only groups the others and has no annotation",
         "dropped", "mended"),
    Code("class-unused", "warning", "a class without a single annotation",
         "kept; name the classes you want with --classes", "kept"),
    Code("classes-differ", "warning", "a split lacks a class that another split has",
         "every split gets the list of all classes", "mended"),
    Code("class-not-in-train", "warning", "train has no object of a class that another split has",
         "kept; name the classes you want with --classes", "kept"),
    Code("class-not-in-valid", "warning", "valid has no object of a class that another split has",
         "kept: its AP cannot be measured there", "kept"),
    Code("class-not-in-test", "warning", "test has no object of a class that another split has",
         "kept: its AP cannot be measured there", "kept"),
    # Images
    Code("image-malformed", "error", "an image without a whole-number id and a file name",
         "dropped with its annotations", "refused",
         ("annotation-unknown-image", "file-not-listed")),
    Code("image-size-invalid", "error", "width or height is not a whole number of pixels",
         "the size of the file is written", "mended"),
    Code("image-id-twice", "error", "one id belongs to several images",
         "all of them dropped: whose the annotations are cannot be known", "refused",
         ("annotation-unknown-image",)),
    Code("image-listed-twice", "error", "one file is listed by several images",
         "merged into the first", "mended"),
    Code("file-name-outside", "error", "the file name leads out of the split's folder",
         "dropped with its annotations", "refused", ("file-not-listed",)),
    Code("file-missing", "error", "the file of an image is not there",
         "dropped with its annotations", "refused", ("file-not-listed",)),
    Code("file-of-other-split", "error", "the image lies in the folder of another split only",
         "dropped with its annotations: `split` divides images anew", "refused",
         ("file-not-listed",)),
    Code("file-name-spelled", "warning", "the json spells the name of a file in another form",
         "the file's name is written", "mended"),
    Code("file-not-listed", "warning", "an image in the folder is not in the json",
         "left out", "kept"),
    Code("image-unreadable", "error", "the file is no image, or a broken one",
         "dropped with its annotations", "refused"),
    Code("image-truncated", "error", "the file ends before the image does",
         "dropped with its annotations", "refused"),
    Code("image-too-large", "error", "the file announces more pixels than can be loaded",
         "dropped with its annotations", "refused"),
    Code("image-grey-scaled", "warning", "grey of more than 8 bits that does not use them all",
         "kept; it is scaled by the bits that are used", "kept"),
    Code("image-rotated", "error",
         "EXIF turns the image by 90 degrees, and the json has the size before turning",
         "the annotations are turned with the image", "mended"),
    Code("image-size-differs", "error", "the size in the json is not the size of the file",
         "dropped with its annotations", "refused"),
    Code("image-orientation", "warning",
         "EXIF turns or mirrors the image, and the size cannot tell whether the annotations did",
         "kept: look at it", "kept"),
    Code("image-without-annotations", "warning", "an image without annotations",
         "kept: it teaches what is no person", "kept"),
    Code("objects-many", "warning", "an image has more than 100 objects",
         "kept; set TEST.DETECTIONS_PER_IMAGE, which is 100 unless a config says otherwise",
         "kept"),
    # Annotations
    Code("annotation-malformed", "error",
         "an annotation without whole numbers for its image and its category",
         "dropped", "mended", ("image-without-annotations",)),
    Code("annotation-unknown-image", "error", "the annotation's image is not in the json",
         "dropped", "mended", ("image-without-annotations",)),
    Code("annotation-unknown-category", "error", "the annotation's category is not in the json",
         "dropped", "mended", ("image-without-annotations", "class-unused")),
    Code("annotation-id-invalid", "error", "the annotation's id is not a whole number",
         "numbered from 1", "mended"),
    Code("annotation-id-zero", "error", "the annotation's id is 0, which pycocotools ignores",
         "numbered from 1", "mended"),
    Code("annotation-id-twice", "error", "an id that an annotation before it has",
         "numbered from 1", "mended"),
    Code("annotation-repeated", "warning", "the same object is annotated twice, to the digit",
         "the copy is dropped", "mended", ("annotation-id-twice",)),
    Code("crowd-flag-invalid", "error", "`iscrowd` is missing or is neither 0 nor 1",
         "set to 0, or to 1 where it says yes", "mended"),
    Code("keypoints-unused", "warning", "the annotation has keypoints, which nothing here uses",
         "kept", "kept"),
    Code("rotation-unused", "warning", "the box is turned by an angle, which nothing here uses",
         "kept", "kept"),
    # Boxes
    Code("box-invalid", "error", "the box is not four finite numbers",
         "taken from the mask, or dropped where there is none", "mended"),
    Code("box-negative", "error", "width or height of the box is negative",
         "taken from the mask, or dropped where there is none", "mended"),
    Code("box-zero", "error", "width or height of the box is 0",
         "taken from the mask, or dropped where there is none", "mended"),
    Code("box-outside", "error", "the box leaves the image by more than half a pixel",
         "clipped; taken from the mask where too little is left, or dropped where nothing is",
         "mended"),
    Code("box-outside-slightly", "warning", "the box leaves the image by at most half a pixel",
         "clipped", "mended"),
    Code("box-tiny", "warning", "the shorter side of the box is under 2 pixels",
         "kept", "kept"),
    Code("box-beside-mask", "warning", "the box and the extent of the mask hardly overlap",
         "kept: look which of them is right", "kept"),
    # Masks
    Code("mask-invalid", "error", "`segmentation` is neither polygons nor RLE",
         "replaced by the filled box, where masks are kept", "mended"),
    Code("mask-missing", "error", "no mask, in an export where others have one",
         "filled from the box", "mended"),
    Code("masks-none", "warning", "the whole export has boxes only",
         "kept; --masks box fills the boxes", "boxes"),
    Code("masks-few", "warning", "a mask, in an export where under a tenth of the objects have one",
         "kept with --masks box, which fills the other boxes; else left out", "boxes"),
    Code("mask-formats-mixed", "warning", "RLE masks stand among polygons",
         "kept; training rasterises all", "mended"),
    Code("mask-without-pixels", "error", "the polygons are so thin that they cover no pixel",
         "replaced by the filled box, where masks are kept", "mended"),
    Code("polygon-flat", "error", "the polygon is one flat list instead of a list of polygons",
         "nested", "mended",
         ("polygon-invalid", "polygon-odd", "polygon-short", "polygon-empty", "polygon-outside")),
    Code("polygon-invalid", "error", "a polygon is not a list of finite numbers",
         "the part is dropped", "mended"),
    Code("polygon-odd", "error", "a polygon has an odd number of coordinates",
         "the part is dropped", "mended"),
    Code("polygon-short", "error", "a polygon has fewer than 3 points",
         "the part is dropped", "mended"),
    Code("polygon-empty", "error", "a polygon has no point or no area",
         "the part is dropped", "mended"),
    Code("polygon-outside", "error", "a polygon leaves the image by more than half a pixel",
         "clipped", "mended"),
    Code("polygon-outside-slightly", "warning",
         "a polygon leaves the image by at most half a pixel",
         "clipped", "mended"),
    Code("polygon-self-intersecting", "warning", "the outline of a polygon crosses itself",
         "kept: COCO fills it by the even-odd rule", "kept"),
    Code("polygon-corners-crossed", "warning",
         "four corners in an order in which the outline crosses itself",
         "kept; --reorder-corners puts them in order", "kept", remedy="clean --reorder-corners"),
    Code("rle-size", "error", "the RLE has another size than its image",
         "replaced by the filled box, where masks are kept", "mended"),
    Code("rle-invalid", "error", "the runs of the RLE cannot be read or do not fill the image",
         "replaced by the filled box, where masks are kept", "mended"),
    Code("rle-empty", "error", "the RLE covers no pixel",
         "replaced by the filled box, where masks are kept", "mended"),
    Code("area-invalid", "error", "`area` is missing or no number above 0",
         "computed from the mask, or from a box alone", "mended"),
    Code("area-of-box", "warning", "`area` is the area of the box, not of the mask",
         "computed from the mask, where masks are kept", "mended"),
    # Leaks between splits
    Code("leak-same-file", "warning", "the same file lies in two splits",
         "kept; --drop-leaks drops it from the split that learns", "kept",
         remedy="clean --drop-leaks"),
    Code("leak-same-source", "warning", "versions of one source image lie in two splits",
         "kept; --drop-leaks drops it from the split that learns", "kept",
         remedy="clean --drop-leaks"),
    Code("leak-near-identical", "warning", "nearly the same image lies in two splits",
         "kept; --drop-leaks drops it from the split that learns", "kept",
         remedy="clean --drop-leaks"),
    Code("leak-same-clip", "warning", "frames of one clip lie in two splits",
         "kept; `split --group-clips` keeps clips together", "kept"),
)  # fmt: skip

CODES: dict[str, Code] = {code.name: code for code in _TABLE}
"""Every code by its name, in the order in which reports list them."""


CHANGES = {
    "id-renumbered": "annotations whose id became another, counted from 1",
    "area-recomputed": "annotations whose area became that of their mask, or of a box alone",
    "category-renumbered": "annotations whose category has another id than in the source",
    "mask-from-box": "annotations that got their filled box as the mask",
    "mask-left-out": "annotations whose mask was left out, because the result is one of boxes",
    "crowd-to-object": "crowds that became objects (--crowds object)",
    "corners-reordered": "annotations whose corners were put in order (--reorder-corners)",
    "class-left-out": "annotations of classes that were not asked for",
    "annotation-of-dropped-image": "annotations that went with their image",
    "leak-dropped": "images dropped because a later split has a version of them (--drop-leaks)",
    "annotation-dropped": "annotations dropped for a fault of their own",
}
"""Changes that no fault causes: the name under which they count, and their meaning."""

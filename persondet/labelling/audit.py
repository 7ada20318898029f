"""Labels worth checking: where the annotations of an export and a model's detections contradict.

Each annotation, and each detection without one, gets a suspicion between 0 and 1, and all are
ranked by it. How far a contradiction speaks against the label and not against the model, the export
itself tells, because most of its labels are right: an object that the model finds nearly always
at this size and does not find here is suspicious, one of a size that it often misses is not; a
detection without annotation is suspicious if nearly all detections of its score have one.

Source of the idea, to read mistakes of labels from a detector's: Tkachenko et al., "ObjectLab:
Automated Diagnosis of Mislabeled Images in Object Detection Data", 2023. The comparison of an
assumed share of wrong labels with an observed share of contradictions is a local false discovery
rate: Efron, "Large-Scale Simultaneous Hypothesis Testing", JASA 2004.
"""

from __future__ import annotations

import contextlib
import csv
import io
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from detectron2.structures import Boxes, pairwise_iou
from pycocotools.coco import COCO

from persondet.data.check import look_at_images
from persondet.data.image_file import read_image_file
from persondet.data.inspect import inspect_coco
from persondet.data.roboflow import read_export
from persondet.environment import Progress
from persondet.errors import DatasetError, MediaError
from persondet.evaluation.errors import BACKGROUND, FOREGROUND
from persondet.evaluation.matching import UNMATCHED, GroundTruth, ImageMatches, match
from persondet.evaluation.metrics import STANDARD_LIMIT
from persondet.evaluation.predictions import Detection
from persondet.files import path_inside, refuse_existing, refuse_nesting, write_text
from persondet.labelling.folds import train_folds
from persondet.labelling.page import figure, write_page
from persondet.report.document import Figure
from persondet.text import count_of, listed
from persondet.visualization.sheets import Shown, draw_side_by_side

logger = logging.getLogger(__name__)

CSV, PAGE = "audit.csv", "audit.html"
FINDINGS = {
    "missing": "a detection without annotation",
    "extra": "an annotation where the model finds nothing",
    "box": "an annotation that the detection overlaps badly",
    "class": "an annotation that the model takes for another class",
    "agreed": "an annotation that the model finds",
}
"""What a row says, and in words."""
LISTED_SCORE = 0.3
"""Score from which a detection without annotation is listed."""
LEAST_SCORE = 0.05
"""Score from which a detection speaks for an annotation."""
_ASSUMED = 0.05  # share of wrong labels; it moves no row past another of its kind
_SCORES = 0.05  # half the width of the scores that count as alike
_ALIKE = 20  # annotations of about a size, at least
# An extra label is somewhere at random, mostly where nothing is detected at all.
_ALONE = 0.85
_AGREED = 0.05  # suspicion of a label that the model finds, times 1 - IoU
_PANEL = (420, 320)  # pixels of each side of an image on the page

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Suspect:
    """A row of the audit.

    Attributes:
        suspicion: 0 to 1.
        finding: of `FINDINGS`.
        image: number of the image among those that were given.
        annotation: place among its annotations; None: a detection without one.
        detection: place among its detections; None: nothing is detected.
        iou: of the two boxes, 0 to 1.
    """

    suspicion: float
    finding: str
    image: int
    annotation: int | None
    detection: int | None
    iou: float = 0.0


class _Alone(NamedTuple):
    """A detection without annotation; `kind` says beside what it lies, `target` which one."""

    image: int
    row: int
    score: float
    kind: str
    target: int
    iou: float


def rank_labels(
    images: Sequence[ImageMatches],
    boxes: Sequence[tuple[FloatArray, FloatArray]],
    *,
    listed_score: float = LISTED_SCORE,
) -> list[Suspect]:
    """Rank all annotations, and all detections without one, the most suspicious first.

    Args:
        images: the matches of each image, boxes at IoU 0.5.
        boxes: of each image the D detections, in the order of the reader, and the G annotations:
            float64, (D, 4) and (G, 4), XYXY_ABS, pixels.
        listed_score: detections without annotation are listed from this score on.

    Returns: one row for each annotation that is no crowd region, and for each listed detection;
        of detections without annotation that overlap by half, the one with the best score.
    """
    images = [one.reaching(LEAST_SCORE) for one in images]
    right = np.concatenate([np.zeros(0), *(one.scores[one.partner >= 0] for one in images)])
    alone = [found for number, one in enumerate(images) for found in _without(number, one)]
    wrong: dict[str, list[float]] = {}
    for found in alone:
        wrong.setdefault(found.kind, []).append(found.score)
    doubts: dict[tuple[int, int], tuple[float, _Alone]] = {}
    rows: list[Suspect] = []
    kept: dict[int, list[FloatArray]] = {}
    for found in sorted(alone, key=lambda one: -one.score):
        odds = _odds(found.score, right, wrong[found.kind])
        if found.kind in ("box", "class"):
            odds *= 1.5 - found.iou if found.kind == "box" else 1.0
            doubt = doubts.get((found.image, found.target))
            if doubt is None or odds > doubt[0]:
                doubts[found.image, found.target] = odds, found
        elif found.score >= listed_score:
            place = int(images[found.image].source[found.row])
            box, others = boxes[found.image][0][[place]], kept.setdefault(found.image, [])
            listed_yet = pairwise_iou(Boxes(box), Boxes(np.concatenate([box[:0], *others])))
            if not (listed_yet >= FOREGROUND).any():
                others.append(box)
                rows.append(Suspect(_share(odds), "missing", found.image, None, place, found.iou))
    rows += _annotated(images, boxes, doubts)
    return sorted(rows, key=lambda row: -row.suspicion)


def _without(number: int, one: ImageMatches) -> Iterator[_Alone]:
    """Yield the detections of an image that no annotation is matched to."""
    taken = np.isin(np.arange(len(one.crowd)), one.partner)
    free = ~taken & ~one.crowd
    for row in np.flatnonzero(one.partner == UNMATCHED).tolist():
        same = one.annotated_class == one.class_of[row]
        iou = np.where(one.crowd, 0.0, one.iou[row])
        beside = np.where(free & same & (iou >= BACKGROUND), iou, 0.0)
        swapped = np.where(free & ~same & (iou >= FOREGROUND), iou, 0.0)
        score, near = float(one.scores[row]), float(iou.max(initial=0.0))
        if swapped.any():
            yield _Alone(number, row, score, "class", int(swapped.argmax()), near)
        elif beside.any():
            yield _Alone(number, row, score, "box", int(beside.argmax()), float(beside.max()))
        else:
            kind = "near" if near >= BACKGROUND else "background"
            yield _Alone(number, row, score, kind, -1, near)


def _annotated(
    images: Sequence[ImageMatches],
    boxes: Sequence[tuple[FloatArray, FloatArray]],
    doubts: Mapping[tuple[int, int], tuple[float, _Alone]],
) -> Iterator[Suspect]:
    """Yield a row for each annotation; `doubts` has what stands beside those that are not found."""
    places, sides, unfound = [], [], []
    hits: dict[tuple[int, int], int] = {}
    for number, one in enumerate(images):
        hits |= {(number, g): row for row, g in enumerate(one.partner.tolist()) if g >= 0}
        sizes = np.sqrt(np.prod(boxes[number][1][:, 2:] - boxes[number][1][:, :2], axis=1))
        for g in np.flatnonzero(~one.crowd).tolist():
            places.append((number, g))
            sides.append(sizes[g])
            unfound.append(0 if (number, g) in hits else 1 + ((number, g) in doubts))
    order = np.argsort(sides, kind="stable")
    states = np.array(unfound)[order] if places else np.zeros(0, np.int64)
    many = min(len(places), max(_ALIKE, len(places) // 10))
    for at, index in enumerate(order.tolist()):
        number, g = place = places[index]
        one, state = images[number], unfound[index]
        if state == 0:
            row = hits[place]
            iou = float(one.iou[row, g])
            yield Suspect(_AGREED * (1 - iou), "agreed", number, g, int(one.source[row]), iou)
            continue
        first = min(max(at - many // 2, 0), len(places) - many)
        same = int(np.count_nonzero(states[first : first + many] == state))
        odds, finding = _ASSUMED * (_ALONE if state == 1 else 1 - _ALONE), "extra"
        odds *= (many + 1) / (same + 1)
        doubt, found = doubts.get(place, (0.0, None))
        if found is not None and doubt > odds:
            odds, finding = doubt, found.kind
        yield Suspect(
            _share(odds),
            finding,
            number,
            g,
            None if found is None else int(one.source[found.row]),
            0.0 if found is None else found.iou,
        )


def _odds(score: float, right: FloatArray, wrong: Sequence[float]) -> float:
    """Return for how many of its kind a label is at fault, if as many as assumed are at fault."""
    counts = [
        np.count_nonzero(np.abs(np.asarray(scores) - score) <= _SCORES) for scores in (right, wrong)
    ]
    return float(_ASSUMED * (counts[0] + 1) / (counts[1] + 1))


def _share(odds: float) -> float:
    return odds / (1 + odds)


# An export


@dataclass(frozen=True)
class _Audited:
    """An image of the export: its file, its annotations (COCO), and what the model finds.

    `ids` are the annotations' as the json has them; boxes are XYWH_ABS, pixels.
    """

    split: str
    path: Path
    record: Mapping[str, Any]
    annotations: list[dict[str, Any]] = field(default_factory=list)
    ids: list[Any] = field(default_factory=list)
    found: list[Detection] = field(default_factory=list)


def audit_export(
    root: str | Path,
    output: str | Path,
    run: str | Path,
    *,
    folds: int = 0,
    seed: int = 0,
    images: int = 60,
    listed_score: float = LISTED_SCORE,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Rank the labels of an export, and write `audit.csv` and `audit.html` into a folder.

    The csv has all rows of `rank_labels`, the page the first ones with an image each.

    Args:
        root: the export's folder.
        output: the folder; made if it is missing.
        run: run folder or checkpoint whose model looks at the images.
        folds: train this many models as `run` was, each without the images that it judges (see
            `persondet.labelling.folds.train_folds`); 0: `run`'s own model judges all.
        seed: of the folds.
        images: how many rows the page shows.
        listed_score: see `rank_labels`.
        overwrite: replace an earlier audit in `output`.
        progress: called with the number of images done and of all.

    Returns: how many rows there are of each of `FINDINGS`, in its order.

    Raises: DatasetError: when the export cannot be read, or shares no class with the model.
        PersondetError: as `Predictor.from_run`, or when `output` holds an audit.
    """
    from persondet.inference.predictor import Predictor

    output = Path(output)
    for name in (CSV, PAGE):
        refuse_existing(output / name, overwrite=overwrite)
    refuse_nesting(Path(root), output)
    export = read_export(root)
    facts = look_at_images(export, decode=False)
    inspection = inspect_coco(export.splits, facts=facts, crossings=False)
    # Loaded before any training, so that a model that does not fit costs none.
    predictor = Predictor.from_run(run, confidence_threshold=LEAST_SCORE)
    table, known = inspection.table, predictor.metadata.thing_classes
    classes = {table.ids[name]: name for name in table.names if name in known}
    if not classes:
        raise DatasetError(
            f"{root}: has the classes {listed(table.names)}, and the model {listed(known)}; give "
            "a --run that knows one of them."
        )
    audited: dict[tuple[str, str], _Audited] = {}
    for split, records in inspection.images.items():
        of_id: dict[int, _Audited] = {}
        for record in records:
            name = record["file_name"]
            of_id[record["id"]] = audited[split, name] = _Audited(
                split, path_inside(export.folders[split], name), record
            )
        own = inspection.annotations[split]
        for label, name, raw in zip(own.kept, own.class_names, own.raw_ids, strict=True):
            if name in known:
                image = of_id[label["image_id"]]
                image.annotations.append(label | {"category_id": table.ids[name]})
                image.ids.append(raw)
    judged: dict[Path | None, list[_Audited]] = defaultdict(list)
    judge_of: Mapping[tuple[str, str], Path] = {}
    if folds:
        judge_of = train_folds(export, run, output, folds=folds, seed=seed)
    for key, one in audited.items():
        judged[judge_of.get(key)].append(one)
    looked: list[_Audited] = []
    for path, several in judged.items():
        if path is not None:
            predictor = Predictor.from_run(path, confidence_threshold=LEAST_SCORE)
        numbers = dict(enumerate(predictor.metadata.thing_classes))
        ids = {n: table.ids[name] for n, name in numbers.items() if name in table.ids}
        for one in several:
            try:
                found_here = predictor.predict_frames([read_image_file(one.path)])[0]
            except MediaError as error:
                logger.warning("%s is left out: %s", one.path.name, error)
                continue
            boxes = found_here.pred_boxes.tensor.tolist()
            scores = found_here.scores.tolist()
            rows = zip(found_here.pred_classes.tolist(), boxes, scores, strict=True)
            one.found.extend(
                Detection(len(looked), ids[number], [x0, y0, x1 - x0, y1 - y0], score)
                for number, (x0, y0, x1, y1), score in rows
                if ids.get(number) in classes
            )
            looked.append(one)
            if progress is not None:
                progress(len(looked), len(audited))
    if not looked:
        raise DatasetError(f"{root}: there is no image to look at.")
    suspects = _ranked(looked, classes, listed_score)
    counts = Counter(one.finding for one in suspects)
    told = [_row(rank, one, looked, classes) for rank, one in enumerate(suspects, start=1)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(told[0]) if told else ["rank"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(told)
    write_text(output / CSV, text.getvalue())
    judge = "a model that was trained without it" if folds else "one model"
    shown = zip(suspects[:images], told, strict=False)
    write_page(
        output / PAGE,
        title="Labels worth checking",
        subtitle=f"{count_of(len(suspects), 'row')}, {count_of(len(looked), 'image')}; each image "
        f"judged by {judge}",
        paragraphs=(*_READING, *(() if folds else (_SEEN,))),
        counts=[(FINDINGS[name], counts[name]) for name in FINDINGS],
        figures=(_figure(looked[one.image], one, row) for one, row in shown),
    )
    return {finding: counts[finding] for finding in FINDINGS}


def _ranked(
    looked: Sequence[_Audited], classes: Mapping[int, str], listed_score: float
) -> list[Suspect]:
    """Match what was found on each image with its annotations, boxes alone, and rank all."""
    coco = COCO()
    coco.dataset = {
        "images": [dict(one.record) | {"id": n} for n, one in enumerate(looked)],
        "categories": [{"id": number, "name": name} for number, name in classes.items()],
        "annotations": [
            a | {"image_id": n, "segmentation": [], "area": a["bbox"][2] * a["bbox"][3]}
            for n, one in enumerate(looked)
            for a in one.annotations
        ],
    }
    for number, annotation in enumerate(coco.dataset["annotations"], start=1):
        annotation["id"] = number
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints that it indexes
        coco.createIndex()
    ground_truth = GroundTruth(coco)
    matches = match(ground_truth, lambda number: looked[number].found, "bbox", STANDARD_LIMIT)
    boxes = [
        (_corners([d.bbox for d in one.found]), _corners([a["bbox"] for a in one.annotations]))
        for one in looked
    ]
    return rank_labels(matches.images, boxes, listed_score=listed_score)


def _corners(boxes: Sequence[Sequence[float]]) -> FloatArray:
    """Return boxes XYWH as XYXY: float64, (N, 4)."""
    corners = np.array(boxes, np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return corners


def _row(
    rank: int, suspect: Suspect, looked: Sequence[_Audited], classes: Mapping[int, str]
) -> dict[str, Any]:
    """Return a row of the csv; a box is that of the annotation, else of the detection."""
    one = looked[suspect.image]
    label = None if suspect.annotation is None else one.annotations[suspect.annotation]
    found = None if suspect.detection is None else one.found[suspect.detection]
    box = label["bbox"] if label is not None else found.bbox if found is not None else ()
    return {
        "rank": rank,
        "suspicion": f"{suspect.suspicion:.4f}",
        "finding": suspect.finding,
        "split": one.split,
        "file_name": one.record["file_name"],
        "annotation_id": "" if suspect.annotation is None else one.ids[suspect.annotation],
        "class": "" if label is None else classes[label["category_id"]],
        "found_class": "" if found is None else classes[found.category_id],
        "score": "" if found is None else f"{found.score:.3f}",
        "iou": f"{suspect.iou:.3f}",
        **dict(zip(("x", "y", "width", "height"), (f"{v:.1f}" for v in box), strict=True)),
    }


_READING = (
    "Each annotation of the export, and each detection without annotation, has a row; the most "
    "suspicious come first. A row is a question and no verdict: the model is wrong as well.",
    "On each image the annotations are on the left and what the model finds is on the right; "
    "what the row is about is orange-red. audit.csv has all rows, with the ids of the annotations.",
)
_SEEN = (
    "If the model was trained on these labels, it may have learned their mistakes, and repeats "
    "them here; --folds 3 lets models judge that have not seen the image."
)


def _figure(one: _Audited, suspect: Suspect, row: Mapping[str, Any]) -> Figure:
    """Return the image of a row, and its caption."""
    left = [
        Shown.of(a, wrong=number == suspect.annotation) for number, a in enumerate(one.annotations)
    ]
    right = [
        Shown.of(msgspec.structs.asdict(d), f"{d.score:.2f}", wrong=number == suspect.detection)
        for number, d in enumerate(one.found)
        if d.score >= LISTED_SCORE or number == suspect.detection
    ]
    boxes = np.array([shown.box for shown in (*left, *right) if shown.wrong])
    around = (*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist())
    image = draw_side_by_side(read_image_file(one.path), left, right, around=around, panel=_PANEL)
    words = {
        "missing": "{found_class} found with score {score}, and no annotation is its own",
        "extra": "{class} annotated, and the model finds nothing",
        "box": "{class} annotated; the detection (score {score}) overlaps it with IoU {iou}",
        "class": "annotated as {class}, found as {found_class} (score {score})",
        "agreed": "{class} annotated; the detection (score {score}) overlaps it with IoU {iou}",
    }[suspect.finding].format(**row)
    label = f", annotation {row['annotation_id']}" if suspect.annotation is not None else ""
    caption = f"{words}. {one.split}/{row['file_name']}{label}; suspicion {suspect.suspicion:.2f}."
    return figure(image, caption[:1].upper() + caption[1:])

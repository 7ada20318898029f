"""What the result of an annotation depends on: options, model and source, and their fingerprint.

The header of the records carries the fingerprint, so that a later call knows what is finished:

    {"source": {"size": 123456, "changed": "1764450000000000000", "digest": "<64 hex digits>"},
     "model": "<64 hex digits>", "settings": {"confidence_threshold": 0.5, "stride": null, …}}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from persondet.batch.store import Store
from persondet.errors import MediaError
from persondet.files import sha256_of_file
from persondet.video.source import is_address, local_path

if TYPE_CHECKING:
    from persondet.batch.items import SourceFile
    from persondet.environment import Progress
    from persondet.inference.images import BatchPredictor
    from persondet.video.pipeline import VideoSummary
    from persondet.visualization.hiding import HideOptions

_OF_IMAGES = ("masks", "labels", "count", "boxes", "hiding")


@dataclass(frozen=True)
class AnnotationOptions:
    """How to annotate; see `persondet.video.pipeline.annotate_video`.

    start, end: seconds; stride: None for the `VIDEO.STRIDE` of the model's config; relink: join
    tracks, see `persondet.video.relinking`; masks, labels, count, boxes: draw them; hiding: how to
    hide people, then masks are drawn only if it keeps them; areas: a file of lines and zones to
    draw with their counts.
    """

    start: Fraction | None = None
    end: Fraction | None = None
    stride: int | None = None
    max_frames: int | None = None
    crf: int | None = None
    save_mot: bool = False
    mute: bool = False
    relink: bool = False
    tracking: bool = True
    masks: bool = True
    labels: bool = True
    count: bool = True
    areas: Path | None = None
    boxes: bool = True
    hiding: HideOptions | None = None

    @classmethod
    def of(cls, chosen: Mapping[str, Any]) -> AnnotationOptions:
        """Return the options of these names; those of `hiding` are a mapping, or None."""
        from persondet.visualization.hiding import HideOptions

        hiding = chosen["hiding"] and HideOptions(**chosen["hiding"])
        return cls(**{**chosen, "hiding": hiding})

    @property
    def drawn(self) -> dict[str, bool]:
        """What to draw, as `PersonVideoVisualizer` takes it."""
        masks = self.masks and (self.hiding is None or self.hiding.masks)
        return {"masks": masks, "labels": self.labels, "count": self.count, "boxes": self.boxes}


def annotate_clip(
    clip: str | Path,
    target: Path,
    predictor: BatchPredictor,
    options: AnnotationOptions,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    fingerprint: dict[str, Any] | None = None,
) -> VideoSummary:
    """Annotate one clip with a visualizer of its own, as colours belong to one clip.

    Raises: MediaError, OutputExistsError: as `annotate_video`.
    """
    from persondet.video.clip_files import check_output
    from persondet.video.pipeline import annotate_video
    from persondet.video.relinking import relinked
    from persondet.visualization.visualizer import PersonVideoVisualizer

    visualizer = PersonVideoVisualizer(predictor.metadata, **options.drawn)
    cfg = getattr(predictor, "cfg", None)
    if fingerprint is None and not is_address(clip):
        path = local_path(clip)
        fingerprint = clip_fingerprint(path, predictor, options) if path.is_file() else None
    part: dict[str, Any] = {
        "start": options.start,
        "end": options.end,
        "stride": options.stride or (cfg.VIDEO.STRIDE if cfg else 1),
        "max_frames": options.max_frames,
        "progress": progress,
    }
    tracker: Any = "auto" if options.tracking else None
    with ExitStack() as stack:
        if options.relink:
            check_output(clip, target, save_mot=options.save_mot, overwrite=overwrite)
            found: Any = stack.enter_context(relinked(clip, predictor, **part))
            predictor, tracker = found
        return annotate_video(
            clip,
            target,
            predictor,
            visualizer=visualizer,
            tracker=tracker,
            crf=options.crf,
            save_mot=options.save_mot,
            areas=options.areas,
            hiding=options.hiding,
            mute=options.mute,
            overwrite=overwrite,
            fingerprint=fingerprint,
            **part,
        )


def existing_difference(
    clip: Path, target: Path, predictor: BatchPredictor, options: AnnotationOptions
) -> str:
    """Return in what the records beside an annotated clip differ from those that would be made."""
    from persondet.records import read_records, records_path

    try:
        found = read_records(records_path(target))[0].fingerprint
    except MediaError:
        return "has no records beside it"
    return difference(found, clip_fingerprint(clip, predictor, options))


def clip_fingerprint(
    clip: Path, predictor: BatchPredictor, options: AnnotationOptions
) -> dict[str, Any]:
    """Return what the result of a local clip is made of."""
    from persondet.batch.items import SourceFile

    facts = clip.stat()
    file = SourceFile(clip.name, facts.st_size, str(facts.st_mtime_ns))
    return fingerprint_of("clip", [file], Store(clip.parent), predictor, options)


def fingerprint_of(
    kind: Literal["clip", "images"],
    files: Sequence[SourceFile],
    source: Store,
    predictor: BatchPredictor,
    options: AnnotationOptions,
) -> dict[str, Any]:
    """Return what a result is made of: a clip, or a shard of images.

    Raises: OSError: when a file cannot be read.
    """
    chosen = {
        name: value
        for name, value in asdict(options).items()
        if name in _OF_IMAGES or (kind == "clip" and name != "areas")
    }
    if kind == "clip" and options.areas is not None:
        chosen["areas"] = sha256_of_file(options.areas)
    settings = json.loads(json.dumps(chosen, default=str))  # as it is read again
    digests = [source.digest(file.name, file.size) for file in files]
    facts = [[f.name, f.size, f.changed, d] for f, d in zip(files, digests, strict=True)]
    together = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return {
        "source": {
            "size": sum(file.size for file in files),
            "changed": max(file.changed for file in files),
            "digest": digests[0] if kind == "clip" else together,
        },
        "model": getattr(predictor, "digest", predictor.model_file),
        "settings": {"confidence_threshold": predictor.confidence_threshold} | settings,
    }


def difference(found: Any, wanted: Mapping[str, Any]) -> str:
    """Return in what an existing result differs from the wanted one; "" if it is the same."""
    if not isinstance(found, Mapping) or not found.keys() >= wanted.keys():
        return "its records do not say what it was made of"
    if found["model"] != wanted["model"]:
        return "it was made by another model"
    if found["settings"] != wanted["settings"]:
        old = found["settings"] if isinstance(found["settings"], Mapping) else {}
        others = [name for name, value in wanted["settings"].items() if old.get(name) != value]
        return f"it was made with another {' and '.join(others) or 'setting'}"
    return "" if found["source"] == wanted["source"] else "its source has changed since"

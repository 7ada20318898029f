"""Clips: reading, writing, annotating. The names are imported at their first use (PEP 562).

Only annotating needs PyTorch and Detectron2.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_MODULE_OF = {
    "VideoFrame": "persondet.video.reader",
    "VideoReader": "persondet.video.reader",
    "VideoSummary": "persondet.video.pipeline",
    "VideoWriter": "persondet.video.writer",
    "annotate_video": "persondet.video.pipeline",
    "read_records": "persondet.records",
}

__all__ = sorted(_MODULE_OF)

if TYPE_CHECKING:  # for editors and type checkers, which do not run __getattr__
    from persondet.records import read_records as read_records
    from persondet.video.pipeline import VideoSummary as VideoSummary
    from persondet.video.pipeline import annotate_video as annotate_video
    from persondet.video.reader import VideoFrame as VideoFrame
    from persondet.video.reader import VideoReader as VideoReader
    from persondet.video.writer import VideoWriter as VideoWriter


def __getattr__(name: str) -> Any:
    """Import the module that defines `name`, and return it."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)

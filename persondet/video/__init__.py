"""Clips: reading and writing (`io.py`), records (`records.py`), annotating (`pipeline.py`)."""

from __future__ import annotations

from persondet.video.io import VideoFrame as VideoFrame
from persondet.video.io import VideoReader as VideoReader
from persondet.video.io import VideoWriter as VideoWriter
from persondet.video.pipeline import VideoSummary as VideoSummary
from persondet.video.pipeline import annotate_video as annotate_video
from persondet.video.records import read_records as read_records

"""Clips: reading and writing (`io.py`), records (`records.py`), annotating (`pipeline.py`)."""

from __future__ import annotations

from persondet.video.io import VideoFrame as VideoFrame
from persondet.video.io import VideoReader as VideoReader
from persondet.video.io import VideoWriter as VideoWriter

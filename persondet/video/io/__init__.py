"""Clips in and out: the only folder that touches PyAV, codecs, containers and time stamps.

`VideoReader` yields upright BGR frames with exact time stamps; `VideoWriter` makes H.264 that
browsers play. Time is a `Fraction` of seconds from the start of the clip, so that no frame rate
(30000/1001, …) and no variable time stamp is rounded on its way through.
"""

from __future__ import annotations

from persondet.video.io.reader import VideoFrame as VideoFrame
from persondet.video.io.reader import VideoReader as VideoReader
from persondet.video.io.writer import VideoWriter as VideoWriter

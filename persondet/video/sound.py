"""The sound of a clip, packet by packet, as it is: nothing is decoded or encoded."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import av
import av.error

from persondet.video.source import clip_start, open_source, picture_stream

# What FFmpeg says that a container holds, and then does not write into it.
_REFUSED_AFTER_ALL = {".mov": {"flac", "opus"}}


class SoundSource:
    """The sound tracks of a clip that a container can hold; a context manager.

    Attributes:
        tracks: the streams that will be copied.
        notes: one sentence for each track that is left out.
    """

    def __init__(
        self,
        source: str | Path,
        output: av.container.OutputContainer,
        target: Path,
        *,
        refused: Collection[int] = (),
    ):
        """Choose the tracks of `source` that `output`, which becomes `target`, can hold.

        Args:
            refused: indices of tracks that turned out not to be writable.

        Raises: MediaError: when the source cannot be opened any more.
        """
        self._container = open_source(source)
        self.notes: list[str] = []
        self.tracks: list[av.AudioStream] = []
        suffix = target.suffix.lower()
        if self._container.duration is None:
            self.notes.append("the sound is left out, as the source is live and was not recorded")
            return
        holds = output.supported_codecs - _REFUSED_AFTER_ALL.get(suffix, set())
        for track in self._container.streams.audio:
            codec = track.codec.canonical_name
            if codec in holds and track.index not in refused:
                self.tracks.append(track)
                continue
            note = f"the sound ({codec}) is left out, as {suffix} cannot hold it"
            if suffix != ".mkv" and codec in _codecs_of_matroska():
                note += f"; name the output {target.stem}.mkv to keep it"
            if note not in self.notes:
                self.notes.append(note)

    def __enter__(self) -> SoundSource:
        return self

    def __exit__(self, *exception: object) -> None:
        self._container.close()

    def packets(self) -> Iterator[av.Packet]:
        """Yield the tracks' packets in their order, timed from the start of the clip.

        A source that is broken in the middle ends there.
        """
        if not self.tracks:
            return
        origin = clip_start(self._container, picture_stream(self._container, ""))
        lengths: dict[int, int] = {}
        last: dict[int, int] = {}
        try:
            for packet in self._container.demux(self.tracks):
                if packet.size == 0:
                    continue
                # As the reader of the pictures does it: sound and pictures move together.
                ticks = round(origin / packet.time_base)
                if packet.pts is not None:
                    packet.pts -= ticks
                if packet.dts is not None:
                    packet.dts -= ticks
                # Of the last packet, whose length no later one tells, mp4 asks it: as long as the
                # one before, where the source does not tell.
                track = packet.stream_index
                if packet.dts is not None and track in last:
                    lengths[track] = packet.dts - last[track]
                if packet.dts is not None:
                    last[track] = packet.dts
                packet.duration = packet.duration or max(0, lengths.get(track, 0))
                yield packet
        except av.error.FFmpegError as error:
            self.notes.append(f"the sound ends early, as the source does ({error.strerror})")


def _codecs_of_matroska() -> set[str]:
    """Return the codecs that a .mkv can hold; the container that is asked is never written."""
    return av.open("file:asked.mkv", "w", format="matroska").supported_codecs

"""The sound of a clip, packet by packet, as it is: nothing is decoded or encoded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import av.error

from persondet.video.io.header import clip_start, picture_stream
from persondet.video.io.source import open_source


class SoundSource:
    """The sound tracks of a clip that a container can hold; a context manager.

    Attributes:
        tracks: the streams that will be copied.
        notes: one sentence for each track that is left out.
    """

    def __init__(self, source: str | Path, output: av.container.OutputContainer, target: Path):
        """Choose the tracks of `source` that `output`, which becomes `target`, can hold.

        Raises: MediaError: when the source cannot be opened any more.
        """
        self._container = open_source(source)
        self.notes: list[str] = []
        self.tracks: list[av.AudioStream] = []
        suffix = target.suffix.lower()
        if self._container.duration is None:
            self.notes.append("the sound is left out, as the source is live and was not recorded")
            return
        for track in self._container.streams.audio:
            codec = track.codec.canonical_name
            if codec in output.supported_codecs:
                self.tracks.append(track)
                continue
            note = f"the sound ({codec}) is left out, as {suffix} cannot hold it"
            if suffix != ".mkv" and codec in _codecs_of_matroska():
                note += f"; name the output {target.stem}.mkv to keep it"
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
                yield packet
        except av.error.FFmpegError as error:
            self.notes.append(f"the sound ends early, as the source does ({error.strerror})")


def _codecs_of_matroska() -> set[str]:
    """Return the codecs that a .mkv can hold; the container that is asked is never written."""
    return av.open("file:asked.mkv", "w", format="matroska").supported_codecs

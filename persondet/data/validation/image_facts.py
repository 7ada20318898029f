"""What a look at one image file says, whatever its json claims."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class ImageFacts:
    """What one file of an export is.

    Attributes:
        problem: "" when the picture can be read, else one of the codes `file-name-outside`,
            `file-missing`, `image-unreadable`, `image-truncated`, `image-too-large`.
        detail: a few words about the problem.
        width, height: the size in pixels as stored, before EXIF turns the picture; 0: not known.
        orientation: EXIF's, 1 (upright) to 8.
        digest: SHA-256 of the file's bytes, 32 bytes; b"" when only the header was read.
        hashes: perceptual hashes of the picture turned and mirrored in 8 ways, uint64, (8,), see
            `persondet.data.leaks.perceptual_hash`; None when only the header was read.
        thumbnail: the grey picture in small, uint8, (32, 32); None when only the header was read.
    """

    problem: str = ""
    detail: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1
    digest: bytes = b""
    hashes: npt.NDArray[np.uint64] | None = None
    thumbnail: npt.NDArray[np.uint8] | None = None

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height in pixels after EXIF turned the picture: what training sees."""
        turned = self.orientation in (5, 6, 7, 8)
        return (self.height, self.width) if turned else (self.width, self.height)

"""What the name of a file tells: the picture it was made from, the clip it was cut from.

Roboflow names what it exports `<source>_<suffix>.rf.<digest>.jpg`: the versions that augmentation
makes of one picture share what stands before `.rf.`. Frames that it cuts from a clip are called
`<clip>_<suffix of the clip>-<number>_<suffix>`.
"""

from __future__ import annotations

import re

_VIDEO = "mp4|mov|avi|mkv|webm|m4v|mpe?g|wmv|flv|mts|m2ts|3gp|ogv"
_PICTURE = re.compile(r"[_.](?:jpe?g|png|bmp|webp|tiff?|gif|avif|heic)$", re.IGNORECASE)
_OF_CLIP = (
    # walk_mp4-0012, walk.mp4_frame_12
    re.compile(rf"(.+[_.](?:{_VIDEO}))[-_ .](?:frame[-_ ]?)?\d+", re.IGNORECASE),
    # walk_frame_000123, 1_1_2_frame85
    re.compile(r"(.*[^-_ .])[-_ .]+frame[-_ .]?\d+", re.IGNORECASE),
    # video3-0012, clip_00017: a counter of frames has more digits than a count of clips
    re.compile(r"((?:.*[-_ .])?(?:clip|video)[-_ ]?\d{0,3})[-_ .]\d{4,7}", re.IGNORECASE),
)
_LONGEST = 255  # no file system has longer names, and a stranger's json may
# A frame that hangs on a wall, or holds a pane.
_NO_CLIP = re.compile(r"(?:picture|photo|window|door|bike|bicycle|bed)$", re.IGNORECASE)


def source_name(file_name: str) -> str:
    """Return the name of the picture that an exported file is a version of.

    `street_0001_jpg.rf.0f3a.jpg` is a version of `street_0001_jpg`. A file that was exported,
    uploaded and exported again goes back to its first name.

    Args:
        file_name: as the json has it, a folder in front stays.

    Returns:
        what stands before `.rf.`, or "" when the name does not tell.
    """
    source, mark, _ = file_name.partition(".rf.")
    return source if mark and source and not source.endswith("/") else ""


def clip_name(file_name: str) -> str:
    """Return the name of the clip that a picture was cut from, as far as its name tells.

    A number alone says nothing: `IMG_0001.jpg` and `IMG_0002.jpg` are two pictures. Asked for is
    the suffix of a video before the number, or the word `frame`, or `clip` or `video` before a
    number of four digits or more; and a frame must name its clip: of `frame_0001.jpg` any clip may
    be the origin.

    Args:
        file_name: as the json has it, a folder in front stays.

    Returns:
        the part that all frames of the clip share, or "" when it does not look like a frame.
    """
    stem = source_name(file_name) or file_name
    stem = _PICTURE.sub("", stem)
    folder, _, name = stem.rpartition("/")
    if len(name) > _LONGEST:
        return ""
    for pattern in _OF_CLIP:
        match = pattern.fullmatch(name)
        if match and not _NO_CLIP.search(match[1]):
            return f"{folder}/{match[1]}" if folder else match[1]
    return ""

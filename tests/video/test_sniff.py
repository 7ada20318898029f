"""What a file's own bytes tell about it."""

from __future__ import annotations

import pytest

from persondet.video.sniff import describe_foreign_file, missing_riff_bytes


@pytest.mark.parametrize(
    ("content", "missing"),
    [
        (b"RIFF" + (100).to_bytes(4, "little") + b"AVI " + bytes(96), 0),
        (b"RIFF" + (100).to_bytes(4, "little") + b"AVI " + bytes(50), 46),
        (b"RIFF" + (100).to_bytes(4, "little") + b"WAVE" + bytes(50), 0),
        (b"RIFF" + (0).to_bytes(4, "little") + b"AVI " + bytes(50), 0),  # a killed writer's header
        (b"RIFF", 0),
    ],
)
def test_missing_bytes_of_an_avi(content, missing, tmp_path):
    path = tmp_path / "clip.avi"
    path.write_bytes(content)
    assert missing_riff_bytes(path) == missing


def test_a_real_format_is_not_described(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    assert describe_foreign_file(path) == ""
    assert "cannot be opened" in describe_foreign_file(tmp_path / "none")

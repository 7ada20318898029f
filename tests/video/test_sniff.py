"""What a file's own bytes tell about it."""

from __future__ import annotations

from persondet.files import describe_foreign_file


def test_a_real_format_is_not_described(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    assert describe_foreign_file(path) == ""
    assert "cannot be opened" in describe_foreign_file(tmp_path / "none")

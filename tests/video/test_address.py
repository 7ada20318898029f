"""What of an address may be shown: never who opens it, nor with what secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persondet.video.source import is_address, local_path, shown, shown_name


@pytest.mark.parametrize(
    ("address", "label", "name"),
    [
        ("http://example.org/a/walk.mp4", "http://example.org/a/walk.mp4", "walk.mp4"),
        ("https://example.org:8443/live?key=1#t=3", "https://example.org:8443/live", "live"),
        ("RTSP://user:pass@camera/stream1", "rtsp://camera/stream1", "stream1"),
        ("rtsp://user@camera", "rtsp://camera", "camera"),
        ("rtsp://user:p@ss@camera/1", "rtsp://camera/1", "1"),
        ("https://example.org/@someone/walk.mp4", "https://example.org/@someone/walk.mp4",
         "walk.mp4"),
        ("rtsp://user:pa/ss@camera/1", "rtsp://…", "…"),
        ("rtsp://user:pa?ss@camera/1", "rtsp://…", "…"),
        ("rtsp://user:pa#ss@camera/1", "rtsp://…", "…"),
        ("http://", "http://", "http:"),
    ],
)  # fmt: skip
def test_what_is_shown_of_an_address(address, label, name):
    assert is_address(address)
    assert shown(address) == label
    assert shown_name(address) == name


@pytest.mark.parametrize("name", ["walk.mp4", "a/b c.mp4", "a:b.mp4", "C:/walk.mp4", "C://a.mp4"])
def test_files_are_no_addresses(name):
    assert not is_address(name)
    assert not is_address(Path(name))
    assert shown(name) == str(Path(name))
    assert local_path(name) == Path(name)


def test_a_file_address_is_a_file():
    assert not is_address("file:///a/b%20c.mp4")
    assert local_path("file:///a/b%20c.mp4") == Path("/a/b c.mp4")
    assert shown_name("FILE:///a/b%20c.mp4") == "b c.mp4"


@given(
    st.text(min_size=6, max_size=12).filter(lambda text: text.strip("/.:@?#") == text),
    st.sampled_from(["/walk.mp4", "", "/a@b/c", "/x?a=b@c", "?q=@", "#@"]),
)
def test_a_password_is_never_shown_whatever_is_in_it(secret, rest):
    secret = f"s3cr3t{secret}"
    label = shown(f"rtsp://somebody:{secret}@camera{rest}")
    assert "s3cr3t" not in label
    assert "somebody" not in label
    assert secret[6:] not in label or secret[6:] in f"rtsp://camera{rest}"

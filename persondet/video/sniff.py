"""What a file's own bytes tell about it, without a decoder: for errors that help."""

from __future__ import annotations

from pathlib import Path

_BOOKMARKS = (b"book\0\0\0\0mark", b"bplist00")
_PAGES = ("<!doctype html", "<html", "<head")
_ADDRESSES = ("http://", "https://", "[internetshortcut]")


def describe_foreign_file(path: Path) -> str:
    """Say what a file that is no clip and no picture looks like, or "" when nothing is known."""
    try:
        with open(path, "rb") as file:
            head = file.read(2048)
    except OSError as error:
        return f"it cannot be opened ({error.strerror})"
    if not head:
        return "it is empty"
    if head.startswith(_BOOKMARKS):
        return "it is a macOS bookmark to another file, so copy that file itself"
    text = head.decode("utf-8", errors="replace").strip().lower()
    if text.startswith(_PAGES):
        return "it is an HTML page, as a download link gives where a sign-in is needed"
    if text.startswith(_ADDRESSES):
        return "it is a text with an address, so download the file itself"
    if text.startswith("version https://git-lfs"):
        return "it is a Git LFS pointer, so fetch the file itself with `git lfs pull`"
    return ""

"""What the words of a command line may be."""

from __future__ import annotations

import argparse
from pathlib import Path


def positive(text: str) -> int:
    """Return `text` as a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def share(text: str) -> float:
    """Return `text` as a number from 0 to 1."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return number


def length(text: str) -> float:
    """Return `text` as a number of pixels: finite, at least 0."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of pixels from 0 on")
    return number


def page(text: str) -> Path:
    """Return `text` as the path of a page that can be written."""
    if not text.lower().endswith((".png", ".pdf")):
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .png or .pdf")
    return Path(text)


def names(text: str) -> tuple[str, ...]:
    """Return the names in a list with commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())

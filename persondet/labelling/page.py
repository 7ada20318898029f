"""A page of images with captions, one file: what to check, or what to label, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from persondet.files import write_text
from persondet.report.build import html_of
from persondet.report.document import (
    Block,
    Document,
    EncodedImage,
    Figure,
    Paragraph,
    Section,
    Table,
    as_plain_text,
)

_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 80]


def figure(image: np.ndarray, caption: str) -> Figure:
    """Return an image of the page (uint8, (H, W, 3), BGR), kept as JPEG, with its caption."""
    height, width = image.shape[:2]
    data = cv2.imencode(".jpg", image, _QUALITY)[1].tobytes()
    return Figure(EncodedImage(data, "image/jpeg", width, height), caption)


def write_page(
    path: str | Path,
    *,
    title: str,
    subtitle: str,
    paragraphs: Sequence[str],
    counts: Sequence[tuple[str, int]],
    figures: Iterable[Figure],
) -> None:
    """Write a page in the report's style, whole or not at all; it loads nothing from anywhere.

    Args:
        paragraphs: what the page shows, and how to read it.
        counts: the rows of a table: what, and how many.
        figures: the images.
    """
    table = Table(
        "What there is", ("", "number"), tuple((what, f"{n:,}") for what, n in counts), (1,)
    )
    overview: tuple[Block, ...] = (*map(Paragraph, paragraphs), table)
    document = Document(
        title,
        subtitle,
        (
            Section("overview", "What this page shows", overview),
            Section("images", "The images", tuple(figures)),
        ),
    )
    write_text(path, html_of(as_plain_text(document)))

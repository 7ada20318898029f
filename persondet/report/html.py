"""The report as one HTML file: images embedded, no script, nothing loaded from anywhere."""

from __future__ import annotations

import base64

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from persondet.report.document import Block, Document, EncodedImage
from persondet.report.wording import TEMPLATES


def html_of(document: Document) -> str:
    """Return the report as a page; every text of the document is escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    environment.filters["kind"] = _kind
    labels = document.labels()
    template = environment.get_template("report.html.j2")
    return template.render(document=document, label=lambda block: labels[id(block)])


def _data_uri(image: EncodedImage) -> str:
    return f"data:{image.media_type};base64,{base64.b64encode(image.data).decode('ascii')}"


def _kind(block: Block) -> str:
    return type(block).__name__

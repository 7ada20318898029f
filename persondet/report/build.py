"""A run folder → one document → report.html and report.pdf.

The report as one HTML file: images embedded, no script, nothing loaded from anywhere.
"""

from __future__ import annotations

import base64
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from persondet.files import write_text
from persondet.report.document import Document, EncodedImage, as_plain_text
from persondet.report.facts import TEMPLATES, listed
from persondet.report.pdf import write_pdf
from persondet.report.run import Run, refuse_elsewhere
from persondet.report.sections.dataset import dataset
from persondet.report.sections.evaluation import areas, evaluation, video
from persondet.report.sections.summary import asked, limits, repetition
from persondet.report.sections.training import augmentation, training, transfer
from persondet.results import RunError

HTML, PDF = "report.html", "report.pdf"
_OF_TRAINING = (transfer, augmentation, training)
# In the order of the work.
CHAPTERS = (asked, dataset, *_OF_TRAINING, evaluation, video, areas, limits, repetition)
# One of these makes a folder the folder of a run.
_SIGNS = ("config.yaml", "metrics.json", "results.json", "provenance.json")


def check_run(run_dir: str | Path) -> Path:
    """Return the path of a run folder.

    Raises: RunError: when it is none.
    """
    path = Path(run_dir)
    if not path.is_dir():
        raise RunError(f"{path} is no folder; give the OUTPUT_DIR of a training.")
    if not any((path / name).is_file() for name in _SIGNS):
        raise RunError(
            f"{path} is no run folder: it has none of {listed(_SIGNS)}; give the OUTPUT_DIR of a "
            "training."
        )
    return path


def check_output(
    run_dir: str | Path, output: str | Path | None, *, overwrite: bool = False
) -> Path:
    """Return the folder for the reports, as `build_report` takes it.

    Raises: OutputExistsError: when `output` is outside the run folder and holds a report already,
        unless `overwrite`.
    """
    folder = Path(run_dir if output is None else output)
    refuse_elsewhere([run_dir], (folder / name for name in (HTML, PDF)), overwrite=overwrite)
    return folder


def build_document(run_dir: str | Path) -> Document:
    """Read a run folder and say all that it tells, for both writers.

    A file that is missing or damaged leaves a note in its place.

    Args:
        run_dir: the OUTPUT_DIR of a training, finished or not.

    Raises: RunError: when the folder is no run folder.
    """
    path = check_run(run_dir)
    run = Run(path)
    classes = listed([f"“{name}”" for name in run.classes], most=4)
    what = "How good it is, where it fails: the evaluation"
    if not run.evaluation_only:
        what = "How it was built, how good it is, where it fails: the run"
    left_out = [*(_OF_TRAINING if run.evaluation_only else ()), *(() if run.analyses else (areas,))]
    chapters = [chapter for chapter in CHAPTERS if chapter not in left_out]
    document = Document(
        title=f"A detector for {classes}" if classes else "A detector",
        subtitle=f"{what} {path.resolve().name}",
        sections=tuple(chapter(run) for chapter in chapters),
    )
    return as_plain_text(document)


def build_report(
    run_dir: str | Path, output: str | Path | None = None, *, overwrite: bool = False
) -> tuple[Path, Path]:
    """Write `report.html` and `report.pdf` of a run, and return their paths.

    Both are whole or not written; in the run folder they replace earlier ones. The same run folder
    gives the same bytes.

    Args:
        run_dir: the OUTPUT_DIR of a training, finished or not.
        output: the folder for the reports; None: the run folder.
        overwrite: replace reports in a folder outside the run folder too.

    Raises: RunError: when `run_dir` is no run folder. OutputExistsError: when the reports cannot be
    written, or `output` is outside the run folder and holds reports already.

    Example:
        >>> html, pdf = build_report("output/person")
        >>> html.name, pdf.name
        ('report.html', 'report.pdf')
    """
    folder = check_output(run_dir, output, overwrite=overwrite)
    document = build_document(run_dir)
    write_text(folder / HTML, html_of(document))
    write_pdf(document, folder / PDF)
    return folder / HTML, folder / PDF


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
    environment.filters["kind"] = lambda block: type(block).__name__
    labels = document.labels()
    template = environment.get_template("report.html.j2")
    return template.render(document=document, label=lambda block: labels[id(block)])


def _data_uri(image: EncodedImage) -> str:
    return f"data:{image.media_type};base64,{base64.b64encode(image.data).decode('ascii')}"

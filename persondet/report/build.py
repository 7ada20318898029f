"""A run folder → one document → report.html and report.pdf."""

from __future__ import annotations

from pathlib import Path

from persondet.files import write_text
from persondet.report.document import Document, as_plain_text
from persondet.report.html import html_of
from persondet.report.pdf import write_pdf
from persondet.report.run_folder import RunFolder
from persondet.report.run_state import RunState
from persondet.report.sections.asked import asked
from persondet.report.sections.augmentation import augmentation
from persondet.report.sections.dataset import dataset
from persondet.report.sections.evaluation import evaluation
from persondet.report.sections.limits import limits
from persondet.report.sections.repetition import repetition
from persondet.report.sections.training import training
from persondet.report.sections.transfer import transfer
from persondet.report.sections.video import video
from persondet.report.wording import listed
from persondet.results import RunError

HTML, PDF = "report.html", "report.pdf"
# In the order of the work.
SECTIONS = (
    asked,
    dataset,
    transfer,
    augmentation,
    training,
    evaluation,
    video,
    limits,
    repetition,
)
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


def build_document(run_dir: str | Path) -> Document:
    """Read a run folder and say all that it tells, for both writers.

    A file that is missing or damaged leaves a note in its place.

    Raises: RunError: when the folder is no run folder.
    """
    path = check_run(run_dir)
    state = RunState(RunFolder(path))
    name = path.resolve().name
    classes = listed([f"“{name}”" for name in state.classes], most=4)
    document = Document(
        title=f"A detector for {classes}" if classes else "A detector",
        subtitle=f"How it was built, how good it is, where it fails: the run {name}",
        sections=tuple(section(state) for section in SECTIONS),
    )
    return as_plain_text(document)


def build_report(run_dir: str | Path, output: str | Path | None = None) -> tuple[Path, Path]:
    """Write `report.html` and `report.pdf` of a run, and return their paths.

    Both are whole or not written; those of an earlier call are replaced. The same run folder gives
    the same bytes.

    Args:
        run_dir: the OUTPUT_DIR of a training, finished or not.
        output: the folder for the reports; None: the run folder.

    Raises: RunError: when `run_dir` is no run folder. OutputExistsError: when the reports cannot be
    written.
    """
    document = build_document(run_dir)
    folder = Path(run_dir if output is None else output)
    write_text(folder / HTML, html_of(document))
    write_pdf(document, folder / PDF)
    return folder / HTML, folder / PDF

"""A real training that Ctrl-C stops at half, and its report."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from detectron2.engine import HookBase

from persondet.engine.defaults import config_text
from persondet.engine.run_records import provenance
from persondet.errors import InterruptedRun
from persondet.files import write_text
from persondet.report.build import build_document
from persondet.report.document import Figure, Note
from persondet.report.plots import plot_run
from tests.engine.toy_training import toy_run


class StopAtHalf(HookBase):
    """Gives the process the signal of Ctrl-C after 12 of 24 steps."""

    def after_step(self) -> None:
        if self.trainer.iter == 10:  # it is heeded after the next step
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """A background job, as tests may be, ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_a_run_that_was_interrupted_at_half_is_reported(tiny_export: Path, tmp_path: Path) -> None:
    trainer = toy_run(tiny_export, tmp_path / "run")
    write_text(tmp_path / "run/config.yaml", config_text(trainer.cfg))
    trainer.register_hooks([StopAtHalf()])
    record = provenance(trainer.cfg, "x.yaml", [], lambda: trainer.steps_done)
    with pytest.raises(InterruptedRun), record:
        trainer.train()
    drawn = {path.name for path in plot_run(tmp_path / "run")}
    assert {"loss.png", "learning_rate.png", "average_precision.png"} <= drawn
    document = build_document(tmp_path / "run")
    assert len(document.sections) == 9
    notes = [block.text for block in document.blocks() if isinstance(block, Note)]
    for sentence in (
        "The training was interrupted after 12 of 24 steps.",
        "There is no score on the test split yet.",
    ):
        assert [text for text in notes if text.startswith(sentence)], notes
    captions = [block.caption for block in document.blocks() if isinstance(block, Figure)]
    assert "The loss over the steps." in captions

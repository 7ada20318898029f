"""A log for each test: what one starts, the next does not hear."""

import logging

import pytest

from persondet.engine.console import stop_logging


@pytest.fixture(autouse=True)
def log_of_its_own(caplog):
    """Let `caplog` hear the package, also after a run, which ends propagation."""
    log = logging.getLogger("persondet")
    log.propagate = False
    log.addHandler(caplog.handler)
    yield
    stop_logging()
    log.removeHandler(caplog.handler)
    log.propagate = True

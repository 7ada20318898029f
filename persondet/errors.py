"""The errors that a person can mend: one sentence each, and the exit code of the command.

A command-line tool prints the sentence and ends with `exit_code`; any other exception is a bug
and keeps its traceback.
"""

from __future__ import annotations

import re


class PersondetError(Exception):
    """Bad input: the message names the file, the field and the mend in one sentence."""

    exit_code = 2

    def __str__(self) -> str:
        """Return the sentence alone: a data loader's worker wraps it in its own traceback."""
        text = super().__str__()
        if "Original Traceback" not in text:
            return text
        wrapped = re.search(rf"^(?:[\w.]+\.)?{type(self).__name__}: (.*)\Z", text, re.M | re.S)
        return wrapped[1].strip() if wrapped else text


class ConfigError(PersondetError):
    """A config file, a key or a combination of keys cannot be used."""


class DatasetError(PersondetError):
    """An export, its json or one of its images cannot be used."""


class CheckpointError(PersondetError):
    """A checkpoint is missing, damaged, or belongs to another model."""


class TrainingError(PersondetError):
    """The training cannot go on: it diverged, or memory is short."""


class InterruptedRun(PersondetError):
    """A run was interrupted; the message names its checkpoint and the command that resumes."""

    exit_code = 130


class MediaError(PersondetError):
    """An image or a clip cannot be read or written."""


class PartialMediaError(MediaError):
    """A clip could not be finished, or an image not be written; what was done before is kept."""

    exit_code = 3


class OutputExistsError(PersondetError):
    """The output is there already, and overwriting it was not asked for."""


class InstallationError(PersondetError):
    """Something that the command needs is not installed."""


class RankLostError(PersondetError):
    """One of several processes was killed; what the run had saved is kept."""

    exit_code = 3


class PartialResultError(PersondetError):
    """Some of the work was done and kept; the message says how much."""

    exit_code = 3

"""Text that grows line by line: what a refusal says, and its exit code."""

from __future__ import annotations

import errno
import os

import pytest

from persondet.errors import MediaError, PartialMediaError
from persondet.files import PartialText


def refused(number, lines):
    text = PartialText("walk.jsonl", "records")
    text.lines = lines
    return text._refused(OSError(number, os.strerror(number)))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_forbidden_place_is_not_called_full_and_keeps_nothing(number):
    error = refused(number, lines=0)
    assert str(error) == (
        f"walk.partial.jsonl: the records cannot be written ({os.strerror(number)}); "
        "choose another --output."
    )
    assert (type(error), error.exit_code) == (MediaError, 2)


def test_a_full_disk_keeps_the_lines_that_there_are():
    error = refused(errno.ENOSPC, lines=3)
    assert "what was written before stays there; free some space" in str(error)
    assert (type(error), error.exit_code) == (PartialMediaError, 3)
    assert "stays" not in str(refused(errno.ENOSPC, lines=0))

"""Fixtures of the video tests: a predictor that needs no model, and a clip."""

import pytest

from tests.video.clips import BrightSquares, squares, write_clip


@pytest.fixture
def predictor():
    return BrightSquares()


@pytest.fixture
def clip(tmp_path):
    """Ten frames of 96 x 64 at 30000/1001, whose name has a space and parentheses."""
    return write_clip(tmp_path / "a clip (1).mp4", squares(10))

"""Progress in a pipe: plain lines, not too many."""

import progress
import pytest


@pytest.mark.parametrize("total", [260, None])
def test_a_pipe_gets_a_line_every_few_seconds(monkeypatch, capsys, total):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.Progress("walk.mp4", "frames") as show:
        for done in range(1, 121):
            now[0] += 0.125
            show(done, total)
    said = capsys.readouterr().err.splitlines()
    share = " 15% 40/260 [00:05<00:27,  8.00 frames/s]" if total else "40 frames [00:05"
    assert said[0].startswith(f"walk.mp4: {share}")
    assert len(said) == 3

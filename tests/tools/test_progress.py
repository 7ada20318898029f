"""Progress in a pipe: plain lines, not too many."""

from __future__ import annotations

import progress


def test_a_pipe_gets_a_line_every_few_seconds(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.Progress("walk.mp4", "frames") as show:
        for done in range(1, 121):
            now[0] += 0.125
            show(done, 260)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "walk.mp4: 40 of 260 frames, 8.0 per second, 28 s left",
        "walk.mp4: 80 of 260 frames, 8.0 per second, 22 s left",
        "walk.mp4: 120 of 260 frames, 8.0 per second, 18 s left",
    ]


def test_a_total_that_is_unknown_or_wrong_is_not_shown():
    show = progress.Progress("walk.mp4", "frames")
    assert show.describe(30, None, 2.0) == "30 frames, 15.0 per second"
    assert show.describe(30, 20, 2.0) == "30 frames, 15.0 per second"

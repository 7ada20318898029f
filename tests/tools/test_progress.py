"""Progress in a pipe: plain lines, not too many."""

import progress
import pytest


@pytest.mark.parametrize(
    ("total", "lines"),
    [
        (
            260,
            [
                "walk.mp4:  15% 40/260 [00:05<00:27,  8.00 frames/s]",
                "walk.mp4:  31% 80/260 [00:10<00:22,  8.00 frames/s]",
                "walk.mp4:  46% 120/260 [00:15<00:17,  8.00 frames/s]",
            ],
        ),
        (None, [f"walk.mp4: {n} frames [00:{s}" for n, s in ((40, "05"), (80, "10"), (120, "15"))]),
    ],
)
def test_a_pipe_gets_a_line_every_few_seconds(monkeypatch, capsys, total, lines):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.Progress("walk.mp4", "frames") as show:
        for done in range(1, 121):
            now[0] += 0.125
            show(done, total)
    said = capsys.readouterr().err.splitlines()
    assert [line[: len(start)] for line, start in zip(said, lines, strict=True)] == lines

"""Secrets on a command line; those in a text are in `tests/report/test_plain_text.py`."""

from __future__ import annotations

import pytest

from persondet.redaction import words_without_secrets


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["--api-key", "abc123"], ["--api-key", "***"]),
        (["--api-key=abc123", "SEED", "3"], ["--api-key=***", "SEED", "3"]),
        (["X.API_TOKEN", "abc", "SOLVER.MAX_ITER", "9"], ["X.API_TOKEN", "***", "SOLVER.MAX_ITER", "9"]),
        (["https://a.b/x?api_key=abc&v=2"], ["https://a.b/x?api_key=***&v=2"]),
        (["https://me:word@a.b/x"], ["https://***@a.b/x"]),
        (["MODEL.KEYPOINT_ON", "True"], ["MODEL.KEYPOINT_ON", "True"]),
        (["--config-file", "configs/a.yaml"], ["--config-file", "configs/a.yaml"]),
    ],
)  # fmt: skip
def test_secrets_are_not_kept(words: list[str], kept: list[str]) -> None:
    assert words_without_secrets(words) == kept


def test_the_key_in_the_environment_is_never_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBOFLOW_API_KEY", "q7Zx81LmPp")
    assert words_without_secrets(["export", "--from=q7Zx81LmPp"]) == ["export", "--from=***"]

"""Text fit to show: no secrets, no control characters, nothing endless."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet import text as texts
from persondet.text import columns, one_line, padded, plain_text, printable, words_without_secrets


@pytest.mark.parametrize(
    "text",
    [
        "https://host.example/model.pth?X-Amz-Signature=s3cr3tvalue&Expires=9",
        "https://me:s3cr3tvalue@host.example/model.pth",
        "--api-key s3cr3tvalue --output x",
        "ROBOFLOW.API_KEY s3cr3tvalue",
        "called “api_key=s3cr3tvalue” here",
        "see auth-token s3cr3tvalue",
        "x http://a.b/http://c.d#s3cr3tvalue",
    ],
)
def test_secrets_are_hidden(text):
    assert "s3cr3tvalue" not in plain_text(text) and "***" in plain_text(text)
    assert plain_text(text).endswith(text.rpartition("s3cr3tvalue")[2].partition("&")[0])


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("--api-key abc123", "--api-key ***"),
        ("--api-key=abc123 SEED 3", "--api-key=*** SEED 3"),
        ("X.API_TOKEN abc SOLVER.MAX_ITER 9", "X.API_TOKEN *** SOLVER.MAX_ITER 9"),
        ("https://a.b/x?api_key=abc&v=2", "https://a.b/x?api_key=***&v=2"),
        ("https://me:word@a.b/x", "https://***@a.b/x"),
        ("MODEL.KEYPOINT_ON True --config-file a.yaml",) * 2,
    ],
)
def test_a_command_keeps_all_but_its_secrets(words, kept):
    assert " ".join(words_without_secrets(words.split())) == kept


def test_the_value_of_a_secret_variable_is_hidden_wherever_it_stands(monkeypatch):
    monkeypatch.setenv("ROBOFLOW_API_KEY", "AbCdEfGh1234")
    assert plain_text("folder/AbCdEfGh1234/x") == "folder/***/x"
    assert words_without_secrets(["--from=AbCdEfGh1234"]) == ["--from=***"]


def test_an_endless_name_takes_no_endless_time():
    started = time.process_time()
    for piece in ("a", "a.", "A.", "-a", "key", "KEY ", "a://", "?", "=", ":", "a=", "é-"):
        text = (piece * 20_000)[:20_000]
        for shown in (text, f"x {text} y"):
            texts.without_secrets(shown)
            words_without_secrets([shown])
    assert time.process_time() - started < 10


# Not `st.text()`: it spends eight seconds on its table of characters in a fresh checkout.
ANY_TEXT = st.lists(st.characters(codec="ascii") | st.integers(0, 0x10FFFF).map(chr)).map("".join)


@settings(max_examples=50)
@given(ANY_TEXT, st.integers(1, 30))
def test_what_is_shown_fits_its_line_and_prints(text, most):
    for show in (printable, one_line):
        shown = show(text, most)
        assert columns(shown) <= most
        assert shown.isprintable()
        if text.isprintable() and columns(text) <= most:
            assert shown == (text if show is printable else " ".join(text.split()))
        assert columns(padded(shown, 40)) == columns(padded(shown, 40, right=True)) == 40
    shown = plain_text(text, 100)
    assert len(shown) <= 100 and "\n" not in shown
    assert all(c.isprintable() or c.isspace() for c in shown)


def test_what_does_not_print_cannot_turn_the_words_around():
    assert plain_text("a\u202eb\u2066c") == one_line("a\u202eb \u2066 c\n", 9) == "a b c"
    assert printable("\x1b[2J\n\u202e\ud800", 99) == r"\x1b[2J\n\u202e\ud800"

"""What may be shown: no secrets, no control characters, nothing endless."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persondet.report.document import Document, Paragraph, Section, Table, as_plain_text
from persondet.report.plain_text import plain_text


@pytest.mark.parametrize(
    "text",
    [
        "https://host.example/model.pth?X-Amz-Signature=s3cr3tvalue&Expires=9",
        "https://host.example/model.pth?s3cr3tvalue",
        "https://me:s3cr3tvalue@host.example/model.pth",
        "--api-key s3cr3tvalue --output x",
        "--api_key=s3cr3tvalue",
        "ROBOFLOW.API_KEY s3cr3tvalue",
        "api_key: s3cr3tvalue",
        "HF_TOKEN=s3cr3tvalue python x.py",
        "a=b=api_key=s3cr3tvalue",
        "of one.two.X.API_KEY s3cr3tvalue",
        "see auth-token s3cr3tvalue",
        "http://a.b/c#s3cr3tvalue",
        "x http://a.b/http://c.d?s3cr3tvalue",
    ],
)
def test_secrets_are_hidden(text: str) -> None:
    shown = plain_text(text)
    assert "s3cr3tvalue" not in shown
    assert "***" in shown


def test_the_value_of_a_secret_variable_is_hidden_wherever_it_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ROBOFLOW_API_KEY", "AbCdEfGh1234")
    assert plain_text("folder/AbCdEfGh1234/x") == "folder/***/x"


@pytest.mark.parametrize(
    "text",
    [
        "tools/train_net.py --config-file configs/a.yaml MODEL.WEIGHTS a/b.pth SEED 42",
        "MODEL.KEYPOINT_ON False",
        "monkey: 3, turkey: 4, keyboard: 5",
        "https://host.example/model.pth",
        "Scores on <b>person</b> & “people”, 0 to 100",
    ],
)
def test_plain_words_stay_as_they_are(text: str) -> None:
    assert plain_text(text) == text


@given(st.text(max_size=300))
def test_nothing_is_left_that_cannot_be_printed(text: str) -> None:
    assert all(character.isprintable() or character.isspace() for character in plain_text(text))
    assert "\n" not in plain_text(text)


def test_direction_marks_cannot_turn_the_words_around() -> None:
    assert plain_text("a\u202eb\u2066c") == "a b c"


def test_an_endless_name_keeps_its_ends() -> None:
    shown = plain_text("a" * 5000 + "z", 100)
    assert len(shown) == 100
    assert shown.startswith("aaa")
    assert shown.endswith("z")


def test_a_quotation_mark_behind_a_secret_stays() -> None:
    assert plain_text("called “api_key=s3cr3tvalue” here") == "called “api_key=***” here"
    assert plain_text("‘token: s3cr3tvalue’") == "‘token: ***’"


@pytest.mark.parametrize(
    "piece", ["a", "a.", "A", "A.", "-a", "key", "KEY ", "a://", "?", "=", " ", ":", "a=", "é-"]
)
def test_an_endless_name_takes_no_endless_time(piece: str) -> None:
    """In a process of its own, which can be stopped; what grows with the square takes minutes."""
    code = (
        "import sys; from persondet.redaction import without_secrets, words_without_secrets;"
        "text = (sys.argv[1] * 60000)[:60000];"
        "without_secrets(text); without_secrets('x ' + text + ' y'); words_without_secrets([text])"
    )
    subprocess.run([sys.executable, "-c", code, piece], check=True, timeout=20)


def test_what_is_too_long_to_be_read_whole_keeps_its_end() -> None:
    assert plain_text("a" * 100_000 + " the end").endswith(" the end")


def test_every_string_of_a_document_is_cleaned() -> None:
    bad = "x --api-key s3cr3tvalue\0"
    table = Table(bad, (bad,), ((bad,),))
    section = Section("key", bad, (Paragraph(bad, bad), table))
    assert "s3cr3t" not in repr(as_plain_text(Document(bad, bad, (section,))))

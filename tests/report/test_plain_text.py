"""What may be shown: no secrets, no control characters, nothing endless."""

from __future__ import annotations

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


def test_every_string_of_a_document_is_cleaned() -> None:
    bad = "x --api-key s3cr3tvalue\0"
    table = Table(bad, (bad,), ((bad,),))
    section = Section("key", bad, (Paragraph(bad, bad), table))
    assert "s3cr3t" not in repr(as_plain_text(Document(bad, bad, (section,))))

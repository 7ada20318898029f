"""What the files of a run say: values of no wrong kind, and numbers in words."""

import pytest

from persondet.report.facts import DASH, Facts, duration, listed, plain, points, several, share


@pytest.mark.parametrize(
    ("words", "values", "said"),
    [
        # Neither none nor all, unless it is.
        (share, (0.0, 0.004, 0.283, 0.996, 1.0), "0 %, 0.4 %, 28 %, 99.6 %, 100 %"),
        (points, (-1e-9, -0.04, 0.0, -0.06, 41.25), "0.0, 0.0, 0.0, -0.1, 41.2"),
        (plain, (0.00005, 0.001, 12345.6), "0.00005, 0.001, 12,346"),
        (duration, (4, 41, 692, 9000), "4.0 seconds, 41 seconds, 12 minutes, 2 h 30 min"),
    ],
)
def test_numbers_are_rounded_as_a_reader_expects(words, values, said):
    assert ", ".join(map(words, values)) == said
    assert words(None) == words(Facts("text")) == DASH
    assert words(Facts(values[0])) == words(values[0])
    assert [several(1, "image"), several(2000, "image")] == ["1 image", "2,000 images"]
    assert listed(list("abcde"), most=3) == "a, b and 3 more"


def test_facts_answer_every_question():
    facts = Facts({"a": [1, {"b": "x"}], "n": float("nan"), "t": True, "v": [1, None], "w": [3, 4]})
    assert facts["a"][1]["b"].text() == "x"
    assert not facts["a"][7]["b"]["c"][-3]
    assert facts["n"].number() is facts["t"].number() is None
    assert facts["a"][0].items() == []
    assert [column.tolist()[0] for column in facts.columns("v", "w")] == [1, 3]
    for names, edges in ((("v", "w"), 1), (("v", "a"), 0), (("v", "nothing"), 0)):
        assert not any(map(len, facts.columns(*names, edges=edges)))

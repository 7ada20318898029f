"""Tables out of text: what tabulate wrote is read again."""

from __future__ import annotations

from tabulate import tabulate

from persondet.report.text_table import read_table


def test_a_table_of_tabulate_is_read_again() -> None:
    rows = [("backbone.fpn", "425,472", "0", "trained"), ("all", "1", "9,536", "in part")]
    text = tabulate(rows, headers=("module", "trainable", "frozen", ""), disable_numparse=True,
                    colalign=("left", "right", "right", "left"))  # fmt: skip
    table = read_table(f"a sentence\n\n{text}\n\nmore\n")
    assert table.header == ("module", "trainable", "frozen", "")
    assert table.rows == tuple(rows)
    assert (table.before, table.after) == (("a sentence",), ("more",))


def test_cells_of_several_lines_are_joined_and_a_sentence_ends_the_table() -> None:
    text = tabulate([("head", 2, "one\ntwo"), ("x", 1, "")], headers=("part", "loaded", "why"))
    table = read_table(text + "\nThe checkpoint tells 5 classes apart, which is said here.")
    assert table.rows == (("head", "2", "one; two"), ("x", "1", ""))
    assert table.after == ("The checkpoint tells 5 classes apart, which is said here.",)


def test_a_text_without_a_table_is_kept() -> None:
    table = read_table("a\n\nb\n")
    assert (table.before, table.rows) == (("a", "b"), ())

"""Why a leaf of a payload has no column."""

from __future__ import annotations

import pytest

from penstock.schema.shape import Leaf, List, Struct
from penstock.schema.why import Reasons

SHAPE = Struct(
    (
        ("n", Leaf("long")),
        ("d", Leaf("double")),
        ("b", Leaf("bool")),
        ("o", Struct((("x", Leaf("string")),))),
        ("l", List(Struct((("y", Leaf("long")),)))),
    )
)


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("n", '"x"', "text, and the column holds whole numbers"),
        ("n", "1.5", "retyping makes them doubles"),
        ("n", "1" + "0" * 400, "a number that is none of them"),
        ("d", "9007199254740993", "no double is exactly this number"),
        ("b", "1", "a number, and the column holds true or false"),
        ("n", "1", "after this event had landed"),
        ("o", "3", "a number, where other events have an object"),
        ("n.z", "3", "it is below n, which holds whole numbers"),
        ("l.y", "true", "true or false, and the column holds whole numbers"),
        ("N", "3", "differs only in case from that of the column n"),
        ("", "3", "the document is no object"),
        ('a\\"b', "3", "cannot be the name of a column"),
        ("new", "3", "there was no room for a column"),
    ],
)
def test_the_reason_is_said(path: str, text: str, said: str) -> None:
    assert said in Reasons(SHAPE, "evolve").why(path, text)


def test_a_contract_that_lets_nothing_in_is_the_reason() -> None:
    assert "the contract freeze lets none in" in Reasons(SHAPE, "freeze").why("new", "3")

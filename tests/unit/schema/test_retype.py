"""When a column of longs becomes one of doubles."""

from __future__ import annotations

import pytest

from penstock.schema.retype import (
    Column,
    Counted,
    Difference,
    columns_of,
    differences,
    due,
    gains,
    longs_of,
    loses,
    widened,
)
from penstock.schema.shape import Leaf, List, Struct

LONG, DOUBLE, STRING = Leaf("long"), Leaf("double"), Leaf("string")
N = Column(("n",), "long")


@pytest.mark.parametrize(
    ("gained", "lost", "rows", "expected"),
    [
        (100, 0, 1_000_000, True),
        (99, 0, 1_000_000, False),
        (1, 0, 100, True),
        (1, 0, 101, False),
        (1, 0, 2, True),
        (0, 0, 0, False),
        (500, 500, 1_000, False),
        (500, 499, 1_000, True),
    ],
)
def test_misfits_add_up(gained: int, lost: int, rows: int, expected: bool) -> None:
    """A hundred, or one in a hundred rows; and never at the cost of more values."""
    assert due(Counted(N, gained, lost), rows) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5.99", True),
        ("-0.5", True),
        ("1e-3", True),
        ("9223372036854775808", True),
        ("9223372036854775809", False),
        ("5", False),
        ("5.0", False),
        ("1e3", False),
        ("1e400", False),
        ("true", False),
        ('"5.99"', False),
    ],
)
def test_what_a_double_holds_and_a_long_does_not(text: str, expected: bool) -> None:
    """Only these leave `misfits` when the column is retyped."""
    assert gains(text) is expected


def test_what_a_long_holds_and_no_double_does() -> None:
    """Beyond 2^53 every second number is none, then three of four."""
    assert [loses(2**53 + n) for n in range(-1, 3)] == [False, False, True, False]
    assert [loses(number) for number in (-(2**53) - 1, -(2**63), 2**63 - 1)] == [True, False, True]


def test_columns_are_found_and_changed_wherever_they_are() -> None:
    """In objects and in lists; a key with a dot, or with brackets, is no other column."""
    shape = Struct(
        (
            ("n", LONG),
            ("a%2Eb", LONG),
            ("l", List(List(LONG))),
            ("o", List(Struct((("p", LONG), ("q", STRING))))),
            ("o[]", Struct((("p", LONG),))),
        )
    )
    found = {column.steps: column for column in longs_of(shape)}

    assert [column.path for column in columns_of(shape)] == [
        "n",
        "a%2Eb",
        "l[][]",
        "o[].p",
        "o[].q",
        "o[].p",
    ]
    assert found["a%2Eb",].misfit_path == r"a\.b"
    assert found["l", None, None].misfit_path == "l"
    assert found["o", None, "p"].misfit_path == "o.p"
    assert widened(shape, [found["o", None, "p"], found["l", None, None]]) == Struct(
        (
            ("n", LONG),
            ("a%2Eb", LONG),
            ("l", List(List(DOUBLE))),
            ("o", List(Struct((("p", DOUBLE), ("q", STRING))))),
            ("o[]", Struct((("p", LONG),))),
        )
    )
    assert widened(shape, [Column(("o", None, "q"), "long"), Column(("x",), "long")]) == shape


def test_differences_are_told_column_by_column() -> None:
    """What people and the history are shown."""
    before = Struct((("a", LONG), ("b", STRING), ("c", LONG)))
    after = Struct((("c", DOUBLE), ("a", LONG), ("d", List(STRING))))

    found = differences(before, after)

    assert found == [
        Difference("b", "string", None),
        Difference("c", "long", "double"),
        Difference("d[]", None, "string"),
    ]
    assert [one.what for one in found] == ["removed", "retyped", "added"]

"""What is noted of unknown fields, and the guesses at their types."""

from __future__ import annotations

import pytest
from msgspec import Raw

from penstock.schema.check import Blank, top_of
from penstock.schema.discover import MOST_BLANKS, Discovery, blanks, extends, widen
from penstock.schema.shape import EMPTY, Leaf, List, Struct, Type, columns

LONG, DOUBLE, STRING = Leaf("long"), Leaf("double"), Leaf("string")


def looked_at(*documents: str, most: int = 100, shape: Struct = EMPTY) -> Discovery:
    discovery = Discovery(top_of(shape), most=most, counting=True)
    for row, document in enumerate(documents):
        discovery.look(Raw(document), row)
    return discovery


def test_notes_are_kept_on_so_many_fields_and_no_more() -> None:
    """Senders choose keys: a million of them must not fill the memory."""
    discovery = looked_at('{"a": 1, "b": {"c": 2, "d": 3}, "e": 4}', '{"a": 1, "f": 5}', most=3)

    wider, _ = widen(EMPTY, discovery.seen, max_columns=100, max_depth=32)

    assert columns(wider) == [("a", "long"), ("b.c", "long")]


def test_of_a_known_field_only_what_is_below_it_is_noted() -> None:
    """A note on each known column of each event would take more than the event."""
    shape = Struct((("a", LONG), ("o", Struct((("b", LONG),))), ("l", List(STRING))))

    seen = looked_at('{"a": "x", "o": {"b": "x", "c": 1}, "l": [1, 2]}', shape=shape).seen

    assert list(seen.fields) == ["o"]
    assert list(seen.fields["o"].fields) == ["c"]


def test_blank_fields_are_told_from_fields_with_a_leaf() -> None:
    """What is taken for blank is let pass without a look."""
    shape = Struct((("o", Struct((("b", LONG),))), ("l", List(Struct((("c", LONG),))))))
    seen = looked_at(
        '{"x": null, "y": [[], {"z": null}], "w": {"v": 1}, "q\\"": null}',
        '{"o": {"b": 1, "n": {}}, "l": [{"c": 1, "m": []}]}',
        shape=shape,
    ).seen

    assert blanks(shape, seen) == Blank(
        fields=(
            ("x", Blank()),
            ("y", Blank(element=Blank(fields=(("z", Blank()),), element=Blank()))),
            ("o", Blank(fields=(("n", Blank()),))),
            ("l", Blank(element=Blank(fields=(("m", Blank(element=Blank())),)))),
        )
    )


def test_only_so_many_blank_fields_of_an_object_are_let_pass() -> None:
    """A check for a million fields would cost more than it saves."""
    fields = ",".join(f'"k{n}": null' for n in range(MOST_BLANKS + 10))

    seen = looked_at(f"{{{fields}}}", most=10_000).seen

    assert len(blanks(EMPTY, seen).fields) == MOST_BLANKS


@pytest.mark.parametrize(
    ("wider", "guess", "came_true"),
    [
        (Struct((("a", LONG), ("b", LONG))), Struct((("b", LONG),)), True),
        (Struct((("b", LONG),)), Struct((("a", LONG), ("b", LONG))), False),
        (DOUBLE, LONG, True),
        (LONG, DOUBLE, False),
        (List(DOUBLE), List(LONG), True),
        (List(LONG), LONG, False),
        (Struct((("a", LONG),)), STRING, False),
    ],
)
def test_a_guess_came_true_if_nothing_of_it_was_taken_back(
    wider: Type, guess: Type, came_true: bool
) -> None:
    """Else events that fitted it may have held what others do not count for."""
    assert extends(wider, guess) == came_true

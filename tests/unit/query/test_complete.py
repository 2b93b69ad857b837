"""What is being written where the cursor is. In the texts of these tests ``|`` is the cursor."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.query.complete import Completing, completing
from penstock.query.parse import field_of


def at(text: str) -> Completing:
    return completing(text.replace("|", "", 1), text.index("|"))


@pytest.mark.parametrize(
    ("text", "what", "span", "typed"),
    [
        ("|", "field", "", ""),
        ("ca|", "field", "ca", "ca"),
        ("c|a:UA", "field", "ca:", "c"),
        ("NOT ca|", "field", "ca", "ca"),
        ("-ca|", "field", "ca", "ca"),
        ("-|", "field", "", ""),
        ("a:1 AND b|", "field", "b", "b"),
        ("a:1 |", "field", "", ""),
        ("(a:1 OR b|)", "field", "b", "b"),
        (r"a\ b|", "field", r"a\ b", r"a\ b"),
        ("_exists_:ca|", "path", "ca", "ca"),
        ("_exists_:|", "path", "", ""),
        ("a ${ORDER_BY c|", "path", "c", "c"),
        ("${UNIQUE |}", "path", "", ""),
        ("carrier:|", "value", "", ""),
        ("carrier: |", "value", "", ""),
        ("carrier:U|", "value", "U", "U"),
        ("carrier:U|X z", "value", "UX", "U"),
        ("carrier:(UA OR A|)", "value", "A", "A"),
        ("carrier:(UA |", "value", "", ""),
        ("carrier:~al|", "value", "al", "al"),
        ('carrier:"San F|', "value", '"San F', "San F"),
        ('carrier:"San F|ran" x', "value", '"San Fran"', "San F"),
        ('carrier:"San| AND b:"x"', "value", '"San', "San"),
        ("carrier:>|", "number", "", ""),
        ("carrier:[1 TO 5|", "number", "5", "5"),
        ("carrier:[|", "number", "", ""),
        ("carrier:[1 |", "word", "", ""),
        ("a ${|", "word", "", ""),
        ("a ${OR|", "word", "OR", "OR"),
        ("a ${SORT D|", "word", "D", "D"),
        ("a ${LIMIT 1|", "nothing", "", ""),
        ("a ${LIMIT 1 |", "word", "", ""),
        ("a ${LIMIT 1}|", "nothing", "", ""),
        ('"two w|', "nothing", "", ""),
        ('a:"b"|', "nothing", "", ""),
        ("a.length():|", "nothing", "", ""),
        ("a:1) b|", "field", "b", "b"),
        ("a:] b|", "field", "b", "b"),
    ],
)
def test_what_is_completed(text: str, what: str, span: str, typed: str) -> None:
    """What is replaced must be what was begun, and no more."""
    found = at(text)
    whole = text.replace("|", "", 1)

    assert (found.what, whole[found.start : found.end], found.typed) == (what, span, typed)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("carrier:|", "carrier"),
        ("a.b[].c:x|", "a.b.c"),
        ("a:1 (b:2 OR c:x|)", "c"),
        ("f:(a -b|)", "f"),
        ("headers.X-Id:|", "headers.x-id"),
        ("batch.info.source:|", "source"),
        ("f:(a OR b) g:|", "g"),
        ("f:(a (b c|", "f"),
    ],
)
def test_whose_value_it_is(text: str, field: str) -> None:
    """Values of another field help nobody."""
    assert at(text).field == field_of(field)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("|", ("NOT",)),
        ("a |", ("AND", "OR", "NOT")),
        ("a:1 o|", ("AND", "OR", "NOT")),
        ("a AND |", ("NOT",)),
        ("(|", ("NOT",)),
        ("f:(a |", ("AND", "OR", "NOT")),
        ("f:|", ()),
        ("f:[1 |", ("TO",)),
        ("${|", ("ORDER_BY", "SORT", "LIMIT", "UNIQUE")),
        ("${ORDER x AND |", ("SORT", "LIMIT", "UNIQUE")),
        ("${SORT |", ("ASC", "DESC")),
        ("${LIMIT 1 |", ("AND",)),
    ],
)
def test_which_words_may_stand_there(text: str, words: tuple[str, ...]) -> None:
    """AND at the beginning would only make an error."""
    assert at(text).words == words


PIECES = [
    *("a", "f:", "AND", " ", "  ", "(", ")", "[", "]", "{", "}", " TO ", '"', "\\", ":", "~", ">"),
    *("-", "+", "${", "ORDER_BY ", "SORT ", "LIMIT ", "UNIQUE ", "}", "*", "_exists_:", "é", "\n"),
    *("a.length():", "f:(", "[]", "1", "now-1d", "\x00", "\ud800"),
]


def sound(text: str, position: int) -> None:
    found = completing(text, position)
    inside = min(position, len(text))
    assert 0 <= found.start <= inside <= found.end <= len(text)
    assert (found.field is not None) == (found.what in ("value", "number"))


def test_whatever_stands_there_something_is_answered() -> None:
    """Nobody wants an error for every key that is pressed."""
    chance = random.Random(3)
    for _ in range(4_000):
        text = "".join(chance.choices(PIECES, k=chance.randint(1, 14)))
        sound(text, chance.randint(0, len(text)))


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(codec=None), max_size=40), st.integers(0, 50))
def test_any_text_can_be_completed(text: str, position: int) -> None:
    """Half surrogates and control characters included."""
    sound(text, position)


def test_the_longest_texts_do_not_take_long() -> None:
    """They are read again with every key."""
    for text in (
        "(" * 10_000,
        '"' * 9_999,
        "a " * 5_000,
        "f:[" * 3_000,
        "\\" * 10_000,
        "a" * 20_000,
    ):
        sound(text, len(text))

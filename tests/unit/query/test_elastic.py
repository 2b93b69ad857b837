"""From trees to queries on terms."""

from __future__ import annotations

import math
import random
import struct
import sys

import pytest

from penstock.query import parse
from penstock.query.elastic import ALL, NONE, compile_elastic
from penstock.query.text import lower
from penstock.query.tokens import (
    LONGEST_NAME,
    below,
    double,
    name_of,
    sortable,
    text_term,
    word_term,
)


def compiled(text: str):
    return compile_elastic(parse(text, now=0))


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("", ALL),
        ("alpha", {"term": {"words": "alpha"}}),
        ('"a b"', {"match_phrase": {"words": "a b"}}),
        ("f:~A", {"term": {"pwords": "f=a"}}),
        ("_exists_:f.g", {"term": {"path": "f.g"}}),
        ("data:*", {"term": {"path": "*"}}),
        ("quarantine.reason:x", NONE),
        ("log_offset:>1.5", {"range": {"offset": {"gte": 2}}}),
        ("log_partition:>1e300", NONE),
        ("log_offset:<1e300", {"range": {"offset": {"lte": (1 << 62) - 1}}}),
        ("headers.A-b:X", {"term": {"kv": "@headers.a-b=x"}}),
        ("received_at:1970", {"range": {"at": {"gte": 0, "lt": 365 * 86_400_000_000}}}),
    ],
)
def test_conditions_on_terms_are_exact(text: str, query: object) -> None:
    """What the index says is then the answer."""
    bounds = compiled(text)

    assert bounds.exact
    assert bounds.certain == query


@pytest.mark.parametrize("text", ["f:null", "f.length():>2", "source:~http", "f:a*", "f:>2026-01"])
def test_what_terms_cannot_tell_lies_between_two_queries(text: str) -> None:
    """And its complement between the complements, the other way round."""
    bounds, complement = compiled(text), compiled(f"NOT {text}")

    assert not bounds.exact
    assert not complement.exact
    assert (
        complement.certain
        == ({"bool": {"must_not": [bounds.possible]}}, NONE)[bounds.possible == ALL]
    )


def test_what_is_exact_narrows_what_is_not() -> None:
    """Only events with the one come into question for the other."""
    bounds = compiled("a:1 f:null")

    assert bounds.certain == NONE
    assert bounds.possible == compiled("a:1").possible


def test_numbers_sort_as_terms_do() -> None:
    """A range of terms is a range of numbers, whatever the sign."""
    chance = random.Random(1)
    numbers = [struct.unpack(">d", chance.randbytes(8))[0] for _ in range(2_000)]
    numbers = [n for n in numbers if not math.isnan(n)]
    numbers += [0.0, -0.0, 1e400, -1e400, 5e-324]

    assert sorted(numbers) == sorted(numbers, key=sortable)
    assert sortable(-0.0) == sortable(0.0)
    assert double(10**400) == double("1e400") == float("inf")


def test_names_are_parted_from_values_by_signs_that_no_name_has() -> None:
    """Otherwise the leaf `a` with the text `b=c` would be the leaf `a=b` with the text `c`."""
    names = {name_of(keys) for keys in (("a",), ("a=b",), ("a.b",), ("a", "b"), ("a b",), ("a*",))}

    assert len(names) == 6
    assert all(set(name).isdisjoint("=#!*?~@ \t\n\u2028") for name in names)
    assert name_of(()) == name_of(("",)) == ""
    assert name_of(("", "")) != ""


def test_names_have_a_bound_however_deep_they_are() -> None:
    """Engines refuse long terms; and a name for every level of a megabyte would be terabytes."""
    name = None
    seen = set()
    for level in range(500):
        name = below(name, f"key {level}")
        assert len(name) <= LONGEST_NAME
        assert name not in seen
        seen.add(name)


def test_long_words_and_texts_have_terms_of_their_own() -> None:
    """Two that begin alike are two."""
    assert word_term("w" * 300) != word_term("w" * 301)
    assert len(word_term("w" * 300)) < 60
    assert text_term("n", "w" * 3_000) != text_term("n", "w" * 3_001)
    assert word_term("short") == "short"


def test_lower_case_is_one_for_one_for_every_character() -> None:
    """The quick way for most texts must not differ from the slow one."""
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        slow = "i" if character == "İ" else character.lower()
        assert lower(f"a{character}b") == f"a{slow}b"
    assert lower("\u0391\u03a3 .") == "\u03b1\u03c3 ."

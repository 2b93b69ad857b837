"""Words, case and numbers: what the compilers and the engines must agree on."""

from __future__ import annotations

import re
import sys
import unicodedata

import duckdb
import pytest

from penstock.query.text import lower, number, words

CODE_POINTS = [code for code in range(1, sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF]
"""All that can stand in a text; what Unicode may call a letter one day is left to that day."""


@pytest.fixture(scope="module")
def engine():
    with duckdb.connect() as engine:
        engine.execute(
            "CREATE TABLE points AS SELECT i AS code, chr(i::INT) AS c FROM range(1, 1114112) t(i) "
            "WHERE i NOT BETWEEN 55296 AND 57343"
        )
        yield engine


def test_every_code_point_has_the_lower_case_that_the_engine_gives_it(engine) -> None:
    """A query is put into lower case here and the leaves there; both must come out alike."""
    changed = dict(
        engine.execute("SELECT code, lower(c) FROM points WHERE lower(c) <> c").fetchall()
    )

    assert [
        hex(code) for code in CODE_POINTS if lower(chr(code)) != changed.get(code, chr(code))
    ] == []


def test_every_letter_and_digit_is_one_for_the_engine(engine) -> None:
    """Else the same leaf would fall into other words there. The engine knows newer letters, too."""
    found = engine.execute(
        r"SELECT code FROM points WHERE regexp_full_match(c, '[\p{L}\p{N}]')"
    ).fetchall()
    theirs = {code for (code,) in found}
    ours = {code for code in CODE_POINTS if unicodedata.category(chr(code))[0] in "LN"}

    assert ours <= theirs
    assert all(unicodedata.category(chr(code)) == "Cn" for code in theirs - ours)


def test_words_are_made_of_the_categories_l_and_n() -> None:
    """The expression that finds words says so in another way, which could change with Python."""
    one = re.compile(r"[^\W_]")

    assert all(
        bool(one.match(chr(code))) == (unicodedata.category(chr(code))[0] in "LN")
        for code in CODE_POINTS
    )


def test_lower_case_makes_no_word_of_what_was_none() -> None:
    """Words are looked for in lower-cased text, so its words must be those of the text."""
    assert all(
        (unicodedata.category(lower(chr(code)))[0] in "LN")
        == (unicodedata.category(chr(code))[0] in "LN")
        for code in CODE_POINTS
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ΣΊΣΥΦΟΣ", "σίσυφοσ"),
        ("İstanbul", "istanbul"),
        ("ISTANBUL", "istanbul"),
        ("Straße", "straße"),
        ("ẞ", "ß"),
        ("Ⅷ", "ⅷ"),
    ],
)
def test_case_is_mapped_one_code_point_to_one(text: str, expected: str) -> None:
    """Python itself makes two of a dotted capital I and looks at the end of Greek words."""
    assert lower(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x-ray App_1.log", ("x", "ray", "app", "1", "log")),
        ("  ", ()),
        ("日本 語", ("日本", "語")),
        ("a\u0301", ("a",)),
        ("x²½Ⅳ", ("x²½ⅳ",)),
    ],
)
def test_words_are_maximal_runs(text: str, expected: tuple[str, ...]) -> None:
    """Whatever is no letter or digit parts them, the underscore and accents of their own too."""
    assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("40", 40.0),
        ("-0.5e-3", -0.0005),
        ("1E2", 100.0),
        ("1e999", float("inf")),
        ("02134", None),
        ("+1", None),
        (".5", None),
        ("1.", None),
        ("1_0", None),
        ("٣", None),
        ("NaN", None),
        ("", None),
    ],
)
def test_a_number_is_written_as_in_json(text: str, expected: float | None) -> None:
    """A postal code is text, and stays it."""
    assert number(text) == expected

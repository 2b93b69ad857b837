"""Column names and paths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.schema.names import (
    LONGEST_NAME,
    clash_form,
    column_name,
    join,
    key_of,
    keys_of,
    nameable,
    path_text,
)

keys = st.text(st.sampled_from('aB.%025E "\\:é\n\x00'), max_size=6) | st.text(max_size=6)


@pytest.mark.parametrize(
    ("key", "column"),
    [
        ("city", "city"),
        ("City Name", "City Name"),
        ("größe", "größe"),
        ("", "%00"),
        ("a.b", "a%2Eb"),
        ("100%", "100%25"),
        ("%2E", "%252E"),
        ("%00", "%2500"),
    ],
)
def test_a_column_is_named_as_its_key_but_for_dots_percent_and_nothing(
    key: str, column: str
) -> None:
    """People write these names in SQL, and other parts rely on the rule."""
    assert column_name(key) == column
    assert key_of(column) == key


@given(keys, keys)
def test_every_key_can_be_read_back_from_its_column(one: str, other: str) -> None:
    """Two keys in one column would be two fields in one."""
    assert key_of(column_name(one)) == one
    assert (column_name(one) == column_name(other)) == (one == other)
    assert "." not in column_name(one)
    assert column_name(one)


@pytest.mark.parametrize("key", ["a\nb", "\x00", "\x1b[2J", "\x7f", 'a"b', "a\\b", "k" * 256])
def test_keys_that_would_have_to_be_escaped_everywhere_make_no_column(key: str) -> None:
    """Senders choose keys: a quote in a column name is one forgotten escape from an injection."""
    assert not nameable(key)


@pytest.mark.parametrize("key", ["", "a.b", "a b", "'", "😀", "k" * LONGEST_NAME])
def test_other_keys_make_columns_however_odd(key: str) -> None:
    """A bound on names must not take columns away from people."""
    assert nameable(key)


def test_the_bound_on_names_is_on_the_column_not_on_the_key() -> None:
    """A key of dots is three times as long as a column."""
    assert not nameable("." * LONGEST_NAME)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Id", "ID"), ("É", "é"), ("a b", "a_x20b"), ("a b", "a_X20B"), ("1", "_1"), ("é ", "É_x20")],
)
def test_names_that_engines_confuse_clash(one: str, other: str) -> None:
    """Trino ignores case; Iceberg's Parquet files write both names of a pair as one."""
    assert clash_form(one) == clash_form(other)


@pytest.mark.parametrize(
    ("one", "other"), [("a b", "a_b"), ("a", "a%25"), ("a1", "1a"), ("_1a", "1_a"), ("é", "e")]
)
def test_names_that_only_look_alike_do_not_clash(one: str, other: str) -> None:
    """A field that clashes gets no column: that must not happen without need."""
    assert clash_form(one) != clash_form(other)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ((), ""),
        (("a",), "a"),
        (("a", "b"), "a.b"),
        (("a.b", "c"), r"a\.b.c"),
        (("a b", 'c"d', "e:f", "g\\h"), r"a\ b.c\"d.e\:f.g\\h"),
        (("a", "", "b"), "a..b"),
        (("", "a"), ".a"),
        (("a", ""), "a."),
    ],
)
def test_a_path_is_its_keys_joined_by_dots(path: tuple[str, ...], expected: str) -> None:
    """Queries and misfits have to write the same path for the same leaf."""
    assert path_text(path) == expected
    assert keys_of(expected) == path


@given(st.lists(keys, min_size=1, max_size=4))
def test_the_keys_can_be_read_back_from_a_path(path: list[str]) -> None:
    """A path that reads as other keys would find other leaves."""
    text = path_text(path)

    assert keys_of(text) == (tuple(path) if path != [""] else ())
    joined = None
    for key in path:
        joined = join(joined, key)
    assert joined == text


def test_a_backslash_at_the_end_of_a_path_stands_for_itself() -> None:
    """People type paths; an unfinished one must not be cut."""
    assert keys_of("a.b\\") == ("a", "b\\")

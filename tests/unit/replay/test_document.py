"""JSON that is changed in places: every other byte stays as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.transform.document import MOST_GROWTH, Document, Unchangeable

UGLY = (
    b' {"a" : 1.10, "b":[ ], "\\u0063": {"d":12345678901234567890123 , "d":-0 }, "e":{ }\t,'
    b'"f":[[{"x":1e400}, 2,{"x":"\\u00e9"}], "]}" ], "g":"\\"}" }\r\n'
)

# Blanks, repeated keys, escapes and long numbers, which decoding and encoding would lose.
BLANKS = st.sampled_from(["", "", "", " ", "\n  ", "\t"])
KEYS = st.sampled_from(["a", "b", "secret", "with.dot", 'qu"ote', "", "ä"])
SCALARS = st.one_of(
    st.sampled_from(["1.10", "-0", "1e400", "12345678901234567890.5", "true", "null", '"]}{[,:"']),
    st.text(max_size=5).map(json.dumps),
)


def escaped(key: str) -> str:
    """Write a key as nobody would, and anybody may."""
    return '"' + "".join(f"\\u{ord(character):04x}" for character in key) + '"'


@st.composite
def blank(draw: Any, text: st.SearchStrategy[str]) -> str:
    return f"{draw(BLANKS)}{draw(text)}{draw(BLANKS)}"


def objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    keys = st.one_of(KEYS.map(json.dumps), KEYS.map(escaped))
    members = st.tuples(blank(keys), blank(values)).map(":".join)
    return st.lists(members, max_size=4).map(lambda each: "{" + ",".join(each) + "}")


def lists(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(blank(values), max_size=4).map(lambda each: "[" + ",".join(each) + "]")


VALUES = st.recursive(SCALARS, lambda v: st.one_of(objects(v), lists(v)), max_leaves=20)
PAYLOADS = blank(objects(VALUES)).map(str.encode)


def taken_apart(payload: bytes) -> Document:
    """Answer a document all of whose objects and lists were looked into."""
    document = Document(payload)
    for first in ("a", "b", "secret", "f", "c", "e"):
        for second in ("x", "d", "a"):
            document.members([first, second, "a"])
    return document


@given(PAYLOADS)
def test_what_is_not_changed_stays_byte_for_byte(payload: bytes) -> None:
    """Receivers check digests, and people compare."""
    assert taken_apart(payload).payload() == payload


def test_the_ugliest_stays_too() -> None:
    assert taken_apart(UGLY).payload() == UGLY


def without(value: Any, key: str) -> Any:
    """Answer what a reader of JSON has, without one field of the objects at the top."""
    if isinstance(value, list):
        return [without(each, key) for each in value]
    if isinstance(value, dict):
        return {name: each for name, each in value.items() if name != key}
    return value


@given(PAYLOADS, st.sampled_from(["remove", "set"]))
def test_every_other_field_stays_as_it_was(payload: bytes, how: str) -> None:
    """Whatever stands around it: the same text of each number, the same order."""
    document = Document(payload)
    if how == "remove":
        document.remove(["secret"])
    else:
        document.set(["secret"], b'"x"')

    def read(text: bytes) -> Any:
        return json.loads(text, parse_float=str, parse_int=str)

    made = read(document.payload())
    assert without(made, "secret") == without(read(payload), "secret")
    assert list(without(made, "secret")) == list(without(read(payload), "secret"))
    assert made.get("secret") == (None if how == "remove" else "x")


@pytest.mark.parametrize(
    ("before", "keys", "after"),
    [
        (b'{"a":1,"b":2}', ["a"], b'{"b":2}'),
        (b'{"a":1}', ["a"], b"{}"),
        (b'{"a":1,"a":2, "b":0}', ["a"], b'{ "b":0}'),
        (b'{"a":[{"b":1,"c":2},3,[{"b":4}]]}', ["a", "b"], b'{"a":[{"c":2},3,[{}]]}'),
        (b'[{"a":1},{"b":2}]', ["a"], b'[{},{"b":2}]'),
        (b'{"a":{"a":1}}', ["a", "a"], b'{"a":{}}'),
        (b'"a"', ["a"], b'"a"'),
        (b'{"b":1}', ["a"], b'{"b":1}'),
        (b'{"\\u0061":1}', ["a"], b"{}"),
    ],
)
def test_removing(before: bytes, keys: list[str], after: bytes) -> None:
    document = Document(before)
    document.remove(keys)

    assert document.payload() == after


@pytest.mark.parametrize(
    ("before", "keys", "after"),
    [
        (b'{"a":1,"b":2}', ["a"], b'{"a":0,"b":2}'),
        (b'{ "a" : 1 }', ["a"], b'{ "a" : 0 }'),
        (b"{}", ["a"], b'{"a":0}'),
        (b'{"b":1}', ["a", "c"], b'{"b":1,"a":{"c":0}}'),
        (b'{\n  "b": 1\n}', ["a"], b'{\n  "b": 1,\n  "a":0\n}'),
        (b'{"a":[{"b":1},{}]}', ["a", "b"], b'{"a":[{"b":0},{"b":0}]}'),
        (b'{"a":[]}', ["a", "b"], b'{"a":[]}'),
        (b'{"a":1,"a":2}', ["a"], b'{"a":0,"a":0}'),
    ],
)
def test_setting(before: bytes, keys: list[str], after: bytes) -> None:
    document = Document(before)
    document.set(keys, b"0")

    assert document.payload() == after


@pytest.mark.parametrize("payload", [b'{"a":1}', b'{"a":null}', b'{"a":[{},2]}', b"7"])
def test_a_field_is_set_in_objects_only(payload: bytes) -> None:
    """Putting an object in the place of what is there would lose it."""
    with pytest.raises(Unchangeable, match="no object"):
        Document(payload).set(["a", "b"], b"0")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"a" : 1.0}', b'{"z" : 1.0}'),
        (b'{"z":1,"a":2}', b'{"z":2}'),
        (b'{"z":1}', b'{"z":1}'),
        (b'{"\\u0061":1}', b'{"z":1}'),
    ],
)
def test_renaming(before: bytes, after: bytes) -> None:
    document = Document(before)
    document.rename(["a"], "z")

    assert document.payload() == after


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b'{"a":1}{}', b"\xff", b'{"a":NaN}', b"\xef\xbb\xbf{}", b"plain", b"[" * 200],
)
def test_what_is_no_json_is_not_guessed_at(payload: bytes) -> None:
    """A reader that is more lenient than this would find what was not masked."""
    with pytest.raises(Unchangeable):
        Document(payload)


def test_an_event_grows_to_a_bound() -> None:
    """A value set in each of very many objects."""
    document = Document(b'{"a":[' + b",".join([b"{}"] * 1_000) + b"]}")

    with pytest.raises(Unchangeable, match="too large"):
        document.set(["a", "b"], b'"' + b"x" * (MOST_GROWTH // 999) + b'"')

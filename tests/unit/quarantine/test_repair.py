"""Repairs: pure, bounded, and leaving alone what is not broken."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import BadRequest
from penstock.quarantine.repair import (
    TRANSFORMS,
    Put,
    Repair,
    decode_latin1,
    drop_bom,
    null_nan,
    read_bytes,
    replace,
    replace_pattern,
    transform,
    wrap_ndjson,
)
from penstock.schema.gate import read

JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def is_json(payload: bytes) -> bool:
    """Say whether landing would read it."""
    return bool(read(payload, max_depth=128, max_keys=10_000))


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("bom", b"\xef\xbb\xbf{}", b"{}"),
        ("latin1", b'{"a": "caf\xe9"}', '{"a": "café"}'.encode()),
        ("ndjson", b'{"a": 1}\r\n\n {"a": 2}\n', b'[{"a": 1},{"a": 2}]'),
        (
            "nan",
            b'{"a": NaN, "b": [-Infinity, Infinity], "c": "NaN \\" NaN"}',
            b'{"a": null, "b": [null, null], "c": "NaN \\" NaN"}',
        ),
    ],
)
def test_a_transform_makes_json_of_what_was_none(name: str, before: bytes, after: bytes) -> None:
    assert transform(name)(before) == after
    assert is_json(after)


@given(JSON)
@settings(max_examples=60, deadline=None)
def test_no_transform_touches_a_document_that_is_right(value: object) -> None:
    """A repair is put over thousands of events of which some may be broken otherwise."""
    payload = json.dumps(value, ensure_ascii=False).encode()

    assert [name for name, step in TRANSFORMS.items() if step(payload) != payload] == []


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_every_transform_takes_any_bytes_and_is_done_the_first_time(payload: bytes) -> None:
    for step in (decode_latin1, null_nan):
        assert step(step(payload)) == step(payload)
    assert drop_bom(payload) in payload
    assert len(wrap_ndjson(payload)) <= 2 * len(payload) + 2


def test_bytes_are_written_as_text_with_escapes() -> None:
    assert read_bytes(r"é\x00\n\\n") == b"\xc3\xa9\x00\n\\n"
    with pytest.raises(BadRequest):
        read_bytes(r"\d")


def test_bytes_are_replaced_literally_and_by_pattern() -> None:
    assert replace(r"\x00", "")(b"a\x00b\x00") == b"ab"
    assert replace_pattern(r"(\d+),(\d+)", r"\1.\2")(b"1,5 2,25 \xff") == b"1.5 2.25 \xff"


@pytest.mark.parametrize("pattern", ["(?=a)", "(", r"(a)\1", "x" * 2_000])
def test_a_pattern_that_re2_does_not_read_is_refused(pattern: str) -> None:
    with pytest.raises(BadRequest):
        replace_pattern(pattern, "")


def test_a_pattern_that_would_take_others_for_ever_takes_its_time_in_proportion() -> None:
    """Backtracking doubles it with every byte: thirty take minutes."""
    began = time.process_time()

    assert replace_pattern("(a+)+$", "b")(b"a" * 20_000 + b"!") == b"a" * 20_000 + b"!"

    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "step",
    [replace("a", "b" * 1_000), replace_pattern("a", "b" * 1_000), replace_pattern("", "b" * 99)],
)
def test_a_payload_does_not_grow_without_bound(step: Any) -> None:
    with pytest.raises(BadRequest):
        step(b"a" * 10_000)


def test_a_repair_goes_step_by_step_and_says_if_it_is_for_one_event() -> None:
    repair = Repair(steps=(transform("bom"), replace("'", '"')))

    assert repair.payload(b"\xef\xbb\xbf{'a': 1}") == b'{"a": 1}'
    assert not repair.single
    assert Repair(steps=(Put(b"{}"),)).single
    with pytest.raises(BadRequest):
        replace("", "x")
    with pytest.raises(BadRequest):
        transform("rot13")

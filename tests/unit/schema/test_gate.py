"""What counts as JSON."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Raw

from penstock.schema.gate import Refused, declares_json, read, value_of


def refusal(payload: bytes, *, max_depth: int = 128, max_keys: int = 10_000) -> tuple[str, str]:
    with pytest.raises(Refused) as caught:
        read(payload, max_depth=max_depth, max_keys=max_keys)
    return caught.value.reason, caught.value.detail


def accepted(payload: bytes, *, max_depth: int = 128, max_keys: int = 10_000) -> object:
    return value_of(read(payload, max_depth=max_depth, max_keys=max_keys))


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON; charset=utf-8",
        "text/json",
        "application/cloudevents+json",
        "application/vnd.github.v3+json ;v=1",
    ],
)
def test_json_is_declared_by_the_subtype(content_type: str) -> None:
    """Taken for opaque, broken JSON would become a row that nobody can search."""
    assert declares_json(content_type)


@pytest.mark.parametrize(
    "content_type",
    [None, "", "json", "text/plain", "application/jsonl", "application/json-seq", "a/b; x=/json"],
)
def test_nothing_else_declares_json(content_type: str | None) -> None:
    """Taken for JSON, opaque bytes would go to quarantine."""
    assert not declares_json(content_type)


@pytest.mark.parametrize(
    ("payload", "detail"),
    [
        (b"", "Input data was truncated (byte 0)"),
        (b'{"secret": 1', "Input data was truncated (byte 12)"),
        (b'{"secret": 1}x', "JSON is malformed: trailing characters (byte 14)"),
        (b'{"secret": NaN}', "JSON is malformed: invalid character (byte 11)"),
        (b"{'secret': 1}", "JSON is malformed: expected '\"' (byte 1)"),
        (b'{"secret": 01}', "JSON is malformed: invalid number (byte 12)"),
        (b'["secret",]', "JSON is malformed: trailing comma in array (byte 10)"),
        (b'"secret\n"', "JSON is malformed: invalid character (byte 7)"),
        (b'"secret\x00"', "JSON is malformed: invalid character (byte 7)"),
        (b'"secret\xff"', "JSON is malformed: invalid UTF-8 (byte 7)"),
        (b'{"secret\xc3": 1}', "JSON is malformed: invalid UTF-8 (byte 8)"),
        (b'"secret\xed\xa0\x80"', "JSON is malformed: invalid UTF-8 (byte 7)"),
        (b"\xef\xbb\xbf{}", "JSON is malformed: invalid character (byte 0)"),
        (b'"secret \\udc00"', "JSON is malformed: invalid utf-16 surrogate pair (byte 14)"),
        (b'"secret \\ud800"', "Input data was truncated (byte 15)"),
        ("{}".encode("utf-16"), "JSON is malformed: invalid UTF-8 (byte 0)"),
        (b'{"a": 1}{"b": 2}', "JSON is malformed: trailing characters (byte 9)"),
        (b'{"a": ' + b"1" * 5_000 + b', "b": tru}', "JSON is malformed: invalid character"),
    ],
)
def test_what_is_not_json_is_refused_with_the_place_and_nothing_of_the_payload(
    payload: bytes, detail: str
) -> None:
    """The detail is shown in quarantine and logs, where payloads must not be."""
    reason, sentence = refusal(payload)

    assert reason == "invalid_json"
    assert sentence.startswith(detail)
    assert "secret" not in sentence


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
@pytest.mark.parametrize("closed", [True, False])
def test_a_hundred_thousand_levels_are_too_deep_and_end_nothing(
    opening: bytes, closed: bool
) -> None:
    """One event must not take the process with it."""
    closing = opening.replace(b'"a":', b"").translate(bytes.maketrans(b"[{", b"]}"))[::-1]
    payload = opening * 100_000 + b"1" + (closing * 100_000 if closed else b"")

    assert refusal(payload) == ("too_deep", "nested deeper than 128 levels")


def test_depth_counts_objects_and_lists() -> None:
    """The bound is a promise to senders: the last level that is taken is tested."""
    assert accepted(b'{"a": [{}]}', max_depth=3) == {"a": [{}]}
    assert refusal(b'{"a": [{}]}', max_depth=2) == ("too_deep", "nested deeper than 2 levels")
    assert accepted(b"[[], [], [], []]", max_depth=2) == [[], [], [], []]
    assert accepted(b'"[[[[[["', max_depth=2) == "[[[[[["


def test_keys_are_counted_in_each_object() -> None:
    """A list of many small objects is an ordinary event; an object of many keys is not."""
    assert accepted(b'[{"a": 1, "b": 2}, {"a": 1, "b": 2}]', max_keys=2)
    assert accepted(b'{"a": 1, "a": 1, "b": ":::"}', max_keys=2)
    assert refusal(b'[{"a": 1, "b": 2, "c": 3}]', max_keys=2) == (
        "too_many_keys",
        "an object has more than 2 keys",
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b" \r\n\t7 ", 7),
        (b"-0", 0),
        (b"18446744073709551616", 2**64),
        (b"1.50", Raw("1.50")),
        (b"1e400", Raw("1e400")),
        (b"-0.0", Raw("-0.0")),
        (b'"\\u0000\\ud83d\\ude00"', "\x00😀"),
        (b'{"a": 1, "b": 2, "a": 3}', {"a": 3, "b": 2}),
    ],
)
def test_values_keep_every_digit(text: bytes, value: object) -> None:
    """A misfit is kept as it was sent; a float would have lost it here already."""
    assert accepted(text) == value


def test_an_integer_of_five_thousand_digits_is_json() -> None:
    """Python refuses to read such integers, JSON does not."""
    digits = b"-" + b"7" * 5_000

    value = accepted(b' {"a": [1.0, ' + digits + b', "x", null, true, {}], "b": 2 }')

    assert value == {"a": [Raw("1.0"), Raw(digits), "x", None, True, {}], "b": 2}


@given(
    st.binary(max_size=12) | st.text('{}[]":,\\u0dc8e-.1truefalsn ', max_size=12).map(str.encode)
)
@example(b'"\\ud8000"')
@example(b'"\\ud83d\\ude0"')
def test_what_is_read_can_be_decoded(payload: bytes) -> None:
    """Reading over a string and decoding it must agree on it, or one event stops a batch."""
    try:
        text = read(payload, max_depth=128, max_keys=10_000)
    except Refused:
        return
    value_of(text)

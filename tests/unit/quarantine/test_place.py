"""The place where a payload is wrong, for people who look at it."""

from __future__ import annotations

import pytest

from penstock.quarantine.place import escaped, place_of
from penstock.schema.gate import Refused, read

BOUNDS = {"max_depth": 3, "max_keys": 2}


def refused(payload: bytes) -> tuple[str, str]:
    """Answer why landing refuses it."""
    with pytest.raises(Refused) as why:
        read(payload, max_depth=3, max_keys=2)
    return why.value.reason, why.value.detail


@pytest.mark.parametrize(
    ("payload", "byte", "after"),
    [
        (b'{"n": NaN}', 6, "NaN}"),
        (b"\xef\xbb\xbf{}", 0, r"\xef\xbb\xbf{}"),
        (b'{"a": "caf\xe9"}', 10, r"\xe9\"}".replace('\\"', '"')),
        (b'{"a"', 4, ""),
        (b"", 0, ""),
        (b'{"s": "[[[[", "a": [[[1]]]}', 21, "[1]]]}"),
    ],
)
def test_the_byte_is_the_one_that_landing_stopped_at(payload: bytes, byte: int, after: str) -> None:
    reason, detail = refused(payload)

    place = place_of(payload, reason, detail, **BOUNDS)

    assert (place.byte, place.after) == (byte, after)
    assert escaped(payload) == place.before + place.after


def test_the_path_is_that_of_the_object_with_too_many_keys() -> None:
    payload = b'{"b.c": [{"d": 1, "e": 2, "f": 3}]}'
    reason, detail = refused(payload)

    assert place_of(payload, reason, detail, **BOUNDS).path == r"b\.c"


def test_of_a_long_payload_only_what_is_around_is_shown() -> None:
    payload = b'{"a": "' + b"x" * 1_000 + b"\n" + b"y" * 1_000 + b'"}'
    reason, detail = refused(payload)

    place = place_of(payload, reason, detail, **BOUNDS)

    assert place.byte == 1_007
    assert (len(place.before), place.before_cut, place.after_cut) == (40, 967, 963)
    assert place.after.startswith(r"\nyyy")


def test_an_event_that_was_wished_aside_has_no_place() -> None:
    place = place_of(b'{"a": 1}', "sender", None, **BOUNDS)

    assert (place.byte, place.path, place.after) == (None, None, '{"a": 1}')

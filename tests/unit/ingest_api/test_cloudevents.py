from __future__ import annotations

import json

import pytest
from builders import NOON
from hypothesis import given
from hypothesis import strategies as st

from ingest_api.cloudevents import described, described_by_headers, elements
from penstock.errors import BadRequest, Malformed, TooMany

LEAST = {"specversion": "1.0", "id": "a-1", "source": "/ships", "type": "sailed"}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_attributes_become_metadata_and_data_does_not() -> None:
    document = {
        **LEAST,
        "time": "2025-11-24T16:00:00Z",
        "subject": "ä\u0000",
        "datacontenttype": "application/json",
        "count": 10**20,
        "fresh": True,
        "gone": None,
        "odd": {"a": 1},
        "list": [1],
        "data": {"id": "not this one"},
    }

    event = described(json.dumps(document).encode())

    assert (event.id, event.event_time) == ("a-1", NOON)
    assert event.metadata == {
        "ce_specversion": "1.0",
        "ce_id": "a-1",
        "ce_source": "/ships",
        "ce_type": "sailed",
        "ce_time": "2025-11-24T16:00:00Z",
        "ce_subject": "ä\u0000",
        "ce_datacontenttype": "application/json",
        "ce_count": "100000000000000000000",
        "ce_fresh": "true",
    }


def test_a_time_that_cannot_be_read_is_kept_as_text_only() -> None:
    """A wrong clock is no reason to lose an event."""
    event = described(json.dumps({**LEAST, "time": "yesterday"}).encode())

    assert event.event_time is None
    assert event.metadata["ce_time"] == "yesterday"


@pytest.mark.parametrize("missing", sorted(LEAST))
def test_an_event_without_a_needed_attribute_is_refused_by_its_name(missing: str) -> None:
    document = {name: value for name, value in LEAST.items() if name != missing}

    with pytest.raises(Malformed, match=f"has no {missing}"):
        described(json.dumps(document).encode())
    with pytest.raises(Malformed, match=f"has no {missing}"):
        described_by_headers([(b"ce-" + n.encode(), v.encode()) for n, v in document.items()])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'"text"',
        b"{",
        b'{"specversion":"1.0","id":"a","source":"b","type":"c"}x',
        b'{"specversion":"1.0","id":"\xff","source":"b","type":"c"}',
        b'{"\xff":1}',
        b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"id":"\\ud800"}',
        b'{"id":1e999}',
        json.dumps({**LEAST, "specversion": "0.3"}).encode(),
        json.dumps({**LEAST, "id": ""}).encode(),
    ],
)
def test_what_cannot_be_taken_apart_is_refused(body: bytes) -> None:
    """An error of the parser's own would become a 500."""
    with pytest.raises(Malformed):
        described(body)


def test_an_id_may_not_be_a_payload_of_its_own() -> None:
    with pytest.raises(BadRequest, match="1,024"):
        described(json.dumps({**LEAST, "id": "x" * 2_000}).encode())


def test_headers_are_percent_decoded() -> None:
    headers = [(b"ce-" + n.encode(), v.encode()) for n, v in LEAST.items()]

    event = described_by_headers([*headers, (b"ce-subject", b"caf%C3%A9 %22x%22"), (b"x-a", b"1")])

    assert event.metadata == {**{f"ce_{n}": v for n, v in LEAST.items()}, "ce_subject": 'café "x"'}


@given(
    st.lists(
        st.tuples(st.dictionaries(st.text(max_size=5), json_values, max_size=3), st.integers(0, 3)),
        max_size=5,
    ),
    st.sampled_from(["", " ", "\n\t "]),
)
def test_the_elements_of_a_batch_are_the_bytes_that_came(
    given_parts: list[tuple[dict[str, object], int]], space: str
) -> None:
    """Writing them anew would change spaces, numbers and the order of keys: another payload."""
    documents = [
        json.dumps({**extra, **LEAST}, indent=indent or None).encode()
        for extra, indent in given_parts
    ]
    pad = space.encode()
    body = pad + b"[" + (pad + b"," + pad).join(documents) + pad + b"]" + pad

    assert elements(body, most=5) == documents


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[1]", b"[{}]", b'[{"specversion":1}]', b"[[]", b"[" * 99_999]
)
def test_a_batch_that_is_no_array_of_events_is_refused_whole(body: bytes) -> None:
    with pytest.raises(Malformed):
        elements(body, most=5)


def test_a_batch_has_a_largest_count() -> None:
    """Small elements would become a hundred times their size in memory."""
    with pytest.raises(TooMany, match="6 events"):
        elements(b"[" + b",".join([json.dumps(LEAST).encode()] * 6) + b"]", most=5)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_refusal(body: bytes) -> None:
    for read in (described, lambda data: elements(data, most=5)):
        try:
            read(body)
        except (Malformed, BadRequest):
            continue

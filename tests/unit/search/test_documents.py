"""What an index is given of a row."""

from __future__ import annotations

import json
import random
from typing import Any

import pyarrow as pa
import pytest
from builders import NOON, event
from log_batches import log_batch
from query_reference import Read
from ugly import FIXED
from ugly_events import UglyEvents

from penstock.envelope import Event
from penstock.query.text import lower
from penstock.query.tokens import LONGEST_TEXT, sortable, text_term
from penstock.schema.gate import Refused, read
from penstock.schema.shape import EMPTY
from penstock.search.documents import Documents, told


def batch_of(*events: Event) -> pa.RecordBatch:
    """Answer rows as they are selected for an index."""
    batch = log_batch(*events)
    for name, source in (("at", "received_at"), ("time", "event_time")):
        batch = batch.append_column(name, batch.column(source).cast(pa.int64()))
    return batch.append_column("duplicate_of", pa.nulls(batch.num_rows, pa.string()))


def made(*events: Event) -> list[dict[str, Any]]:
    return [json.loads(document.body) for document in Documents().of(batch_of(*events))]


def test_every_leaf_has_its_terms() -> None:
    """A term that is missing is an event that nobody finds."""
    (body,) = made(
        event(
            '{"a": {"B c": ["X-1 y", true, 2.5, null, {}]}, "n": -0.0}',
            id="E1",
            key=b"\xff",
            headers=(("Tenant", b"Up"), ("tenant", b"\xff")),
            metadata={"topic": "T 1"},
            event_time=5,
        )
    )

    assert (body["at"], body["partition"], body["offset"], body["time"]) == (NOON, 0, 0, 5)
    assert set(body["kv"]) == {
        "a.B\\20;c=x-1 y",
        "a.B\\20;c!true",
        "@column.event_id=e1",
        "@column.source=http",
        "@column.content_type=application/json",
        "@headers.tenant=up",
        "@metadata.topic=t 1",
    }
    assert set(body["num"]) == {
        f"a.B\\20;c={sortable(2.5)}",
        f"*={sortable(2.5)}",
        f"n={sortable(0)}",
        f"*={sortable(0)}",
    }
    assert {"a", "a.B\\20;c", "n", "*", "@headers", "@headers.tenant", "@column.key"} <= set(
        body["path"]
    )
    assert body["words"] == ["x 1 y"]
    assert body["pwords"] == ["a.B\\20;c=x a.B\\20;c=1 a.B\\20;c=y"]


@pytest.mark.parametrize("seed", range(3))
def test_texts_and_numbers_of_random_events_are_all_there(seed: int) -> None:
    """Whatever comes twice, is nested, escaped or no JSON at all."""
    events = UglyEvents(seed).events(150)

    for body, one in zip(made(*events), events, strict=True):
        leaves = Read(one, partition=0, offset=0).leaves
        texts = [value for _, value in leaves if isinstance(value, str)]
        numbers = [v for _, v in leaves if isinstance(v, float) and not isinstance(v, bool)]
        terms = [t.partition("=")[2] for t in body.get("kv", []) if not t.startswith("@")]
        flags = sum("!" in t.partition("=")[0] and not t.startswith("@") for t in body["kv"])
        assert sorted(terms, key=str) == sorted(
            [lower(text) for text in texts] + [""] * flags, key=str
        )
        assert sorted(n for n in body.get("num", []) if n.startswith("*=")) == sorted(
            f"*={sortable(number)}" for number in numbers
        )
        assert ("*" in body["path"]) == bool(leaves)


def test_the_documents_of_one_maker_do_not_depend_on_each_other() -> None:
    """What it remembers of paths and values must not leak from row to row."""
    events = [event(payload, id="e") for payload in ('{"a": 1}', '{"a": "1"}', "[]", '{"a": true}')]
    together = made(*events, *events)

    assert [{**body, "offset": 0} for body in together[:4]] == [made(one)[0] for one in events]
    assert [{**body, "offset": 0} for body in together[4:]] == [made(one)[0] for one in events]


def test_long_texts_are_digests_and_say_so() -> None:
    """The engine refuses a term of more than 32,766 bytes, and with it the document."""
    (body,) = made(event(json.dumps({"a": "x" * (LONGEST_TEXT + 1), "b": "y" * LONGEST_TEXT})))

    assert body["long"] == ["a"]
    assert max(len(term.encode()) for term in body["kv"]) < 8_000
    assert any(term.startswith("a#") for term in body["kv"])
    assert all(len(word.encode("utf-16-le")) < 2 * 255 for word in body["pwords"][0].split(" "))


def test_a_row_that_no_landing_makes_is_left_to_the_reader() -> None:
    """Too deep for landing, and a row all the same: its leaves are not known for certain."""
    (body,) = made(event("[" * 200 + "1" + "]" * 200))

    assert body == {"at": NOON, "partition": 0, "offset": 0, "unread": True}


def test_json_is_what_the_gate_says() -> None:
    """Landing and index must not differ about which payloads have leaves."""
    chance = random.Random(7)
    payloads = list(FIXED)
    for one in UglyEvents(3).events(300):
        payload = bytearray(one.payload or b"{}")
        for _ in range(chance.randint(0, 2)):
            payload[chance.randrange(len(payload))] = chance.choice(SPOILING)
        payloads.append(bytes(payload))
    bodies = made(*(event(payload, id="e", content_type=None) for payload in payloads))

    for payload, body in zip(payloads, bodies, strict=True):
        refused = refusal(payload)
        assert body.get("unread", False) == (refused not in (None, "invalid_json"))
        if refused == "invalid_json":
            text = as_text(payload)
            assert "num" not in body
            assert "words" not in body if text is None else text_term("", lower(text)) in body["kv"]


SPOILING = b'\x00"\\{}[],:0-eu\xc3\xff\xed'


def refusal(payload: bytes) -> str | None:
    """Answer why landing does not take this for JSON."""
    try:
        read(payload, max_depth=128, max_keys=10_000)
    except Refused as refused:
        return refused.reason
    return None


def as_text(payload: bytes) -> str | None:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return None


def test_an_event_that_repeats_another_has_a_term_by_which_it_is_left_out() -> None:
    """Also one whose leaves are not known: it is folded before anybody looks at it."""
    batch = batch_of(event("{}", id="a"), event("[" * 200 + "]" * 200, id="a"))
    batch = batch.set_column(
        batch.schema.get_field_index("duplicate_of"), "duplicate_of", pa.array(["a", "a"])
    )

    bodies = [json.loads(document.body) for document in Documents().of(batch)]

    assert all("@column.duplicate_of" in body["path"] for body in bodies)
    assert all("@column.duplicate_of" not in body["path"] for body in made(event("{}")))


def test_pairs_of_sliced_rows_are_their_own() -> None:
    """Arrow keeps the values of the rows before a slice."""
    batch = batch_of(
        event("{}", id="a", headers=(("h", b"1"),), metadata={"m": "1"}),
        event("{}", id="b", headers=(("h", b"2"),), metadata={"m": "2"}),
    )

    (document,) = Documents().of(batch.slice(1))

    assert {"@headers.h=2", "@metadata.m=2"} <= set(json.loads(document.body)["kv"])


def test_what_landed_otherwise_than_as_json_is_left_to_the_lake() -> None:
    """The index knows payloads as JSON; a row of another format has other leaves, or none."""
    payloads = ['{"a": 1}', '{"a": 1}', b"\xff", b"\xff", '{"a": null}', "text"]
    has_leaves = [True, False, True, False, False, False]
    batch = batch_of(*(event(payload) for payload in payloads))
    batch = batch.append_column("told", pa.array(has_leaves))

    bodies = [json.loads(document.body) for document in Documents().of(batch)]

    assert [body.get("unread", False) for body in bodies] == [
        False, True, True, False, False, False,
    ]  # fmt: skip
    assert bodies[1] == {"at": NOON, "partition": 0, "offset": 1, "unread": True}
    assert told(EMPTY) == "(misfits IS NOT NULL) AS told"

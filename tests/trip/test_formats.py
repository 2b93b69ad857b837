"""Payloads that are no JSON: typed columns, found by their fields, and replayed as they came."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from avros import FIRST, ORDER, THIRD, datum, registry, single, text, wire
from descriptors import SHOP, Item, Order
from ports import free_ports

from penstock.cli.receiver import digest

pytestmark = [pytest.mark.trip, pytest.mark.timeout(600), pytest.mark.xdist_group("formats")]

OPAQUE = "application/octet-stream"
REACHABLE = range(8_100, 9_900)
"""Ports that an installation may reach without being told."""


@pytest.fixture(scope="module")
def destination(here):
    here.cli("destination", "create", "here", f"http://127.0.0.1:{here.receiver.port}/")
    return "here"


def send(here, collection: str, *payloads: bytes) -> None:
    for payload in payloads:
        assert here.post(collection, payload, OPAQUE).status_code == 202


def rows(here, statement: str) -> list[list[object]]:
    return here.json("sql", statement)["rows"]


def rebuild(here, collection: str) -> None:
    here.cli("collection", "rebuild", collection)


def replayed(here, collection: str, destination: str) -> Counter[bytes]:
    replay = here.json("replay", "start", collection, "--to", destination, "--wait")
    assert replay["state"] == "finished", replay
    return here.receiver.payloads[replay["id"]]


def test_messages_of_a_descriptor_set_have_typed_columns(here, destination, tmp_path) -> None:
    """Nested, repeated, map, oneof and enum, from protoc's file to SQL and back."""
    file = tmp_path / "shop.fds"
    file.write_bytes(SHOP)
    here.cli("collection", "create", "messages")
    options = ("--descriptor", str(file), "--message", "shop.Order")
    here.cli("collection", "format", "messages", "protobuf", *options)
    sent = [
        Order(
            id=1,
            total=5.0,
            state=1,
            items=[Item(sku="red shoe", price=2.5), Item(sku="sock")],
            labels={"x": 2.0},
            card="visa",
            tags=["a", "b"],
        ).SerializeToString(),
        Order(id=2**60, total=0.25, invoice=7, first=Item(sku="hat")).SerializeToString(),
    ]

    send(here, "messages", *sent)
    assert here.json("search", "messages", "shoe", "--count")["count"] == 1
    assert here.landed("messages").rows == 2

    assert rows(
        here,
        """
        select data.id, data.total, data.state, data.items[1].price, data.items[2].sku,
            data.labels.x, data.card, data.invoice, data.first.sku, data.tags[2]
        from messages order by data.id
        """,
    ) == [
        [1, 5.0, "PAID", 2.5, "sock", 2.0, "visa", None, None, "b"],
        [2**60, 0.25, "STATE_UNSPECIFIED", None, None, None, None, 7, "hat", None],
    ]
    (types,) = rows(
        here,
        """
        select distinct typeof(data.id), typeof(data.total), typeof(data.state),
            typeof(data.labels.x), typeof(data.invoice) from messages
        """,
    )
    assert [str(one).upper() for one in types] == [
        "BIGINT",
        "DOUBLE",
        "VARCHAR",
        "DOUBLE",
        "BIGINT",
    ]
    for query in ("shoe", "state:PAID AND card:visa", "labels.x:2"):
        assert here.json("search", "messages", query, "--count")["count"] == 1
    assert replayed(here, "messages", destination) == Counter(map(digest, sent))


def test_versions_of_a_schema_are_one_table(here, destination, tmp_path) -> None:
    """A field added, one renamed, one widened, while old senders go on."""
    file = tmp_path / "reading.avsc"
    file.write_text(text(FIRST))
    here.cli("collection", "create", "readings")
    words = ("collection", "format", "readings", "avro")
    here.cli(*words, "--schema", str(file), "--framing", "single-object")
    old = single(FIRST, {"value": 5, "place": "Jan Mayen"})
    send(here, "readings", old)
    assert here.landed("readings").rows == 1
    file.write_text(text(THIRD))
    here.cli(*words, "--schema", str(file))
    made = {"value": 5.5, "site": "Alert", "unit": "K", "by": {"name": "acme", "no": 1}}
    new = single(THIRD, made)

    send(here, "readings", new, old, new[:-1])
    status = here.landed("readings")
    assert (status.rows, status.quarantined) == (3, 1)
    asked = """select data.value, data.site, data.unit, data."by".no, misfits is null
        from readings"""
    ordered = f"{asked} order by log_offset"

    # The column of longs came with the first schema; a rebuild knows the last one.
    assert rows(here, ordered)[1:] == [
        [None, "Alert", "K", 1, False],
        [5, "Jan Mayen", "C", 7, True],
    ]
    rebuild(here, "readings")
    everywhere = [
        [5.0, "Jan Mayen", "C", 7, True],
        [5.5, "Alert", "K", 1, True],
        [5.0, "Jan Mayen", "C", 7, True],
    ]
    assert rows(here, ordered) == everywhere
    (types,) = rows(here, "select distinct upper(typeof(data.value)) from readings")
    assert types == ["DOUBLE"]
    assert here.json("search", "readings", 'site:"Jan Mayen" AND value:5', "--count")["count"] == 2
    causes = here.json(
        "search", "readings", "quarantine.reason:not_avro", "--quarantine", "--count"
    )
    assert causes["count"] == 1
    assert replayed(here, "readings", destination) == Counter(map(digest, (old, new, old)))


def test_a_registry_is_needed_until_its_schemas_are_known(here, destination, tmp_path) -> None:
    """Events wait for it, and a rebuild does not."""
    (port,) = free_ports(1, among=REACHABLE)
    secret = tmp_path / "secret"
    secret.write_text("me:hidden")
    here.cli("collection", "create", "wired")
    words = ("collection", "format", "wired", "avro", "--registry", f"http://127.0.0.1:{port}")
    here.cli(*words, "--secret-file", str(secret))
    value = {
        "id": 7,
        "total": 1.0,
        "weight": 0.1,
        "count": 1,
        "gift": True,
        "note": "for you",
        "blob": b"\x00",
        "hash": b"ab",
        "state": "SENT",
        "items": [],
        "labels": {},
        "nothing": None,
        "any": None,
        "day": 0,
        "clock": 0,
        "clock_us": 0,
        "at": 1_800_000_000_000,
        "at_us": 0,
        "local": 0,
        "ref": "00000000-0000-0000-0000-000000000005",
        "rate": b"\x00" * 6,
    }
    sent = b"\x00\x00\x00\x00\x03" + datum(_raw(ORDER), value)
    send(here, "wired", sent)
    time.sleep(4)
    with here.client() as client:
        assert client.collection_status("wired").waiting == 1

    with registry(port) as shelf:
        shelf.needs = "Basic bWU6aGlkZGVu"
        shelf.register(3, ORDER)
        status = here.landed("wired")
        assert (status.rows, status.quarantined) == (1, 0)
        assert set(shelf.asked()) == {"/schemas/ids/3"}

    rebuild(here, "wired")
    statement = (
        "select data.id, data.at, data.rate, data.note, upper(typeof(data.total)) from wired"
    )
    assert rows(here, statement) == [[7, "2027-01-15T08:00:00Z", 0.0, "for you", "DOUBLE"]]
    assert here.json("search", "wired", 'note:"for you"', "--count")["count"] == 1
    assert replayed(here, "wired", destination) == Counter([digest(sent)])
    assert wire(3, _raw(ORDER), value) == sent


def _raw(schema):
    """Answer the schema without what its numbers mean."""
    if isinstance(schema, dict):
        return {key: _raw(item) for key, item in schema.items() if key != "logicalType"}
    return [_raw(item) for item in schema] if isinstance(schema, list) else schema

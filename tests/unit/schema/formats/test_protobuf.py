"""Protobuf payloads: what becomes of which field, and of bytes that somebody made up."""

from __future__ import annotations

import json
import math
import struct
import time
from typing import Any

import pytest
from builders import event
from descriptors import SHOP, Envelope, Item, Order, Thing, descriptor_set, order
from google.protobuf import descriptor_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from log_batches import log_batch

from penstock.errors import BadRequest
from penstock.schema.convert import Converted, Rules, TooWide, convert
from penstock.schema.formats import Format, open_decoder
from penstock.schema.formats.protobuf import LONGEST_SET, Protobuf, without_comments
from penstock.schema.leaves import json_text, leaves
from penstock.schema.shape import EMPTY, columns

ORDERS = Rules(decoder=Protobuf(SHOP, message="shop.Order"))

# What an order has that nothing was said about.
NOTHING = {
    "id": 0,
    "total": 0.0,
    "weight": 0.0,
    "state": "STATE_UNSPECIFIED",
    "hash": 0,
    "blob": "",
    "gift": False,
}


def converted(*payloads: bytes, rules: Rules = ORDERS, shape: Any = EMPTY) -> Converted:
    batch = log_batch(*(event(p, id=f"e{n}", content_type=None) for n, p in enumerate(payloads)))
    return convert(batch, shape, rules)


def texts(*payloads: bytes, rules: Rules = ORDERS) -> list[Any]:
    """Answer the JSON that payloads are decoded to."""
    import pyarrow as pa

    assert rules.decoder is not None
    decoded = rules.decoder.decode(pa.array(payloads, pa.binary()))
    assert not decoded.refused
    return [json.loads(text) for text in decoded.texts.to_pylist()]


def data(found: Converted) -> list[Any]:
    return found.rows.column("data").to_pylist()


def misfits(found: Converted) -> list[Any]:
    lists = found.rows.column("misfits").to_pylist()
    return [[(m["path"], m["value"]) for m in row or ()] for row in lists]


def verdicts(found: Converted) -> list[tuple[object, ...]]:
    names = ("event_id", "stage", "reason", "detail")
    return [tuple(row[name] for name in names) for row in found.quarantined.to_pylist()]


def test_every_kind_of_field_has_its_json() -> None:
    """The whole mapping in one document."""
    whole = Order(
        id=-(2**63),
        total=5.0,
        weight=0.1,
        state=1,
        items=[Item(sku="a", price=1.5, parts=[Item(sku="b")])],
        first=Item(),
        tags=["x", ""],
        hash=2**63 - 1,
        blob=b"\x00\xff",
        gift=True,
        invoice=0,
        labels={"red": 1.0},
        flags={True: Item(sku="c")},
        note="",
        sizes=[1.0, 2.5],
        states=[1, 0],
    )
    whole.at.FromJsonString("2026-11-26T08:00:00.120Z")
    whole.took.FromJsonString("-1.5s")
    whole.extra.update({"a": 5, "b": [None, True, {"c": "d"}]})
    whole.limit.value = 0
    whole.any.Pack(Item(sku="in"))

    (text,) = texts(whole.SerializeToString())

    assert text == {
        **NOTHING,
        "id": -(2**63),
        "total": 5.0,
        "weight": 0.1,
        "state": "PAID",
        "items": [
            {"sku": "a", "price": 1.5, "parts": [{"sku": "b", "price": 0.0}]},
        ],
        "first": {"sku": "", "price": 0.0},
        "tags": ["x", ""],
        "hash": 2**63 - 1,
        "blob": "AP8=",
        "gift": True,
        "invoice": 0,
        "labels": {"red": 1.0},
        "flags": {"true": {"sku": "c", "price": 0.0}},
        "note": "",
        "at": "2026-11-26T08:00:00.120Z",
        "took": "-1.500s",
        "extra": {"a": 5.0, "b": [None, True, {"c": "d"}]},
        "limit": 0,
        "any": {"@type": "type.googleapis.com/shop.Item", "sku": "in", "price": 0.0},
        "sizes": [1.0, 2.5],
        "states": ["PAID", "STATE_UNSPECIFIED"],
    }


def test_columns_have_the_types_of_the_descriptor_from_the_first_row_on() -> None:
    """5.0 stays a double when 5 is all that ever came, and an int64 a long."""
    found = converted(order(id=5, total=5.0, weight=2.0, labels={"a": 1.0}))

    assert dict(columns(found.shape)) == {
        "id": "long",
        "total": "double",
        "weight": "double",
        "state": "string",
        "hash": "long",
        "blob": "string",
        "gift": "bool",
        "labels.a": "double",
    }
    assert misfits(found) == [[]]


def test_a_value_that_is_no_json_number_leaves_the_column_its_type() -> None:
    """A first NaN must not make a column of strings for good."""
    found = converted(
        order(
            total=math.nan,
            weight=-math.inf,
            state=9,
            sizes=[math.inf, 1.0],
            labels={"a": math.nan},
            states=[7, 1],
            items=[Item(price=math.nan)],
        )
    )

    types = dict(columns(found.shape))
    assert types["total"] == types["weight"] == types["sizes[]"] == types["labels.a"] == "double"
    assert types["state"] == types["states[]"] == "string"
    assert types["items[].price"] == "double"
    assert sorted(misfits(found)[0]) == [
        ("items.price", '"NaN"'),
        ("labels.a", '"NaN"'),
        ("sizes", '"Infinity"'),
        ("state", "9"),
        ("states", "7"),
        ("total", '"NaN"'),
        ("weight", '"-Infinity"'),
    ]
    (row,) = data(found)
    assert (row["sizes"], row["states"], row["total"]) == ([None, 1.0], [None, "PAID"], None)
    assert {change.path: change.event_id for change in found.changes}["total"] == "e0"


def test_a_frozen_collection_gets_no_column_from_its_descriptor() -> None:
    found = converted(order(total=math.nan), rules=Rules(contract="freeze", decoder=ORDERS.decoder))

    assert found.shape == EMPTY
    assert ("total", '"NaN"') in misfits(found)[0]


def test_an_unsigned_number_beyond_a_long_is_a_misfit() -> None:
    found = converted(order(hash=1), order(hash=2**64 - 1))

    assert [row["hash"] for row in data(found)] == [1, None]
    assert misfits(found)[1] == [("hash", str(2**64 - 1))]


def test_fields_that_the_descriptor_does_not_know_are_misfits_by_number() -> None:
    """A newer sender, or the wrong message: a row without columns would say nothing."""
    newer = (
        order(id=1)
        + bytes([0xC8, 0x01, 5])  # 25: a varint
        + bytes([0xD2, 0x01, 2])  # 26: bytes
        + b"\xffx"
        + bytes([0xDD, 0x01, 1, 0, 0, 0])  # 27: 32 bits
        + bytes([0xE3, 0x01, 0x08, 3, 0xE4, 0x01])  # 28: a group with a field 1
    )
    inside = b"\x32\x03\x98\x06\x07"  # `first`, with a field 99

    found = converted(newer, order() + inside)

    assert misfits(found) == [
        [("25", "5"), ("26", '"/3g="'), ("27", "1"), ("28.1", "3")],
        [("first.99", "7")],
    ]
    assert data(found)[0]["id"] == 1


def test_presence_decides_what_is_there() -> None:
    """Without presence a field has its zero; with it, only what was sent is there."""
    assert texts(b"") == [NOTHING]
    things = Rules(decoder=Protobuf(SHOP, message="old.Thing"))
    assert texts(b"", rules=things) == [{}]
    thing = Thing(count=7, box=Thing.Box(size=1))
    sent = thing.SerializePartialToString() + b"\xa2\x06\x03red"
    assert texts(sent, rules=things) == [{"count": 7, "box": {"size": 1}, "[old.colour]": "red"}]


def test_old_messages_may_hold_what_is_no_text_and_no_known_name() -> None:
    """Proto2 does not check either; nothing of it may be lost, or stop the others."""
    found = converted(
        b"\x0a\x01\xff\x18\x05",
        rules=Rules(decoder=Protobuf(SHOP, message="old.Thing")),
    )

    assert columns(found.shape) == [("name", "string")]
    assert sorted(misfits(found)[0]) == [("3", "5"), ("name.base64", '"/w=="')]


@pytest.mark.parametrize(
    ("seconds", "nanos", "text"),
    [
        (0, 0, "1970-01-01T00:00:00Z"),
        (-62135596800, 1, "0001-01-01T00:00:00.000000001Z"),
        (253402300799, 999_000_000, "9999-12-31T23:59:59.999Z"),
        (253402300800, 0, {"seconds": 253402300800, "nanos": 0}),
        (0, -1, {"seconds": 0, "nanos": -1}),
    ],
)
def test_a_time_is_text_where_it_is_one(seconds: int, nanos: int, text: object) -> None:
    message = Order()
    message.at.seconds, message.at.nanos = seconds, nanos

    assert texts(message.SerializeToString())[0]["at"] == text


def test_a_time_out_of_range_is_a_misfit_of_a_column_of_texts() -> None:
    message = Order()
    message.at.seconds = 2**62

    found = converted(message.SerializeToString())

    assert dict(columns(found.shape))["at"] == "string"
    assert sorted(misfits(found)[0]) == [("at.nanos", "0"), ("at.seconds", str(2**62))]


def test_an_any_of_a_stranger_keeps_its_bytes() -> None:
    message = Order()
    message.any.type_url, message.any.value = "x/no.Such", b"\xff"
    broken = Order()
    broken.any.type_url, broken.any.value = "x/shop.Item", b"\xff"

    found = texts(message.SerializeToString(), broken.SerializeToString())

    assert [one["any"] for one in found] == [
        {"@type": "x/no.Such", "value": "/w=="},
        {"@type": "x/shop.Item", "value": "/w=="},
    ]


def test_the_payload_of_a_shallow_envelope_is_read_in_its_place() -> None:
    rules = Rules(
        decoder=Protobuf(SHOP, message="bus.Envelope", payload_field=2, payload_message="shop.Item")
    )
    sent = Envelope(topic="t", body=Item(sku="a", price=2.0).SerializeToString())

    found = converted(
        sent.SerializeToString(), Envelope(topic="t", body=b"\xff").SerializeToString(), rules=rules
    )

    assert data(found) == [{"topic": "t", "body": {"sku": "a", "price": 2.0}}]
    assert verdicts(found) == [("e1", "gate", "not_protobuf", "the bytes are no shop.Item")]
    assert texts(b"", rules=rules) == [{"topic": "", "body": {"sku": "", "price": 0.0}}]


def test_what_is_no_message_is_in_quarantine_whatever_it_was_declared_as() -> None:
    """The detail is read by people who may not see payloads."""
    secret = b"\xffhunter2"
    found = converted(order(id=1), secret, b'{"id": 1}')

    assert verdicts(found)[0] == ("e1", "gate", "not_protobuf", "the bytes are no shop.Order")
    assert [row["payload"] for row in found.quarantined.to_pylist()] == [secret, b'{"id": 1}']
    assert found.rows.column("payload").to_pylist() == [order(id=1)]
    assert "hunter2" not in str(verdicts(found))


@settings(deadline=None)
@given(payloads=st.lists(st.binary(max_size=60), max_size=6))
def test_no_bytes_stop_a_batch(payloads: list[bytes]) -> None:
    """Whoever sends events also chooses their bytes."""
    for name in ("shop.Order", "old.Thing"):
        rules = Rules(decoder=Protobuf(SHOP, message=name))
        found = converted(*payloads, rules=rules)

        assert found.rows.num_rows + found.quarantined.num_rows == len(payloads)


numbers = st.integers(-(2**63), 2**63 - 1)
doubles = st.floats()
items = st.recursive(
    st.builds(lambda sku, price: Item(sku=sku, price=price), st.text(max_size=5), doubles),
    lambda inner: st.builds(lambda parts: Item(parts=parts), st.lists(inner, max_size=2)),
    max_leaves=4,
)
orders = st.builds(
    Order,
    id=numbers,
    total=doubles,
    weight=st.floats(width=32),
    state=st.integers(0, 4),
    items=st.lists(items, max_size=3),
    tags=st.lists(st.text(max_size=5), max_size=3),
    hash=st.integers(0, 2**64 - 1),
    blob=st.binary(max_size=5),
    labels=st.dictionaries(st.text(max_size=4), doubles, max_size=3),
    sizes=st.lists(doubles, max_size=3),
)


@settings(deadline=None)
@given(sent=st.lists(orders, min_size=1, max_size=4))
def test_every_leaf_of_a_decoded_message_is_in_a_column_or_a_misfit(sent: list[Any]) -> None:
    """And what is in the columns is what was sent."""
    payloads = [message.SerializeToString() for message in sent]
    found = converted(*payloads)

    assert found.quarantined.num_rows == 0
    for text, row, beside in zip(texts(*payloads), data(found), misfits(found), strict=True):
        kept = [(path, json_text(leaf)) for path, leaf in leaves(_keyed(row))]
        meant = [(path, json_text(leaf)) for path, leaf in leaves(text)]
        assert sorted(kept + beside) == sorted(meant)
    for message, text in zip(sent, texts(*payloads), strict=True):
        assert text["id"] == message.id
        assert text["hash"] == message.hash
        assert text.get("tags", []) == list(message.tags)
        if math.isfinite(message.weight):
            (weight,) = struct.unpack("<f", struct.pack("<f", text["weight"]))
            assert weight == message.weight


def _keyed(value: Any) -> Any:
    """Answer a row's data with the keys of the document for the names of columns."""
    from penstock.schema.names import key_of

    if isinstance(value, dict):
        return {key_of(name): _keyed(item) for name, item in value.items()}
    return [_keyed(item) for item in value] if isinstance(value, list) else value


def test_a_million_empty_messages_take_neither_memory_nor_long() -> None:
    """Two bytes on the wire are a message of 300 fields: 1 MB would be 5 GB of objects."""
    rules = Rules(decoder=Protobuf(SHOP, message="wide.Table"))
    began = time.process_time()

    found = converted(b"\x0a\x00" * 500_000, b"\x0a\x00" * 4_000, b"\x0a\x00", rules=rules)

    assert [verdict[:3] for verdict in verdicts(found)] == [
        ("e0", "gate", "too_many_values"),
        ("e1", "gate", "too_many_values"),
    ]
    assert found.rows.num_rows == 1
    assert time.process_time() - began < 20


def test_messages_nested_without_end_are_in_quarantine() -> None:
    def nested(levels: int, inner: bytes = b"") -> bytes:
        for _ in range(levels):
            inner = Item(sku="x").SerializeToString() + b"\x1a" + _size(inner) + inner
        return inner

    def packed(levels: int) -> bytes:
        inner = b""
        for _ in range(levels):
            message = Order()
            message.any.type_url, message.any.value = "x/shop.Order", inner
            inner = message.SerializeToString()
        return inner

    items = Rules(decoder=Protobuf(SHOP, message="shop.Item"))
    found = converted(nested(2_000), nested(90), nested(20), rules=items)

    assert [verdict[:3] for verdict in verdicts(found)] == [
        ("e0", "gate", "not_protobuf"),
        ("e1", "gate", "too_deep"),
    ]
    assert [verdict[2] for verdict in verdicts(converted(packed(500)))] == ["too_deep"]


def _size(inner: bytes) -> bytes:
    size, out = len(inner), b""
    while size > 127:
        out, size = out + bytes([size & 127 | 128]), size >> 7
    return out + bytes([size])


def test_more_text_than_a_batch_may_have_makes_it_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.schema.convert.MOST_TEXT", 400)
    batch = log_batch(*(event(order(id=n), id=f"e{n}") for n in range(10)))

    with pytest.raises(TooWide) as wide:
        convert(batch, EMPTY, ORDERS, most_cells=1_000_000)

    assert 1 <= wide.value.rows < 10
    assert convert(batch.slice(0, wide.value.rows), EMPTY, ORDERS, most_cells=1_000_000)
    assert convert(batch, EMPTY, ORDERS).rows.num_rows == 10


# Descriptor sets


def refused(descriptors: bytes, **more: Any) -> str:
    with pytest.raises(BadRequest) as error:
        Protobuf(descriptors, **{"message": "shop.Order", **more})
    return str(error.value)


def test_well_known_files_need_not_be_in_the_set() -> None:
    """They come with every compiler; whoever forgets --include_imports lacks others first."""
    bare = descriptor_set(well_known=False).SerializeToString()

    rules = Rules(decoder=Protobuf(bare, message="shop.Order"))

    assert texts(order(id=1), rules=rules) == [{**NOTHING, "id": 1}]


def test_a_message_that_only_has_the_name_of_a_well_known_one_is_read_as_it_is() -> None:
    """Whoever makes a descriptor set chooses the names in it."""
    found = descriptor_set()
    for file in found.file:
        if file.name == "google/protobuf/timestamp.proto":
            file.message_type[0].field[0].name = "sec"
            file.message_type[0].field[0].ClearField("json_name")
    message = Order()
    message.at.seconds = 5

    rules = Rules(decoder=Protobuf(found.SerializeToString(), message="shop.Order"))

    (text,) = texts(message.SerializeToString(), rules=rules)
    assert text["at"] == {"sec": 5, "nanos": 0}


def test_what_a_set_lacks_is_named() -> None:
    """Somebody has to find out which file they forgot."""
    assert "no descriptor set" in refused(b"\xff\xff")
    assert "empty" in refused(b"")
    assert "'shop.Nothing'" in refused(SHOP, message="shop.Nothing")
    assert "shop.Item" in refused(SHOP, message="shop.Nothing")
    lacking = descriptor_set()
    lacking.file[0].dependency.append("far/away.proto")
    assert "'far/away.proto'" in refused(lacking.SerializeToString())
    ring = descriptor_set()
    ring.file[0].dependency.append("bus.proto")
    ring.file[2].dependency.append("shop.proto")
    assert "imports itself" in refused(ring.SerializeToString())
    untyped = descriptor_set()
    untyped.file[0].message_type[0].field[2].type_name = ".shop.Gone"
    assert ".shop.Gone" in refused(untyped.SerializeToString())
    shallow = {"message": "bus.Envelope", "payload_message": "shop.Item"}
    assert "no field 9" in refused(SHOP, payload_field=9, **shallow)
    assert "bytes" in refused(SHOP, payload_field=1, **shallow)


@settings(deadline=None)
@given(data=st.data())
def test_no_set_does_worse_than_being_refused(data: st.DataObject) -> None:
    """It is uploaded by somebody, and read by a process that others need."""
    broken = bytearray(SHOP)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoder = Protobuf(bytes(broken), message="shop.Order")
    except BadRequest:
        return
    found = converted(order(id=1, total=1.5), rules=Rules(decoder=decoder))
    assert found.rows.num_rows + found.quarantined.num_rows == 1


def test_comments_are_left_out_and_large_sets_refused() -> None:
    commented = descriptor_set()
    location = commented.file[0].source_code_info.location.add()
    location.leading_comments = "x" * LONGEST_SET

    bare = without_comments(commented.SerializeToString())

    assert descriptor_pb2.FileDescriptorSet.FromString(bare) == descriptor_set()
    large = descriptor_set()
    large.file[0].message_type.add(name="x" * LONGEST_SET)
    with pytest.raises(BadRequest, match="at most"):
        without_comments(large.SerializeToString())


def test_a_format_without_what_it_needs_is_refused() -> None:
    for format_, schema in (
        (Format(name="protobuf", message="shop.Order"), None),
        (Format(name="protobuf", schema="d"), SHOP),
        (Format(name="protobuf", schema="d", message="bus.Envelope", payload_field=2), SHOP),
    ):
        with pytest.raises(BadRequest):
            open_decoder(format_, schema)

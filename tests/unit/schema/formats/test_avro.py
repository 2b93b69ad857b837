"""Avro payloads: what becomes of which type, of schemas that evolve, and of made-up bytes."""

from __future__ import annotations

import json
import math
import re
import time
import tracemalloc
import uuid
from datetime import UTC, date, datetime
from datetime import time as clock_time
from decimal import Decimal
from typing import Any, ClassVar

import fastavro
import pyarrow as pa
import pytest
from avros import FIRST, ORDER, SECOND, THIRD, datum, fingerprint, single, text, wire
from builders import event
from hypothesis import given, settings
from hypothesis import strategies as st
from log_batches import log_batch

from penstock.errors import BadRequest, EngineUnavailable
from penstock.schema.convert import Converted, Rules, TooWide, convert
from penstock.schema.formats import TooMuchText
from penstock.schema.formats import avro_schema as schemas
from penstock.schema.formats.avro import (
    LONGEST_SCHEMAS,
    MOST_VERSIONS,
    Avro,
    RegisteredSchema,
    Schemas,
    with_version,
)
from penstock.schema.gate import Refused
from penstock.schema.shape import EMPTY, columns

WHOLE: dict[str, Any] = {
    "id": -(2**63),
    "total": 5.0,
    "weight": 0.1,
    "count": -(2**31),
    "gift": True,
    "note": None,
    "blob": b"\x00\xff",
    "hash": b"\xca\xfe",
    "state": "PAID",
    "items": [
        {
            "sku": "a",
            "price": Decimal("1.50"),
            "parts": [{"sku": "b", "price": Decimal(-7), "parts": []}],
        }
    ],
    "labels": {"red": 1.0},
    "nothing": None,
    "any": "five",
    "day": date(2026, 11, 26),
    "clock": clock_time(8, 0, 0, 120_000),
    "clock_us": clock_time(23, 59, 59, 1),
    "at": datetime(2026, 11, 26, 8, tzinfo=UTC),
    "at_us": datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    "local": datetime(2026, 11, 26, 8, 0, 0, 120_000),  # noqa: DTZ001 - it has no zone
    "ref": uuid.UUID(int=5),
    "rate": Decimal("-0.1250"),
}


def avro(*versions: Any, **more: Any) -> Avro:
    return Avro([text(version) for version in versions], **more)


def values(decoder: Avro, *payloads: bytes) -> list[Any]:
    """Answer the JSON that payloads are decoded to."""
    decoded = decoder.decode(pa.array(payloads, pa.binary()))
    assert not decoded.refused
    return [json.loads(made) for made in decoded.texts.to_pylist()]


def refused(decoder: Avro, payload: bytes) -> tuple[str, str]:
    decoded = decoder.decode(pa.array([payload], pa.binary()))
    (why,) = decoded.refused.values()
    return why.reason, why.detail


def converted(decoder: Avro, *payloads: bytes, shape: Any = EMPTY, **rules: Any) -> Converted:
    batch = log_batch(*(event(p, id=f"e{n}", content_type=None) for n, p in enumerate(payloads)))
    return convert(batch, shape, Rules(decoder=decoder, **rules))


def misfits(found: Converted) -> list[Any]:
    lists = found.rows.column("misfits").to_pylist()
    return [[(m["path"], m["value"]) for m in row or ()] for row in lists]


def test_every_type_has_its_json() -> None:
    """The whole mapping in one document; the bytes are another implementation's."""
    assert values(avro(ORDER), datum(ORDER, WHOLE)) == [
        {
            "id": -(2**63),
            "total": 5.0,
            "weight": 0.1,
            "count": -(2**31),
            "gift": True,
            "blob": "AP8=",
            "hash": "yv4=",
            "state": "PAID",
            "items": [
                {"sku": "a", "price": 1.5, "parts": [{"sku": "b", "price": -7.0, "parts": []}]}
            ],
            "labels": {"red": 1.0},
            "any": "five",
            "day": "2026-11-26",
            "clock": "08:00:00.120",
            "clock_us": "23:59:59.000001",
            "at": "2026-11-26T08:00:00Z",
            "at_us": "1969-12-31T23:59:59.999999Z",
            "local": "2026-11-26T08:00:00.120",
            "ref": "00000000-0000-0000-0000-000000000005",
            "rate": -0.125,
        }
    ]


def test_columns_have_the_types_of_the_schema_from_the_first_row_on() -> None:
    found = converted(avro(ORDER), datum(ORDER, WHOLE))

    types = dict(columns(found.shape))
    assert misfits(found) == [[]]
    assert types == {
        "id": "long",
        "count": "long",
        "gift": "bool",
        **dict.fromkeys(("total", "weight", "rate", "labels.red"), "double"),
        **dict.fromkeys(("blob", "hash", "state", "any", "ref"), "string"),
        **dict.fromkeys(("day", "clock", "clock_us", "at", "at_us", "local"), "string"),
        "items[].sku": "string",
        "items[].price": "double",
        "items[].parts[].sku": "string",
        "items[].parts[].price": "double",
    }


def test_a_union_of_several_types_is_what_stands_in_it() -> None:
    """As with JSON: the type of most of them is the column's, the others are misfits."""
    item = {"sku": "x", "price": Decimal(1), "parts": []}
    sent = [datum(ORDER, {**WHOLE, "any": any_}) for any_ in (7, 8, "five", item, True, None)]

    found = converted(avro(ORDER), *sent)

    assert dict(columns(found.shape))["any"] == "long"
    assert misfits(found) == [
        [],
        [],
        [("any", '"five"')],
        [("any.sku", '"x"'), ("any.price", "1.0")],
        [("any", "true")],
        [],
    ]


def test_a_decimal_is_a_double_where_that_is_exact_and_else_a_misfit_with_its_digits() -> None:
    """Money must not be bent: what no double is written as stays as it is, and can be found."""
    many = {"type": "bytes", "logicalType": "decimal", "precision": 900, "scale": 2}
    schema = {"type": "record", "name": "R", "fields": [{"name": "d", "type": many}]}
    digits = ["12.30", "-0.01", "0.00", "12345678901234567890123.45", "-" + "9" * 400 + ".99"]

    found = converted(avro(schema), *(datum(schema, {"d": Decimal(d)}) for d in digits))

    assert columns(found.shape) == [("d", "double")]
    rows = found.rows.column("data").to_pylist()
    assert [row["d"] for row in rows] == [12.3, -0.01, 0.0, None, None]
    assert misfits(found)[3:] == [[("d", f'"{digits[3]}"')], [("d", f'"{digits[4]}"')]]
    huge = b"\x80\x10" + b"\x7f" * 1_024
    assert misfits(converted(avro(schema), huge))[0][0][0] == "d.base64"


def test_a_value_that_its_column_cannot_hold_leaves_it_its_type() -> None:
    kinds: dict[str, Any] = {
        "double": "double",
        "float": "float",
        "day": {"type": "int", "logicalType": "date"},
        "clock": {"type": "int", "logicalType": "time-millis"},
        "at": {"type": "long", "logicalType": "timestamp-micros"},
    }
    schema = {
        "type": "record",
        "name": "R",
        "fields": [{"name": name, "type": kind} for name, kind in kinds.items()],
    }
    bare = {**schema, "fields": [{"name": n, "type": _bare(kind)} for n, kind in kinds.items()]}
    sent = {"double": math.nan, "float": -math.inf, "day": -(2**31), "clock": -1, "at": 2**62}

    found = converted(avro(schema), datum(bare, sent))

    types = dict(columns(found.shape))
    assert types == {name: "double" if name in bare_doubles else "string" for name in kinds}
    assert sorted(misfits(found)[0]) == [
        ("at", str(2**62)),
        ("clock", "-1"),
        ("day", str(-(2**31))),
        ("double", '"NaN"'),
        ("float", '"-Infinity"'),
    ]


bare_doubles = {"double", "float"}


def _bare(kind: Any) -> Any:
    return kind["type"] if isinstance(kind, dict) else kind


class TestEvolution:
    """One column each, whichever version a payload was written by."""

    OLD = datum(FIRST, {"value": 5, "place": "a"})
    NEW = datum(SECOND, {"value": 2**40, "place": "b", "unit": "F"})
    MADE: ClassVar[dict[str, Any]] = {
        "value": 5.5,
        "site": "c",
        "unit": "K",
        "by": {"name": "acme", "no": 1},
    }
    NEWEST = datum(THIRD, MADE)

    @pytest.mark.parametrize("framing", ["datum", "single-object"])
    def test_fields_are_added_renamed_and_widened(self, framing: Any) -> None:
        decoder = avro(FIRST, SECOND, THIRD, framing=framing)
        sent = [self.OLD, self.NEW, self.NEWEST]
        if framing == "single-object":
            pairs = zip((FIRST, SECOND, THIRD), sent, strict=True)
            sent = [b"\xc3\x01" + fingerprint(schema) + payload for schema, payload in pairs]

        found = converted(decoder, *sent)

        by = {"name": "?", "no": 7}
        assert found.rows.column("data").to_pylist() == [
            {"value": 5.0, "site": "a", "unit": "C", "by": by},
            {"value": float(2**40), "site": "b", "unit": "F", "by": by},
            self.MADE,
        ]
        assert dict(columns(found.shape))["value"] == "double"
        assert misfits(found) == [[], [], []]

    def test_a_column_of_longs_takes_a_wider_one_until_it_is_retyped(self) -> None:
        """What landed before the new schema was known has made the column."""
        before = converted(avro(FIRST), self.OLD)

        after = converted(avro(FIRST, THIRD), self.OLD, self.NEWEST, shape=before.shape)

        rows = after.rows.column("data").to_pylist()
        assert [row["value"] for row in rows] == [5, None]
        assert misfits(after) == [[], [("value", "5.5")]]

    def test_a_long_that_no_double_is_stays_whole(self) -> None:
        payload = datum(SECOND, {"value": 2**53 + 1, "place": "b", "unit": "F"})

        found = converted(avro(SECOND, THIRD), payload)

        assert misfits(found) == [[("value", str(2**53 + 1))]]
        assert dict(columns(found.shape))["value"] == "double"

    def test_what_only_the_writer_has_is_not_left_out(self) -> None:
        """Avro's own readers skip it. Here nothing that was sent is."""
        (made,) = values(avro(THIRD, FIRST), self.NEWEST)
        # The older schema as the newest one: it calls the field by its own name only.
        assert made == {"value": 5.5, **{key: self.MADE[key] for key in ("site", "unit", "by")}}

    def test_unions_and_names_are_matched_branch_by_branch(self) -> None:
        old = _record(
            "R",
            x=["null", "int", {"type": "record", "name": "a.In", "fields": _fields(n="int")}],
            y="string",
            z=["string", "null"],
        )
        renamed = {
            "type": "record",
            "name": "b.Inside",
            "aliases": ["a.In"],
            "fields": _fields(n="double", m={"type": "array", "items": "int"}),
        }
        renamed["fields"][1]["default"] = [1, 2]
        new = _record("R", x=[renamed, "double", "null"], y=["null", "string"], z="string")

        decoder = avro(old, new)

        inside = ("a.In", {"n": 3})
        for sent, wanted in ((inside, {"n": 3.0, "m": [1, 2]}), (4, 4.0), (None, None)):
            made = values(decoder, datum(old, {"x": sent, "y": "t", "z": "u"}))[0]
            assert (made.get("x"), made["y"], made["z"]) == (wanted, "t", "u")
            assert isinstance(made.get("x"), type(wanted))

    def test_texts_and_bytes_are_promoted_both_ways(self) -> None:
        old = _record("R", a="bytes", b="string")
        new = _record("R", a="string", b="bytes")

        assert values(avro(old, new), datum(old, {"a": b"hi", "b": "hi"}))[0] == {
            "a": "hi",
            "b": "aGk=",
        }

    def test_every_kind_of_default_is_as_if_it_had_been_sent(self) -> None:
        defaults: list[tuple[Any, Any, Any]] = [
            ("long", 5, 5),
            ("double", 5, 5.0),
            ("boolean", False, False),
            ("string", "é", "é"),
            ("bytes", "\u00ff", "/w=="),
            ({"type": "fixed", "name": "F", "size": 1}, "\u0001", "AQ=="),
            ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, "B", "B"),
            ({"type": "array", "items": "int"}, [1, -300], [1, -300]),
            ({"type": "map", "values": "int"}, {"k": 1}, {"k": 1}),
            (["int", "null"], 3, 3),
            (["null", "int"], 3, 3),
            ({"type": "long", "logicalType": "timestamp-millis"}, 0, "1970-01-01T00:00:00Z"),
        ]
        new = {
            **FIRST,
            "fields": FIRST["fields"]
            + [
                {"name": f"f{n}", "type": kind, "default": default}
                for n, (kind, default, _) in enumerate(defaults)
            ],
        }

        for _ in range(2):
            made = values(avro(FIRST, new), self.OLD)[0]
            assert [made[f"f{n}"] for n in range(len(defaults))] == [w for *_, w in defaults]

    @pytest.mark.parametrize(
        ("kind", "default"),
        [
            ("int", "5"),
            ("int", True),
            ("long", 2**63),
            ("string", 5),
            ("bytes", "€"),
            ({"type": "array", "items": "int"}, ["x"]),
            ({"type": "record", "name": "Q", "fields": [{"name": "n", "type": "int"}]}, {}),
            (
                {
                    "type": "record",
                    "name": "Q",
                    "fields": [{"name": "next", "type": "Q", "default": {}}],
                },
                {},
            ),
        ],
    )
    def test_a_default_that_is_none_is_refused_when_it_is_uploaded(
        self, kind: Any, default: Any
    ) -> None:
        new = {**FIRST, "fields": [{"name": "extra", "type": kind, "default": default}]}

        with pytest.raises(BadRequest, match="extra"):
            avro(FIRST, new)


def _fields(**kinds: Any) -> list[dict[str, Any]]:
    return [{"name": name, "type": kind} for name, kind in kinds.items()]


def _record(name: str, **kinds: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": _fields(**kinds)}


class TestFraming:
    def test_a_datum_that_the_newest_schema_cannot_read_is_tried_with_earlier_ones(self) -> None:
        """A rebuild reads what was sent before the newest was known."""
        decoder = avro(FIRST, SECOND, THIRD)

        assert values(decoder, TestEvolution.OLD)[0]["site"] == "a"
        reason, detail = refused(decoder, b"\x01")
        assert (reason, detail[-9:]) == ("not_avro", " (byte 0)")

    @pytest.mark.parametrize(
        ("payload", "reason", "words"),
        [
            (b"", "not_avro", "C3 01 (byte 0)"),
            (b"\xc3\x01short", "not_avro", "C3 01 (byte 0)"),
            (b"\xc3\x02" + fingerprint(FIRST), "not_avro", "C3 01"),
            (single(THIRD, TestEvolution.MADE), "unknown_schema", "(byte 2)"),
            (single(FIRST, {"value": 5, "place": "a"})[:-1], "not_avro", "(byte 12)"),
            (single(FIRST, {"value": 5, "place": "a"}) + b"!", "not_avro", "1 bytes are left over"),
            (b"Obj\x01\x04\x16avro.schema", "not_avro", "container file"),
        ],
    )
    def test_a_single_object_names_a_schema_that_is_known(
        self, payload: bytes, reason: str, words: str
    ) -> None:
        found = refused(avro(FIRST, SECOND, framing="single-object"), payload)

        assert found[0] == reason
        assert words in found[1]

    def test_a_container_file_is_told_from_a_broken_datum(self) -> None:
        assert "container file" in refused(avro(FIRST), b"Obj\x01" + b"\x00" * 40)[1]

    def test_the_fingerprint_is_the_one_that_avro_prescribes(self) -> None:
        """The first one is in the specification's own tests."""
        null = schemas.fingerprint(schemas.parse('"null"'))
        assert null == (0x63DD24E7CC258F8A).to_bytes(8, "little")
        for schema in (ORDER, FIRST, SECOND, THIRD):
            parsed = schemas.parse(text(schema))
            assert schemas.canonical(parsed) == fastavro.schema.to_parsing_canonical_form(schema)
            assert schemas.fingerprint(parsed) == fingerprint(schema)

    def test_without_any_schema_only_a_registry_can_help(self) -> None:
        with pytest.raises(BadRequest, match="needs a schema"):
            avro()


class Registered:
    """A registry of tests."""

    def __init__(self, **schemas: RegisteredSchema | Exception | None) -> None:
        self.schemas = {int(number[1:]): answer for number, answer in schemas.items()}
        self.asked: list[int] = []

    def schema(self, number: int) -> RegisteredSchema | None:
        self.asked.append(number)
        found = self.schemas.get(number)
        if isinstance(found, Exception):
            raise found
        return found


class TestRegistry:
    def test_a_schema_is_asked_for_once_and_read_as_the_newest_one(self) -> None:
        known = Registered(
            _1=RegisteredSchema(schema=text(FIRST)), _2=RegisteredSchema(schema=text(THIRD))
        )
        decoder = Avro([text(THIRD)], framing="confluent", registered=known)
        old = wire(1, FIRST, {"value": 5, "place": "a"})

        found = converted(decoder, old, wire(2, THIRD, TestEvolution.MADE), old)

        rows = found.rows.column("data").to_pylist()
        assert [(row["value"], row["site"]) for row in rows] == [(5.0, "a"), (5.5, "c"), (5.0, "a")]
        assert values(decoder, old)
        assert known.asked == [1, 2]

    def test_without_a_schema_of_its_own_each_payload_is_read_by_its_writers(self) -> None:
        known = Registered(_1=RegisteredSchema(schema=text(FIRST)))
        decoder = Avro([], framing="confluent", registered=known)

        assert values(decoder, wire(1, FIRST, {"value": 5, "place": "a"})) == [
            {"value": 5, "place": "a"}
        ]

    def test_types_of_other_schemas_are_known_by_their_names(self) -> None:
        item = _record("shop.Item", sku="string")
        order = _record("shop.Order", item="Item", more={"type": "array", "items": "shop.Item"})
        known = Registered(_7=RegisteredSchema(schema=text(order), references=(text(item),)))
        whole = _record("shop.Order", item=item, more={"type": "array", "items": "shop.Item"})
        payload = wire(7, whole, {"item": {"sku": "a"}, "more": [{"sku": "b"}]})

        assert values(Avro([], framing="confluent", registered=known), payload) == [
            {"item": {"sku": "a"}, "more": [{"sku": "b"}]}
        ]

    @pytest.mark.parametrize(
        ("payload", "reason", "words"),
        [
            (b"\x00\x00\x00", "not_avro", "00 and a schema id (byte 0)"),
            (b"\x01\x00\x00\x00\x01", "not_avro", "(byte 0)"),
            (b'{"a": 1}', "not_avro", "(byte 0)"),
            (b"\x00\x00\x00\x00\x09", "unknown_schema", "no schema 9 (byte 1)"),
            (b"\x00\x00\x00\x00\x03", "unknown_schema", "PROTOBUF"),
            (b"\x00\x00\x00\x00\x04", "unknown_schema", "cannot be used"),
            (b"\x00\x00\x00\x00\x05", "schema_unavailable", "away"),
        ],
    )
    def test_what_cannot_be_read_is_refused_by_itself(
        self, payload: bytes, reason: str, words: str
    ) -> None:
        known = Registered(
            _1=RegisteredSchema(schema=text(FIRST)),
            _3=RegisteredSchema(schema="syntax = 'proto3';", kind="PROTOBUF"),
            _4=RegisteredSchema(schema='{"type": "record", "name": "R"}'),
            _5=Refused("schema_unavailable", "the registry was away"),
        )
        decoder = Avro([], framing="confluent", registered=known)
        good = wire(1, FIRST, {"value": 5, "place": "a"})

        found = converted(decoder, good, payload, good)

        assert found.rows.num_rows == 2
        (verdict,) = found.quarantined.to_pylist()
        assert (verdict["stage"], verdict["reason"]) == ("gate", reason)
        assert words in verdict["detail"]

    def test_while_it_is_away_nothing_is_decided(self) -> None:
        known = Registered(_1=EngineUnavailable("away"))
        decoder = Avro([], framing="confluent", registered=known)

        with pytest.raises(EngineUnavailable):
            converted(decoder, wire(1, FIRST, {"value": 5, "place": "a"}))
        known.schemas[1] = RegisteredSchema(schema=text(FIRST))
        assert converted(decoder, wire(1, FIRST, {"value": 5, "place": "a"})).rows.num_rows == 1

    def test_a_batch_asks_for_so_many_schemas_and_the_next_goes_on(self) -> None:
        """Whoever sends chooses the ids; nobody else may wait for all of them."""
        known = Registered()
        decoder = Avro([], framing="confluent", registered=known)
        payloads = [b"\x00" + number.to_bytes(4, "big") for number in range(500)]

        with pytest.raises(TooMuchText) as much:
            decoder.decode(pa.array(payloads, pa.binary()), most_text=1 << 20)
        assert much.value.rows == len(known.asked) == 200
        with pytest.raises(TooWide):
            convert(log_batch(*payloads), EMPTY, Rules(decoder=decoder), most_cells=1 << 20)

    def test_a_slow_registry_does_not_hold_a_batch_for_minutes(self) -> None:
        now = [0.0]
        known = Registered()

        def steady() -> float:
            now[0] += 1.0
            return now[0]

        decoder = Avro([], framing="confluent", registered=known, steady=steady)
        payloads = [b"\x00" + number.to_bytes(4, "big") for number in range(20)]

        with pytest.raises(TooMuchText) as much:
            decoder.decode(pa.array(payloads, pa.binary()), most_text=1 << 20)
        assert 0 < much.value.rows < 10


NESTED = {"type": "record", "name": "N", "fields": [{"name": "next", "type": ["null", "N"]}]}
DEEP = {
    "type": "record",
    "name": "D",
    "fields": [{"name": "in", "type": {"type": "array", "items": "D"}}],
}
_2_60 = bytes.fromhex("808080808080808020")


@pytest.mark.parametrize(
    ("schema", "payload", "reason"),
    [
        ("string", _2_60 + b"abc", "not_avro"),
        ("bytes", b"\x01", "not_avro"),
        ("string", b"\x02\xff", "not_avro"),
        ("long", b"\xff" * 11, "not_avro"),
        ("long", b"\xff" * 9 + b"\x7f", "not_avro"),
        ("int", b"\xff\xff\xff\xff\x7f", "not_avro"),
        ("boolean", b"\x02", "not_avro"),
        (["null", "int"], b"\x04", "not_avro"),
        (["null", "int"], b"\x01", "not_avro"),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, b"\x02", "not_avro"),
        ({"type": "fixed", "name": "F", "size": 4}, b"abc", "not_avro"),
        ({"type": "array", "items": "null"}, _2_60 + b"\x00", "too_many_values"),
        ({"type": "array", "items": "null"}, b"\x80\x89\x7a" * 40 + b"\x00", "too_many_values"),
        ({"type": "array", "items": _record("E")}, _2_60 + b"\x00", "too_many_values"),
        ({"type": "map", "values": "null"}, _2_60 + b"\x00", "too_many_values"),
        (NESTED, b"\x02" * 1_000_000 + b"\x00", "too_deep"),
        (DEEP, b"\x02" * 1_000_000, "too_deep"),
        (
            {"type": "array", "items": _record("R" * 50, **{"k" * 50_000: "boolean"})},
            b"\x80\x80\x40" + b"\x00" * (1 << 19) + b"\x00",
            "too_many_values",
        ),
        (
            {"type": "array", "items": {"type": "enum", "name": "E", "symbols": ["s" * 50_000]}},
            b"\x80\x80\x40" + b"\x00" * (1 << 19) + b"\x00",
            "too_many_values",
        ),
    ],
)
def test_what_a_sender_makes_of_few_bytes_is_one_event_in_quarantine(
    schema: Any, payload: bytes, reason: str
) -> None:
    """Readers of others end the process over some of these, or take all of its memory."""
    decoder = avro(schema)
    tracemalloc.start()
    started = time.perf_counter()
    try:
        found = refused(decoder, payload)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert found[0] == reason
    assert peak < 200 << 20
    assert time.perf_counter() - started < 20
    if reason == "not_avro":
        assert re.search(r" \(byte \d+\)$", found[1])


def test_defaults_do_not_multiply_what_was_sent() -> None:
    """A record of no bytes may have a default of a megabyte."""
    few = {"type": "array", "items": _record("E", a="boolean")}
    more = {
        "type": "array",
        "items": {
            **_record("E", a="boolean"),
            "fields": [
                *_fields(a="boolean"),
                {"name": "b", "type": "string", "default": "x" * 100_000},
            ],
        },
    }

    payload = b"\x80\x80\x08" + b"\x00" * (1 << 16) + b"\x00"
    assert refused(avro(few, more), payload)[0] == "too_many_values"


def test_a_value_that_is_no_object_has_its_leaves_beside_the_columns() -> None:
    found = converted(avro("long"), b"\x0a")

    assert found.shape == EMPTY
    assert misfits(found) == [[("", "5")]]
    both = avro(["long", FIRST])
    assert values(both, b"\x02\x0a\x02a") == [{"value": 5, "place": "a"}]


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("{", "no JSON"),
        ('{"type": "record", "name": "R"}', "no list of fields"),
        ('{"type": "recrod", "name": "R", "fields": []}', "no type 'recrod'"),
        ('{"type": "record", "name": "a-b", "fields": []}', "letters, digits"),
        ('{"type": "record", "name": "R", "fields": [{"name": "a", "type": "B"}]}', "a: there is"),
        ('{"type": "record", "name": "R", "fields": [{"type": "int"}]}', "name of its own"),
        ('{"type": "enum", "name": "E", "symbols": ["A", "A"]}', "twice"),
        ('{"type": "fixed", "name": "F"}', "no size"),
        ('["int", ["null"]]', "union"),
        ("[]", "union"),
        ("5", "a type is"),
        ("[" * 100_000 + "]" * 100_000, "deep|no JSON"),
        ('{"items":' * 900 + '"int"' + ',"type":"array"}' * 900, "deep"),
        ('"' + "x" * 600_000 + '"', "500,000 bytes"),
        ('{"type": "map"}', "a type is"),
        ('{"name": "a"}', "has no type"),
    ],
)
def test_a_schema_that_is_none_is_refused_with_the_reason(schema: str, words: str) -> None:
    with pytest.raises(BadRequest, match=words) as why:
        Avro([schema])
    assert len(str(why.value)) < 1_000


def test_versions_are_kept_once_and_the_oldest_go() -> None:
    kept = Schemas()
    for number in range(MOST_VERSIONS + 5):
        kept = with_version(kept, text(_record(f"R{number}")))
    assert len(kept.versions) == MOST_VERSIONS
    assert '"R104"' in kept.versions[-1]
    again = with_version(kept, f"  {text(_record('R50'))}")
    assert len(again.versions) == MOST_VERSIONS
    assert '"R50"' in again.versions[-1]
    assert with_version(again, text(_record("R50"))) == again
    large = [text({**_record(f"L{n}"), "doc": "x" * 300_000}) for n in range(4)]
    for schema in large:
        again = with_version(again, schema)
    assert sum(map(len, again.versions)) < LONGEST_SCHEMAS
    assert len(again.versions) == 2


_SCALARS = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "double": st.floats(allow_nan=False, allow_infinity=False),
    "string": st.text(max_size=8),
}


@st.composite
def _kinds(draw: st.DrawFn, depth: int = 3) -> tuple[Any, st.SearchStrategy[Any]]:
    """Answer a schema, and what makes values of it."""
    which = draw(st.sampled_from([*_SCALARS, *(["record", "array", "map"] if depth else [])]))
    if which in _SCALARS:
        return which, _SCALARS[which]
    if which == "array":
        kind, made = draw(_kinds(depth - 1))
        return {"type": "array", "items": kind}, st.lists(made, max_size=3)
    if which == "map":
        kind, made = draw(_kinds(depth - 1))
        return {"type": "map", "values": kind}, st.dictionaries(st.text(max_size=3), made)
    fields = {f"f{n}": draw(_kinds(depth - 1)) for n in range(draw(st.integers(1, 4)))}
    name = f"R{draw(st.uuids()).hex}"
    schema = {"type": "record", "name": name, "fields": []}
    schema["fields"] = [{"name": key, "type": kind} for key, (kind, _) in fields.items()]
    return schema, st.fixed_dictionaries({key: made for key, (_, made) in fields.items()})


def _without_nulls(schema: Any, value: Any) -> Any:
    match schema:
        case {"type": "record", "fields": fields}:
            made = {f["name"]: _without_nulls(f["type"], value[f["name"]]) for f in fields}
            return {key: item for key, item in made.items() if item is not None}
        case {"type": "array", "items": kind}:
            return [_without_nulls(kind, item) for item in value]
        case {"type": "map", "values": kind}:
            return {key: _without_nulls(kind, item) for key, item in value.items()}
        case _:
            return value


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_another_implementation_writes_is_read(data: st.DataObject) -> None:
    schema, made = data.draw(_kinds())
    value = data.draw(made)

    (found,) = values(avro(schema), datum(schema, value))

    assert found == _without_nulls(schema, value)


@settings(max_examples=70, deadline=None)
@given(st.data())
def test_made_up_bytes_are_one_event_and_stop_nothing(data: st.DataObject) -> None:
    """Bytes at random, and good payloads with bytes changed, cut and added."""
    good = datum(ORDER, WHOLE)
    broken = bytearray(data.draw(st.sampled_from([good, good, b""])))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(broken)))
        broken[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))

    found = converted(avro(ORDER, framing="datum"), good, bytes(broken), good)

    assert found.rows.num_rows + found.quarantined.num_rows == 3
    for verdict in found.quarantined.to_pylist():
        assert (verdict["event_id"], verdict["stage"]) == ("e1", "gate")
    assert {row["id"] for row in found.rows.column("data").to_pylist()} >= {-(2**63)}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_broken_schema_is_refused_or_usable(data: st.DataObject) -> None:
    """Whoever uploads it is told; nothing else is raised."""
    broken = text(ORDER)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(broken) - 1))
        more = data.draw(st.sampled_from(['"', "{", "}", "null", "[", "0", "int", "Item", ","]))
        broken = broken[:at] + more + broken[at + data.draw(st.integers(0, 12)) :]
    try:
        decoder = Avro([broken])
    except BadRequest:
        return
    found = converted(decoder, datum(ORDER, WHOLE))
    assert found.rows.num_rows + found.quarantined.num_rows == 1


def test_a_thousand_numbers_take_as_many_bytes_as_they_need() -> None:
    """The reader of numbers, at each of its lengths."""
    numbers = [
        sign * (2**power + less) for power in range(63) for less in (-1, 0) for sign in (1, -1)
    ]
    schema = {"type": "array", "items": "long"}

    assert values(avro(schema), datum(schema, numbers)) == [numbers]

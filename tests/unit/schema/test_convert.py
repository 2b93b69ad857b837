"""From the log to rows and quarantine: what becomes of which payload."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from builders import event
from log_batches import log_batch
from msgspec import Raw
from structlog.testing import capture_logs

from assets.landing import as_misfits
from penstock.codec import ENVELOPE
from penstock.errors import Unavailable
from penstock.schema import convert as conversion
from penstock.schema.check import Place
from penstock.schema.columns import PIECE_BYTES, MisfitColumn, parse
from penstock.schema.convert import Change, Converted, Rules, TooWide, convert
from penstock.schema.fit import Misfits, fit_object
from penstock.schema.rows import QUARANTINE_SCHEMA, rows_schema
from penstock.schema.shape import EMPTY, Leaf, List, Struct, columns

LONG, DOUBLE, STRING, BOOL = Leaf("long"), Leaf("double"), Leaf("string"), Leaf("bool")
FREEZE = Rules(contract="freeze")


def shape_of(**fields: Leaf | List | Struct) -> Struct:
    return Struct(tuple(fields.items()))


def data(converted: Converted) -> list[object]:
    return converted.rows.column("data").to_pylist()


def misfits(converted: Converted) -> list[object]:
    """Answer the misfits of each row as pairs, None where there are none."""
    lists = converted.rows.column("misfits").to_pylist()
    return [row and [(m["path"], m["value"]) for m in row] for row in lists]


def verdicts(converted: Converted) -> list[tuple[object, ...]]:
    names = ("event_id", "stage", "reason", "detail", "attempts")
    return [tuple(row[name] for name in names) for row in converted.quarantined.to_pylist()]


def test_an_event_gets_a_column_for_each_leaf() -> None:
    """The plainest case, whole: schema, order of columns, values."""
    converted = convert(
        log_batch('{"type": "a", "n": 1, "at": {"x": 1.5, "ok": true}, "tags": ["x", "y"]}'),
        EMPTY,
        Rules(),
    )

    assert converted.shape == shape_of(
        type=STRING, n=LONG, at=shape_of(x=DOUBLE, ok=BOOL), tags=List(STRING)
    )
    assert converted.rows.schema == rows_schema(converted.shape)
    assert converted.rows.schema.names == [*ENVELOPE.names, "data", "duplicate_of", "misfits"]
    assert data(converted) == [
        {"type": "a", "n": 1, "at": {"x": 1.5, "ok": True}, "tags": ["x", "y"]}
    ]
    assert misfits(converted) == [None]
    assert converted.rows.column("duplicate_of").to_pylist() == [None]
    assert converted.quarantined.num_rows == 0
    assert converted.quarantined.schema == QUARANTINE_SCHEMA


def test_the_envelope_goes_through_untouched() -> None:
    """Byte identity: payload, headers, key and place on the log are what the log had."""
    batch = log_batch(
        event(' {"a": 1.0} ', id="1", key=b"k", headers=(("h", b"\xff"),), metadata={"t": "x"}),
        event(b"\xff", id="2", content_type=None),
    )

    converted = convert(batch, shape_of(a=LONG), Rules())

    envelope = pa.Table.from_batches([batch.select(ENVELOPE.names)])
    assert converted.rows.select(ENVELOPE.names).equals(envelope)


def test_an_empty_batch_makes_empty_tables() -> None:
    """A span of the log may hold no record."""
    converted = convert(log_batch(), shape_of(a=LONG), Rules())

    assert converted.rows.num_rows == 0
    assert converted.rows.schema == rows_schema(shape_of(a=LONG))
    assert converted.quarantined.num_rows == 0


def test_without_a_leaf_there_is_no_data_column() -> None:
    """An empty struct cannot be written."""
    converted = convert(log_batch("{}", '{"a": [], "b": {"c": null}}', "null"), EMPTY, Rules())

    assert converted.shape == EMPTY
    assert "data" not in converted.rows.schema.names
    assert misfits(converted) == [None, None, None]


def test_events_are_sorted_into_rows_and_quarantine_in_the_logs_order() -> None:
    """Every event is in one of both tables, once; its place on the log tells which it is."""
    batch = log_batch(
        event("{", id="0"),
        event('{"a": 1}', id="1"),
        event('{"a": 2}', id="2", quarantine=True),
        event('{"a": "x"}', id="3"),
        event("{", id="4", content_type=None),
        event('{"b": 1}', id="5"),
        event("]", id="6", content_type="text/json"),
        event("[7]", id="7"),
    )

    converted = convert(batch, shape_of(a=LONG), Rules())

    assert converted.rows.column("event_id").to_pylist() == ["1", "3", "4", "5", "7"]
    assert converted.rows.column("log_offset").to_pylist() == [1, 3, 4, 5, 7]
    assert converted.quarantined.column("event_id").to_pylist() == ["0", "2", "6"]
    assert converted.quarantined.column("log_offset").to_pylist() == [0, 2, 6]
    rows = [{"a": 1, "b": None}, {"a": None, "b": None}, None, {"a": None, "b": 1}, None]
    assert data(converted) == rows
    assert misfits(converted) == [None, [("a", '"x"')], None, None, [("", "7")]]


def test_a_part_of_a_batch_is_converted_like_a_batch() -> None:
    """A slice shares its buffers with the whole and begins somewhere within them."""
    events = [event(f'{{"a": {n}}}' if n % 3 else "{", id=str(n)) for n in range(10)]
    whole = log_batch(*events)

    converted = convert(whole.slice(4, 4), shape_of(a=LONG), Rules())

    assert data(converted) == [{"a": 4}, {"a": 5}, {"a": 7}]
    assert [verdict[0] for verdict in verdicts(converted)] == ["6"]


def test_the_senders_wish_is_kept_whatever_the_payload() -> None:
    """An event that was to be kept apart must not appear among the others."""
    converted = convert(
        log_batch(
            event('{"a": 1}', id="1", quarantine=True),
            event("{", id="2", quarantine=True, metadata={"penstock_reason": "too_large"}),
        ),
        EMPTY,
        Rules(),
    )

    assert converted.rows.num_rows == 0
    assert converted.shape == EMPTY
    assert verdicts(converted) == [
        ("1", "wish", "sender", None, 1),
        ("2", "wish", "too_large", None, 1),
    ]


def test_declared_json_that_is_none_goes_to_quarantine() -> None:
    """The sender made a mistake and can be told; nothing of the payload is in the reason."""
    deep = b"[" * 129 + b"]" * 129
    keys = b"{" + b",".join(b'"%d":1' % n for n in range(10_001)) + b"}"

    converted = convert(
        log_batch(
            event(b'{"secret": tru }', id="1"),
            event(b"", id="2"),
            event(deep, id="3"),
            event(keys, id="4", content_type="application/cloudevents+json"),
            event(b"\xef\xbb\xbf{}", id="5"),
        ),
        EMPTY,
        Rules(),
    )

    assert verdicts(converted) == [
        ("1", "gate", "invalid_json", "JSON is malformed: invalid character (byte 12)", 1),
        ("2", "gate", "invalid_json", "Input data was truncated (byte 0)", 1),
        ("3", "gate", "too_deep", "nested deeper than 128 levels", 1),
        ("4", "gate", "too_many_keys", "an object has more than 10,000 keys", 1),
        ("5", "gate", "invalid_json", "JSON is malformed: invalid character (byte 0)", 1),
    ]
    assert converted.shape == EMPTY


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/octet-stream"])
def test_other_bytes_that_are_no_json_are_rows_without_columns(content_type: str | None) -> None:
    """Nothing was promised about them, so nothing is wrong with them."""
    payloads = [b"hello", b"", b"\x00\xff", b"[" * 100_000, b'{"a": 1']

    converted = convert(
        log_batch(*(event(p, content_type=content_type) for p in payloads)),
        shape_of(a=LONG),
        Rules(),
    )

    assert converted.rows.column("payload").to_pylist() == payloads
    assert data(converted) == [None] * len(payloads)
    assert misfits(converted) == [None] * len(payloads)


def test_undeclared_bytes_that_happen_to_be_json_get_columns() -> None:
    """Most senders on a message bus declare nothing."""
    converted = convert(log_batch(event('{"a": 1}', content_type=None)), EMPTY, Rules())

    assert data(converted) == [{"a": 1}]


def test_json_that_is_no_object_is_kept_as_misfits() -> None:
    """There is no column for it, and its leaves must be found all the same."""
    payloads = ['[1, "a", [null, 1.50]]', '[{"b": 1}, {"b": {"c": true}}]', '"x"', "1e400", "null"]

    converted = convert(log_batch(*payloads), shape_of(a=LONG), Rules())

    assert converted.shape == shape_of(a=LONG)
    assert data(converted) == [None] * 5
    assert misfits(converted) == [
        [("", "1"), ("", '"a"'), ("", "1.50")],
        [("b", "1"), ("b.c", "true")],
        [("", '"x"')],
        [("", "1e400")],
        None,
    ]


@pytest.mark.parametrize(
    ("kind", "sent", "kept"),
    [
        (LONG, "1.0", 1),
        (LONG, "1e3", 1000),
        (LONG, "-0", 0),
        (LONG, "-0.0", 0),
        (LONG, "9223372036854775807", 2**63 - 1),
        (LONG, "9223372036854775807.0", 2**63 - 1),
        (LONG, "-9223372036854775808", -(2**63)),
        (LONG, "9007199254740993.0", 2**53 + 1),
        (DOUBLE, "1", 1.0),
        (DOUBLE, "0.1", 0.1),
        (DOUBLE, "0.1000000000000000055511151231257827", 0.1),
        (DOUBLE, "9007199254740992", 2.0**53),
        (DOUBLE, "1152921504606846976", 2.0**60),
        (DOUBLE, "1" + "0" * 22, 1e22),
        (DOUBLE, "1.7976931348623157e308", 1.7976931348623157e308),
        (DOUBLE, "1e-400", 0.0),
        (DOUBLE, "0." + "0" * 400 + "1e401", 1.0),
        (DOUBLE, "1" + "0" * 400 + "e-400", 1.0),
        (STRING, '"1"', "1"),
        (STRING, r'"\u0000\"\\\n\ud83d\ude00"', '\x00"\\\n😀'),
        (BOOL, "false", False),
        (List(LONG), "[1, null, 2.0]", [1, None, 2]),
        (List(List(LONG)), "[[1], [], null, [2, 3]]", [[1], [], None, [2, 3]]),
        (List(shape_of(b=LONG)), '[{"b": 1}, null, {}]', [{"b": 1}, None, {"b": None}]),
    ],
)
def test_a_value_fits_if_the_column_can_hold_that_very_value(
    kind: Leaf | List, sent: str, kept: object
) -> None:
    """A column that takes less than it can makes misfits, one that takes more makes lies."""
    converted = convert(log_batch(f'{{"a": {sent}}}'), shape_of(a=kind), Rules())

    assert data(converted) == [{"a": kept}]
    assert misfits(converted) == [None]


@pytest.mark.parametrize(
    ("kind", "sent", "found"),
    [
        (LONG, "1.5", [("a", "1.5")]),
        (LONG, "1.50e0", [("a", "1.50e0")]),
        (LONG, "9223372036854775808", [("a", "9223372036854775808")]),
        (LONG, "-9223372036854775809", [("a", "-9223372036854775809")]),
        (LONG, "9223372036854775808.0", [("a", "9223372036854775808.0")]),
        (LONG, "4503599627370496.4", [("a", "4503599627370496.4")]),
        (LONG, "9223372036854775807.1", [("a", "9223372036854775807.1")]),
        (LONG, "1e-400", [("a", "1e-400")]),
        (LONG, "1e-99999999999999999999", [("a", "1e-99999999999999999999")]),
        (LONG, "1e400", [("a", "1e400")]),
        (LONG, "7" * 5_000, [("a", "7" * 5_000)]),
        (LONG, '"1"', [("a", '"1"')]),
        (LONG, "true", [("a", "true")]),
        (DOUBLE, "1e400", [("a", "1e400")]),
        (DOUBLE, "1.7976931348623159e308", [("a", "1.7976931348623159e308")]),
        (DOUBLE, "9007199254740993", [("a", "9007199254740993")]),
        (DOUBLE, "1" * 400, [("a", "1" * 400)]),
        (DOUBLE, "false", [("a", "false")]),
        (STRING, "1", [("a", "1")]),
        (STRING, "null", None),
        (BOOL, "1", [("a", "1")]),
        (BOOL, '"true"', [("a", '"true"')]),
        (LONG, "[1, [2]]", [("a", "1"), ("a", "2")]),
        (LONG, '{"b": 1, "c": {"d": "x"}}', [("a.b", "1"), ("a.c.d", '"x"')]),
        (LONG, "[]", None),
        (LONG, "{}", None),
        (shape_of(b=LONG), "1", [("a", "1")]),
        (shape_of(b=LONG), "[]", None),
        (shape_of(b=LONG), '[{"b": 1}]', [("a.b", "1")]),
        (List(LONG), "1", [("a", "1")]),
        (List(shape_of(b=LONG)), '{"b": 1}', [("a.b", "1")]),
        (List(List(LONG)), "[1]", [("a", "1")]),
    ],
)
def test_a_leaf_that_does_not_fit_is_kept_as_it_was_sent(
    kind: Leaf | List | Struct, sent: str, found: object
) -> None:
    """It is searched and repaired from there: not a digit may be missing."""
    converted = convert(log_batch(f'{{"a": {sent}, "z": 1}}'), shape_of(a=kind, z=LONG), Rules())

    assert converted.shape == shape_of(a=kind, z=LONG)
    assert misfits(converted) == [found]
    assert data(converted)[0]["z"] == 1


def test_an_element_that_does_not_fit_leaves_a_hole_in_its_list() -> None:
    """The others keep their place, and the list its length."""
    converted = convert(
        log_batch('{"a": [1, "x", {"b": 2}, [3], 4], "o": [{"n": 1}, 7, {"n": "y", "m": "z"}]}'),
        shape_of(a=List(LONG), o=List(shape_of(n=LONG, m=STRING))),
        FREEZE,
    )

    assert data(converted) == [
        {
            "a": [1, None, None, None, 4],
            "o": [{"n": 1, "m": None}, None, {"n": None, "m": "z"}],
        }
    ]
    assert misfits(converted) == [
        [("a", '"x"'), ("a.b", "2"), ("a", "3"), ("o", "7"), ("o.n", '"y"')]
    ]


def test_events_may_be_spread_over_lines() -> None:
    """A reader of lines would tear them, or take two lines for two events."""
    pretty = '{\n  "a": 1,\r\n  "b": [\n    "x",\n\t"y"\n  ]\n}\n'
    converted = convert(log_batch(pretty, '{"a":2}', "\r\n" + pretty), EMPTY, Rules())

    assert [row["a"] for row in data(converted)] == [1, 2, 1]
    assert data(converted)[2]["b"] == ["x", "y"]


def test_of_duplicate_keys_the_last_one_counts() -> None:
    """As in other JSON parsers; pyarrow's refuses them, which must not stop the batch."""
    converted = convert(
        log_batch(
            '{"a": 1, "a": 2}',
            '{"a": "x", "a": 3}',
            '{"a": 4, "a": "y"}',
            '{"o": {"b": 1, "b": 2}, "a": 5}',
            '{"a": 6, "o": 0, "o": {"b": 3.25}}',
            '{"a": 1152921504606846976, "d": 1152921504606846976, "d": 0.1}',
        ),
        shape_of(a=LONG, o=shape_of(b=DOUBLE), d=DOUBLE),
        Rules(),
    )

    assert data(converted) == [
        {"a": 2, "o": None, "d": None},
        {"a": 3, "o": None, "d": None},
        {"a": None, "o": None, "d": None},
        {"a": 5, "o": {"b": 2.0}, "d": None},
        {"a": 6, "o": {"b": 3.25}, "d": None},
        {"a": 2**60, "o": None, "d": 0.1},
    ]
    assert misfits(converted) == [None, None, [("a", '"y"')], None, None, None]


def test_odd_keys_have_columns_too() -> None:
    """Names are mapped, and the mapping reaches into lists."""
    payload = '{"": 1, "a.b": {"100%": [{"x.y": "z"}, null]}, "\\u0061": 2, "ключ": true}'
    converted = convert(log_batch(payload, payload), EMPTY, Rules())

    row = {"%00": 1, "a%2Eb": {"100%25": [{"x%2Ey": "z"}, None]}, "a": 2, "ключ": True}
    assert data(converted) == [row, row]
    assert convert(log_batch(payload), converted.shape, FREEZE).rows.column("data").to_pylist() == [
        row
    ]


def test_keys_without_a_column_are_misfits() -> None:
    """Their leaves are found by their path, escaped as people write it."""
    converted = convert(
        log_batch(r'{"a": 1, "q\"k": 2, "b\\s": {"c d": 3}, "n\n": [4], "e:f": 5}'),
        EMPTY,
        Rules(),
    )

    assert columns(converted.shape) == [("a", "long"), ("e:f", "long")]
    assert misfits(converted) == [[(r"q\"k", "2"), (r"b\\s.c\ d", "3"), ("n\n", "4")]]


def test_ten_megabytes_of_string_are_a_value_like_any_other() -> None:
    """A block of the reader must hold the largest event, and pieces keep the order."""
    long = "é" * (PIECE_BYTES // 3)

    converted = convert(
        log_batch(*(f'{{"n": {n}, "s": "{long}"}}' for n in range(2)), '{"n": 2}'), EMPTY, Rules()
    )

    assert [row["n"] for row in data(converted)] == [0, 1, 2]
    assert [row["s"] == long for row in data(converted)] == [True, True, False]


def test_the_shape_grows_and_says_which_event_made_it() -> None:
    """The history of a schema is shown to people who wonder where a column came from."""
    known = shape_of(a=LONG, o=shape_of(b=STRING), l=List(shape_of(c=LONG)))
    converted = convert(
        log_batch(
            event('{"a": 1}', id="1"),
            event('{"a": 2, "n": null, "o": {"b": "x", "d": 1}}', id="2"),
            event('{"l": [{"c": 1}, {"c": 2, "e": [[1.5]]}], "n": "x"}', id="3"),
            event('{"l": [{"e": [[1]]}], "n": "y", "o": {"d": 0.5}}', id="4"),
        ),
        known,
        Rules(),
    )

    assert converted.shape == shape_of(
        a=LONG,
        o=shape_of(b=STRING, d=DOUBLE),
        l=List(shape_of(c=LONG, e=List(List(DOUBLE)))),
        n=STRING,
    )
    assert converted.changes == (
        Change("n", "added", "string", "3"),
        Change("o.d", "added", "double", "2"),
        Change("l[].e[][]", "added", "double", "3"),
    )
    assert misfits(converted) == [None] * 4


def test_a_frozen_collection_gets_no_column() -> None:
    """Its owner said so; the values are kept beside the columns."""
    converted = convert(log_batch('{"a": 1, "b": {"c": 2}}'), shape_of(a=LONG), FREEZE)

    assert converted.shape == shape_of(a=LONG)
    assert converted.changes == ()
    assert data(converted) == [{"a": 1}]
    assert misfits(converted) == [[("b.c", "2")]]


def test_a_frozen_collection_without_columns_keeps_everything_beside() -> None:
    """There is no column `data` to put anything into."""
    converted = convert(log_batch('{"a": 1}', "{}"), EMPTY, FREEZE)

    assert "data" not in converted.rows.schema.names
    assert misfits(converted) == [[("a", "1")], None]


def test_columns_beyond_the_bound_are_misfits() -> None:
    """Senders that use values as keys must not make a table of a million columns."""
    converted = convert(
        log_batch('{"a": 1, "o": {"b": 1, "c": 1, "d": 1}, "e": 1}', '{"f": 1}'),
        EMPTY,
        Rules(max_columns=3),
    )

    assert columns(converted.shape) == [("a", "long"), ("o.b", "long"), ("o.c", "long")]
    assert misfits(converted) == [[("o.d", "1"), ("e", "1")], [("f", "1")]]


def test_columns_are_not_deeper_than_the_bound() -> None:
    """Engines walk nested types recursively; deeper leaves are kept beside."""
    payload = '{"a": {"b": {"c": 1}}, "l": [[[1]]], "m": [[2]], "x": {"y": 3}}'
    converted = convert(log_batch(payload), EMPTY, Rules(max_column_depth=3))

    assert columns(converted.shape) == [("a.b.c", "long"), ("m[][]", "long"), ("x.y", "long")]
    assert misfits(converted) == [[("l", "1")]]


def test_the_deepest_document_is_a_row() -> None:
    """Accepted is accepted: 128 levels are more than columns have, and none is lost."""
    payload = '{"a":' * 128 + "1" + "}" * 128
    converted = convert(log_batch(payload, '{"b": 1}'), EMPTY, Rules())

    assert columns(converted.shape) == [("b", "long")]
    assert misfits(converted) == [[(".".join(["a"] * 128), "1")], None]


def test_fields_that_differ_in_case_only_share_no_table() -> None:
    """Trino could address neither of two such columns; the second stays beside."""
    converted = convert(
        log_batch('{"id": 1, "ID": 2, "o": {"É": 1, "é": 2}}', '{"Id": 3}'), EMPTY, Rules()
    )

    assert columns(converted.shape) == [("id", "long"), ("o.É", "long")]
    assert misfits(converted) == [[("ID", "2"), ("o.é", "2")], [("Id", "3")]]


def test_a_column_gets_the_type_of_most_of_its_values() -> None:
    """It keeps the type for ever, so the first event must not decide for all."""
    converted = convert(
        log_batch('{"a": "n/a"}', '{"a": 1}', '{"a": 2.5}', '{"a": {"b": 1}}', '{"a": null}'),
        EMPTY,
        Rules(),
    )

    assert converted.shape == shape_of(a=DOUBLE)
    assert misfits(converted) == [[("a", '"n/a"')], None, None, [("a.b", "1")], None]


def test_events_that_were_let_pass_still_count_for_the_type() -> None:
    """After 256 events a type is guessed; the many that fit the guess are not counted then."""
    batch = log_batch(*['{"a": 1}'] * 256, *['{"a": 2}', '{"a": 3}', '{"a": "x"}'] * 400)

    converted = convert(batch, EMPTY, Rules())

    assert converted.shape == shape_of(a=LONG)
    assert converted.rows.column("misfits").null_count == 256 + 800


def test_a_wrong_guess_at_a_type_is_taken_back() -> None:
    """What the first events have is not what most have; the type is for ever."""
    batch = log_batch(
        *['{"a": 1}'] * 256, *['{"a": "x"}'] * 300, *['{"a": 1}'] * 10, *['{"b": 0}'] * 900
    )

    converted = convert(batch, EMPTY, Rules())

    assert converted.shape == shape_of(a=STRING, b=LONG)
    assert misfits(converted)[:256] == [[("a", "1")]] * 256
    assert misfits(converted)[256:556] == [None] * 300


def test_longs_that_are_no_doubles_are_noticed_when_the_column_becomes_one() -> None:
    """They fitted the guess that the column would hold longs."""
    large = str(2**53 + 1)
    batch = log_batch(*['{"a": 1}'] * 300, f'{{"a": {large}}}', *['{"a": 1}'] * 600, '{"a": 0.5}')

    converted = convert(batch, EMPTY, Rules())

    assert converted.shape == shape_of(a=DOUBLE)
    assert misfits(converted)[300] == [("a", large)]
    assert data(converted)[300] == {"a": None}
    assert converted.rows.column("misfits").null_count == 901


def test_of_types_as_frequent_the_earlier_one_counts() -> None:
    """The answer must not depend on chance: landing a batch again has to give the same table."""
    assert convert(log_batch('{"a": "x"}', '{"a": 1}'), EMPTY, Rules()).shape == shape_of(a=STRING)
    assert convert(log_batch('{"a": 1}', '{"a": "x"}'), EMPTY, Rules()).shape == shape_of(a=LONG)
    assert convert(log_batch('{"a": [true, "x"]}'), EMPTY, Rules()).shape == shape_of(a=List(BOOL))
    numbers = ['{"a": 1}', '{"a": "x"}', '{"a": 1.5}', '{"a": "y"}']
    assert convert(log_batch(*numbers), EMPTY, Rules()).shape == shape_of(a=DOUBLE)


@pytest.mark.parametrize(
    "value", ["null", "[]", "{}", "[null, {}]", "1e400", "9" * 30, "7" * 5_000]
)
def test_values_that_fit_no_column_decide_no_type(value: str) -> None:
    """A column made of them would be wrong for the values that follow."""
    converted = convert(log_batch(f'{{"a": {value}}}', '{"a": "x"}'), EMPTY, Rules())

    assert converted.shape == shape_of(a=STRING)
    assert data(converted) == [{"a": None}, {"a": "x"}]


def test_fields_that_are_blank_in_all_events_cost_no_misfits_and_no_column() -> None:
    """Many senders write every field, used or not."""
    blank = '"e": null, "t": [], "m": {"x": null, "y": [{}]}, "o": {"b": 1, "n": []}'
    payloads = [f'{{"a": {n}, {blank}}}' for n in range(1_000)]

    converted = convert(log_batch(*payloads), shape_of(a=LONG, o=shape_of(b=LONG)), Rules())

    assert converted.shape == shape_of(a=LONG, o=shape_of(b=LONG))
    assert misfits(converted) == [None] * 1_000
    assert [row["a"] for row in data(converted)] == list(range(1_000))


@pytest.mark.parametrize("contract", ["evolve", "freeze"])
@pytest.mark.parametrize("value", ["1", '{"x": 1}', "[1]", '[{"x": 1}]', "1e400"])
def test_a_field_that_was_blank_at_first_is_not_lost(contract: str, value: str) -> None:
    """Having let the field pass for a thousand events, it is still looked at in the next."""
    payloads = ['{"a": 1, "f": []}'] * 600 + ['{"a": 1, "f": {}}'] + ['{"a": 1, "f": null}'] * 600
    batch = log_batch(*payloads, f'{{"a": 1, "f": {value}}}')

    with capture_logs() as logs:
        converted = convert(batch, shape_of(a=LONG), Rules(contract=contract))

    last = converted.rows.slice(1_201).to_pylist()[0]
    assert last["misfits"] or last["data"]["f"]
    assert converted.rows.column("misfits").slice(0, 1_201).null_count == 1_201
    assert [row["a"] for row in data(converted)] == [1] * 1_202
    assert logs == []


def test_misfits_that_would_take_a_multiple_of_their_event_are_refused() -> None:
    """A path is repeated for each leaf: 1 MB can make 100 GB of paths."""
    bomb = '{"' + "k" * 20_000 + '": [' + ",".join(["1"] * 10_000) + "]}"
    deep = '{"' + "k" * 20_000 + '": [' + ",".join(['{"a":1}'] * 5_000) + "]}"

    converted = convert(
        log_batch(event(bomb, id="1"), event(bomb, id="2", content_type=None), event(deep, id="3")),
        EMPTY,
        Rules(),
    )

    detail = "the leaves without a column take too much room"
    assert verdicts(converted) == [
        ("1", "gate", "too_many_misfits", detail, 1),
        ("3", "gate", "too_many_misfits", detail, 1),
    ]
    assert misfits(converted) == [None]


REPEATED = shape_of(a=List(shape_of(b=LONG, c=LONG, d=LONG)), n=LONG)


@pytest.mark.parametrize("known", [EMPTY, REPEATED], ids=["first batch", "later"])
def test_a_document_that_could_take_too_many_cells_is_kept_beside_the_columns(
    known: Struct,
) -> None:
    """1 MB of ``[{},{},…]`` beside 999 columns took 18 GB, and the run was killed, every time."""
    wide = '{"n": 1, "a": [' + ",".join(["{}"] * 9) + ', {"b": 7}]}'
    batch = log_batch('{"a": [{"b": 1, "c": 2, "d": 3}], "n": 4}', wide, '{"n": 5}')

    converted = convert(batch, known, Rules(max_cells=30))

    assert converted.shape == REPEATED
    assert converted.cells == 3 + 1 + 2
    assert data(converted) == [
        {"a": [{"b": 1, "c": 2, "d": 3}], "n": 4},
        {"a": None, "n": None},
        {"a": None, "n": 5},
    ]
    assert misfits(converted) == [None, [("n", "1"), ("a.b", "7")], None]


def test_a_document_that_is_wide_and_broken_goes_to_quarantine_all_the_same() -> None:
    """It is not let pass for not having been checked."""
    wide = '{"a": [' + ",".join(["{}"] * 20) + "]"

    converted = convert(log_batch(wide, wide + "}"), REPEATED, Rules(max_cells=30))

    assert [row[1:3] for row in verdicts(converted)] == [("gate", "invalid_json")]
    assert misfits(converted) == [None]


@pytest.mark.parametrize(
    ("payloads", "fitting"),
    [
        (['{"a": 1, "b": 2}'] * 10, 5),
        ([*['{"a": 1}'] * 9, '{"b": 1}'], 5),
        (['{"l": [{"a": 1}, {"a": 2}, {"a": 3}]}'] * 10, 5),
    ],
    ids=["columns", "columns of the last event", "lists"],
)
def test_events_are_not_converted_together_if_they_have_too_many_cells(
    payloads: list[str], fitting: int
) -> None:
    """Memory goes with cells: 64 MB of small events with 1,000 fields took 1.5 GB."""
    with pytest.raises(TooWide) as caught:
        convert(log_batch(*payloads), EMPTY, Rules(), most_cells=10)

    assert caught.value.rows == fitting
    assert convert(log_batch(*payloads[:1]), EMPTY, Rules(), most_cells=1).rows.num_rows == 1


def test_a_text_that_the_reader_refuses_costs_only_its_own_columns() -> None:
    """No text should; if one does, a thousand others must not stop landing."""
    texts = [b'{"a": %d}' % n for n in range(100)]
    texts[37] = b'{"a": "x"}'
    texts[99] = b'{"a": 1}{"a": 2}'

    columns, refused = parse(pa.array(texts), shape_of(a=LONG), strict=True)

    assert refused == [37, 99]
    values = columns.to_pylist()
    assert [n for n in range(100) if values[n]["a"] != n] == [37, 99]


def test_converting_again_with_the_wider_shape_changes_nothing() -> None:
    """Landing repeats a batch after a lost race; the second table has to be the first."""
    batch = log_batch('{"a": 1, "b": [{"c": "x"}]}', '{"a": 1.5, "B": 1}', "[1]", '{"b": 7}')

    first = convert(batch, EMPTY, Rules())
    second = convert(batch, first.shape, Rules())

    assert second.rows.equals(first.rows)
    assert second.shape == first.shape
    assert second.changes == ()


class Breaking:
    """Parts documents as it should, but for those that say ``break``."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, text: Raw, place: Place, misfits: Misfits) -> dict[str, object]:
        if b'"break"' in bytes(text):
            raise self.error
        return fit_object(text, place, misfits)


def test_one_event_that_fails_for_no_known_reason_stops_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same batch would come again for ever, and its collection would land nothing more."""
    monkeypatch.setattr(conversion, "fit_object", Breaking(ZeroDivisionError("secret")))
    events = [event(f'{{"a": 1, "m{n % 3}": "x"}}', id=f"e{n}") for n in range(300)]
    for n in (0, 41, 299):
        events[n] = event('{"a": "break"}', id=f"e{n}")

    with capture_logs() as logs:
        converted = convert(log_batch(*events), shape_of(a=LONG), FREEZE)

    why = ("convert", "unexpected", "ZeroDivisionError", 1)
    assert verdicts(converted) == [("e0", *why), ("e41", *why), ("e299", *why)]
    assert converted.quarantined.column("payload").to_pylist() == [b'{"a": "break"}'] * 3
    kept = [n for n in range(300) if n not in (0, 41, 299)]
    assert converted.rows.column("log_offset").to_pylist() == kept
    assert misfits(converted) == [[(f"m{n % 3}", '"x"')] for n in kept]
    assert sorted(one["event_id"] for one in logs) == ["e0", "e299", "e41"]
    assert {one["error"] for one in logs} == {"ZeroDivisionError"}
    assert "secret" not in str(logs)


def test_a_repeated_batch_makes_an_opaque_row_of_an_event_that_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was decided to be a row before a crash stays one."""
    monkeypatch.setattr(conversion, "fit_object", Breaking(ZeroDivisionError()))
    first = convert(log_batch('{"a": "break"}'), shape_of(a=LONG), FREEZE)

    rows = as_misfits(first.quarantined, rows_schema(first.shape), shape=first.shape, rules=Rules())

    assert rows.column("payload").to_pylist() == [b'{"a": "break"}']
    assert rows.column("data").to_pylist() == [None]


@pytest.mark.parametrize("error", [MemoryError(), OSError(), Unavailable("away")])
def test_what_is_no_events_fault_is_raised(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A full disk must not empty a collection into quarantine."""
    monkeypatch.setattr(conversion, "fit_object", Breaking(error))

    with pytest.raises(type(error)):
        convert(log_batch('{"a": "break"}', '{"a": 1}'), shape_of(a=LONG), FREEZE)


def test_a_mistake_that_shows_in_every_event_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one of the program; who repairs it wants the events landed, not released."""
    monkeypatch.setattr(conversion, "fit_object", Breaking(TypeError()))

    with pytest.raises(TypeError):
        convert(log_batch(*['{"a": "break"}'] * 101), shape_of(a=LONG), FREEZE)


def test_a_mistake_that_shows_in_no_single_event_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is nobody to put into quarantine for it."""

    def full(column: conversion.MisfitColumn, count: int) -> pa.Array:
        if count > 2:
            raise TypeError
        return MisfitColumn.column(column, count)

    class Small(MisfitColumn):
        column = full

    monkeypatch.setattr(conversion, "MisfitColumn", Small)

    with pytest.raises(TypeError):
        convert(log_batch(*['{"a": 1}'] * 8), shape_of(a=LONG), FREEZE)


@pytest.mark.parametrize("contract", ["evolve", "quarantine"])
def test_a_document_that_the_reader_refuses_is_kept_whole(
    monkeypatch: pytest.MonkeyPatch, contract: str
) -> None:
    """No text should be refused; its leaves go beside the columns, or the event to quarantine."""
    monkeypatch.setattr(conversion, "parse", refusing_the_second())
    batch = log_batch('{"a": 1}', '{"a": 2}', '{"a": 3}')

    with capture_logs():
        converted = convert(batch, shape_of(a=LONG), Rules(contract=contract))  # type: ignore[arg-type]

    if contract == "evolve":
        assert misfits(converted) == [None, [("a", "2")], None]
    else:
        assert data(converted) == [{"a": 1}, {"a": 3}]
        assert [row[1:3] for row in verdicts(converted)] == [("convert", "unexpected")]


def refusing_the_second() -> Callable[..., tuple[pa.ChunkedArray, list[int]]]:
    """Answer a reader that refuses the second of three texts."""

    def read(texts: pa.Array, shape: Struct, **options: Any) -> tuple[pa.ChunkedArray, list[int]]:
        again = [b"[" if len(texts) == 3 and n == 1 else t for n, t in enumerate(texts.to_pylist())]
        return parse(pa.array(again, pa.binary()), shape, **options)

    return read

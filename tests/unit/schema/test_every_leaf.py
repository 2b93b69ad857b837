"""`data` and `misfits` together hold every leaf: proved against a slow reading of the payload."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal

import pyarrow as pa
from builders import event
from hypothesis import given, settings
from hypothesis import strategies as st
from leaf_reference import Number, missing_and_made_up, rows_data_type
from log_batches import log_batch

from penstock.codec import ENVELOPE
from penstock.schema.convert import Rules, convert
from penstock.schema.shape import EMPTY, Leaf, List, Struct, Type, count_columns

# Keys of few letters meet each other in all events; the odd ones are mapped, clash or have no
# column at all.
KEYS = st.sampled_from(["a", "b", "c", "d", "A", "", "a.b", "%2E", "a b", "a_x20b", 'q"', "n\n"])
NUMBERS = st.sampled_from(
    ["0", "-0", "1", "-7", "1.0", "-0.0", "1.5", "0.1", "1e2", "1E-2", "0.10000000000000001"]
) | st.sampled_from(
    [
        "9007199254740992",
        "9007199254740993",
        "9223372036854775807",
        "9223372036854775807.0",
        "9223372036854775808",
        "-9223372036854775809",
        "1152921504606846976",
        "4503599627370496.4",
        "9999999999999999999999999",
        "1.7976931348623159e308",
        "1e400",
        "-1e400",
        "1e-400",
        "4e-324",
    ]
)
STRINGS = st.sampled_from(
    ['""', '"x"', '"1"', '"null"', r'"\u0000"', r'"\"\\"', '"é"', r'"\u00e9\ud83d\ude00"', '"\x7f"']
)
SCALARS = NUMBERS | STRINGS | st.sampled_from(["true", "false", "null"])
SPACES = st.sampled_from(["", "", "", " ", "\n", "\r\n\t"])


def texts(depth: int) -> st.SearchStrategy[str]:
    """JSON texts, with white space, duplicate keys and all."""
    if depth == 0:
        return SCALARS | st.sampled_from(["{}", "[]"])
    inner = texts(depth - 1)
    return SCALARS | objects(inner) | st.lists(inner, max_size=4).map(lambda t: f"[{','.join(t)}]")


@st.composite
def objects(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    fields = draw(st.lists(st.tuples(KEYS, values), max_size=4))
    space = draw(SPACES)
    members = (f"{space}{json.dumps(key)}{space}:{space}{value}" for key, value in fields)
    return f"{space}{{{','.join(members)}{space}}}"


RULES = st.builds(
    Rules,
    contract=st.sampled_from(["evolve", "evolve", "evolve", "freeze"]),
    max_columns=st.sampled_from([1000, 1000, 5]),
    max_column_depth=st.sampled_from([32, 32, 3]),
)
BATCHES = st.lists(
    st.tuples(st.lists(objects(texts(3)) | objects(texts(3)) | texts(3), max_size=8), RULES),
    min_size=1,
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(BATCHES)
def test_every_leaf_of_every_event_is_in_its_row_once(
    batches: list[tuple[list[str], Rules]],
) -> None:
    """Nothing is dropped and nothing made up, whatever is sent and however shapes grow."""
    shape = EMPTY
    for payloads, rules in batches:
        shape = checked(payloads, shape, rules)


@settings(max_examples=30, deadline=None)
@given(st.lists(objects(texts(2)), min_size=2, max_size=8), RULES)
def test_what_was_learnt_from_the_first_events_hides_nothing_of_the_others(
    payloads: list[str], rules: Rules
) -> None:
    """Later events are checked against guesses made from earlier ones, and guesses can be wrong."""
    first, second, *others = payloads
    checked([first] * 256 + [second] * 600 + others, EMPTY, rules)


def checked(payloads: list[str], shape: Struct, rules: Rules) -> Struct:
    """Convert the payloads, check everything that was promised, and answer the shape."""
    batch = log_batch(*(event(p, id=str(n)) for n, p in enumerate(payloads)))

    converted = convert(batch, shape, rules)

    assert converted.quarantined.num_rows == 0
    assert grew(shape, converted.shape)
    added = [change for change in converted.changes if change.what == "added"]
    assert count_columns(converted.shape) - count_columns(shape) == len(added)
    envelope = pa.Table.from_batches([batch.select(ENVELOPE.names)])
    assert converted.rows.select(ENVELOPE.names).equals(envelope)
    kind = rows_data_type(converted.rows)
    rows = converted.rows.to_pylist()
    for number, row in enumerate(rows):
        if number == 0 or row["payload"] != rows[number - 1]["payload"]:
            assert missing_and_made_up(row, kind) == (Counter(), Counter()), row["payload"]
            assert row["misfits"] != []
        else:
            assert row["misfits"] == rows[number - 1]["misfits"]
            assert row.get("data") == rows[number - 1].get("data")

    again = convert(batch, converted.shape, rules)
    assert again.rows.schema == converted.rows.schema
    assert again.rows.to_pylist() == rows
    assert again.shape == converted.shape
    return converted.shape


def grew(old: Type, new: Type) -> bool:
    """Say whether everything old is in the new shape as it was, and at the same place."""
    match old, new:
        case Struct(before), Struct(after):
            names = [name for name, _ in before]
            return [name for name, _ in after][: len(names)] == names and all(
                grew(kind, dict(after)[name]) for name, kind in before
            )
        case List(before), List(after):
            return grew(before, after)
        case Leaf(), Leaf():
            return old == new
        case _:
            return False


@settings(max_examples=200)
@given(
    st.lists(
        st.binary(max_size=20) | st.text('{}[]":,\\u0aldn1e-. ', max_size=20).map(str.encode),
        max_size=6,
    ),
    st.sampled_from([None, "application/json"]),
)
def test_any_bytes_are_in_exactly_one_table(
    payloads: list[bytes], content_type: str | None
) -> None:
    """No bytes may stop a batch, for the same batch would come again for ever."""
    events = [event(p, id=str(n), content_type=content_type) for n, p in enumerate(payloads)]
    batch = log_batch(*events, '{"a": 1, "u0": "x", "l": [0.5]}')

    converted = convert(batch, EMPTY, Rules())

    kept = converted.rows.column("log_offset").to_pylist()
    quarantined = converted.quarantined.column("log_offset").to_pylist()
    assert sorted(kept + quarantined) == list(range(batch.num_rows))
    assert kept == sorted(kept)
    assert quarantined == sorted(quarantined)
    assert content_type or not quarantined
    for text in [json_or_none(payloads[offset]) for offset in quarantined]:
        assert text is None


def json_or_none(payload: bytes) -> object:
    """Answer what Python reads, if the bytes are JSON by the letter of the standard."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        value = json.loads(payload.decode(), parse_constant=refuse)
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError:
        return None
    return (value,)


def test_the_reference_notices_what_is_missing_and_what_is_made_up() -> None:
    """A check that cannot fail proves nothing."""
    data = pa.struct([("a", pa.int64()), ("b", pa.float64())])
    row = {"payload": b'{"a": 1, "b": 0.5, "c": "x"}', "data": {"a": 1, "b": 0.5}}

    assert missing_and_made_up({**row, "misfits": None}, data) == (
        Counter({("c", "x"): 1}),
        Counter(),
    )
    twice = [{"path": "c", "value": '"x"'}] * 2
    assert missing_and_made_up({**row, "misfits": twice}, data) == (
        Counter(),
        Counter({("c", "x"): 1}),
    )
    wrong = {**row, "data": {"a": 1, "b": 0.25}, "misfits": twice[:1]}
    assert missing_and_made_up(wrong, data) == (
        Counter({("b", Number(Decimal("0.5"))): 1}),
        Counter({("b", Number(Decimal("0.25"))): 1}),
    )

"""Plain payloads: any bytes are a row, and nobody looks into them."""

from __future__ import annotations

from pathlib import Path

from builders import FLIGHTS, event
from hypothesis import given, settings
from hypothesis import strategies as st
from lakes import append, landing, log_of, new_lake
from log_batches import log_batch

from lakehouse.catalog import main_table
from penstock.schema.convert import Rules, convert
from penstock.schema.formats import Format, open_decoder
from penstock.schema.formats.plain import Plain
from penstock.schema.shape import EMPTY, Leaf, Struct

PLAIN = Rules(decoder=Plain())
SHAPE = Struct((("a", Leaf("long")),))


def test_a_format_says_what_decodes_it() -> None:
    assert open_decoder(Format()) is None
    assert open_decoder(Format(name="plain")) == Plain()


@settings(deadline=None)
@given(payloads=st.lists(st.one_of(st.binary(), st.sampled_from([b'{"a": 1}', b"[1]", b""]))))
def test_any_bytes_are_a_row_without_columns(payloads: list[bytes]) -> None:
    """Whatever is declared: plain means that nothing is judged."""
    batch = log_batch(*(event(payload) for payload in payloads))

    for shape in (EMPTY, SHAPE):
        converted = convert(batch, shape, PLAIN)

        assert converted.rows.column("payload").to_pylist() == payloads
        assert converted.rows.column("misfits").null_count == len(payloads)
        assert converted.quarantined.num_rows == 0
        assert (converted.shape, converted.changes) == (shape, ())
        if shape != EMPTY:
            assert converted.rows.column("data").null_count == len(payloads)


def test_what_the_sender_wants_in_quarantine_goes_there() -> None:
    """The wish is about the event, not about its payload."""
    converted = convert(log_batch(event(b"\xff"), event(b"x", quarantine=True)), SHAPE, PLAIN)

    assert converted.rows.column("payload").to_pylist() == [b"\xff"]
    assert converted.quarantined.select(["payload", "stage", "reason"]).to_pylist() == [
        {"payload": b"x", "stage": "wish", "reason": "sender"}
    ]


def test_a_collection_may_become_plain_and_json_again(tmp_path: Path) -> None:
    """What has landed stays; a format holds for what lands after it."""
    log, lake = log_of('{"a": 1}'), new_lake(tmp_path)
    assert landing(log, lake).land_once(FLIGHTS) is not None
    append(log, '{"a": 2, "b": 3}', b"\x00 no JSON")
    assert landing(log, lake, rules=PLAIN).land_once(FLIGHTS) is not None
    append(log, '{"a": 4}')
    assert landing(log, lake).land_once(FLIGHTS) is not None

    table = lake.table(main_table(FLIGHTS))
    assert table is not None
    rows = table.scan().to_arrow().sort_by("log_offset")
    assert rows["data"].to_pylist() == [{"a": 1}, None, None, {"a": 4}]
    assert rows["payload"].to_pylist() == [
        b'{"a": 1}',
        b'{"a": 2, "b": 3}',
        b"\x00 no JSON",
        b'{"a": 4}',
    ]

"""Retyping in place: fractions in a column of longs make it one of doubles."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from builders import FLIGHTS, NOON, event
from descriptors import SHOP
from lakes import MAIN, append, column, everywhere, landing, log_of, mark_of, new_lake
from leaf_books import table_rows, unbalanced

from assets.retype import Retyped, retype
from lakehouse import Lake
from lakehouse.sql import open_engine
from penstock.buffer.memory import MemoryLog
from penstock.clock import machine_clock
from penstock.errors import BadRequest, NotFound, WrongState
from penstock.schema.convert import Rules
from penstock.schema.formats import Decoder
from penstock.schema.formats.plain import Plain
from penstock.schema.formats.protobuf import Protobuf
from penstock.schema.shape import columns


class Notes:
    """A history that keeps what it is told."""

    def __init__(self) -> None:
        self.versions: list[Sequence[Mapping[str, object]]] = []

    def add_schema_version(
        self, collection: Any, at: int, changes: Sequence[Mapping[str, object]]
    ) -> int:
        self.versions.append(changes)
        return len(self.versions)


def chance() -> Callable[[int], bytes]:
    numbers = itertools.count()
    return lambda size: next(numbers).to_bytes(size, "big")


def retyped(lake: Lake, notes: Notes | None = None, **more: Any) -> Retyped:
    given: dict[str, Any] = {"clock": lambda: NOON, "chance": chance(), **more}
    return retype(lake, FLIGHTS, notes, rules=Rules(), **given)


def landed(folder: Path, *payloads: str) -> tuple[Lake, MemoryLog]:
    """Answer a lake in which each of these events landed for itself."""
    lake, log = new_lake(folder), log_of()
    work = landing(log, lake)
    for payload in payloads:
        append(log, payload)
        assert work.land_once(FLIGHTS)
    return lake, log


def shape(lake: Lake) -> list[tuple[str, str]]:
    view = lake.view(FLIGHTS)
    assert view is not None
    return columns(view.shape)


def misfits(lake: Lake) -> list[tuple[int, str, str]]:
    """Answer all misfits, each with its log offset."""
    rows, _ = table_rows(lake)
    return [(r["log_offset"], m["path"], m["value"]) for r in rows for m in r["misfits"] or ()]


def test_five_and_then_a_fraction_are_one_column_of_doubles(tmp_path: Path) -> None:
    """The first batch of a field must not decide for ever."""
    lake, _ = landed(tmp_path, '{"n": 5}', '{"n": 5.99}', '{"m": 1}')
    before = lake.view(FLIGHTS)
    assert before is not None
    notes = Notes()

    done = retyped(lake, notes)

    assert shape(lake) == [("n", "double"), ("m", "long")]
    assert column(lake, "n") == [5.0, 5.99, None]
    assert misfits(lake) == []
    assert unbalanced(lake) == []
    assert everywhere(lake) == Counter(range(3))
    assert mark_of(lake).next == 3
    after = lake.view(FLIGHTS)
    assert after is not None
    assert (after.uuid, after.marks, after.rows) == (before.uuid, before.marks, before.rows)
    assert not after.rolled_back
    assert done.rewritten is not None
    assert done.rewritten.misfits_before == {"n": 1}
    assert done.rewritten.misfits_after == {}
    assert notes.versions == [
        [
            {
                "path": "n",
                "what": "retyped",
                "type": "double",
                "before": "long",
                "why": "1 misfits in 3 rows",
                "event_id": None,
            }
        ]
    ]
    assert retyped(lake).rewritten is None, "and there is nothing more to do"


def test_columns_in_objects_and_lists_are_retyped_too(tmp_path: Path) -> None:
    """Prices mostly stand in lists of objects."""
    lake, _ = landed(
        tmp_path,
        '{"at": {"x": 1}, "l": [1, 2], "ll": [[1]], "items": [{"price": 4, "n": 1}], "s": "x"}',
        '{"at": {"x": 0.5}, "l": [3, 0.5, null, "t"], "ll": [[2.5], [3]], '
        '"items": [{"price": 4.5, "n": 2}, {"price": "free"}, {"price": 3}], "s": 1.5}',
    )

    retyped(lake)

    assert shape(lake) == [
        ("at.x", "double"),
        ("l[]", "double"),
        ("ll[][]", "double"),
        ("items[].price", "double"),
        ("items[].n", "long"),
        ("s", "string"),
    ]
    assert unbalanced(lake) == []
    assert misfits(lake) == [(1, "l", '"t"'), (1, "items.price", '"free"'), (1, "s", "1.5")]
    assert column(lake, "l") == [[1.0, 2.0], [3.0, 0.5, None, None]]
    assert column(lake, "ll") == [[[1.0]], [[2.5], [3.0]]]
    assert column(lake, "items")[1] == [
        {"price": 4.5, "n": 2},
        {"price": None, "n": None},
        {"price": 3.0, "n": None},
    ]


def test_a_long_that_no_double_is_becomes_a_misfit_with_all_its_digits(tmp_path: Path) -> None:
    """2^53 + 1 as a double is another number."""
    lake, _ = landed(
        tmp_path, '{"n": 9007199254740993}', '{"n": 9007199254740992}', '{"n": 1.5}', '{"n": 2.5}'
    )

    retyped(lake)

    assert column(lake, "n") == [None, 9007199254740992.0, 1.5, 2.5]
    assert misfits(lake) == [(0, "n", "9007199254740993")]
    assert unbalanced(lake) == []


def test_ids_stay_longs_although_somebody_sent_a_fraction(tmp_path: Path) -> None:
    """Else nearly every value would leave the column."""
    ids = [f'{{"id": {2**60 + 2 * n + 1}}}' for n in range(4)]
    lake, _ = landed(tmp_path, *ids, '{"id": 0.5}')

    done = retyped(lake)

    assert (done.chosen, done.rewritten) == ((), None)
    assert [(one.column.path, one.gained, one.lost) for one in done.counted] == [("id", 1, 4)]


def test_a_column_that_is_asked_for_is_retyped_before_misfits_add_up(tmp_path: Path) -> None:
    """Who knows what will come need not wait for it; what cannot be is refused with the reason."""
    lake, _ = landed(tmp_path, '{"n": 5, "s": "x", "l": [{"p": 1}]}')
    notes = Notes()

    retyped(lake, notes, columns=["l[].p"])

    assert shape(lake) == [("n", "long"), ("s", "string"), ("l[].p", "double")]
    assert [one["why"] for one in notes.versions[0]] == ["asked for"]
    with pytest.raises(BadRequest, match="the column s is a string"):
        retyped(lake, columns=["n", "s"])
    with pytest.raises(BadRequest, match=r"no column l\.p"):
        retyped(lake, columns=["l.p"])
    assert shape(lake)[0] == ("n", "long")


def test_a_dry_run_says_the_same_and_changes_nothing(tmp_path: Path) -> None:
    """Not even an id of a column is given out, nor a file written."""
    lake, _ = landed(tmp_path, '{"n": 5}', '{"n": 5.99}')
    table = lake.table(MAIN)
    assert table is not None
    files = sorted(tmp_path.rglob("*"))
    notes = Notes()

    dry = retyped(lake, notes, dry_run=True).rewritten

    again = lake.table(MAIN)
    assert again is not None
    assert again.metadata_location == table.metadata_location
    assert sorted(tmp_path.rglob("*")) == files
    assert notes.versions == []
    real = retyped(lake).rewritten
    assert dry is not None
    assert real is not None
    assert (dry.after, dry.misfits_before, dry.misfits_after) == (
        real.after,
        real.misfits_before,
        real.misfits_after,
    )
    assert (dry.snapshot_id, real.snapshot_id is None) == (None, False)


def test_a_collection_without_a_table_is_told(tmp_path: Path) -> None:
    """Nothing has landed there, or the name is wrong."""
    with pytest.raises(NotFound):
        retyped(new_lake(tmp_path))


def test_landing_goes_on_beside_it_and_no_misfit_is_left(tmp_path: Path) -> None:
    """Whoever lands after the rewrite plans again; the rewrite is fenced against whoever did."""
    lake, log = landed(tmp_path, '{"n": 5}', '{"n": 5.99}')
    enough = threading.Event()
    troubles: list[Exception] = []

    def keep_landing() -> None:
        work = landing(log, new_lake(tmp_path), clock=machine_clock)
        numbers = itertools.count(2)
        try:
            while not enough.is_set():
                number = next(numbers)
                fresh = f', "f{number}": 1' if number % 5 == 0 else ""
                append(log, f'{{"n": {number}.5{fresh}}}' if number % 2 else f'{{"n": {number}}}')
                work.land_once(FLIGHTS)
        except Exception as error:  # noqa: BLE001 - the test says so
            troubles.append(error)

    thread = threading.Thread(target=keep_landing)
    thread.start()
    try:
        until(lambda: log.extents(FLIGHTS)[0].end > 6)
        done = retyped(lake, clock=machine_clock)
        end = log.extents(FLIGHTS)[0].end
        until(lambda: log.extents(FLIGHTS)[0].end > end + 6)
    finally:
        enough.set()
        thread.join()

    work = landing(log, lake)
    while work.land_once(FLIGHTS):
        pass
    assert troubles == []
    assert done.rewritten is not None
    count = log.extents(FLIGHTS)[0].end
    assert everywhere(lake) == Counter(range(count))
    assert mark_of(lake).next == count
    assert shape(lake)[0] == ("n", "double")
    assert misfits(lake) == []
    assert unbalanced(lake) == []


def until(true: Callable[[], bool]) -> None:
    waited = threading.Event()
    for _ in range(6_000):
        if true():
            return
        waited.wait(0.01)
    raise AssertionError("it did not come to that")


def test_duckdb_reads_the_column_and_what_was_pinned_before(tmp_path: Path) -> None:
    """A plan pins a snapshot, and a replay reads it weeks later: as it was planned."""
    lake, log = landed(tmp_path, '{"n": 5, "l": [{"p": 1}]}', '{"n": 5.99, "l": [{"p": 1.5}]}')
    before = lake.view(FLIGHTS)
    assert before is not None
    assert before.snapshot_id is not None
    lake.pin(FLIGHTS, before.snapshot_id, "plan")
    retyped(lake)
    append(log, '{"n": 7, "l": [{"p": 2}]}', '{"n": 0.25, "new": true}')
    landing(log, lake).land_once(FLIGHTS)

    view = lake.view(FLIGHTS)
    assert view is not None
    engine = open_engine(tmp_path / "sql", memory="200MB", threads=1)
    with engine.reader() as reader:
        now = reader.lake(view)
        then = reader.lake(view, snapshot_id=before.snapshot_id)
        ns = f"SELECT data.n AS n, data.l AS l FROM {now} WHERE data.n > 5.5 ORDER BY 1"
        assert reader.rows(ns).to_pylist() == [
            {"n": 5.99, "l": [{"p": 1.5}]},
            {"n": 7.0, "l": [{"p": 2.0}]},
        ]
        few = f"SELECT log_offset FROM {now} WHERE data.n <= 0.25"
        assert reader.rows(few).to_pylist() == [{"log_offset": 3}]
        old = f"SELECT data.n AS n, data.l AS l, misfits FROM {then} ORDER BY log_offset"
        assert reader.rows(old).to_pylist() == [
            {"n": 5, "l": [{"p": 1}], "misfits": None},
            {
                "n": None,
                "l": [{"p": None}],
                "misfits": [{"path": "n", "value": "5.99"}, {"path": "l.p", "value": "1.5"}],
            },
        ]
        assert str(reader.shape(then)).count("long") == 2
    engine.close()


@pytest.mark.parametrize("decoder", [Plain(), Protobuf(SHOP, message="shop.Order")])
def test_rows_of_an_earlier_format_keep_their_columns(tmp_path: Path, decoder: Decoder) -> None:
    """Who sets another format must not find the old rows empty after the next upkeep."""
    lake, _ = landed(tmp_path, '{"n": 5}', '{"n": 5.99}')
    before, _ = table_rows(lake)

    with pytest.raises(WrongState, match="earlier format"):
        retype(
            lake,
            FLIGHTS,
            rules=Rules(decoder=decoder),
            clock=lambda: NOON,
            chance=chance(),
        )

    assert table_rows(lake)[0] == before
    assert shape(lake) == [("n", "long")]
    assert unbalanced(lake) == []


def test_opaque_rows_are_no_reason_not_to_retype(tmp_path: Path) -> None:
    """They never had a column."""
    lake, log = new_lake(tmp_path), log_of()
    work = landing(log, lake)
    for payload in ('{"n": 5}', "no json", '{"n": 5.99}', "[]", "null", "{}"):
        one = event(payload, id=payload, received_at=NOON, content_type="text/plain")
        log.append(FLIGHTS, [one]).result()
        assert work.land_once(FLIGHTS)

    assert retyped(lake).rewritten is not None
    assert column(lake, "n")[:3] == [5.0, None, 5.99]

"""A collection made again from its payloads is as if its whole shape had been known."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from avros import FIRST, SECOND, THIRD, datum, text
from avros import fingerprint as print_of
from builders import FLIGHTS, NOON
from descriptors import SHOP, order
from hypothesis import given, settings
from hypothesis import strategies as st
from lakes import append, column, everywhere, landing, log_of, mark_of, new_lake
from leaf_books import table_rows, unbalanced

from assets.checks import check_conservation
from assets.rebuild import rebuild
from assets.retype import retype
from lakehouse import Lake
from lakehouse.rewrite import Rewritten
from lakehouse.sql import open_engine
from penstock.buffer.memory import MemoryLog
from penstock.envelope import Mark
from penstock.schema.convert import Rules, convert
from penstock.schema.formats.avro import Avro
from penstock.schema.formats.plain import Plain
from penstock.schema.formats.protobuf import Protobuf
from penstock.schema.retype import columns_of
from penstock.schema.shape import EMPTY, Leaf, Struct, columns
from penstock.search import SearchRequest
from penstock.search.embedded import EmbeddedSearcher


def rebuilt(lake: Lake, rules: Rules | None = None, **more: Any) -> Rewritten:
    numbers = itertools.count()
    given: dict[str, Any] = {
        "clock": lambda: NOON,
        "chance": lambda size: next(numbers).to_bytes(size, "big"),
        **more,
    }
    done = rebuild(lake, FLIGHTS, rules=rules or Rules(), **given)
    assert done is not None
    return done


def landed(folder: Path, *batches: list[str], rules: Rules | None = None) -> tuple[Lake, MemoryLog]:
    """Answer a lake in which each of these batches landed for itself."""
    lake, log = new_lake(folder), log_of()
    work = landing(log, lake, rules=rules)
    for batch in batches:
        append(log, *batch)
        assert work.land_once(FLIGHTS)
    return lake, log


def shape(lake: Lake) -> Struct:
    view = lake.view(FLIGHTS)
    assert view is not None
    return view.shape


def contents(rows: list[dict[str, Any]]) -> list[tuple[Any, Any]]:
    """Answer data (fields without a value left out) and misfits of each row."""
    return [(_without_nulls(row.get("data")), row["misfits"]) for row in rows]


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def as_known_from_the_start(lake: Lake, log: MemoryLog, rules: Rules) -> None:
    """Assert that the table is what one conversion of the whole log makes."""
    end = log.extents(FLIGHTS)[0].end
    start = Mark(log.log_id(FLIGHTS), 0, 0, "")
    everything = log.read(FLIGHTS, start, end=end, max_bytes=1 << 30).rows
    whole = convert(everything, EMPTY, rules).shape
    known = convert(everything, whole, rules)
    assert known.shape == whole
    assert shape(lake) == whole, "also in the same order"
    rows, _ = table_rows(lake)
    assert contents(rows) == contents(known.rows.to_pylist())


def test_a_table_that_grew_by_and_by_is_as_if_it_had_been_made_at_once(tmp_path: Path) -> None:
    """The types of first batches, and misfits of that time, are forgotten."""
    lake, log = landed(
        tmp_path,
        ['{"n": 5, "s": 1, "o": "text"}'],
        ['{"n": 5.99, "s": "x", "o": {"a": 1}}'],
        ['{"s": "y", "o": {"a": 2.5, "b": [1, 2.5]}, "new": true}'],
    )
    before = lake.view(FLIGHTS)
    assert before is not None

    done = rebuilt(lake)

    assert [(one.path, one.kind) for one in columns_of(done.before)] == [
        ("n", "long"),
        ("s", "long"),
        ("o", "string"),
        ("new", "bool"),
    ]
    assert columns(shape(lake)) == [
        ("n", "double"),
        ("s", "string"),
        ("o.a", "double"),
        ("o.b[]", "double"),
        ("new", "bool"),
    ]
    assert (done.misfits_before.total(), done.misfits_after) == (7, {"s": 1, "o": 1})
    assert unbalanced(lake) == []
    as_known_from_the_start(lake, log, Rules())
    after = lake.view(FLIGHTS)
    assert after is not None
    assert (after.uuid, after.marks, after.rows) == (before.uuid, before.marks, before.rows)
    append(log, '{"n": 1.5, "o": {"a": 0.5}}')
    assert landing(log, lake).land_once(FLIGHTS)
    assert column(lake, "n") == [5.0, 5.99, None, 1.5]
    assert everywhere(lake) == Counter(range(4))


def test_what_came_before_the_descriptor_was_known_gets_its_columns(tmp_path: Path) -> None:
    """Somebody uploads it a week later: the payloads have been there all the time."""
    orders = Rules(decoder=Protobuf(SHOP, message="shop.Order"))
    lake, log = landed(
        tmp_path,
        [order(id=1, total=5.0, tags=["a"])],  # type: ignore[list-item]
        [order(id=2**53 + 1, total=0.5, hash=2**64 - 1)],  # type: ignore[list-item]
        rules=Rules(decoder=Plain()),
    )
    assert shape(lake) == EMPTY

    done = rebuilt(lake, orders)

    assert column(lake, "total") == [5.0, 0.5]
    assert column(lake, "id") == [1, 2**53 + 1]
    assert done.misfits_after == {"hash": 1}
    as_known_from_the_start(lake, log, orders)
    assert everywhere(lake) == Counter(range(2))


@pytest.mark.parametrize("framing", ["datum", "single-object"])
def test_versions_of_a_schema_become_the_columns_of_the_newest(
    tmp_path: Path, framing: Any
) -> None:
    """As if it had been known from the start; what no version reads keeps its payload."""
    head = {"datum": lambda _: b"", "single-object": lambda schema: b"\xc3\x01" + print_of(schema)}
    first = head[framing](FIRST) + datum(FIRST, {"value": 5, "place": "a"})
    second = head[framing](SECOND) + datum(SECOND, {"value": 6, "place": "b", "unit": "F"})
    made = {"value": 5.5, "site": "c", "unit": "K", "by": {"name": "acme", "no": 1}}
    third = head[framing](THIRD) + datum(THIRD, made)
    lake, log = new_lake(tmp_path), log_of()
    versions: list[str] = []
    for schema, payload in ((FIRST, first), (SECOND, second), (THIRD, third)):
        versions.append(text(schema))
        rules = Rules(decoder=Avro(versions, framing=framing))
        append(log, payload)
        assert landing(log, lake, rules=rules).land_once(FLIGHTS)
    assert column(lake, "value") == [5, 6, None]
    append(log, b"{}")
    assert landing(log, lake, rules=Rules(decoder=Plain())).land_once(FLIGHTS)

    done = rebuilt(lake, rules)

    assert columns(shape(lake))[:3] == [("value", "double"), ("site", "string"), ("unit", "string")]
    assert column(lake, "value") == [5.0, 6.0, 5.5, None]
    assert column(lake, "site") == ["a", "b", "c", None]
    assert column(lake, "unit") == ["C", "F", "K", None]
    assert (done.misfits_after, done.refused) == ({}, 1)
    assert everywhere(lake) == Counter(range(4))


def test_what_a_contract_drops_does_not_come_back(tmp_path: Path) -> None:
    """A rebuild goes by the contract of today: no column is added, and nothing kept beside."""
    lake, _ = landed(tmp_path, ['{"n": 5}'], ['{"n": "x", "m": 1}'])

    done = rebuilt(lake, Rules(contract="drop_value"))

    assert done.after == shape(lake)
    assert (done.misfits_before.total(), done.misfits_after) == (1, {})
    assert column(lake, "m") == [None, 1]


def test_a_frozen_collection_keeps_its_columns(tmp_path: Path) -> None:
    """From an empty shape nothing at all would become a column again."""
    lake, _ = landed(tmp_path, ['{"n": 5}'], ['{"n": 6, "m": 1}'])
    frozen = Rules(contract="freeze")

    done = rebuilt(lake, frozen)

    assert done.before == done.after == shape(lake)
    assert column(lake, "m") == [None, 1]


def test_what_a_frozen_contract_kept_out_comes_in_when_it_evolves(tmp_path: Path) -> None:
    """The payloads have it all."""
    lake, log = landed(tmp_path, ['{"n": 5}', '{"m": {"x": 1}}'], rules=Rules(contract="freeze"))
    assert shape(lake) == EMPTY

    rebuilt(lake)

    assert columns(shape(lake)) == [("n", "long"), ("m.x", "long")]
    assert unbalanced(lake) == []
    as_known_from_the_start(lake, log, Rules())


def test_columns_without_a_leaf_go_and_a_table_may_have_none_left(tmp_path: Path) -> None:
    """Rows were deleted: their columns take room among the thousand that there may be."""
    lake, _ = landed(tmp_path, ['{"gone": 5}', "[1]"])
    table = lake.table(("main", "flights"))
    assert table is not None
    table.delete("log_offset = 0")

    done = rebuilt(lake)

    assert shape(lake) == EMPTY
    assert done.before == Struct((("gone", Leaf("long")),))
    rows, schema = table_rows(lake)
    assert "data" not in schema.names
    assert [row["misfits"] for row in rows] == [[{"path": "", "value": "1"}]]


def test_a_dry_run_says_the_same_and_changes_nothing(tmp_path: Path) -> None:
    """Not even an id of a column is given out."""
    lake, _ = landed(tmp_path, ['{"n": 5}'], ['{"n": 5.5, "x": 1}'])
    files = sorted(tmp_path.rglob("*"))

    dry = rebuilt(lake, dry_run=True)

    assert sorted(tmp_path.rglob("*")) == files
    real = rebuilt(lake)
    assert (dry.after, dry.rows, dry.misfits_before, dry.misfits_after) == (
        real.after,
        real.rows,
        real.misfits_before,
        real.misfits_after,
    )
    assert (dry.snapshot_id, real.snapshot_id is None) == (None, False)


def test_a_table_without_rows_has_nothing_to_rebuild(tmp_path: Path) -> None:
    """It was made, and nothing has landed."""
    lake = new_lake(tmp_path)
    lake.create(FLIGHTS)

    assert rebuild(lake, FLIGHTS, rules=Rules(), clock=lambda: NOON, chance=bytes) is None


@pytest.mark.parametrize("first", ["1", '"x"'])
def test_a_type_that_later_payloads_belie_is_found_all_the_same(tmp_path: Path, first: str) -> None:
    """Guesses that were made from the first hundreds of payloads must not decide."""
    other = '"y"' if first == "1" else "2.5"
    few = [f'{{"n": {first}}}'] * 300
    lake, log = landed(tmp_path, few, [f'{{"n": {other}}}'] * 700)

    rebuilt(lake)

    assert columns(shape(lake)) == [("n", "string" if first == "1" else "double")]
    as_known_from_the_start(lake, log, Rules())


KEYS = st.sampled_from(["a", "b", "c", "A", "a.b", ""])
SCALARS = st.sampled_from(
    [0, 5, -7, 5.99, 0.5, 1e300, 2**53 + 1, 2**60, 2**63, -(2**63), True, False, None, "x", "5", ""]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=4) | VALUES
BATCHES = st.lists(st.lists(DOCUMENTS, min_size=1, max_size=4), min_size=1, max_size=3)


@settings(max_examples=12, deadline=None)
@given(BATCHES, st.sampled_from(["evolve", "evolve", "freeze"]), st.sampled_from([1000, 3]))
def test_no_leaf_is_lost_and_the_whole_shape_is_found(
    batches: list[list[object]], contract: Any, most: int
) -> None:
    """Whatever was sent, in whichever order, before and after both ways to make columns anew."""
    texts = [[json.dumps(document) for document in batch] for batch in batches]
    count = sum(map(len, texts))
    rules = Rules(max_columns=most)
    with TemporaryDirectory() as folder:
        lake, log = landed(Path(folder), *texts, rules=Rules(contract=contract, max_columns=most))
        assert unbalanced(lake) == []

        numbers = itertools.count()
        longs = [path for path, kind in columns(shape(lake)) if kind == "long"]
        retype(
            lake,
            FLIGHTS,
            rules=rules,
            clock=lambda: NOON,
            chance=lambda size: next(numbers).to_bytes(size, "big"),
            columns=longs,
        )
        assert unbalanced(lake) == []
        assert [path for path, kind in columns(shape(lake)) if kind == "long"] == []

        rebuilt(lake, rules)
        assert unbalanced(lake) == []
        as_known_from_the_start(lake, log, rules)
        assert everywhere(lake) == Counter(range(count))
        assert mark_of(lake).next == count


def test_what_the_format_of_today_refuses_keeps_its_leaves_where_it_is_json(
    tmp_path: Path,
) -> None:
    """Rows of an earlier format stay rows, and what they hold is found under its path."""
    lake, _ = landed(tmp_path, ['{"n": 5, "city": "Oslo"}', "[1, 2]"])
    orders = Rules(decoder=Protobuf(SHOP, message="shop.Order"))

    done = rebuilt(lake, orders)

    assert (done.rows, done.refused) == (2, 2)
    assert everywhere(lake) == Counter(range(2))
    rows, schema = table_rows(lake)
    assert "data" not in schema.names
    assert [row["misfits"] for row in rows] == [
        [{"path": "n", "value": "5"}, {"path": "city", "value": '"Oslo"'}],
        [{"path": "", "value": "1"}, {"path": "", "value": "2"}],
    ]
    assert unbalanced(lake) == []


def test_what_is_refused_and_no_json_keeps_its_payload(tmp_path: Path) -> None:
    """It stays a row, and is counted; with `drop_value` nothing is kept beside."""
    lake, log = landed(tmp_path, ["no json", '{"n": 5}'], rules=Rules(decoder=Plain()))
    orders = Rules(decoder=Protobuf(SHOP, message="shop.Order"), contract="drop_value")

    done = rebuilt(lake, orders)

    assert (done.rows, done.refused) == (2, 2)
    assert check_conservation(lake, FLIGHTS, log.log_id(FLIGHTS)).passed
    rows, _ = table_rows(lake)
    assert [(row["payload"], row["misfits"]) for row in rows] == [
        (b"no json", None),
        (b'{"n": 5}', None),
    ]


def test_what_the_contract_of_today_would_keep_out_stays_a_row_and_is_found(
    tmp_path: Path,
) -> None:
    """Such an event would go to quarantine now; its row, landed long ago, does not."""
    lake, log = landed(tmp_path, ['{"n": 5}'], ['{"n": "x", "m": 1}', "[7]"])
    quarantining = Rules(contract="quarantine")

    done = rebuilt(lake, quarantining)

    assert (done.rows, done.refused, done.after) == (3, 0, done.before)
    assert check_conservation(lake, FLIGHTS, log.log_id(FLIGHTS)).passed
    assert unbalanced(lake) == []
    engine = open_engine(tmp_path / "spill", memory="500MB")
    searcher = EmbeddedSearcher(
        lake, log, engine, rules=lambda _: quarantining, clock=lambda: NOON + 3_600_000_000
    )
    for query, found in (("n:x", [1]), ("m:1", [1]), ("data:7", [2]), ("*", [0, 1, 2])):
        page = searcher.search(SearchRequest(collection=FLIGHTS, query=query))
        assert sorted(one.log_offset for one in page.events) == found
    assert searcher.count(SearchRequest(collection=FLIGHTS)) == 3
    engine.close()

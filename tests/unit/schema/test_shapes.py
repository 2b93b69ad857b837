"""What becomes of each shape of document, under each contract: a table to be read.

A row of `SHAPES` says which columns there are (`known`), what is sent, and what it becomes. All
columns of a row were discovered from what it says of them, so the table is also how one asks.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import pytest
from leaf_reference import missing_and_made_up, rows_data_type
from log_batches import log_batch
from ugly_events import UglyEvents

from penstock.envelope import Event
from penstock.schema.convert import Converted, Rules, convert
from penstock.schema.shape import EMPTY, Struct, columns, count_columns

Contract = Literal["evolve", "freeze", "quarantine", "drop_value"]
CONTRACTS: tuple[Contract, ...] = ("evolve", "freeze", "quarantine", "drop_value")

Pairs = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A document beside the columns that there are, and what it becomes."""

    known: str = '{"n": 1}'
    """A document that brought the columns."""
    sent: str
    new: Pairs = field(default_factory=list)
    """`evolve`: the columns that it brings, with their types."""
    beside: Pairs = field(default_factory=list)
    """`evolve`: its misfits, as path and JSON text."""
    frozen: Pairs | None = None
    """`freeze`: its misfits, where they are not those of `evolve`."""
    barred: tuple[str, str] | None = None
    """`quarantine`: reason and path. None: it is a row. With `drop_value` it always is one."""


SHAPES: dict[str, Sent] = {
    # Nothing new
    "the same fields": Sent(sent='{"n": 2}'),
    "a field less": Sent(sent="{}"),
    "null for a value": Sent(sent='{"n": null}'),
    "a whole number with a point": Sent(sent='{"n": 2.0}'),
    "an integer in a column of doubles": Sent(known='{"n": 1.5}', sent='{"n": 2}'),
    "a key twice, the last one counts": Sent(sent='{"n": "x", "n": 3}'),
    # Added
    "a new field": Sent(
        sent='{"n": 2, "b": "x"}',
        new=[("b", "string")],
        frozen=[("b", '"x"')],
        barred=("new_field", "b"),
    ),
    "a new object": Sent(
        sent='{"n": 2, "o": {"x": 1, "y": {"z": true}}}',
        new=[("o.x", "long"), ("o.y.z", "bool")],
        frozen=[("o.x", "1"), ("o.y.z", "true")],
        barred=("new_field", "o.x"),
    ),
    "a new field in a known object": Sent(
        known='{"o": {"x": 1}}',
        sent='{"o": {"x": 1, "y": 0.5}}',
        new=[("o.y", "double")],
        frozen=[("o.y", "0.5")],
        barred=("new_field", "o.y"),
    ),
    "a new list": Sent(
        sent='{"l": ["a", null, "b"]}',
        new=[("l[]", "string")],
        frozen=[("l", '"a"'), ("l", '"b"')],
        barred=("new_field", "l"),
    ),
    "a new list of objects": Sent(
        sent='{"l": [{"a": 1}, {"b": "x"}]}',
        new=[("l[].a", "long"), ("l[].b", "string")],
        frozen=[("l.a", "1"), ("l.b", '"x"')],
        barred=("new_field", "l.a"),
    ),
    "a new field in a list of objects": Sent(
        known='{"l": [{"a": 1}]}',
        sent='{"l": [{"a": 1}, {"a": 2, "b": 3}]}',
        new=[("l[].b", "long")],
        frozen=[("l.b", "3")],
        barred=("new_field", "l.b"),
    ),
    "lists in lists": Sent(
        sent='{"l": [[1, 2], [], [3]]}',
        new=[("l[][]", "long")],
        frozen=[("l", "1"), ("l", "2"), ("l", "3")],
        barred=("new_field", "l"),
    ),
    # Nothing to make a column of yet
    "a new field that is null": Sent(sent='{"n": 2, "b": null}'),
    "a new field that is empty": Sent(sent='{"n": 2, "b": {}, "c": [], "d": [{}, [null]]}'),
    # Widened: a column never changes its type
    "a fraction in a column of longs": Sent(
        sent='{"n": 1.50}', beside=[("n", "1.50")], barred=("misfit", "n")
    ),
    "an integer beyond 64 bits": Sent(
        sent='{"n": 9223372036854775808}',
        beside=[("n", "9223372036854775808")],
        barred=("misfit", "n"),
    ),
    "an integer that is no double": Sent(
        known='{"n": 1.5}',
        sent='{"n": 9007199254740993}',
        beside=[("n", "9007199254740993")],
        barred=("misfit", "n"),
    ),
    "a new field that no type can hold": Sent(
        sent='{"n": 2, "b": 1e400}', beside=[("b", "1e400")], barred=("new_field", "b")
    ),
    # In conflict
    "text in a column of longs": Sent(
        sent='{"n": "2"}', beside=[("n", '"2"')], barred=("misfit", "n")
    ),
    "a number in a column of strings": Sent(
        known='{"s": "x"}', sent='{"s": 1}', beside=[("s", "1")], barred=("misfit", "s")
    ),
    "an object where a value was": Sent(
        sent='{"n": {"x": 1, "y": 2}}',
        beside=[("n.x", "1"), ("n.y", "2")],
        barred=("misfit", "n.x"),
    ),
    "a value where an object was": Sent(
        known='{"o": {"x": 1}}', sent='{"o": 7}', beside=[("o", "7")], barred=("misfit", "o")
    ),
    "a value where a list was": Sent(
        known='{"l": [1]}', sent='{"l": 2}', beside=[("l", "2")], barred=("misfit", "l")
    ),
    "an object where a list of objects was": Sent(
        known='{"l": [{"a": 1}]}',
        sent='{"l": {"a": 2}}',
        beside=[("l.a", "2")],
        barred=("misfit", "l.a"),
    ),
    "a list where a value was": Sent(
        sent='{"n": [2, 3]}', beside=[("n", "2"), ("n", "3")], barred=("misfit", "n")
    ),
    "a list of all kinds": Sent(
        known='{"l": [1]}',
        sent='{"l": [2, "x", true, {"a": 1}, [3]]}',
        beside=[("l", '"x"'), ("l", "true"), ("l.a", "1"), ("l", "3")],
        barred=("misfit", "l"),
    ),
    "a list of all kinds, new": Sent(
        sent='{"l": ["x", 2, "y"]}',
        new=[("l[]", "string")],
        beside=[("l", "2")],
        frozen=[("l", '"x"'), ("l", "2"), ("l", '"y"')],
        barred=("new_field", "l"),
    ),
    "first a conflict, then a new field": Sent(
        sent='{"n": "x", "b": 1}',
        new=[("b", "long")],
        beside=[("n", '"x"')],
        frozen=[("n", '"x"'), ("b", "1")],
        barred=("misfit", "n"),
    ),
    # Names
    "another case of a known name": Sent(
        sent='{"N": 1}', beside=[("N", "1")], barred=("misfit", "N")
    ),
    "names that Parquet would write alike": Sent(
        known='{"a b": 1}',
        sent='{"a_x20b": 1}',
        beside=[("a_x20b", "1")],
        barred=("misfit", "a_x20b"),
    ),
    "a dotted name": Sent(
        known='{"a": {"b": 1}}',
        sent='{"a.b": 2}',
        new=[("a%2Eb", "long")],
        frozen=[("a\\.b", "2")],
        barred=("new_field", "a\\.b"),
    ),
    "the empty name": Sent(
        sent='{"": 1}', new=[("%00", "long")], frozen=[("", "1")], barred=("new_field", "")
    ),
    "a name in another script": Sent(
        sent='{"größe": 1, "名前": "x"}',
        new=[("größe", "long"), ("名前", "string")],
        frozen=[("größe", "1"), ("名前", '"x"')],
        barred=("new_field", "größe"),
    ),
    "a name that differs in case in another script": Sent(
        known='{"größe": 1}',
        sent='{"GRÖSSE": 2}',
        beside=[("GRÖSSE", "2")],
        barred=("misfit", "GRÖSSE"),
    ),
    "a name that no column can have": Sent(
        sent='{"a\\"b": 1}', beside=[('a\\"b', "1")], barred=("misfit", 'a\\"b')
    ),
    "a name of 300 characters": Sent(
        sent='{"' + "k" * 300 + '": 1}', beside=[("k" * 300, "1")], barred=("misfit", "k" * 300)
    ),
    # No object at the top
    "a scalar at the top": Sent(sent="7", beside=[("", "7")], barred=("misfit", "")),
    "text at the top": Sent(sent='"x"', beside=[("", '"x"')], barred=("misfit", "")),
    "null at the top": Sent(sent="null"),
    "a list at the top": Sent(
        sent='[1, {"n": 2}]', beside=[("", "1"), ("n", "2")], barred=("misfit", "")
    ),
    "an empty list at the top": Sent(sent="[]"),
    # Large
    "40 levels": Sent(
        sent='{"d":' * 40 + "1" + "}" * 40,
        beside=[(".".join(["d"] * 40), "1")],
        barred=("new_field", ".".join(["d"] * 40)),
    ),
}  # fmt: skip


def converted(contract: Contract, known: str, *sent: str) -> Converted:
    shape = convert(log_batch(known), EMPTY, Rules()).shape
    return convert(log_batch(*sent), shape, Rules(contract=contract))


def misfits(rows: Converted) -> Pairs:
    found = rows.rows.column("misfits").to_pylist()
    return [(one["path"], one["value"]) for row in found for one in row or []]


def data(rows: Converted) -> object:
    return rows.rows.column("data").to_pylist()


@pytest.mark.parametrize("case", SHAPES.values(), ids=SHAPES)
def test_evolve(case: Sent) -> None:
    """New leaves get columns; what cannot have one is kept beside them."""
    got = converted("evolve", case.known, case.sent)

    before = columns(converted("evolve", case.known).shape)
    assert columns(got.shape) == [*before, *case.new] or sorted(columns(got.shape)) == sorted(
        [*before, *case.new]
    )
    assert [(c.path, c.type) for c in got.changes] == case.new
    assert misfits(got) == case.beside
    assert got.quarantined.num_rows == 0


@pytest.mark.parametrize("case", SHAPES.values(), ids=SHAPES)
def test_freeze(case: Sent) -> None:
    """Columns stay as they are, and every leaf that has none is kept beside them."""
    got = converted("freeze", case.known, case.sent)

    assert (got.shape, got.changes) == (converted("freeze", case.known).shape, ())
    assert misfits(got) == (case.beside if case.frozen is None else case.frozen)
    assert got.quarantined.num_rows == 0


@pytest.mark.parametrize("case", SHAPES.values(), ids=SHAPES)
def test_quarantine(case: Sent) -> None:
    """Whatever has a leaf without a column is no row; the path is told, the value is not."""
    got = converted("quarantine", case.known, case.sent)

    assert (got.shape, got.changes) == (converted("freeze", case.known).shape, ())
    why = [(row["stage"], row["reason"], row["detail"]) for row in got.quarantined.to_pylist()]
    assert why == ([("contract", *case.barred)] if case.barred else [])
    assert got.rows.num_rows == (0 if case.barred else 1)
    assert misfits(got) == []
    if not case.barred:
        assert data(got) == data(converted("freeze", case.known, case.sent))


@pytest.mark.parametrize("case", SHAPES.values(), ids=SHAPES)
def test_drop_value(case: Sent) -> None:
    """The columns are those of `freeze`, and what has none is in the payload only."""
    got = converted("drop_value", case.known, case.sent)

    assert (got.shape, got.changes) == (converted("freeze", case.known).shape, ())
    assert misfits(got) == []
    assert got.quarantined.num_rows == 0
    assert data(got) == data(converted("freeze", case.known, case.sent))
    assert got.rows.column("payload").to_pylist() == [case.sent.encode()]


@pytest.mark.parametrize("contract", CONTRACTS)
def test_what_fits_is_the_same_under_every_contract(contract: Contract) -> None:
    """A contract is about what does not fit; for all others it costs and changes nothing."""
    payloads = [f'{{"n": {n}, "s": "x{n}"}}' for n in range(600)]

    got = converted(contract, '{"n": 1, "s": "x"}', *payloads)

    assert data(got) == [{"n": n, "s": f"x{n}"} for n in range(600)]
    assert (got.rows.column("misfits").null_count, got.quarantined.num_rows) == (600, 0)


@pytest.mark.parametrize("contract", CONTRACTS)
def test_null_first_is_decided_by_the_first_leaf(contract: Contract) -> None:
    """A thousand events with nulls promise nothing about the one that has a value."""
    payloads = [*['{"n": 1, "b": null}'] * 1_000, '{"n": 1, "b": "x"}', '{"n": 1, "b": []}']

    got = converted(contract, '{"n": 1}', *payloads)

    brought = [(c.path, c.type) for c in got.changes]
    assert brought == ([("b", "string")] if contract == "evolve" else [])
    assert misfits(got) == ([("b", '"x"')] if contract == "freeze" else [])
    offsets = got.quarantined.column("log_offset").to_pylist()
    assert offsets == ([1_000] if contract == "quarantine" else [])


@pytest.mark.parametrize("contract", CONTRACTS)
def test_ten_thousand_keys(contract: Contract) -> None:
    """As many as a document may have: 1,000 columns, and then there is no more room."""
    keys = ",".join(f'"k{n}": {n}' for n in range(10_000))

    got = converted(contract, '{"n": 1}', f"{{{keys}}}")

    assert count_columns(got.shape) == (1_000 if contract == "evolve" else 1)
    assert len(misfits(got)) == {"evolve": 9_001, "freeze": 10_000}.get(contract, 0)
    reasons = [(r["reason"], r["detail"]) for r in got.quarantined.to_pylist()]
    assert reasons == ([("new_field", "k0")] if contract == "quarantine" else [])
    what = [change.what for change in got.changes]
    assert what == ([*["added"] * 999, "full"] if contract == "evolve" else [])


def test_columns_are_full_once() -> None:
    """It is told when it becomes so, and not again with every batch."""
    rules = Rules(max_columns=2)
    first = convert(log_batch('{"a": 1, "b": 2, "c": 3}'), EMPTY, rules)
    second = convert(log_batch('{"d": 1}'), first.shape, rules)

    assert [(c.what, c.path, c.type) for c in first.changes] == [
        ("added", "a", "long"),
        ("added", "b", "long"),
        ("full", "", None),
    ]
    assert second.changes == ()
    assert misfits(second) == [("d", "1")]


@pytest.mark.parametrize("contract", ["freeze", "quarantine", "drop_value"])
def test_the_first_events_of_a_closed_collection_define_nothing(contract: Contract) -> None:
    """There are no columns to hold to, and none will come: one lets it evolve first."""
    got = convert(log_batch('{"a": 1}', "{}"), EMPTY, Rules(contract=contract))

    assert got.shape == EMPTY
    assert got.quarantined.num_rows == (1 if contract == "quarantine" else 0)
    assert misfits(got) == ([("a", "1")] if contract == "freeze" else [])


def test_a_path_is_told_at_most_a_thousand_characters_long() -> None:
    """Keys are the senders' choice, and a reason is shown in tables."""
    key = "k" * 5_000

    got = converted("quarantine", '{"n": 1}', f'{{"{key}": 1}}')

    [detail] = got.quarantined.column("detail").to_pylist()
    assert detail == "k" * 1_024 + "…"


def test_a_document_that_is_too_wide_for_its_columns_is_a_misfit_in_quarantine() -> None:
    """Its fields are known: they are not new for having no room this once."""
    known = '{"a": [{"b": 1, "c": 2, "d": 3}], "n": 4}'
    shape = convert(log_batch(known), EMPTY, Rules()).shape
    wide = '{"n": 1, "a": [' + ",".join(["{}"] * 20) + ', {"b": 7}]}'

    got = convert(log_batch(wide), shape, Rules(contract="quarantine", max_cells=30))

    reasons = [(r["reason"], r["detail"]) for r in got.quarantined.to_pylist()]
    assert reasons == [("misfit", "n")]


@pytest.mark.parametrize("contract", CONTRACTS)
def test_two_thousand_documents_of_all_kinds(contract: Contract) -> None:
    """Every leaf is in `data` or `misfits`, once; with `drop_value` it may be in the payload only.

    With `quarantine` a row is whole: it is `data` that has all leaves.
    """
    shape: Struct = EMPTY
    for seed in range(10):
        events = UglyEvents(seed).events(200)
        if seed == 0:
            shape = convert(log_batch(*events[:50]), shape, Rules()).shape
        got = convert(log_batch(*events), shape, Rules(contract=contract))
        shape = got.shape
        check_leaves(contract, events, got)
    assert count_columns(shape) > 10


def check_leaves(contract: Contract, events: list[Event], got: Converted) -> None:
    places = [*got.rows.column("log_offset").to_pylist()]
    places += got.quarantined.column("log_offset").to_pylist()
    assert sorted(places) == list(range(len(events)))
    kind = rows_data_type(got.rows)
    for row in got.rows.to_pylist():
        if row["misfits"] is None and row.get("data") is None:
            continue
        missing, made_up = missing_and_made_up(row, kind)
        assert made_up == Counter(), row["payload"]
        assert contract == "drop_value" or missing == Counter(), row["payload"]
        assert contract in ("evolve", "freeze") or row["misfits"] is None

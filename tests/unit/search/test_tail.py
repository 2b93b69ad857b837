"""The tail: converted once, kept until it has landed, and never more than there is room for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from builders import FLIGHTS, event

from penstock.buffer import Portion, start_of
from penstock.buffer.memory import MemoryLog
from penstock.envelope import CollectionId, Mark
from penstock.errors import EngineUnavailable
from penstock.schema.columns import count_cells
from penstock.schema.convert import Rules
from penstock.schema.shape import EMPTY
from penstock.search.tail import Tail, Tails

ORDERS = CollectionId("main", "orders")


class CountedLog(MemoryLog):
    """A log that counts the rows it was asked for."""

    rows_read = 0

    def read(self, collection: CollectionId, mark: Mark, *, end: int, max_bytes: int) -> Portion:
        portion = super().read(collection, mark, end=end, max_bytes=max_bytes)
        self.rows_read += portion.rows.num_rows
        return portion


def send(log: MemoryLog, *payloads: str, collection: CollectionId = FLIGHTS) -> None:
    for payload in payloads:
        log.append(collection, [event(payload, id=payload)]).result()


def read(log: MemoryLog, tails: Tails, start: Mark | None = None, collection=FLIGHTS) -> Tail:
    ends = {0: log.extents(collection)[0].end}
    return tails.read(collection, [start or start_of(log.log_id(FLIGHTS), 0)], ends, EMPTY)


def ids(tail: Tail) -> list[str]:
    return [i for piece in tail.pieces for i in piece.rows["event_id"].to_pylist()]


def mark_at(log: MemoryLog, offset: int) -> Mark:
    return log.read(FLIGHTS, start_of(log.log_id(FLIGHTS), 0), end=offset, max_bytes=1 << 30).mark


def made(**more: int) -> tuple[CountedLog, Tails]:
    log = CountedLog()
    return log, Tails(log, lambda _: Rules(), **more)


def test_what_was_converted_is_not_read_again() -> None:
    """People search again and again while events wait."""
    log, tails = made()
    send(log, '{"a":1}', '{"a":2}')

    first = read(log, tails)
    again = read(log, tails)
    send(log, '{"a":3}')
    grown = read(log, tails)

    assert ids(first) == ids(again) == ['{"a":1}', '{"a":2}']
    assert ids(grown) == ['{"a":1}', '{"a":2}', '{"a":3}']
    assert log.rows_read == 3


def test_what_has_landed_is_let_go() -> None:
    """Also where the table's mark lies within what was converted together."""
    log, tails = made()
    send(log, "[1]", "[2]", "[3]")
    read(log, tails)
    send(log, "[4]")
    read(log, tails)

    part = read(log, tails, mark_at(log, 2))
    rest = read(log, tails, mark_at(log, 3))
    none = read(log, tails, mark_at(log, 4))

    assert [ids(tail) for tail in (part, rest, none)] == [["[3]", "[4]"], ["[4]"], []]
    assert tails._kept[FLIGHTS].size == 0


def test_a_mark_that_went_back_is_followed() -> None:
    """A table that is another one now begins at an earlier mark."""
    log, tails = made()
    send(log, "[1]", "[2]")
    read(log, tails, mark_at(log, 1))

    assert ids(read(log, tails)) == ["[1]", "[2]"]


def test_a_gap_is_not_bridged() -> None:
    """Landing was faster than anybody searched."""
    log, tails = made()
    send(log, "[1]", "[2]", "[3]")
    tails.read(FLIGHTS, [start_of(log.log_id(FLIGHTS), 0)], {0: 1}, EMPTY)

    assert ids(read(log, tails, mark_at(log, 2))) == ["[3]"]


def test_the_tail_ends_at_the_cut() -> None:
    """A later search may have converted more."""
    log, tails = made()
    send(log, "[1]", "[2]", "[3]")
    read(log, tails)
    cut = tails.read(FLIGHTS, [start_of(log.log_id(FLIGHTS), 0)], {0: 2}, EMPTY)

    assert (ids(cut), cut.ends) == (["[1]", "[2]"], {0: 2})


def test_there_is_no_more_of_it_than_there_is_room_and_that_is_said() -> None:
    """A landing that stood still for an hour must not take all memory at the first search."""
    log, tails = made(most_bytes=1)
    send(log, *(f'{{"n":{n}}}' for n in range(5)))
    log_read = log.read
    log.read = lambda *a, max_bytes, **k: log_read(*a, max_bytes=1, **k)  # type: ignore[method-assign]

    tail = read(log, tails)

    assert ids(tail) == ['{"n":0}']
    assert tail.ends == {0: 1}


@pytest.mark.parametrize(
    "payload",
    [
        # Each new field is another column of every row.
        lambda n: f'{{"n": {n}, "f{n % 9}": 1}}',
        # Two columns, but each object of the list has a cell in one of them.
        lambda n: f'{{"n": {n}, "l": [{{"a": 1}}, {{}}, {{}}, {{}}]}}',
    ],
    ids=["fields", "lists"],
)
def test_small_events_with_many_columns_are_converted_a_few_at_a_time(
    payload: Callable[[int], str],
) -> None:
    """16 MB of them would take gigabytes as rows, whatever room there is."""
    log, tails = made(most_cells=200)
    send(log, *(payload(n) for n in range(300)))

    tail = read(log, tails)

    assert ids(tail) == [payload(n) for n in range(300)]
    assert max(count_cells(piece.rows["data"]) for piece in tail.pieces) <= 200
    # Not everything that follows is read again for each piece.
    assert log.rows_read < 3 * 300


def test_an_event_that_is_too_large_by_itself_is_in_the_tail_all_the_same() -> None:
    """The bound of one event is in the rules."""
    log, tails = made(most_cells=1)
    send(log, '{"a":1,"b":2}', '{"a":3,"b":4}')

    assert ids(read(log, tails)) == ['{"a":1,"b":2}', '{"a":3,"b":4}']


def test_tails_that_nobody_asks_for_are_let_go_first() -> None:
    """All collections share the room."""
    log, tails = made()
    send(log, *(f'{{"n":{n}}}' for n in range(10)))
    send(log, *(f'{{"n":{n}}}' for n in range(10)), collection=ORDERS)
    read(log, tails)
    tails = Tails(log, lambda _: Rules(), most_bytes=tails._kept[FLIGHTS].size * 3 // 2)
    read(log, tails)
    read(log, tails, collection=ORDERS)

    assert list(tails._kept) == [ORDERS]


def test_another_contract_converts_again_what_still_waits() -> None:
    """An event would be found as a row until it lands, and be in quarantine from then on."""
    log, rules = CountedLog(), [Rules()]
    tails = Tails(log, lambda _: rules[0])
    send(log, '{"a":1}')

    assert ids(read(log, tails)) == ['{"a":1}']
    rules[0] = Rules(contract="quarantine")
    again = read(log, tails)
    assert ids(again) == []
    assert [piece.quarantined.num_rows for piece in again.pieces] == [1]
    assert log.rows_read == 2


def test_nobody_needs_to_know_the_contract_where_nothing_waits() -> None:
    """Search goes on while the metadata is away."""

    def away(_: CollectionId) -> Rules:
        raise EngineUnavailable("away")

    log, tails = CountedLog(), Tails(CountedLog(), away)
    send(log, '{"a":1}')

    assert read(log, tails, mark_at(log, 1)).pieces == ()


def test_many_small_pieces_become_few() -> None:
    """Each search adds one, and scanning hundreds of tables of a row is slow."""
    log, tails = made()
    for n in range(100):
        send(log, f'{{"n":{n}}}')
        tail = read(log, tails)

    assert len(ids(tail)) == 100
    assert len(tail.pieces) < 40


def test_pieces_keep_the_shape_they_were_converted_to() -> None:
    """A new field widens what comes after it."""
    log, tails = made()
    send(log, '{"a":1}')
    read(log, tails)
    send(log, '{"b":1}')
    tail = read(log, tails)

    assert [[name for name, _ in piece.shape.fields] for piece in tail.pieces] == [
        ["a"],
        ["a", "b"],
    ]

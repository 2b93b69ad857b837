"""Sums of commits, as Dagster is told about them."""

from __future__ import annotations

from builders import FLIGHTS, NOON

from assets.landing import Landed
from orchestration.digest import AT_ONCE, EVERY, Digest
from penstock.envelope import CollectionId, Span

ORDERS = CollectionId("main", "orders")


def landed(start: int, end: int, collection: CollectionId = FLIGHTS) -> Landed:
    return Landed(
        collection=collection,
        spans=(Span(collection, 0, start, end),),
        rows=end - start,
        quarantined=0,
        bytes=10 * (end - start),
        file_bytes=1,
        columns=1,
        changes=(),
        snapshot_id=1,
        seconds=0.1,
        lag=0,
        waiting=0,
    )


def test_a_collection_is_told_about_at_once_and_then_summed() -> None:
    """An event in Dagster for each small commit costs more than the commit."""
    digest = Digest()

    first = digest.add(landed(0, 2), NOON)
    second = digest.add(landed(2, 3), NOON + EVERY - 1)
    other = digest.add(landed(0, 1, ORDERS), NOON + EVERY - 1)
    third = digest.add(landed(3, 7), NOON + EVERY)

    assert [(c, s.rows) for c, s in first] == [(FLIGHTS, 2)]
    assert second == []
    assert [c for c, _ in other] == [ORDERS]
    ((_, both),) = third
    assert (both.commits, both.rows, both.bytes, both.spans) == (2, 5, 50, {0: (2, 7)})
    assert digest.rest(NOON + EVERY) == []


def test_a_clock_that_was_set_back_does_not_silence_a_collection() -> None:
    """It would look as if nothing landed for as long as the clock was set back."""
    digest = Digest()
    digest.add(landed(0, 1), NOON)

    told = digest.add(landed(1, 2), NOON - 2 * EVERY)

    assert [s.rows for _, s in told] == [1]


def test_of_hundreds_of_collections_each_is_told_about_in_its_turn() -> None:
    """An event for each, as often as for one of a few, would take longer than all the commits."""
    digest = Digest()
    many = [CollectionId("main", f"c{number:03d}") for number in range(10 * AT_ONCE)]
    told: list[tuple[CollectionId, int]] = []
    rounds = 12

    for number in range(rounds):
        for place, collection in enumerate(many):
            now = NOON + number * EVERY + place * EVERY // len(many)
            told += [
                (c, s.rows) for c, s in digest.add(landed(number, number + 1, collection), now)
            ]

    assert len(told) <= (rounds + 1) * AT_ONCE
    assert {collection for collection, _ in told} == set(many)
    told += [(c, s.rows) for c, s in digest.rest(NOON + rounds * EVERY)]
    assert sum(rows for _, rows in told) == rounds * len(many)

"""What the landing sensor decides."""

from __future__ import annotations

from assets.landing import Lane
from orchestration.lanes import (
    SECOND,
    STARTING_GRACE,
    LiveRun,
    decide,
    decide_without_lease,
    waiting,
)
from penstock.envelope import CollectionId, Extent

NOW = 1_000_000_000_000
OLD = NOW - STARTING_GRACE
FRESH = NOW - STARTING_GRACE + 1


def test_a_run_is_launched_when_events_wait_and_nobody_drains() -> None:
    """Otherwise nothing would ever land."""
    decision = decide(waiting=3, runs=[], lease_holder=None, lease_until=0, now=NOW)

    assert decision.launch
    assert decision.dead == ()


def test_nothing_is_launched_while_nothing_waits() -> None:
    """A run costs seconds of CPU; an idle installation must not pay them."""
    assert not decide(waiting=0, runs=[], lease_holder=None, lease_until=0, now=NOW).launch


def test_a_beating_run_is_left_alone() -> None:
    """A second run beside it would race for the same spans."""
    decision = decide(
        waiting=3, runs=[LiveRun("a", OLD)], lease_holder="a", lease_until=NOW + 1, now=NOW
    )

    assert not decision.launch
    assert decision.dead == ()


def test_a_run_that_is_still_starting_is_left_alone() -> None:
    """It takes seconds until a launched run takes its lease."""
    decision = decide(
        waiting=3, runs=[LiveRun("a", FRESH)], lease_holder=None, lease_until=0, now=NOW
    )

    assert not decision.launch
    assert decision.dead == ()


def test_a_run_whose_lease_lapsed_is_dead_and_replaced_at_once() -> None:
    """Dagster shows a killed run as started for ever; waiting for it would end landing."""
    decision = decide(
        waiting=3, runs=[LiveRun("a", FRESH)], lease_holder="a", lease_until=NOW, now=NOW
    )

    assert decision.launch
    assert decision.dead == ("a",)


def test_an_old_run_that_never_took_the_lease_is_dead() -> None:
    """It died before its first line of ours ran."""
    decision = decide(
        waiting=3, runs=[LiveRun("a", OLD)], lease_holder="b", lease_until=NOW + 1, now=NOW
    )

    assert not decision.launch
    assert decision.dead == ("a",)


def test_waiting_counts_what_no_commit_has_absorbed() -> None:
    """A partition that was never released waits from its start."""
    assert waiting({0: 10, 1: 5}, {0: 7}) == 8
    assert waiting({0: 10}, {0: 12}) == 0


def test_lanes_share_the_partitions_of_a_collection_evenly() -> None:
    """Each partition is in one lane, and four of them are in both of two lanes."""
    extents = {partition: Extent(0, 1) for partition in range(4)}
    for number in range(20):
        collection = CollectionId("main", f"c{number}")
        shares = [Lane(lane, 2).share(collection, extents) for lane in range(2)]
        assert [len(share) for share in shares] == [2, 2]
        assert shares[0] | shares[1] == extents
    assert Lane().share(collection, extents) == extents


def test_while_the_lease_cannot_be_read_one_run_is_enough_and_none_is_dead() -> None:
    """The metadata may be away for hours; to fail the run that lands would end landing."""
    alone = decide_without_lease(waiting=3, runs=[])
    beside = decide_without_lease(waiting=3, runs=[LiveRun("a", OLD)])
    idle = decide_without_lease(waiting=0, runs=[])

    assert (alone.launch, beside.launch, idle.launch) == (True, False, False)
    assert beside.dead == ()


def test_a_clock_that_was_set_back_lets_no_dead_run_stand_in_the_way() -> None:
    """Its lease, and its start, would look fresh for as long as the clock was set back."""
    hour = 3_600 * SECOND
    held = decide(
        waiting=3, runs=[LiveRun("a", OLD)], lease_holder="a", lease_until=NOW + hour, now=NOW
    )
    started = decide(
        waiting=3, runs=[LiveRun("a", NOW + hour)], lease_holder=None, lease_until=0, now=NOW
    )

    assert (held.launch, held.dead) == (True, ("a",))
    assert (started.launch, started.dead) == (True, ("a",))

from __future__ import annotations

import pytest
from builders import FLIGHTS, NOON, event, numbered, ticking
from door_builders import (
    ADMIN,
    BOUND,
    LIMITS,
    OTHER_TEAM,
    PAUSED,
    READER,
    SHIPS,
    THEIRS,
    TOKEN,
    FailingLog,
    door_on,
    known,
)

from ingest_api.accept import Door
from ingest_api.auth import Grant, Keyring
from ingest_api.limits import Limits, Rates
from penstock.envelope import CollectionId, Position
from penstock.errors import (
    BadName,
    BadRequest,
    CollectionPaused,
    Forbidden,
    LogUnavailable,
    NotFound,
    Overloaded,
    PenstockError,
    TooFast,
    TooLarge,
    Unauthorized,
)

SENDER = Grant("main", frozenset({"ingest"}), None, "sender")


@pytest.mark.parametrize(
    ("token", "asked", "found"),
    [
        (TOKEN, "flights", FLIGHTS),
        (TOKEN, "main.ships", SHIPS),
        (TOKEN, SHIPS, SHIPS),
        (BOUND, None, FLIGHTS),
        (BOUND, "flights", FLIGHTS),
        (ADMIN, "ships", SHIPS),
        (OTHER_TEAM, "theirs", THEIRS),
    ],
)
def test_a_token_may_send_to_its_own(
    token: str, asked: CollectionId | str | None, found: CollectionId
) -> None:
    grant, record = door_on(FailingLog()).may_ingest(token, asked)

    assert record.id == found
    assert grant.team == found.team


@pytest.mark.parametrize(
    ("token", "asked", "error"),
    [
        (None, "flights", Unauthorized),
        ("", "flights", Unauthorized),
        ("pst_wrong", "flights", Unauthorized),
        (READER, "flights", Forbidden),
        (BOUND, "ships", Forbidden),
        (BOUND, "trains", Forbidden),
        (TOKEN, None, BadRequest),
        (TOKEN, "trains", NotFound),
        (TOKEN, "Flights!", BadName),
        (TOKEN, "paused", CollectionPaused),
        (TOKEN, PAUSED, CollectionPaused),
    ],
)
def test_everything_else_is_refused_by_name(
    token: str | None, asked: CollectionId | str | None, error: type[PenstockError]
) -> None:
    with pytest.raises(error):
        door_on(FailingLog()).may_ingest(token, asked)


@pytest.mark.parametrize(
    "asked", ["other.theirs", THEIRS, "other.nothing", "penstock_system.changes"]
)
def test_another_teams_collection_does_not_exist(asked: CollectionId | str) -> None:
    """403 would tell that it does."""
    with pytest.raises(NotFound):
        door_on(FailingLog()).may_ingest(TOKEN, asked)


def test_the_doors_time_never_goes_back() -> None:
    """Landing and search cut by it; an event before its predecessors would be skipped."""
    times = iter([NOON, NOON - 5_000_000, NOON + 1])
    door = Door(FailingLog(), Keyring(), LIMITS, clock=lambda: next(times), new_ids=numbered())

    assert [door.received() for _ in range(3)] == [NOON, NOON, NOON + 1]


def test_outcomes_are_in_the_order_of_the_events() -> None:
    """A sender repeats what failed; a shifted outcome would lose one and double another."""
    log = FailingLog(broken={b"bad": LogUnavailable("no answer from the broker")})
    door = door_on(log)
    events = [
        event("a"),
        event("x" * 1_001),
        event("bad"),
        event("b"),
    ]

    outcomes = door.accept(SENDER, FLIGHTS, events).result()

    assert outcomes[0] == Position(0, 0)
    assert isinstance(outcomes[1], TooLarge)
    assert isinstance(outcomes[2], LogUnavailable)
    assert outcomes[3] == Position(0, 1)
    assert log.payloads == [b"a", b"b"]


def test_nothing_is_appended_when_every_event_is_refused() -> None:
    """The log's promise is for one event or more."""
    log = FailingLog(held=True)

    outcomes = door_on(log).accept(SENDER, FLIGHTS, [event("x" * 1_001)] * 2).result()

    assert [type(outcome) for outcome in outcomes] == [TooLarge, TooLarge]
    assert not log.waiting


def test_no_events_are_no_append() -> None:
    log = FailingLog(held=True)

    assert list(door_on(log).accept(SENDER, FLIGHTS, []).result()) == []
    assert not log.waiting


@pytest.mark.parametrize("size", [999, 1_000])
def test_an_event_may_have_exactly_its_limit(size: int) -> None:
    (outcome,) = door_on(FailingLog()).accept(SENDER, FLIGHTS, [event("x" * size)]).result()

    assert outcome == Position(0, 0)


def test_an_event_that_asks_for_quarantine_may_be_larger() -> None:
    """Over gRPC an error would make existing clients drop the whole batch."""
    big = event("x" * 5_000, quarantine=True)

    (outcome,) = door_on(FailingLog()).accept(SENDER, FLIGHTS, [big]).result()

    assert outcome == Position(0, 0)


@pytest.mark.parametrize("error", [LogUnavailable("disk full"), Overloaded("too much is waiting")])
@pytest.mark.parametrize("payloads", [["a"], ["a", "x" * 2_000]])
def test_a_log_that_fails_fails_the_whole_call(error: Exception, payloads: list[str]) -> None:
    """Whatever else was decided, nothing may look as if it had been stored."""
    door = door_on(FailingLog(error=error))

    with pytest.raises(type(error)):
        door.accept(SENDER, FLIGHTS, [event(payload) for payload in payloads]).result()


def test_the_log_counts_as_responding_until_an_append_fails_and_again_after() -> None:
    """The health answer is read by people at night."""
    log = FailingLog()
    door = door_on(log)
    door.check_log()

    log.error = LogUnavailable("no space left on device")
    with pytest.raises(LogUnavailable):
        door.accept(SENDER, FLIGHTS, [event()]).result()
    with pytest.raises(LogUnavailable):
        door.check_log()

    log.error = Overloaded("too much is waiting")
    with pytest.raises(Overloaded):
        door.accept(SENDER, FLIGHTS, [event()]).result()
    door.check_log()

    log.error = None
    door.accept(SENDER, FLIGHTS, [event()]).result()
    door.check_log()


def test_a_token_may_send_a_seconds_worth_at_once_and_then_at_its_rate() -> None:
    """One sender must not take the door from the others."""
    rates = Rates(100)

    assert rates.take("t", 100, NOON) is None
    refused = rates.take("t", 1, NOON)
    assert isinstance(refused, TooFast)
    assert refused.retry_after == 1
    assert rates.take("other", 1, NOON) is None
    assert rates.take("t", 10, NOON + 100_000) is None
    assert isinstance(rates.take("t", 1, NOON + 100_000), TooFast)


def test_a_batch_larger_than_a_seconds_worth_passes_and_is_paid_for() -> None:
    """It could never pass otherwise, and without the debt it would pass every time."""
    rates = Rates(100)

    assert rates.take("t", 1_000, NOON) is None
    refused = rates.take("t", 1, NOON)
    assert isinstance(refused, TooFast)
    assert refused.retry_after == 10
    assert isinstance(rates.take("t", 1, NOON + 9_000_000), TooFast)
    assert rates.take("t", 1, NOON + 9_100_000) is None


def test_no_rate_means_no_limit() -> None:
    rates = Rates(0)

    assert all(rates.take("t", 10**9, NOON) is None for _ in range(3))


def test_the_door_refuses_what_comes_too_fast() -> None:
    limits = Limits(max_event_bytes=10, max_body_bytes=10, max_ratio=2, events_per_second=2)
    log = FailingLog()
    door = door_on(log, limits=limits)

    door.accept(SENDER, FLIGHTS, [event("a"), event("b")]).result()
    with pytest.raises(TooFast):
        door.accept(SENDER, FLIGHTS, [event("c")]).result()

    assert log.payloads == [b"a", b"b"]


def test_what_was_accepted_and_refused_is_counted() -> None:
    """Books that do not add up hide a loss."""
    log = FailingLog(broken={b"bad": LogUnavailable("no answer")})
    door = Door(log, Keyring(known()), LIMITS, clock=ticking(NOON), new_ids=numbered())
    value = door.metrics.registry.get_sample_value

    door.accept(SENDER, FLIGHTS, [event("aa"), event("bad"), event("x" * 2_000)]).result()
    log.error = LogUnavailable("disk full")
    with pytest.raises(LogUnavailable):
        door.accept(SENDER, FLIGHTS, [event("c"), event("d")]).result()

    assert value("penstock_door_events_total", {"source": "http"}) == 1
    assert value("penstock_door_payload_bytes_total", {"source": "http"}) == 2
    assert value("penstock_door_refused_total", {"reason": "TooLarge"}) == 1
    assert value("penstock_door_refused_total", {"reason": "LogUnavailable"}) == 3
    assert value("penstock_door_durable_seconds_count") == 1

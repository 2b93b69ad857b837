"""The ledger through a door, and what its rows add up to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from itertools import accumulate, chain, pairwise

import msgspec
import pytest
from builders import NOON
from door_builders import LIMITS, FailingLog, door_on, known, token_record
from hypothesis import given
from hypothesis import strategies as st
from receiving import Reply, receiving
from tallied import Tally, tally

from ingest_api.auth import Keyring
from ingest_api.http import HttpDoor
from ingest_api.serve import create_server
from penstock.errors import EngineUnavailable, LogUnavailable
from penstock.metadata.home import REPLAY_ATTEMPTS
from penstock.metadata.records import CollectionRecord
from penstock.metadata.tokens import new_token
from replay.ledger import ATTEMPTS, DoorLedger, NoLedger, accepted_of, add_lines, told
from replay.progress import Attempt, Attempts, Progress, report

TOKEN = new_token(b"9" * 32)


def row(
    offset: int = 0, outcome: str | None = None, *, attempt: int = 1, epoch: int = 1
) -> Attempt:
    return Attempt(
        replay="r1",
        epoch=epoch,
        event_id=f"e{offset}",
        team="main",
        collection="flights",
        partition=0,
        offset=offset,
        last=offset,
        attempt=attempt,
        kind="intent" if outcome is None else "outcome",
        outcome=outcome,
        at="2025-11-24T16:00:00.000000Z",
        destination="d1",
        who="run 1",
    )


def written(url: str, rows: Sequence[Attempt], *, times: int = 1, key: str = "r1-1-1") -> None:
    async def main() -> None:
        ledger = DoorLedger(url, TOKEN)
        try:
            for _ in range(times):
                await ledger.write([Attempts(row) for row in rows], key=key)
        finally:
            await ledger.close()

    asyncio.run(main())


def through_a_door(log: FailingLog, rows: Sequence[Attempt], *, times: int = 1) -> None:
    """Write rows to a real door before this log, by HTTP."""
    told = known(
        tokens=[
            token_record(TOKEN, "ledger", team=ATTEMPTS.team, collection=ATTEMPTS.name),
        ]
    )
    attempts = CollectionRecord(id=ATTEMPTS, created_at=NOON)
    keyring = Keyring(msgspec.structs.replace(told, collections=(*told.collections, attempts)))

    async def main() -> None:
        door = door_on(log, keyring=keyring, limits=LIMITS)
        server = create_server(HttpDoor(door, max_held_bytes=1 << 20))
        listening = socket.create_server(("127.0.0.1", 0))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        ledger = DoorLedger(f"http://127.0.0.1:{listening.getsockname()[1]}/", TOKEN)
        try:
            for _ in range(times):
                await ledger.write([Attempts(row) for row in rows], key="r1-1-1")
        finally:
            await ledger.close()
            server.should_exit = True
            await serving

    asyncio.run(main())


def test_rows_arrive_at_the_door_as_events_in_order() -> None:
    """The ledger's table is landed from these, so they have to be events like any others."""
    log = FailingLog()
    rows = [row(0), row(1), row(0, "delivered"), row(1, "retry")]

    through_a_door(log, rows)

    assert {collection for collection, _ in log.stored} == {ATTEMPTS} == {REPLAY_ATTEMPTS}
    assert [msgspec.json.decode(payload, type=Attempt) for payload in log.payloads] == rows
    assert {each.content_type for each in log.events} == {"application/json"}


def test_rows_written_twice_have_the_same_ids() -> None:
    """After a lost answer they are sent again, and must fold with the first ones."""
    log = FailingLog()

    through_a_door(log, [row(0), row(1)], times=2)

    ids = [each.id for each in log.events]
    assert ids[:2] == ids[2:] == ["r1-1-1:1", "r1-1-1:2"]


@given(
    st.sampled_from(["delivered", "retry"]),
    st.lists(st.tuples(st.text(max_size=8), st.integers(1, 3)), max_size=30),
)
def test_an_outcome_says_exactly_of_which_events_it_speaks(
    outcome: str, others: list[tuple[str, int]]
) -> None:
    """Who received an event is asked by its offset, and one between two others may not be there."""
    offsets = [7 + step for step in accumulate(step for _, step in others)]
    rows = Attempts(row(7, outcome), [name for name, _ in others], offsets)

    lines = list(told(rows))

    spans = [range(each.offset, each.last + 1) for each in lines]
    assert [each.events for each in lines] == list(map(len, spans))
    spoken = [*chain.from_iterable(spans)]
    assert spoken == [7, *offsets]
    ids = {each.offset: each.event_id for each in rows.rows()}
    assert all(each.event_id == ids[each.offset] for each in lines)
    assert all(b.offset > a.offset + a.events for a, b in pairwise(lines)), "no row too many"


def test_events_that_are_about_to_go_together_have_one_intent() -> None:
    """What lies between them may have been left out: nothing is asked of an intent."""
    body = bytearray()
    lines = add_lines(body, Attempts(row(7), ["e8", "e12"], [8, 12]))
    lines += add_lines(body, Attempts(row(20)))

    assert lines == 2
    together, alone = map(msgspec.json.decode, body.splitlines())
    assert (together["kind"], together["offset"], together["last"]) == ("intent", 7, 12)
    assert together["events"] == 3
    assert alone == msgspec.json.decode(msgspec.json.encode(row(20)))
    assert "events" not in alone


def test_what_the_log_did_not_take_was_not_written() -> None:
    """A checkpoint behind rows that are not durable would lose them."""
    log = FailingLog(error=LogUnavailable("the disk is full"))

    with pytest.raises(EngineUnavailable):
        through_a_door(log, [row(0)])


def test_what_the_log_took_in_part_was_not_written() -> None:
    """202 is also the answer when only some rows are durable."""
    bad = row(1)
    log = FailingLog(broken={msgspec.json.encode(bad): LogUnavailable("not this one")})

    with pytest.raises(EngineUnavailable, match="every row"):
        through_a_door(log, [row(0), bad])


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 409, 413, 429, 500, 503, 302])
def test_every_answer_but_202_means_to_try_again(status: int) -> None:
    """A door that has not heard of the token yet hears of it a moment later."""
    after = 1 if status in (401, 403) else 7
    with (
        receiving(lambda _: Reply(status, (("Retry-After", "7"),), b'{"accepted": 1}')) as door,
        pytest.raises(EngineUnavailable) as refused,
    ):
        written(f"http://127.0.0.1:{door.port}", [row()])

    assert refused.value.retry_after == after
    assert TOKEN not in str(refused.value)


@pytest.mark.parametrize("how", ["reset", "garbage", "break off"])
def test_a_door_that_does_not_answer_means_to_try_again(how) -> None:
    """The door is restarted now and then; the replay waits for it."""
    with receiving(lambda _: Reply(202, how=how)) as door, pytest.raises(EngineUnavailable):
        written(f"http://127.0.0.1:{door.port}", [row()])


def test_a_door_that_is_not_there_means_to_try_again() -> None:
    """Doors may start after the replay."""
    with receiving() as door:
        pass
    with pytest.raises(EngineUnavailable, match="does not answer"):
        written(f"http://127.0.0.1:{door.port}", [row()])


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b"[1]", b'{"accepted": "2"}', b"\xff"])
def test_an_answer_that_cannot_be_read_accepts_nothing(body: bytes) -> None:
    """Whatever stands between us and the door must not be taken for its word."""
    assert accepted_of(body) == 0


def test_a_dry_run_records_nothing() -> None:
    """The table of attempts says who received an event; nobody did."""
    asyncio.run(NoLedger().write([row()], key="k"))
    asyncio.run(NoLedger().close())


def test_the_rows_of_a_replay_add_up() -> None:
    """Who received this event, and how often at most, is asked of these rows."""
    rows = [
        *[row(0), row(0, "delivered")],
        *[row(1), row(1, "retry"), row(1, attempt=2), row(1, "delivered", attempt=2)],
        *[row(2), row(2, "failed")],
        *[row(3), row(3, "unknown"), row(3, epoch=2, attempt=2)],
        *[row(3, "delivered", epoch=2, attempt=2)],
        *[row(4), row(4, "delivered"), row(4, "unknown")],
        *[row(5), row(5, "skipped")],
        row(6),
        *[row(7), row(7, "retry")],
    ]

    assert tally(rows) == Tally(
        delivered=4, failed=1, skipped=1, unknown=0, retrying=1, open=1, repeats=1, attempts=9
    )


def test_matched_is_always_the_sum_of_the_others() -> None:
    """The proof that nothing was forgotten."""
    progress = Progress(delivered=5, failed=2, unknown=1, skipped=0, repeated=3, attempts=11)

    running = report(progress, matched=20, ended=False)
    ended = report(progress, matched=20, ended=True)

    assert (running.waiting, running.skipped) == (12, 0)
    assert (ended.waiting, ended.skipped) == (0, 12)
    for each in (running, ended):
        parts = (each.delivered, each.failed, each.skipped, each.unknown, each.waiting)
        assert sum(parts) == each.matched == 20

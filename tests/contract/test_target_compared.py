"""A destination over HTTP that is compared with another endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from builders import FLIGHTS, NOON, event
from far_sides import HERE
from receiving import Receiver, Reply, Request, receiving
from replaying import MemoryKeeper, MemoryLedger, originals, sender

from penstock.envelope import Position
from penstock.errors import AddressRefused, BadRequest
from penstock.guard import Guard
from penstock.metadata.records import Destination
from replay.events import Original
from replay.progress import report
from replay.send import Ended
from replay.targets import Delivered, Failed, Message, Outcome, Retry, Target
from replay.targets.compared import ComparedTarget
from replay.targets.opening import checked, open_target


def destination(url: str, **options: Any) -> Destination:
    return Destination(
        team="main",
        name="d1",
        url=url,
        options={"signing": "github", **options},
        headers=[("X-Api-Key", "secret")],
        secret="hush",
        created_at=NOON,
    )


def opened(first: Receiver, second: Receiver, *, timeout: float = 20.0, **options: Any) -> Target:
    return open_target(
        destination(first.url, compare_url=second.url, **options),
        guard=Guard(allow_networks=(HERE,), allow_ports=(first.port, second.port)),
        replay_id="r1",
        collection=FLIGHTS,
        clock=lambda: NOON,
        timeout=timeout,
    )


def compared(
    first: Reply, second: Reply, *, slow: float = 0.0, timeout: float = 20.0, **options: Any
) -> Outcome:
    """Send an event to two endpoints that answer like this; answer what came of it."""

    async def main(target: Target) -> Outcome:
        [outcome] = await target.send([Message(event(b"{}"), Position(0, 0), 1)])
        await target.close()
        return outcome

    with receiving(lambda _: first) as one, receiving(lambda _: second, seconds=slow) as two:
        return asyncio.run(main(opened(one, two, timeout=timeout, **options)))


@pytest.mark.parametrize(
    ("first", "second", "options", "outcome"),
    [
        (Reply(200, body=b"a"), Reply(200, body=b"b"), {}, Delivered(200)),
        (Reply(200, body=b"a"), Reply(200, body=b"a"), {"compare": "body"}, Delivered(200)),
        (
            Reply(200, body=b"a"),
            Reply(200, body=b"b"),
            {"compare": "body"},
            Delivered(200, "the other endpoint answered with another body"),
        ),
        (Reply(200), Reply(201), {}, Delivered(200, "the other endpoint answered 201")),
        (Reply(202), Reply(500), {}, Delivered(202, "the other endpoint answered 500")),
        (Reply(404), Reply(404), {}, Failed("answered 404", 404)),
        (
            Reply(404),
            Reply(200),
            {},
            Failed("answered 404", 404, "the other endpoint answered 200"),
        ),
        (Reply(503), Reply(200), {}, Retry("answered 503", 503)),
    ],
)
def test_answers_are_compared(
    first: Reply, second: Reply, options: dict[str, str], outcome: Outcome
) -> None:
    """What the first answers decides; how the second differs is said beside it."""
    assert compared(first, second, **options) == outcome


def test_an_endpoint_that_does_not_answer_differs_and_decides_nothing() -> None:
    """The next version of a service may be down: that is what somebody wants to know."""
    assert compared(Reply(200), Reply(200), slow=5.0, timeout=1.0) == Delivered(
        200, "the other endpoint: no answer in time"
    )


def test_both_get_the_same_request() -> None:
    """Headers, credentials, signature and bytes: otherwise they have reason to answer otherwise."""

    async def main(target: Target) -> None:
        await target.send([Message(event(b'{"n": 1}', id="e1"), Position(0, 0), 1)])
        await target.close()

    with receiving() as one, receiving() as two:
        asyncio.run(main(opened(one, two)))

    [first], [second] = (_without_host(each.requests) for each in (one, two))
    assert first == second
    names = {name.lower() for name, _ in first[1]}
    assert {b"x-api-key", b"x-hub-signature-256", b"penstock-event-id"} <= names


def _without_host(requests: list[Request]) -> list[tuple[bytes, list[tuple[bytes, bytes]]]]:
    return [(r.body, [(n, v) for n, v in r.headers if n.lower() != b"host"]) for r in requests]


def test_a_replay_counts_what_differs_and_the_ledger_says_how() -> None:
    """Whoever compares two versions asks how many, and then which."""
    ledger = MemoryLedger()

    async def main(events: Sequence[Original], target: Target) -> Ended:
        ended = await sender(events, target, MemoryKeeper(), ledger).run()
        await target.close()
        return ended

    def answer(request: Request) -> Reply:
        return Reply(500 if request.body.endswith(b"7") else 200)

    with receiving() as one, receiving(answer) as two:
        events = originals(50)
        wrong = sum(each.event.payload.endswith(b"7") for each in events)
        ended = asyncio.run(main(events, opened(one, two)))

    account = report(ended.progress, matched=50, ended=True)
    assert (account.delivered, account.differing) == (50, wrong)
    assert wrong > 0
    assert ended.progress.last_failure is None
    said = [row.reason for row in ledger.rows if row.outcome == "delivered" and row.reason]
    assert said == ["the other endpoint answered 500"] * wrong


def test_the_guard_looks_at_the_other_address_too() -> None:
    """It is a way out of the house like the first."""
    guard = Guard()
    with pytest.raises(AddressRefused):
        checked(destination("https://a.example/", compare_url="https://169.254.169.254/"), guard)
    with pytest.raises(BadRequest, match="there is none"):
        checked(destination("https://a.example/", compare="body"), guard)
    kept = checked(
        destination("https://a.example/", compare_url="https://b.example/", compare="body"), guard
    )
    assert kept.options["compare"] == "body"


@pytest.mark.parametrize("url", ["https://user:pw@new.example/in", "ftp://new.example/in"])
def test_what_is_wrong_with_the_other_address_is_told_there(url: str) -> None:
    """Not at the first one's, which is right."""
    with pytest.raises(AddressRefused) as refused:
        checked(destination("https://old.example/in", compare_url=url), Guard())

    assert refused.value.field == "options.compare_url"


def test_without_another_endpoint_there_is_one_target() -> None:
    with receiving() as one:
        target = open_target(
            destination(one.url),
            guard=Guard(allow_networks=(HERE,), allow_ports=(one.port,)),
            replay_id="r1",
            collection=FLIGHTS,
            clock=lambda: NOON,
        )
    assert not isinstance(target, ComparedTarget)

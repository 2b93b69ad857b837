"""What several processes that send to one HTTP destination keep beyond the promise of a target."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import msgspec
import psutil
import pytest
import ugly
from builders import FLIGHTS, NOON, event
from far_sides import HERE
from receiving import Receiver, Reply, Request, receiving
from replaying import MemoryKeeper, MemoryLedger, originals, sender
from spreading import processes

from penstock.envelope import Event, Position
from penstock.guard import Guard
from penstock.metadata.records import Destination
from replay.lease import Bounds
from replay.request import Options
from replay.send import Ended
from replay.targets import Delivered, Failed, Message, Outcome, Retry, Skipped, Target, spread
from replay.targets.opening import open_target
from replay.targets.sending import HELD_UP, MOST_SECONDS, Answered, Begin, outcome_of, parts_of
from replay.targets.spread import ENDED, SpreadTarget

pytestmark = pytest.mark.timeout(240)

PATIENCE = 100.0
CREDENTIAL = "s3cret-of-nobody"


def destination(receiver: Receiver) -> Destination:
    return Destination(
        team="main",
        name="d1",
        url=receiver.url,
        headers=(("X-Key", CREDENTIAL),),
        created_at=NOON,
    )


def begin(
    receiver: Receiver,
    *,
    here: bool = True,
    timeout: float = 30.0,
    begins_within: float = PATIENCE,
) -> Begin:
    return Begin(
        destination=destination(receiver),
        networks=(str(HERE),) if here else (),
        ports=(receiver.port,),
        replay_id="r1",
        collection=FLIGHTS,
        headers="add",
        marked=True,
        timeout=timeout,
        begins_within=begins_within,
    )


def alone(receiver: Receiver) -> Target:
    return open_target(
        destination(receiver),
        guard=Guard((HERE,), (receiver.port,)),
        replay_id="r1",
        collection=FLIGHTS,
        clock=lambda: NOON,
    )


async def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "it took too long"
        await asyncio.sleep(0.02)


async def ready(target: SpreadTarget, count: int) -> None:
    """Have so many processes that may be given messages."""
    await target.send([message(event(b"first", id="first"))])
    await until(lambda: len(target._ready()) == count)


def message(one: Event, number: int = 0) -> Message:
    return Message(one, Position(0, number), 1)


def ids(requests: Sequence[Request]) -> list[str | None]:
    return [request.header("penstock-event-id") for request in requests]


@pytest.mark.parametrize(
    "outcome",
    [
        Delivered(200),
        Delivered(204, "the other endpoint answered 500"),
        Retry("answered 503", 503, 1.5),
        Retry("no connection"),
        Failed("answered 400", 400),
        Failed("answered 400", 400, "the other endpoint answered 200"),
        Skipped(),
    ],
)
def test_an_outcome_is_told_whole(outcome: Outcome) -> None:
    frame = msgspec.msgpack.encode(parts_of(7, outcome))
    told = msgspec.msgpack.decode(frame, type=Answered)

    assert told.number == 7
    assert outcome_of(told) == outcome


def test_what_processes_send_is_what_one_would() -> None:
    """Byte for byte, and every header."""
    events = ugly.events(60, largest=100_000)

    async def main(target: Target) -> list[Outcome]:
        try:
            if isinstance(target, SpreadTarget):
                await ready(target, 2)
            sends = [target.send([message(each, n)]) for n, each in enumerate(events)]
            return [outcome for [outcome] in await asyncio.gather(*sends)]
        finally:
            await target.close()

    with receiving() as receiver, receiving() as other:
        spreading = SpreadTarget(alone(receiver), begin(receiver), count=2, first=0)
        outcomes = asyncio.run(main(spreading))
        asyncio.run(main(alone(other)))
        took = Counter(
            (each.body, tuple(h for h in each.headers if h[0].lower() != b"host"))
            for each in receiver.requests
            if each.body != b"first"
        )
        wanted = Counter(
            (each.body, tuple(h for h in each.headers if h[0].lower() != b"host"))
            for each in other.requests
        )

    assert {type(outcome) for outcome in outcomes} == {Delivered}
    assert took == wanted
    assert len({each.connection for each in receiver.requests}) > 1
    assert processes() == []


def test_nothing_is_started_for_a_few_events() -> None:
    async def main(target: SpreadTarget) -> None:
        for number in range(3):
            assert await target.send([message(event(b"{}"), number)]) == [Delivered(200)]
        assert processes() == []
        await target.close()

    with receiving() as receiver:
        asyncio.run(main(SpreadTarget(alone(receiver), begin(receiver), count=2, first=3)))


def test_credentials_stand_in_no_argument_and_no_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever may list processes sees those."""
    monkeypatch.setenv("PENSTOCK_S3_SECRET_KEY", CREDENTIAL)

    async def main(target: SpreadTarget) -> None:
        try:
            await ready(target, 1)
            [one] = processes()
            assert CREDENTIAL not in " ".join([*one.cmdline(), *one.environ().values()])
            assert await target.send([message(event(b"{}"))]) == [Delivered(200)]
        finally:
            await target.close()

    with receiving() as receiver:
        asyncio.run(main(SpreadTarget(alone(receiver), begin(receiver), count=1, first=0)))
        assert [each.header("x-key") for each in receiver.requests] == [CREDENTIAL] * 2
    assert CREDENTIAL not in repr(begin(receiver))


def test_a_process_has_the_guard_of_its_replay() -> None:
    """One that may not connect ends; it is not started again, and what it was for is sent."""

    async def main(target: SpreadTarget) -> None:
        try:
            assert await target.send([message(event(b"{}"))]) == [Delivered(200)]
            seen = processes()
            assert seen
            await until(lambda: not processes())
            await asyncio.sleep(1.5)
            assert processes() == []
            assert await target.send([message(event(b"{}"))]) == [Delivered(200)]
        finally:
            await target.close()

    with receiving() as receiver:
        closed = begin(receiver, here=False)
        asyncio.run(main(SpreadTarget(alone(receiver), closed, count=2, first=0)))


def test_what_a_killed_process_had_in_hand_is_tried_again() -> None:
    """Nobody knows what became of it; another process takes its place."""

    async def main(receiver: Receiver) -> None:
        target = SpreadTarget(alone(receiver), begin(receiver), count=1, first=0)
        try:
            await ready(target, 1)
            [one] = processes()
            receiver.seconds = 60.0
            sends = [asyncio.ensure_future(target.send([message(event(b"{}"))])) for _ in range(5)]
            await until(lambda: len(receiver.requests) == 6)
            one.kill()
            assert await asyncio.gather(*sends) == [[ENDED]] * 5
            receiver.seconds = 0.0
            assert await target.send([message(event(b"{}"))]) == [Delivered(200)]
            await until(lambda: len(target._ready()) == 1)
            assert one.pid not in {each.pid for each in processes()}
        finally:
            await target.close()

    with receiving() as receiver:
        asyncio.run(main(receiver))


def test_what_was_handed_over_long_ago_is_not_begun() -> None:
    """By then the lease may be another's, who has sent it."""

    async def main(target: SpreadTarget, receiver: Receiver) -> None:
        try:
            await ready(target, 1)
            [one] = processes()
            one.suspend()
            send = asyncio.ensure_future(target.send([message(event(b"{}"))]))
            await asyncio.sleep(2.2)
            one.resume()
            assert await send == [HELD_UP]
            assert ids(receiver.requests) == ["first"]
        finally:
            await target.close()

    with receiving() as receiver:
        handed = begin(receiver, begins_within=MOST_SECONDS)
        asyncio.run(main(SpreadTarget(alone(receiver), handed, count=1, first=0), receiver))


def test_a_process_that_does_not_answer_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """It could send much later what was sent again meanwhile."""
    monkeypatch.setattr(spread, "_GRACE_SECONDS", 1.0)

    async def main(target: SpreadTarget) -> None:
        try:
            await ready(target, 1)
            [one] = processes()
            one.suspend()
            assert await target.send([message(event(b"{}"))]) == [ENDED]
            await until(lambda: one.pid not in {each.pid for each in processes()})
        finally:
            await target.close()

    with receiving() as receiver:
        closing = begin(receiver, timeout=1.0)
        asyncio.run(main(SpreadTarget(alone(receiver), closing, count=1, first=0)))


PARENT = """
import asyncio, sys
from test_target_spread import Receiver, alone, begin, event, message, ready
from replay.targets.spread import SpreadTarget

async def main():
    receiver = Receiver(port=int(sys.argv[1]))
    target = SpreadTarget(alone(receiver), begin(receiver), count=2, first=0)
    await ready(target, 2)
    print("ready", flush=True)
    await asyncio.gather(*(target.send([message(event(b"{}"))]) for _ in range(8)))

asyncio.run(main())
"""


def test_processes_without_a_parent_end_at_once() -> None:
    """Also with requests under way, and whoever takes the replay over finds nobody beside it."""
    tests = Path(__file__).parents[1]
    paths = os.pathsep.join([str(tests), str(tests / "contract")])
    with receiving() as receiver:
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(receiver.port)],
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.PIPE,
        )
        with parent:
            assert parent.stdout is not None
            receiver.answer = lambda each: Reply(how="hang" if each.body == b"{}" else "answer")
            assert parent.stdout.readline() == b"ready\n"
            theirs = processes(parent.pid)
            asyncio.run(until(lambda: len(receiver.requests) == 9))
            parent.send_signal(signal.SIGKILL)
        gone, alive = psutil.wait_procs(theirs, timeout=20)

    assert len(theirs) == len(gone) == 2
    assert alive == []


@contextmanager
def killing(receiver: Receiver, chance: Random) -> Iterator[list[int]]:
    """Within the block, kill a process that sends now and then; answer those that were."""
    done, killed = threading.Event(), list[int]()

    def kill() -> None:
        while not done.wait(0.5 + chance.random()):
            for one in processes()[:1]:
                if len(receiver.requests) > 100:
                    with suppress(psutil.NoSuchProcess):  # it came to its end
                        one.kill()
                        killed.append(one.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        done.set()
        thread.join()


def test_books_balance_whatever_process_is_killed() -> None:
    """Each event arrives, those of a key in their order, and what comes twice is in the books."""
    events = originals(1_500, keys=[b"%d" % number for number in range(40)])
    keeper, ledger = MemoryKeeper(Options(concurrency=16)), MemoryLedger()

    async def main(receiver: Receiver) -> Ended:
        target = SpreadTarget(alone(receiver), begin(receiver), count=2, first=0)
        try:
            bounds = Bounds(lease_seconds=900.0)
            return await sender(events, target, keeper, ledger, bounds=bounds).run()
        finally:
            await target.close()

    with receiving() as receiver:
        receiver.seconds = 0.05
        with killing(receiver, Random(7)) as killed:
            ended = asyncio.run(main(receiver))
        took = [request.body for request in receiver.requests]

    assert killed
    progress = ended.progress
    assert (ended.state, progress.delivered, progress.failed) == ("finished", len(events), 0)
    cut_off = sum(row.outcome == "retry" for row in ledger.rows)
    assert progress.attempts == len(events) + cut_off
    firsts: dict[bytes, None] = dict.fromkeys(took)
    assert len(firsts) == len(events)
    assert len(took) <= progress.attempts
    keys = {each.event.payload: each.event.key for each in events}
    for key in {each.event.key for each in events}:
        wanted = [each.event.payload for each in events if each.event.key == key]
        assert [body for body in firsts if keys[body] == key] == wanted

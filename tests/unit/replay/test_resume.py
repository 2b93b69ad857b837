"""Senders that die at any moment, and what their successors make of it. In virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from replaying import (
    MemoryKeeper,
    MemoryLedger,
    ScriptedTarget,
    next_epoch,
    originals,
    replayed,
    run_virtual,
    sender,
)

from penstock.envelope import Position
from replay.events import Original
from replay.lease import Bounds
from replay.progress import Attempt, report
from replay.request import Options
from replay.send import Ended
from replay.targets import Delivered, Failed, Message, Outcome, Retry

WINDOW = 24
BOUNDS = Bounds(window=WINDOW, checkpoint_answers=6)
KEYS = (b"a", b"b", b"c", None)


def killed(
    events: Sequence[Original],
    target: ScriptedTarget,
    keeper: MemoryKeeper,
    ledger: MemoryLedger,
    after: float,
) -> Ended | None:
    """Let a sender work for so many seconds and then no more; answer how it ended, if it did."""

    async def main() -> Ended | None:
        work = sender(events, target, keeper, ledger, bounds=BOUNDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(after):
                return await work.run()
        return None

    return run_virtual(main())


def until_done(
    events: Sequence[Original],
    target: ScriptedTarget,
    keeper: MemoryKeeper,
    ledger: MemoryLedger,
    deaths: Sequence[float],
) -> tuple[Ended, list[int]]:
    """Send with a sender dying after each of these times.

    Answers the end, and how many delivered events each sender sent again.
    """
    repeats = []
    for death in (*deaths, 5_000.0):
        before = Counter(target.delivered)
        begun = len(target.sent)
        ended = killed(events, target, keeper, ledger, death)
        again = {m.position for _, m in target.sent[begun:] if before[m.position]}
        repeats.append(len(again))
        if ended is not None:
            return ended, repeats
        next_epoch(keeper)
    raise AssertionError("the last sender did not finish")


def unanswered(rows: Sequence[Attempt]) -> list[Attempt]:
    """Answer the intents that no outcome belongs to."""
    answered = {(r.epoch, r.partition, r.offset, r.attempt) for r in rows if r.kind == "outcome"}
    intents = [r for r in rows if r.kind == "intent"]
    return [r for r in intents if (r.epoch, r.partition, r.offset, r.attempt) not in answered]


def suffix_repeats_only(positions: Sequence[Position]) -> bool:
    """Say whether deliveries in log order were only ever interrupted by going back.

    After a step back the sequence has to run through everything again that it went back over:
    then what a reader sees is the order of the log, with suffixes repeated.
    """
    known = sorted(set(positions))
    place = {position: number for number, position in enumerate(known)}
    steps = [place[b] - place[a] for a, b in pairwise(positions)]
    return all(step <= 1 for step in steps)


@settings(max_examples=40, deadline=None)
@given(
    order=st.sampled_from(["log", "key"]),
    deaths=st.lists(st.floats(0.001, 3.0), max_size=5),
    trouble=st.dictionaries(st.integers(0, 79), st.integers(1, 3), max_size=8),
    hopeless=st.sets(st.integers(0, 79), max_size=3),
    slow=st.floats(0.001, 0.1),
    deaf=st.sampled_from([0, 2, 3]),
)
def test_whatever_dies_when_nothing_is_lost_and_the_books_close(
    *, order, deaths, trouble, hopeless, slow, deaf
) -> None:
    """The promise: at least once, in order, repeats within the window, every attempt told."""
    events = originals(80, keys=KEYS, partitions=2)
    place = {each.position: number for number, each in enumerate(events)}

    def script(message: Message) -> Outcome:
        number = place[message.position]
        if number in hopeless:
            return Failed("answered 400", 400)
        if message.attempt <= trouble.get(number, 0):
            return Retry("answered 503", 503)
        return Delivered(200)

    target = ScriptedTarget(script, seconds=lambda _: slow)
    keeper = MemoryKeeper(Options(order=order, concurrency=4, pause_after=10_000))
    keeper.seconds, ledger = 0.02, MemoryLedger()
    ledger.deaf_every = deaf

    ended, repeats = until_done(events, target, keeper, ledger, deaths)

    wanted = {each.position for number, each in enumerate(events) if number not in hopeless}
    assert set(target.delivered) == wanted
    assert all(count <= WINDOW for count in repeats)

    deliveries = defaultdict(list)
    for position in target.delivered:
        event = events[place[position]].event
        lane = b"" if order == "log" else event.key
        if lane is not None:
            deliveries[lane].append(position)
    assert all(suffix_repeats_only(positions) for positions in deliveries.values())

    assert unanswered(ledger.rows) == []
    account = report(ended.progress, matched=80, ended=True)
    assert account.delivered == len(wanted)
    assert account.failed == len(hopeless)
    assert (account.skipped, account.unknown, account.waiting) == (0, 0, 0)
    assert sum(repeats) <= account.repeated <= WINDOW * len(deaths)
    numbers = Counter((m.position, m.attempt) for _, m in target.sent)
    assert max(numbers.values()) == 1, "no attempt number is used twice"


def test_a_successor_says_unknown_for_what_was_open() -> None:
    """An intent without an end would be an open question for ever."""
    keeper, ledger = MemoryKeeper(Options(concurrency=3)), MemoryLedger()
    target = ScriptedTarget(seconds=lambda _: 1.0)
    events = originals(3)

    assert killed(events, target, keeper, ledger, 0.5) is None
    replayed(events, target, next_epoch(keeper), ledger)

    ends = [(r.epoch, r.attempt, r.outcome) for r in ledger.rows if r.kind == "outcome"]
    assert ends == [(1, 1, "unknown")] * 3 + [(2, 2, "delivered")] * 3
    assert keeper.progress.repeated == 3


def test_a_successor_does_not_repeat_what_a_checkpoint_has() -> None:
    """The completed set above the low watermark is what keeps a blocked key cheap."""
    keeper, ledger = MemoryKeeper(Options(concurrency=4)), MemoryLedger()
    blocked = ScriptedTarget(
        lambda m: Retry("answered 500") if m.position.offset == 0 else Delivered(200)
    )
    events = originals(20)
    assert killed(events, blocked, keeper, ledger, 30.0) is None
    assert keeper.progress.passed == 0
    assert len(keeper.progress.done) == 19

    target = ScriptedTarget()
    ended = replayed(events, target, next_epoch(keeper), ledger)

    assert [m.position.offset for _, m in target.sent] == [0]
    assert ended.progress.delivered == 20


def test_a_successor_that_dies_before_its_first_checkpoint_changes_nothing() -> None:
    """Several deaths in a row must not lose the memory of what is open."""
    keeper, ledger = MemoryKeeper(Options(concurrency=3)), MemoryLedger()
    target = ScriptedTarget(seconds=lambda _: 1.0)
    events = originals(3)

    assert killed(events, target, keeper, ledger, 0.5) is None
    for _ in range(3):
        assert killed(events, target, next_epoch(keeper), ledger, 0.002) is None
    ended = replayed(events, target, next_epoch(keeper), ledger)

    assert unanswered(ledger.rows) == []
    assert ended.progress.repeated == 3
    assert Counter(target.delivered) == {each.position: 2 for each in events}

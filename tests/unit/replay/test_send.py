"""The sender, in virtual time: what it promises about order, retries, control and its lease."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

import pytest
from replaying import (
    MemoryKeeper,
    MemoryLedger,
    ScriptedTarget,
    feed,
    next_epoch,
    now,
    originals,
    payloads,
    replayed,
    run_virtual,
    sender,
)
from tallied import tally

from penstock.envelope import Position
from penstock.errors import EngineUnavailable, WrongState
from replay.events import Feed
from replay.lease import Bounds
from replay.progress import report
from replay.request import Options
from replay.send import Ended
from replay.targets import Delivered, Failed, Message, Outcome, Retry

SMALL = Bounds(window=20, checkpoint_answers=5)
FIRST, SECOND = Position(0, 0), Position(0, 1)


def fails_first(times: int, *, at: Position = FIRST, after: float | None = None):
    """Answer a script in which one event needs more attempts than the others."""

    def script(message: Message) -> Outcome:
        if message.position == at and message.attempt <= times:
            return Retry("answered 500", 500, after)
        return Delivered(200)

    return script


def test_every_event_is_delivered_once_and_the_books_balance() -> None:
    """The plain case: nothing missing, nothing twice, and the report says so."""
    target, ledger = ScriptedTarget(), MemoryLedger()

    ended = replayed(originals(3_000, partitions=3), target, ledger=ledger)

    assert ended.state == "finished"
    assert sorted(target.delivered) == [e.position for e in originals(3_000, partitions=3)]
    account = report(ended.progress, matched=3_000, ended=True)
    assert (account.delivered, account.skipped, account.repeated) == (3_000, 0, 0)
    assert ended.progress.bytes == sum(len(e.event.payload) for e in originals(3_000, partitions=3))
    books = tally(ledger.rows)
    assert (books.delivered, books.open, books.repeats, books.attempts) == (3_000, 0, 0, 3_000)


def test_log_order_is_one_at_a_time_and_a_retry_holds_up_all() -> None:
    """Order is the promise: an event that has to wait must not be overtaken."""
    target = ScriptedTarget(fails_first(3, at=SECOND))
    events = originals(50)

    replayed(events, target, MemoryKeeper(Options(order="log")))

    assert target.busiest == 1
    assert target.delivered == [each.position for each in events]


def test_a_retrying_key_blocks_its_successors_and_no_other_key() -> None:
    """Order per key: the others must not wait for it, its own must."""
    target = ScriptedTarget(fails_first(4))
    events = originals(60, keys=[b"a", b"b", b"c"])

    replayed(events, target, MemoryKeeper(Options(order="key")))

    by_key = defaultdict(list)
    for _, message in target.sent:
        by_key[message.event.key].append(message.position)
    assert by_key[b"a"][:5] == [FIRST] * 5
    assert all(positions == sorted(positions) for positions in by_key.values())
    end_of_others = max(t for t, m in target.sent if m.event.key != b"a")
    assert end_of_others < target.times(FIRST)[1]


def test_events_without_a_key_go_side_by_side() -> None:
    """They have no order, so one slow event must not hold up the rest."""
    target = ScriptedTarget(seconds=lambda m: 5.0 if m.position == FIRST else 0.01)

    replayed(originals(100), target, MemoryKeeper(Options(concurrency=8)))

    assert target.busiest == 8
    assert max(t for t, m in target.sent) < 1.0


def test_no_more_is_sent_at_once_than_asked() -> None:
    """Concurrency is a promise to the destination."""
    target = ScriptedTarget()

    replayed(originals(200), target, MemoryKeeper(Options(concurrency=3)))

    assert target.busiest == 3


@pytest.mark.parametrize("rate", [5, 50, 2_000])
def test_the_rate_is_never_exceeded_by_more_than_its_burst(rate: float) -> None:
    """A destination sized for a rate must not see more, not even when it answers at once."""
    target = ScriptedTarget(fails_first(2), seconds=lambda _: 0.0)

    replayed(originals(200), target, MemoryKeeper(Options(rate=rate)))

    times = sorted(at for at, _ in target.sent)
    for start in range(0, len(times), 7):
        for end in range(start, len(times), 11):
            assert end - start <= rate * (times[end] - times[start] + 0.1) + 1
    assert times[-1] <= 1.2 * 202 / rate + 2, "and it is reached"


def test_rate_and_concurrency_change_while_running() -> None:
    """A person slows a replay down, or speeds it up, without starting it again."""
    keeper = MemoryKeeper(Options(rate=10, concurrency=2))
    target = ScriptedTarget(seconds=lambda _: 0.5)

    async def main() -> None:
        running = asyncio.ensure_future(
            sender(originals(400), target, keeper, MemoryLedger()).run()
        )
        await asyncio.sleep(20)
        slow = len(target.sent)
        assert target.busiest == 2
        assert slow <= 80
        keeper.options = Options(rate=None, concurrency=50)
        await asyncio.sleep(2)
        assert target.busiest == 50
        keeper.options = Options(rate=None, concurrency=4)
        await asyncio.sleep(1.6)
        assert target.under_way <= 4
        await running

    run_virtual(main())
    assert len(target.sent) == 400


def test_retry_after_is_honoured_up_to_an_hour() -> None:
    """A destination that says when to come back must not be asked before."""
    target = ScriptedTarget(fails_first(1, after=3_600.0))
    unhurried = Bounds(checkpoint_seconds=60.0, lease_seconds=200.0)

    replayed(originals(5), target, bounds=unhurried)

    first, second = target.times(FIRST)
    assert 3_600 <= second - first < 3_602


def test_429_with_retry_after_leaves_the_whole_destination_alone() -> None:
    """429 speaks for the client, not for one event: the others would only be refused too."""

    def script(message: Message) -> Outcome:
        if message.position == Position(0, 50) and message.attempt == 1:
            return Retry("answered 429", 429, 30.0)
        return Delivered(200)

    target = ScriptedTarget(script)
    replayed(originals(300), target, MemoryKeeper(Options(concurrency=1)))

    held = target.times(Position(0, 50))[0]
    assert not [t for t, _ in target.sent if held + 0.02 < t < held + 30]
    assert len(target.sent) == 301


def test_waits_between_attempts_grow_and_are_shortened_by_chance_only_by_half() -> None:
    """A destination in trouble is asked less and less often."""
    target = ScriptedTarget(fails_first(6))

    replayed(originals(1), target)

    times = target.times(FIRST)
    gaps = [b - a for a, b in pairwise(times)]
    assert [round(gap) for gap in gaps] == [1, 1, 2, 4, 8, 16]


def test_an_event_that_fails_for_good_is_not_retried() -> None:
    """A 404 stays a 404; trying again would only load the destination."""
    target = ScriptedTarget(
        lambda m: Failed("answered 404", 404) if m.position == FIRST else Delivered(200)
    )
    ledger = MemoryLedger()

    ended = replayed(originals(3), target, ledger=ledger)

    assert len(target.times(FIRST)) == 1
    assert (ended.progress.delivered, ended.progress.failed) == (2, 1)
    assert ended.progress.last_failure == "answered 404"
    [row] = [row for row in ledger.rows if row.outcome == "failed"]
    assert (row.status, row.reason, row.attempt) == (404, "answered 404", 1)


def test_retries_end_and_the_event_counts_as_failed() -> None:
    """An event that nobody takes must not hold its key for ever."""
    target = ScriptedTarget(fails_first(99))
    keeper = MemoryKeeper(Options(retries=2, order="log"))

    ended = replayed(originals(3), target, keeper)

    assert len(target.times(FIRST)) == 3
    assert (ended.state, ended.progress.delivered, ended.progress.failed) == ("finished", 2, 1)


def test_failures_in_a_row_pause_the_replay_with_the_reason() -> None:
    """A dead destination must not burn through a million events' attempts."""
    keeper = MemoryKeeper(Options(concurrency=2, pause_after=12, retries=100))
    keeper.wishes = [(100.0, "resume"), (200.0, "cancel")]
    ledger = MemoryLedger()
    target = ScriptedTarget(lambda _: Retry("no connection"))

    ended = replayed(originals(500), target, keeper, ledger, bounds=Bounds(linger_seconds=1e6))

    paused = [at for at, state, _ in keeper.saves if state == "paused"]
    assert len([1 for at, _ in target.sent if at < 100]) in {12, 13}
    assert paused[0] < 60
    assert len([1 for at, _ in target.sent if at > 100]) in {12, 13}, "and resuming tries again"
    assert (ended.state, ended.error) == ("cancelled", None)
    assert tally(ledger.rows).open == 0


def test_the_reason_of_a_pause_is_in_the_row() -> None:
    """Who opens the replay's page has to see why it stands still."""
    keeper = MemoryKeeper(Options(pause_after=3, order="log"))
    target = ScriptedTarget(lambda _: Retry("the connection broke"))

    ended = replayed(originals(5), target, keeper)

    assert ended.state == "paused"
    assert keeper.error == "3 attempts in a row failed, the last: the connection broke"


def test_pause_resume_and_cancel_are_seen_within_two_seconds() -> None:
    """A person who presses pause must see it stop."""
    keeper = MemoryKeeper(Options(rate=50))
    keeper.wishes = [(3.0, "pause"), (20.0, "resume"), (26.0, "cancel")]
    target = ScriptedTarget()

    ended = replayed(originals(100_000), target, keeper)

    times = [at for at, _ in target.sent]
    assert [t for t in times if t > 5 and t < 20] == []
    assert [t for t in times if 20 < t < 22] != []
    assert max(times) <= 28
    assert ended.state == "cancelled"
    account = report(ended.progress, matched=100_000, ended=True)
    assert account.delivered == len(target.sent)
    assert account.skipped == 100_000 - len(target.sent)


def test_a_wish_is_seen_while_the_ledger_does_not_answer() -> None:
    """The bookkeeper then waits; orders and lease must not wait with it."""
    keeper, ledger = MemoryKeeper(Options(rate=100)), MemoryLedger()
    keeper.wishes = [(10.0, "pause"), (50.0, "resume")]
    ledger.silent = (5.0, 40.0)
    target = ScriptedTarget()

    ended = replayed(originals(2_000), target, keeper, ledger)

    gaps = [b - a for (a, _, _), (b, _, _) in pairwise(keeper.saves)]
    assert max(gaps) < 2.1
    assert next(state for at, state, _ in keeper.saves if at > 12) == "paused"
    assert ended.progress.delivered == 2_000
    assert tally(ledger.rows).repeats == 0


def test_a_heartbeat_takes_nothing_back_that_a_checkpoint_said() -> None:
    """It waits its turn behind a slow checkpoint, and must not then write the one before."""
    keeper = MemoryKeeper(Options(rate=50))
    keeper.seconds = 1.5
    target = ScriptedTarget(fails_first(3))

    replayed(originals(300), target, keeper, bounds=Bounds(window=50, checkpoint_answers=10))

    said = [(p.passed, p.intended or p.through or FIRST, p.attempts) for _, _, p in keeper.saves]
    assert said == sorted(said)
    assert len(said) > len(set(said)), "and there were heartbeats"


def test_nothing_is_sent_before_its_intent_is_in_the_ledger() -> None:
    """Otherwise a crash leaves a delivery that no book knows of."""
    ledger = MemoryLedger()
    target = ScriptedTarget()
    early = []

    def script(message: Message) -> Outcome:
        intents = {(r.offset, r.attempt) for r in ledger.rows if r.kind == "intent"}
        if (message.position.offset, message.attempt) not in intents:
            early.append(message)
        return fails_first(2)(message)

    replayed(originals(300), ScriptedTarget(script), ledger=ledger)

    assert early == []
    assert target.sent == []


def test_nothing_is_sent_that_a_checkpoint_did_not_announce() -> None:
    """A successor knows of open attempts from the checkpoint alone."""
    keeper = MemoryKeeper()
    unannounced = []

    def script(message: Message) -> Outcome:
        told = dict(keeper.progress.tried)
        history = told.get(message.position) or keeper.progress.history(message.position)
        if (history.attempt, history.open) != (message.attempt, True):
            unannounced.append(message)
        return fails_first(3)(message)

    replayed(originals(300), ScriptedTarget(script), keeper, bounds=SMALL)

    assert unannounced == []


def test_what_is_sent_stays_within_the_window_of_the_durable_mark() -> None:
    """The window is the number of events that a crash may repeat."""
    keeper = MemoryKeeper()
    beyond = []

    def script(message: Message) -> Outcome:
        if message.position.offset + 1 - keeper.progress.passed > SMALL.window:
            beyond.append(message)
        return fails_first(5)(message)

    replayed(originals(500), ScriptedTarget(script), keeper, bounds=SMALL)

    assert beyond == []


def test_payload_bytes_under_way_are_bounded() -> None:
    """A thousand events of a megabyte each must not be in memory together."""
    target = ScriptedTarget()
    bounds = Bounds(window_bytes=40)

    replayed(originals(400), target, bounds=bounds)

    # Payloads have three to five bytes; the one that reaches the bound is let in.
    assert target.busiest <= 40 // 3 + 1
    assert len(target.sent) == 400


def test_a_lost_lease_stops_the_sender_without_another_word() -> None:
    """Whoever has the lease now sends; two at once would break every order."""
    keeper, ledger = MemoryKeeper(Options(rate=100)), MemoryLedger()
    target = ScriptedTarget()

    async def main() -> None:
        running = asyncio.ensure_future(sender(originals(5_000), target, keeper, ledger).run())
        await asyncio.sleep(5)
        next_epoch(keeper)
        before = keeper.progress
        with pytest.raises(WrongState):
            await running
        assert keeper.progress == before
        assert now() < 7

    run_virtual(main())


def test_a_sender_that_cannot_keep_its_lease_stops_before_its_end() -> None:
    """A zombie and its successor must never send together, whatever the database does."""
    keeper = MemoryKeeper(Options(rate=100))
    keeper.silent = (10.0, 1e9)
    target = ScriptedTarget(seconds=lambda _: 60.0)

    async def main() -> None:
        task = sender(originals(5_000), target, keeper, MemoryLedger()).run()
        with pytest.raises(EngineUnavailable):
            await task
        last_kept = keeper.saves[-1][0]
        assert now() <= last_kept + 12.5
        assert target.under_way == 0, "what was under way is cut off"
        assert max(at for at, _ in target.sent) <= last_kept + 12

    run_virtual(main())


def test_a_hanging_store_counts_as_one_that_fails() -> None:
    """The lease runs out while a thread waits for a lock, too."""
    keeper = MemoryKeeper(Options(rate=100))
    target = ScriptedTarget()

    async def main() -> None:
        task = asyncio.ensure_future(sender(originals(5_000), target, keeper, MemoryLedger()).run())
        await asyncio.sleep(5)
        keeper.seconds = 1e6
        with pytest.raises(EngineUnavailable):
            await task
        assert max(at for at, _ in target.sent) <= keeper.saves[-1][0] + 12
        assert now() <= keeper.saves[-1][0] + 12.5

    run_virtual(main())


def test_a_sender_that_was_asleep_looks_at_its_lease_before_it_sends() -> None:
    """A laptop that was closed wakes up in the middle of a send, hours after its lease."""
    keeper = MemoryKeeper(Options(rate=100))
    target = ScriptedTarget()
    woken = 5.5

    async def main() -> None:
        work = sender(
            originals(5_000),
            target,
            keeper,
            MemoryLedger(),
            steady=lambda: now() if now() < woken else now() + 3_600,
        )
        with pytest.raises(EngineUnavailable):
            await work.run()

    run_virtual(main())
    assert woken - 0.1 < max(at for at, _ in target.sent) < woken


def test_stopping_leaves_nothing_open_and_the_next_sender_goes_on() -> None:
    """A process that ends in good order must not make its successor repeat anything."""
    keeper, ledger = MemoryKeeper(Options(rate=200)), MemoryLedger()
    keeper.stop_at = 3.0
    target = ScriptedTarget(fails_first(4))
    events = originals(2_000, keys=[b"a", None, b"b"])

    first = replayed(events, target, keeper, ledger)
    keeper.stop_at = float("inf")
    assert first.state == "running"
    assert first.progress.intended is None
    assert tally(ledger.rows).unknown == 0
    second = replayed(events, target, next_epoch(keeper), ledger)

    assert second.state == "finished"
    assert sorted(target.delivered) == [each.position for each in events]
    assert second.progress.repeated == 0
    books = tally(ledger.rows)
    assert (books.delivered, books.open, books.repeats) == (2_000, 0, 0)
    numbers = [m.attempt for _, m in target.sent if m.position == FIRST]
    assert numbers == [1, 2, 3, 4, 5], "and the attempts are counted on"


def test_retries_that_wait_for_their_turn_are_not_repeats_after_a_stop() -> None:
    """They are in the ledger as intents, and nobody may take them for sent."""
    keeper, ledger = MemoryKeeper(Options(rate=4, pause_after=1_000)), MemoryLedger()
    keeper.stop_at = 20.0
    target = ScriptedTarget(lambda m: Retry("answered 500") if m.attempt == 1 else Delivered(200))

    replayed(originals(60), target, keeper, ledger)
    keeper.stop_at = float("inf")
    ended = replayed(originals(60), target, next_epoch(keeper), ledger)

    assert (ended.state, ended.progress.repeated) == ("finished", 0)
    assert tally(ledger.rows).unknown == 0
    assert len(target.sent) == 120
    attempts = {(m.position.offset, m.attempt) for _, m in target.sent}
    assert attempts == {(offset, attempt) for offset in range(60) for attempt in (1, 2)}


def test_cancelling_waits_a_moment_for_answers_and_then_says_unknown() -> None:
    """A hanging destination must not keep a cancelled replay from ending."""
    keeper, ledger = MemoryKeeper(Options(concurrency=4)), MemoryLedger()
    keeper.wishes = [(2.0, "cancel")]
    target = ScriptedTarget(seconds=lambda m: 1e4 if m.position.offset % 2 else 3.0)

    ended = replayed(originals(100), target, keeper, ledger)

    assert ended.state == "cancelled"
    assert keeper.saves[-1][0] < 12
    account = report(ended.progress, matched=100, ended=True)
    assert account.unknown == target.busiest - account.delivered > 0
    assert account.matched == account.delivered + account.skipped + account.unknown
    books = tally(ledger.rows)
    assert (books.open, books.unknown, books.delivered) == (0, account.unknown, account.delivered)


def test_a_replay_that_starts_paused_sends_nothing_until_resumed() -> None:
    """A paused replay whose process died comes back paused."""
    keeper = MemoryKeeper()
    keeper.state = "paused"
    keeper.wishes = [(30.0, "resume")]
    target = ScriptedTarget()

    ended = replayed(originals(50), target, keeper)

    assert min(at for at, _ in target.sent) >= 30
    assert ended.state == "finished"


def test_a_long_pause_gives_the_process_back() -> None:
    """A paused replay must not hold a run of a hundred megabytes for a week."""
    keeper = MemoryKeeper()
    keeper.wishes = [(1.0, "pause")]
    target = ScriptedTarget(seconds=lambda _: 0.5)

    ended = replayed(originals(5_000), target, keeper)

    assert ended.state == keeper.state == "paused"
    assert 600 < keeper.saves[-1][0] < 620
    assert ended.progress.intended is None


def test_an_empty_replay_finishes() -> None:
    """Nothing matched: that is an answer too."""
    ended = replayed([], ScriptedTarget())

    assert ended == Ended("finished", ended.progress, None)
    assert ended.progress.passed == 0


@pytest.mark.parametrize("good", [0, 10, 300])
def test_a_source_that_breaks_stops_the_sender_with_its_error(good: int) -> None:
    """A slice that cannot be read must not look like the end of the plan."""
    keeper, ledger, target = MemoryKeeper(), MemoryLedger(), ScriptedTarget()

    async def broken():
        async for batch in feed(originals(good), batch=1_000):
            yield batch
        await asyncio.sleep(0.2)
        raise OSError("the lake is gone")

    async def main() -> None:
        work = sender(originals(500), target, keeper, ledger)
        work._books._feed = Feed(broken())
        with pytest.raises(OSError, match="the lake is gone"):
            await work.run()

    run_virtual(main())

    assert keeper.state == "running"
    assert keeper.progress.intended is None
    books = tally(ledger.rows)
    assert (books.open, books.unknown, books.delivered) == (0, 0, keeper.progress.delivered)
    ended = replayed(originals(500), target, next_epoch(keeper), ledger)
    assert (ended.state, ended.progress.repeated) == ("finished", 0)
    assert sorted(target.delivered) == [each.position for each in originals(500)]


def test_targets_that_take_many_messages_get_many() -> None:
    """SQS takes ten at a time; one at a time would be ten times slower."""
    target = ScriptedTarget(most=10)
    events = originals(500, keys=[b"a", b"b", None, None, None])

    ended = replayed(events, target, MemoryKeeper(Options(concurrency=2)))

    assert ended.progress.delivered == 500
    assert target.busiest > 2
    first = [m.position for _, m in target.sent if m.event.key == b"a"]
    assert first == sorted(first)


class Together(ScriptedTarget):
    """Takes a beginning of each batch, as Kafka does when it goes away in the middle.

    Of a batch that was begun behind such a one it takes nothing.
    """

    def __init__(self, most: int, breaks_at: dict[int, int]) -> None:
        super().__init__(most=most, ordered=True)
        self._breaks_at = breaks_at
        self._broken = False
        self.calls = 0

    async def send(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        self.calls += 1
        good = 0 if self._broken else self._breaks_at.get(self.calls, len(messages))
        breaks = good < len(messages) and not self._broken
        self._broken = self._broken or breaks
        await super().send(messages[:good] or messages[:1])
        if good == 0:
            self.delivered.remove(messages[0].position)
        if breaks:
            self._broken = False
        return [Delivered(200)] * good + [Retry("gone")] * (len(messages) - good)


def test_an_ordered_target_gets_batches_with_the_events_of_a_key_together() -> None:
    events = originals(500, keys=(b"a", b"b"))
    target = ScriptedTarget(most=100, ordered=True)
    ended = replayed(events, target, MemoryKeeper(Options(order="key")))

    assert ended.state == "finished"
    assert payloads(target) == [each.event.payload for each in events]
    assert len({at for at, _ in target.sent}) <= 30
    assert target.busiest > 50


def test_an_ordered_target_keeps_the_order_over_retries() -> None:
    """Nothing is sent before what was not taken is sent again."""
    events = originals(400, keys=(b"a", b"b", None))
    target = Together(50, {2: 17, 3: 0, 5: 49})
    keeper = MemoryKeeper(Options(order="key", pause_after=1_000))
    ended = replayed(events, target, keeper)

    assert ended.state == "finished"
    assert ended.progress.delivered == 400
    assert target.delivered == [each.position for each in events]


def test_a_batch_that_fails_is_one_failure_in_a_row() -> None:
    """Else one bad moment of a destination would pause every replay with large batches."""
    events = originals(200)
    target = Together(50, {1: 0, 3: 0, 5: 0})  # and what was begun behind them
    ended = replayed(events, target, MemoryKeeper(Options(pause_after=4)))

    assert ended.state == "finished"


def test_a_batch_is_no_larger_than_the_rate_lets_through_at_once() -> None:
    events = originals(100)
    target = ScriptedTarget(most=100, ordered=True)
    replayed(events, target, MemoryKeeper(Options(rate=50.0)))
    times = sorted(at for at, _ in target.sent)

    for start in range(80):
        assert times[start + 20] - times[start] >= 20 / 50 - 0.1 - 0.05


def test_events_that_wait_together_part_when_the_rate_is_lowered() -> None:
    """They were taken while more could go at once."""
    keeper = MemoryKeeper(Options(rate=None))
    target = ScriptedTarget(most=100, ordered=True, seconds=lambda _: 1.0)

    async def main() -> None:
        running = asyncio.ensure_future(
            sender(originals(700), target, keeper, MemoryLedger()).run()
        )
        await asyncio.sleep(0.5)
        keeper.options = Options(rate=50.0)
        await running

    run_virtual(main())
    times = [at for at, _ in target.sent]
    slow = times[times.index(times[-1]) - 300 :]
    assert times == sorted(times)
    assert payloads(target) == [each.event.payload for each in originals(700)]
    assert all(b - a >= 20 / 50 - 0.15 for a, b in zip(slow, slow[20:], strict=False))


def test_events_under_way_together_are_cancelled_each() -> None:
    """The account is in events, however many went at once."""
    keeper = MemoryKeeper()
    keeper.wishes = [(1.0, "cancel")]
    ledger = MemoryLedger()
    target = ScriptedTarget(most=30, ordered=True, seconds=lambda _: 100.0)

    ended = replayed(originals(80), target, keeper, ledger)

    account = report(ended.progress, matched=80, ended=True)
    assert (ended.state, account.unknown, account.skipped) == ("cancelled", 60, 20)
    books = tally(ledger.rows)
    assert (books.unknown, books.skipped, books.open, books.attempts) == (60, 20, 0, 60)


def test_one_more_send_begins_behind_the_one_that_is_under_way() -> None:
    """Else the destination has nothing to do until the last event of a send has arrived."""
    target = ScriptedTarget(most=10, ordered=True, seconds=lambda _: 1.0)
    events = originals(100)
    replayed(events, target)

    assert payloads(target) == [each.event.payload for each in events]
    assert target.busiest == 20
    assert max(at for at, _ in target.sent) < 6.0


@pytest.mark.parametrize("rate", [40.0, 60.0, 200.0])
@pytest.mark.parametrize("breaks_at", [1, 2, 3, 7])
def test_what_waits_for_the_rate_goes_behind_what_has_to_be_sent_again(
    rate: float, breaks_at: int
) -> None:
    """It was taken to be sent next before the send in front of it failed."""
    events = originals(60, keys=(b"a",))
    target = Together(5, {breaks_at: 2, breaks_at + 1: 1})
    replayed(events, target, MemoryKeeper(Options(order="key", rate=rate, pause_after=1_000)))

    assert target.delivered == [each.position for each in events]


@pytest.mark.parametrize("ordered", [False, True])
def test_a_run_through_an_ordered_target_keeps_its_books_like_any_other(*, ordered: bool) -> None:
    """Going together is a matter of speed: each event has its rows."""
    events = originals(300, keys=(b"a", None), partitions=3)
    ledger = MemoryLedger()
    replayed(events, ScriptedTarget(most=40, ordered=ordered), ledger=ledger)

    for kind in ("intent", "outcome"):
        rows = [row for row in ledger.rows if row.kind == kind]
        assert sorted((row.partition, row.offset, row.event_id) for row in rows) == [
            (*each.position, each.event.id) for each in events
        ]


def test_a_lost_answer_of_the_ledger_does_not_double_rows() -> None:
    """The rows are written again under the same key, and the door folds them."""
    ledger = MemoryLedger()
    ledger.deaf_every = 3

    replayed(originals(1_000), ScriptedTarget(), ledger=ledger, bounds=SMALL)

    assert len(ledger.rows) == 2_000


def test_the_payloads_are_those_of_the_events() -> None:
    """One event's bytes under another's id would be the worst of all mistakes."""
    target = ScriptedTarget()
    events = originals(100)

    replayed(events, target)

    assert sorted(payloads(target)) == sorted(each.event.payload for each in events)
    assert all(m.event.payload == b"%d-%d" % m.position for _, m in target.sent)


def away(until: float):
    """Answer a script of a destination that is away until some time."""

    def script(message: Message) -> Outcome:
        return Retry("connection refused") if now() < until else Delivered(200)

    return script


@pytest.mark.parametrize("count", [1, 3, 200])
@pytest.mark.parametrize("after", [None, 30.0], ids=["silent", "asks to be left alone"])
def test_a_continuous_replay_waits_for_a_destination_that_is_away(
    count: int, after: float | None
) -> None:
    """Nothing is given up, however few events there are, and nobody has to resume it.

    It is away for longer than all attempts of an event take; and it must not be knocked at all the
    time meanwhile.
    """
    status = None if after is None else 503

    def script(message: Message) -> Outcome:
        return Delivered(200) if now() >= 1_200 else Retry("away", status, after)

    target, keeper = ScriptedTarget(script), MemoryKeeper(Options(continuous=True, retries=4))
    ended = replayed(originals(count), target, keeper, bounds=Bounds(checkpoint_seconds=5.0))

    assert (ended.state, ended.error) == ("running", None)
    assert (ended.progress.delivered, ended.progress.failed) == (count, 0)
    last = max(at for at, _ in target.sent)
    assert last < 1_200 + 120, "it goes on soon after the destination is back"
    tried = sum(at < 1_200 for at, _ in target.sent)
    assert tried <= 60 * min(count, 32)
    waiting = [progress.waiting or "" for _, _, progress in keeper.saves]
    assert any("attempts in a row failed, the last: away" in said for said in waiting)
    assert {state for _, state, _ in keeper.saves} == {"running"}


def test_what_a_destination_never_takes_is_given_up_beside_what_it_takes() -> None:
    """One event that cannot be delivered must not hold up a continuous replay for ever.

    In the end it is alone, and might be the first of a destination that is away.
    """

    def script(message: Message) -> Outcome:
        return Retry("answered 500", 500) if message.position == FIRST else Delivered(200)

    ended = replayed(
        originals(40),
        ScriptedTarget(script),
        MemoryKeeper(Options(continuous=True, concurrency=4)),
    )

    assert (ended.state, ended.progress.delivered, ended.progress.failed) == ("running", 39, 1)


@pytest.mark.parametrize("status", [None, 503])
def test_a_successor_in_an_outage_gives_nothing_up_either(status: int | None) -> None:
    """It begins to count anew, with events that have had all their attempts."""
    keeper = MemoryKeeper(Options(continuous=True, retries=4))
    # One send at a time is left of 32, and one a minute: all of them have their turn.
    keeper.stop_at = 7_200.0
    bounds = Bounds(checkpoint_seconds=5.0)
    target = ScriptedTarget(lambda _: Retry("away", status))
    ended = replayed(originals(20), target, keeper, bounds=bounds)
    assert (ended.state, ended.progress.failed) == ("running", 0)
    assert min(tried.attempt for _, tried in ended.progress.tried) > 5

    keeper.stop_at = float("inf")

    def script(message: Message) -> Outcome:
        return Delivered(200) if now() >= 300 else Retry("away", status)

    ended = replayed(originals(20), ScriptedTarget(script), next_epoch(keeper), bounds=bounds)

    assert (ended.state, ended.progress.delivered, ended.progress.failed) == ("running", 20, 0)


def test_a_destination_that_answers_errors_costs_one_event() -> None:
    """Those behind the one that was given up fare as it did, so they wait for better times."""

    def script(message: Message) -> Outcome:
        return Delivered(200) if now() >= 1_200 else Retry("answered 500", 500)

    ended = replayed(
        originals(50),
        ScriptedTarget(script),
        MemoryKeeper(Options(continuous=True, retries=4)),
        bounds=Bounds(checkpoint_seconds=5.0),
    )

    assert (ended.state, ended.progress.delivered, ended.progress.failed) == ("running", 49, 1)


def test_a_destination_that_refuses_pauses_a_continuous_replay() -> None:
    """Each event would fail for good: somebody has to look, and the others wait."""
    ended = replayed(
        originals(200),
        ScriptedTarget(lambda _: Failed("answered 401", 401)),
        MemoryKeeper(Options(continuous=True, concurrency=4)),
        bounds=Bounds(linger_seconds=5.0),
    )

    assert ended.state == "paused"
    assert "answered 401" in (ended.error or "")
    assert 10 <= ended.progress.failed <= 14


def test_a_continuous_replay_pauses_where_that_was_asked() -> None:
    """Who says after how many failures it pauses, means that."""
    ended = replayed(
        originals(20),
        ScriptedTarget(away(1e9)),
        MemoryKeeper(Options(continuous=True, pause_after=12)),
        bounds=Bounds(linger_seconds=5.0),
    )

    assert (ended.state, ended.progress.failed) == ("paused", 0)

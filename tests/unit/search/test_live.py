"""Live tails: every event once and in order, whatever landing does beside them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from builders import FLIGHTS, NOON, event
from lakes import BROKEN, new_lake
from partitioned import PartitionedLog
from platform_stand_ins import table
from query_corpus import EVENTS, FACTS, READS, SEARCHES
from query_reference import NOW, micros
from served import until

from assets.landing import Landing
from lakehouse.sql import Engine, open_engine
from lakehouse.tables import Expired, Gap
from penstock.buffer.memory import MemoryLog
from penstock.buffer.released import KEPT_AFTER_RELEASE
from penstock.envelope import Event
from penstock.errors import BadQuery, BadRequest, EngineUnavailable, LogChanged, LogUnavailable
from penstock.schema.convert import Rules
from penstock.search import live as live_module
from penstock.search import positions
from penstock.search.cut import Cut, Cuts
from penstock.search.live import Feed, Following, Live, Missing, Pages, missing
from penstock.search.positions import Positions
from penstock.search.tail import Tails


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    made = open_engine(tmp_path_factory.mktemp("sql"), memory="500MB", threads=1)
    yield made
    made.close()


def nothing() -> None:
    """Nobody waits."""


class World:
    """A log that lands, and tails that take their steps when the test says so."""

    def __init__(self, folder: Path, engine: Engine, log: Any = None, **more: Any) -> None:
        self.log = log or MemoryLog()
        self.lake = new_lake(folder)
        self.landing = Landing(
            self.log, self.lake, rules=lambda _: Rules(), clock=lambda: NOON, wait=lambda _: None
        )
        self.cuts = Cuts(self.lake, self.log, Tails(self.log, lambda _: Rules()))
        self.feeds: list[Feed] = []
        self.pages = CountedPages(engine, **more)
        self.live = Live(
            self.log,
            self.cuts,
            engine,
            clock=lambda: micros(NOW),
            pages=self.pages,
            start=self.feeds.append,
        )
        self._numbers = count()

    def send(self, *payloads: bytes | str, **more: Any) -> list[str]:
        events = []
        for payload in payloads or ("{}",):
            n = next(self._numbers)
            events.append(event(payload, id=f"e{n}", received_at=NOON + n, **more))
        self.append(*events)
        return [one.id for one in events]

    def append(self, *events: Event) -> None:
        self.log.append(FLIGHTS, events).result()

    def land(self) -> None:
        while self.landing.land_once(FLIGHTS) is not None:
            pass

    def trim(self) -> None:
        """Let the log forget what has landed."""
        view = self.lake.view(FLIGHTS)
        if view is not None:
            self.log.release(FLIGHTS, view.marks)
            self.log.trim(0)
            self.log.trim(KEPT_AFTER_RELEASE)

    def step(self) -> bool:
        return any([feed.step() for feed in self.feeds])  # noqa: C419 - every one of them

    def follow(self, query: str = "", **more: Any) -> Following:
        return self.live.follow(FLIGHTS, query, wake=nothing, **more)

    def seen(self, tail: Following) -> list[str]:
        """Answer the ids of everything there is for a tail now."""
        while self.step():
            pass
        found = []
        while (page := tail.next()) is not None:
            found += [one.event_id for one in page.events]
        return found


class CountedPages(Pages):
    """Counts how often it was asked."""

    reads = 0

    def read(self, *asked: Any) -> Any:
        self.reads += 1
        return super().read(*asked)


@pytest.fixture
def world(tmp_path: Path, engine: Engine) -> World:
    return World(tmp_path, engine)


def test_a_tail_shows_what_comes_and_nothing_from_before(world: World) -> None:
    world.send('{"n": 1}')
    tail = world.follow()

    assert world.seen(tail) == []
    ids = world.send('{"n": 2}', '{"n": 3}')

    assert world.seen(tail) == ids


def test_what_was_acknowledged_while_nobody_looked_is_no_news(world: World) -> None:
    """The feed of another tail may not have seen it yet."""
    world.follow()
    world.send()

    assert world.seen(world.follow()) == []


def test_a_tail_shows_what_its_query_finds(world: World) -> None:
    tail = world.follow("carrier:UA AND delay:>10")
    first, _, _ = world.send(
        '{"carrier": "UA", "delay": 11}', '{"carrier": "UA", "delay": 9}', '{"carrier": "AA"}'
    )
    shown = world.seen(tail)
    world.land()
    second = world.send('{"carrier": "ua", "delay": 12}', '{"carrier": "UA", "delay": 12}')

    assert shown == [first]
    assert world.seen(tail) == second


@pytest.mark.parametrize("query", ["x ${LIMIT 3}", "${ORDER_BY a}"])
def test_modifiers_are_refused(world: World, query: str) -> None:
    with pytest.raises(BadRequest):
        world.follow(query)
    assert world.live.feeds == 0


def test_a_query_that_cannot_be_read_begins_nothing(world: World) -> None:
    with pytest.raises(BadQuery):
        world.follow("(a")
    assert world.live.feeds == 0


def check_history(folder: Path, engine: Engine, seed: int) -> None:  # noqa: C901
    """Send, land, trim, look, break off and resume in any order; each event is shown once."""
    folder.mkdir()
    chance = random.Random(seed)
    log = PartitionedLog(3) if seed % 2 else MemoryLog()
    world = World(folder, engine, log, most_events=chance.choice([2, 7, 500]), width=3)
    sent: dict[str, tuple[int, int, int]] = {}
    queries = ["", "n:>0", "even"]
    tails = [world.follow(query, since=0) for query in queries]
    shown: list[list[tuple[str, int, int]]] = [[] for _ in tails]

    def send() -> None:
        for _ in range(chance.randint(1, 6)):
            n = len(sent)
            payload = f'{{"n": {n % 3}, "word": "{"even" if n % 2 == 0 else "odd"}"}}'
            if n % 11 == 10:
                payload = BROKEN.decode()
            # Doors do not agree about the time.
            at = NOON + n * 10 + chance.randint(-30, 30)
            one = event(payload, id=f"e{n}", received_at=at, key=str(n % 7).encode())
            [position] = world.log.append(FLIGHTS, [one]).result()
            sent[one.id] = (*position, n)

    def look(number: int) -> None:
        page = tails[number].next()
        if page is not None:
            shown[number] += [(e.event_id, e.log_partition, e.log_offset) for e in page.events]

    def resume(number: int) -> None:
        after = str(tails[number].at)
        tails[number].close()
        world.feeds[:] = [feed for feed in world.feeds if not feed._ended.is_set()]
        tails[number] = world.follow(queries[number], since=0, after=after)

    acts: list[Callable[[], object]] = [send, world.step, world.land]
    if isinstance(log, MemoryLog):
        acts.append(world.trim)
    acts += [lambda n=n: look(n) for n in range(3)] + [lambda n=n: resume(n) for n in range(3)]
    for _ in range(60):
        chance.choice(acts)()
    for number in range(3):
        while world.step():
            pass
        while tails[number].behind:
            look(number)

    for number, holds in enumerate([lambda n: True, lambda n: n % 3 > 0, lambda n: n % 2 == 0]):
        wanted = {i for i, (*_, n) in sent.items() if holds(n) and n % 11 != 10}
        got = [one for one, _, _ in shown[number]]
        assert len(got) == len(set(got)), f"doubled by {queries[number]!r}"
        assert set(got) == wanted, queries[number]
        for partition in range(3):
            offsets = [offset for _, p, offset in shown[number] if p == partition]
            assert offsets == sorted(offsets), "out of the order of the log"


def check_histories(folder: Path, engine: Engine) -> None:
    for seed in range(4):
        check_history(folder / str(seed), engine, seed)


@pytest.mark.parametrize("seed", range(6))
def test_every_event_once_and_in_order_whatever_happens_beside(
    tmp_path: Path, engine: Engine, seed: int
) -> None:
    check_history(tmp_path / "history", engine, seed)


def _nothing_has_landed(cut: Cut) -> dict[int, int]:
    return dict.fromkeys(cut.ends, 0)


def _no_page_is_full(take: Any) -> Any:
    def taken(*given: Any) -> dict[int, int]:
        take(*given)
        return {}

    return taken


def _one_too_early(read: Any) -> Any:
    def earlier(*given: Any, **more: Any) -> Positions:
        at = read(*given, **more)
        return at.moved({p: max(0, offset - 1) for p, offset in at.offsets.items()})

    return earlier


@pytest.mark.parametrize(
    ("where", "name", "mutant"),
    [
        (live_module, "_marks", lambda _: _nothing_has_landed),
        (Pages, "_take", _no_page_is_full),
        (positions, "read", _one_too_early),
    ],
    ids=["skips what has landed", "passes what has no room", "resumes one too early"],
)
def test_a_tail_with_a_bug_does_not_pass(
    tmp_path: Path,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    where: Any,
    name: str,
    mutant: Any,
) -> None:
    """The history above would be worth nothing if it could not fail."""
    monkeypatch.setattr(where, name, mutant(getattr(where, name)))

    with pytest.raises(AssertionError):
        check_histories(tmp_path, engine)


def test_a_tail_finds_what_the_reference_finds(tmp_path: Path, engine: Engine) -> None:
    """The same language: in the lake and on the log, one page after the other."""
    world = World(tmp_path, engine, most_events=7)
    world.append(*EVENTS[: len(EVENTS) // 2])
    world.land()
    world.append(*EVENTS[len(EVENTS) // 2 :])
    kept = {read.event.id for read in READS}

    for asked in (*SEARCHES, *FACTS)[::6]:
        try:
            tail = world.follow(asked.text, since=0, duplicates="include")
        except BadRequest:
            continue  # a modifier
        got = world.seen(tail)
        tail.close()
        world.feeds.clear()
        wanted = {read.event.id for read in READS if asked.holds(read)}
        assert set(got) == wanted & kept, asked.text
        assert len(got) == len(set(got)), asked.text


def test_since_goes_back_into_lake_and_log(world: World) -> None:
    first, second = world.send("{}", "{}"), world.send('{"b": 1}')
    world.land()
    third = world.send('{"c": 1}')

    assert world.seen(world.follow(since=NOON)) == first + second + third
    assert world.seen(world.follow(since=NOON + 2)) == second + third
    assert world.seen(world.follow(since=NOON + 3)) == third
    assert world.seen(world.follow(since=NOON + 4)) == []


def test_what_was_missed_is_shown_after_a_break(world: World) -> None:
    tail = world.follow("a:1")
    world.send('{"a": 1}')
    assert len(world.seen(tail)) == 1
    place = str(tail.at)
    tail.close()

    missed = world.send('{"a": 1}', '{"a": 1}')
    world.land()
    world.trim()
    more = world.send('{"a": 1}')

    assert world.seen(world.follow("a:1", after=place)) == missed + more


def test_many_tails_cost_one_read_of_the_log(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    tails = [world.follow("a:1") for _ in range(20)]
    others = [world.follow("a:2") for _ in range(5)]
    reads = []
    read = world.log.read
    monkeypatch.setattr(world.log, "read", lambda *a, **more: reads.append(a) or read(*a, **more))
    ids = world.send('{"a": 1}', '{"a": 2}')

    assert [world.seen(tail) for tail in tails] == [ids[:1]] * 20
    assert [world.seen(tail) for tail in others] == [ids[1:]] * 5
    assert len(reads) == 1
    assert world.pages.reads == 2, "once for each question"


def test_a_feed_ends_with_its_last_tail(world: World) -> None:
    one, other = world.follow(), world.follow("a:1")
    one.close()
    assert world.live.feeds == 1
    other.close()
    assert world.live.feeds == 0
    assert world.feeds[0]._ended.is_set()


def test_a_page_holds_a_few_events_and_says_how_many_are_left(
    tmp_path: Path, engine: Engine
) -> None:
    """All that a slow reader costs the platform."""
    world = World(tmp_path, engine, most_events=10, most_bytes=100)
    tail = world.follow()
    ids = world.send(*['{"a": 1}'] * 25)
    large = world.send(*[f'{{"a": "{"x" * 90}"}}'] * 2)
    world.step()
    assert tail.behind == 27

    sizes, found = [], []
    while (page := tail.next()) is not None:
        sizes.append(len(page.events))
        found += [one.event_id for one in page.events]

    assert found == ids + large
    assert sizes == [10, 10, 5, 1, 1]
    assert tail.behind == 0


def test_no_partition_waits_for_another(tmp_path: Path, engine: Engine) -> None:
    """One that is far behind must not keep back what comes in the others."""
    log = PartitionedLog(2)
    world = World(tmp_path, engine, log, most_events=10, width=10)
    keys = {log._place(event(key=str(n).encode())): str(n).encode() for n in range(20)}
    tail = world.follow(since=0)
    world.send(*["{}"] * 50, key=keys[0])
    world.land()
    [late] = world.send("{}", key=keys[1])
    world.step()

    page = tail.next()

    assert page is not None
    assert late in [one.event_id for one in page.events]
    assert len(page.events) == 6


def test_each_event_says_from_where_to_go_on(world: World) -> None:
    start = Positions("log", {0: 3, 1: 4})
    world.send()
    tail = world.follow(since=0)
    world.step()
    page = tail.next()
    assert page is not None
    [found] = page.events

    assert [str(one) for one in positions.along(start, iter([found]))] == ["log;0=1,1=4"]


def test_what_is_gone_behind_a_position_is_told() -> None:
    view = table(FLIGHTS, mark=100)
    mark = view.marks[0]
    expired = {(mark.log_id, 0): Expired(rows=30, upto=40)}
    gone = type(view)(
        **{name: getattr(view, name) for name in view.__slots__}
        | {"expired": expired, "lost": (Gap(mark.log_id, 0, 50, 60),)}
    )

    def told(at: int) -> Sequence[Missing]:
        return missing(gone, Positions(mark.log_id, {0: at}))

    assert told(0) == [Missing("expired", 30), Missing("lost", 10)]
    assert told(35) == [Missing("expired", 5), Missing("lost", 10)]
    assert told(55) == [Missing("lost", 5)]
    assert told(60) == []
    assert missing(None, Positions("x", {0: 0})) == []


def test_a_log_that_is_another_one_ends_the_tail(world: World) -> None:
    world.send()
    tail = world.follow()
    world.log = world.live._buffer = MemoryLog("00000000-0000-0000-0000-000000000002")
    [feed] = world.feeds
    feed._buffer = world.log
    feed._cuts = Cuts(world.lake, world.log, Tails(world.log, lambda _: Rules()))
    world.send("{}", "{}")

    with pytest.raises(LogChanged):
        feed.step()
    assert tail.next() is None


def test_a_thread_follows_and_wakes_and_outlives_a_log_that_is_away(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, engine)
    live = Live(world.log, world.cuts, engine, clock=lambda: NOON)
    woken: list[int] = []
    tail = live.follow(FLIGHTS, "", wake=lambda: woken.append(1))
    extents = world.log.extents
    away = [True]

    def told(collection: Any) -> Any:
        if away.pop() if away else False:
            raise LogUnavailable("away")
        return extents(collection)

    monkeypatch.setattr(world.log, "extents", told)
    until(lambda: not away)
    world.send()
    until(lambda: bool(woken))

    page = tail.next()
    tail.close()
    assert page is not None
    assert len(page.events) == 1
    assert live.feeds == 0


def test_what_nobody_thought_of_ends_the_tails_and_quotes_nothing(
    tmp_path: Path,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = World(tmp_path, engine)
    live = Live(world.log, world.cuts, engine, clock=lambda: NOON)
    tail = live.follow(FLIGHTS, "", wake=nothing)
    [feed] = live._feeds.values()

    def fails(*_: Any) -> Any:
        raise ValueError("a payload")

    monkeypatch.setattr(world.cuts, "take", fails)
    world.send()
    until(lambda: feed.error is not None)

    with pytest.raises(EngineUnavailable, match="broke off"):
        tail.next()
    tail.close()
    said = capsys.readouterr()
    assert "ValueError" in said.out + said.err
    assert "a payload" not in said.out + said.err

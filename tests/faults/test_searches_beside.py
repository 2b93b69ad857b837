"""Clients that know what was acknowledged search while everything else goes on beside them.

Events are sent and land, files are merged, snapshots expire, days are dropped, the log is trimmed,
and an index is filled, each in a thread of its own. Every client notes what was acknowledged before
it asks: that has to be in the answer, once, on one of its pages.
"""

from __future__ import annotations

import json
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import structlog
from balance import Findings, compare
from builders import FLIGHTS, NOON, event
from evidence.sheet import found, happened, say
from indexing import DAY, Home, fresh_index
from lakes import MAIN

from assets.retention import first_kept
from lakehouse.retention import drop_days
from lakehouse.sql import Engine, open_engine
from lakehouse.upkeep import compact, expire
from penstock.buffer.released import KEPT_AFTER_RELEASE
from penstock.errors import NotFound, Unavailable
from penstock.search import SearchRequest
from penstock.search.cut import Cuts

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7_200)]

SEARCHES = int(os.environ.get("SOAK_SEARCHES", "200"))
"""So many are asked, of all clients together."""

SEED = int(os.environ.get("SOAK_SEED", "7"))

CLIENTS = 4
EVENTS_PER_SEARCH = 3
"""So far ahead of the searches events are sent: how much there is does not depend on the clock."""

PER_DAY = 300
APART = DAY // PER_DAY
"""From one event to the next."""

KEPT_DAYS = 1
KEPT_SNAPSHOTS = 5
TRIMMED_EVERY = 8
"""Landings from one trim of the log to the next."""

TOLD_EVERY = 1_000
"""Searches from one word of how far they are to the next."""

WORDS = ("gate", "delay", "sea fog", "crew")


class Numbered(NamedTuple):
    """What the event of a number is, which is all that anybody has to know of it."""

    number: int

    @property
    def received_at(self) -> int:
        return NOON + self.number * APART

    @property
    def key(self) -> int:
        return self.number * 7 % 11

    @property
    def word(self) -> str:
        return WORDS[self.number % len(WORDS)]

    def payload(self) -> str:
        return json.dumps({"n": self.number, "k": self.key, "note": f"because of {self.word}"})


class Asked(NamedTuple):
    """A question, and which numbers answer it."""

    query: str
    holds: Callable[[Numbered], bool]
    since: int | None = None


def question(chance: random.Random, newest: int) -> Asked:
    """Answer some question; `newest` is the number that was acknowledged last."""
    key, word = chance.randrange(11), chance.choice(WORDS)
    first = max(0, newest - chance.randrange(2 * PER_DAY))
    since = Numbered(first).received_at
    return chance.choice(
        [
            Asked("", lambda _: True),
            Asked("k:*", lambda _: True),
            Asked(f"k:{key}", lambda one: one.key == key),
            Asked(f"NOT k:{key}", lambda one: one.key != key),
            Asked(f'"{word}"', lambda one: one.word == word),
            Asked(f"n:>={first}", lambda one: one.number >= first),
            Asked(f"k:<{key}", lambda one: one.received_at >= since and one.key < key, since),
        ]
    )


@dataclass
class Known:
    """What was sent and acknowledged, which days may be gone, and which are gone for certain."""

    guard: threading.Lock = field(default_factory=threading.Lock)
    sent: int = 0
    """Numbers below are on their way at least."""
    acknowledged: int = 0
    """Numbers below are acknowledged."""
    leaving: int = 0
    """Numbers below may have been dropped."""
    gone: int = 0
    """Numbers below have been dropped."""

    def now(self) -> Known:
        """Answer what is known at this moment."""
        with self.guard:
            return Known(
                sent=self.sent,
                acknowledged=self.acknowledged,
                leaving=self.leaving,
                gone=self.gone,
            )


def numbers(asked: Asked, start: int, end: int) -> set[int]:
    """Answer which of these numbers the question finds."""
    return {n for n in range(start, end) if asked.holds(Numbered(n))}


@dataclass
class World:
    """A site at which everything happens at once, until enough was searched."""

    home: Home
    searches: int = SEARCHES
    needed: frozenset[str] = frozenset()
    """What has to happen beside the searches before there were enough."""
    known: Known = field(default_factory=Known)
    asked: int = 0
    beside: dict[str, int] = field(default_factory=dict)
    """How often what happened beside the searches."""
    findings: Findings = field(default_factory=lambda: Findings(events=0, altered=0))
    failed: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._guard = threading.Lock()
        self._chance = random.Random(SEED)
        self._names = count()
        # Of a machine that has no time for it no search gives up.
        self.home.searcher = self.home.searching(self.home.index, seconds=600)

    def happened(self, what: str, times: int = 1) -> None:
        with self._guard:
            self.beside[what] = self.beside.get(what, 0) + times

    # What goes on beside the searches

    def send(self) -> None:
        """Send a few events, unless there are enough for what was searched by now."""
        known = self.known
        if known.sent > PER_DAY + EVENTS_PER_SEARCH * self.asked:
            self._over.wait(0.002)
            return
        some = range(known.sent, known.sent + self._chance.randrange(1, 9))
        with known.guard:
            known.sent = some.stop
        self.home.append(
            *(
                event(one.payload(), id=f"e{one.number}", received_at=one.received_at)
                for one in map(Numbered, some)
            )
        )
        with known.guard:
            known.acknowledged = some.stop

    def land(self) -> None:
        """Land what waits; now and then the log forgets what has landed."""
        if self.home.landing.land_once(FLIGHTS) is None:
            self._over.wait(0.005)
            return
        self.happened("landings")
        if self.beside["landings"] % TRIMMED_EVERY == 0:
            view = self.home.lake.view(FLIGHTS)
            assert view is not None
            self.home.log.release(FLIGHTS, view.marks)
            self.home.log.trim(0)
            if self.home.log.trim(KEPT_AFTER_RELEASE):
                self.happened("trims of the log")

    def tend(self) -> None:
        """Merge what is small, and let old snapshots go."""
        lake = self.home.lake
        done = compact(
            lake, MAIN, below=1 << 20, fewest=2, new_name=lambda: f"merged-{next(self._names)}"
        )
        if done.read:
            self.happened("merges")
        if expire(lake, MAIN, keep=KEPT_SNAPSHOTS):
            self.happened("expiries")
        self._over.wait(0.1)

    def drop(self) -> None:
        """Drop old days, first of the index and then of the table, as `retain` does."""
        home, now = self.home, Numbered(self.known.now().acknowledged).received_at
        before = first_kept(KEPT_DAYS, now)
        first = max(0, -(-(before * DAY - NOON) // APART))
        view = home.lake.view(FLIGHTS)
        landed = view.marks[0].next if view is not None and view.marks else 0
        if first == self.known.gone or landed < first:
            self._over.wait(0.02)
            return
        with self.known.guard:
            self.known.leaving = first
        if home.index is not None:
            home.indexing.forget_before(FLIGHTS, before * DAY)
        if drop_days(home.lake, MAIN, before=before):
            self.happened("drops of a day")
        with self.known.guard:
            self.known.gone = first

    def fill(self) -> None:
        """Bring what has landed into the index, refreshed, and tidy up there."""
        if self.home.fill():
            self.happened("refreshes of the index")
        self.home.indexing.merge(FLIGHTS)
        self.home.indexing.sweep(FLIGHTS)
        self._over.wait(0.02)

    # The searches

    def client(self, number: int) -> Callable[[], None]:
        """Answer what asks one question, and looks at the answer."""
        chance = random.Random(SEED * 1_000 + number)
        ways = (self.all_pages, self.all_pages, self.count, self.one, self.bars)

        def ask() -> None:
            with self._guard:
                if self.asked >= self.searches and self.needed <= self.beside.keys():
                    self._over.set()
                    return
                self.asked += 1
                if self.asked % TOLD_EVERY == 0:
                    beside = ", ".join(f"{times:,} {what}" for what, times in self.beside.items())
                    say(f"{self.asked:,} of {self.searches:,} searches, beside {beside}")
            before = self.known.now()
            way = chance.choice(ways)
            found = way(question(chance, before.acknowledged), before, chance)
            with self._guard:
                self.findings += found

        return ask

    def all_pages(self, asked: Asked, before: Known, chance: random.Random) -> Findings:
        """Follow a cursor to its end: its pages are disjoint, and complete."""
        limit, newest_first = chance.randrange(20, 400), chance.random() < 0.7
        at_first, cursor, found = None, None, []
        while True:
            page = self.home.page(
                asked.query,
                since=asked.since,
                limit=limit,
                newest_first=newest_first,
                cursor=cursor,
            )
            at_first = at_first or self.known.now()
            found += [(one.log_offset, one.payload.decode()) for one in page.events]
            cursor = page.cursor
            if cursor is None:
                break
        must, may = self._bounds(asked, before, at_first)
        places = [place for place, _ in found]
        wrong = compare(
            {n: Numbered(n).payload() for n in must},
            found,
            known=may,
        )
        if places != sorted(places, reverse=newest_first):
            wrong += Findings(events=0, reordered=1, said=(f"{asked.query!r} is in no order",))
        return _said(wrong, asked.query)

    def count(self, asked: Asked, before: Known, _: random.Random) -> Findings:
        """Ask how many there are."""
        request = SearchRequest(collection=FLIGHTS, query=asked.query, since=asked.since)
        return self._as_many(self.home.searcher.count(request), asked, before)

    def bars(self, asked: Asked, before: Known, _: random.Random) -> Findings:
        """Ask how many there are over time."""
        request = SearchRequest(collection=FLIGHTS, query=asked.query, since=asked.since)
        drawn = self.home.searcher.histogram(request, bars=20).bars
        return self._as_many(sum(bar.count for bar in drawn), asked, before)

    def one(self, _: Asked, before: Known, chance: random.Random) -> Findings:
        """Ask for an event by its id."""
        number = chance.randrange(before.gone, before.acknowledged)
        try:
            got = [(number, self.home.searcher.event(FLIGHTS, f"e{number}").payload.decode())]
        except NotFound:
            got = []
        told = {} if number < self.known.now().leaving else {number: Numbered(number).payload()}
        return _said(compare(told, got, known={number}), f"e{number}")

    def _bounds(self, asked: Asked, before: Known, after: Known) -> tuple[set[int], set[int]]:
        """Answer what has to be found, and what may be: by now some days have gone."""
        leaving = self.known.now().leaving
        return (
            numbers(asked, leaving, before.acknowledged),
            numbers(asked, before.gone, after.sent),
        )

    def _as_many(self, found: int, asked: Asked, before: Known) -> Findings:
        must, may = self._bounds(asked, before, self.known.now())
        missing, more = max(0, len(must) - found), max(0, found - len(may))
        said = f"{found} counted by {asked.query!r}, of {len(must)} to {len(may)}"
        return Findings(
            events=len(must), lost=missing, doubled=more, said=(said,) if missing or more else ()
        )

    # All of it

    def go_on(self) -> Findings:
        """Let all of it go on until enough was searched; answer what is wrong with all answers."""
        self.send()
        works = [self.send, *map(self.client, range(CLIENTS))]
        # These give in where others keep changing what they want to change, and come again.
        patient = [self.land, self.tend, self.drop]
        patient += [] if self.home.index is None else [self.fill]
        threads = [
            *(threading.Thread(target=self._repeat, args=(work,)) for work in works),
            *(threading.Thread(target=self._repeat, args=(work, Unavailable)) for work in patient),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.failed:
            raise self.failed[0]
        return msgspec.structs.replace(self.findings, events=self.known.acknowledged)

    def _repeat(self, work: Callable[[], None], *passes: type[Exception]) -> None:
        try:
            while not self._over.is_set():
                with suppress(*passes):
                    work()
        except BaseException as error:  # noqa: BLE001 - it is raised where the test is
            self.failed.append(error)
        finally:
            self._over.set()


def _said(findings: Findings, query: str) -> Findings:
    """Say of each finding which question it is about."""
    said = tuple(f"{one} (by {query!r})" for one in findings.said)
    return msgspec.structs.replace(findings, said=said)


@pytest.fixture(scope="module")
def sql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with closing(
        open_engine(tmp_path_factory.mktemp("spill"), memory="200MB", threads=1)
    ) as engine:
        yield engine


@pytest.fixture(autouse=True)
def little_is_logged() -> Iterator[None]:
    """Every landing tells of itself, and every commit that met another: thousands of lines."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    client = logging.getLogger("pyiceberg")
    before = client.level
    client.setLevel(logging.ERROR)
    yield
    client.setLevel(before)


ENGINES = [
    "embedded",
    pytest.param("elasticsearch", marks=pytest.mark.engines),
    pytest.param("opensearch", marks=pytest.mark.engines),
]


@pytest.fixture(params=ENGINES)
def home(request: pytest.FixtureRequest, tmp_path: Path, sql: Engine) -> Iterator[Home]:
    there = nullcontext() if request.param == "embedded" else fresh_index(request.param)
    with there as index:
        yield Home(tmp_path, sql, index)


@pytest.mark.breaks("searches, by everything that goes on beside them")
def test_what_was_acknowledged_before_a_search_is_in_it_once(home: Home) -> None:
    """Whatever lands, is merged, expires, is dropped, trimmed and refreshed meanwhile."""
    needed = {"landings", "merges", "expiries", "drops of a day", "trims of the log"}
    needed |= {"refreshes of the index"} if home.index is not None else set()
    world = World(home, needed=frozenset(needed))

    wrong = world.go_on()

    happened("changes beside searches", sum(world.beside.values()))
    found(search=wrong)


def table_before_marks(patch: pytest.MonkeyPatch) -> None:
    """Take the snapshot of one load, and the marks of a later one: what landed is in neither."""
    real = Cuts._load

    def load(cuts, collection, view, ends):
        before, first = real(cuts, collection, view, ends)
        return before, _moved(lambda: real(cuts, collection, view, ends)[1], first)

    patch.setattr(Cuts, "_load", load)


def marks_before_table(patch: pytest.MonkeyPatch) -> None:
    """Take the marks of one load, and the snapshot of a later one: what landed is in both."""
    real = Cuts._load

    def load(cuts, collection, view, ends):
        _, first = real(cuts, collection, view, ends)
        _moved(lambda: real(cuts, collection, view, ends)[1], first)
        return real(cuts, collection, view, ends)[0], first

    patch.setattr(Cuts, "_load", load)


def _moved(marks, first):
    """Answer the marks once they are others, or after a moment."""
    for _ in range(20):
        if (later := marks()) != first:
            return later
        time.sleep(0.002)
    return first


@pytest.mark.parametrize(
    ("bug", "kind"), [(table_before_marks, "lost"), (marks_before_table, "doubled")]
)
def test_the_clients_find_a_cut_of_two_loads(
    tmp_path: Path, sql: Engine, monkeypatch: pytest.MonkeyPatch, bug, kind: str
) -> None:
    """Mutants: without them nobody knows that the test above could fail."""
    bug(monkeypatch)

    wrong = World(Home(tmp_path, sql, None), searches=80).go_on()

    assert getattr(wrong, kind) > 0

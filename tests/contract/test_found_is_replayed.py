"""The events found are the events in the plan are the events replayed, while more keep coming in.

A search and a plan are two requests, and each has a cut of its own. So each is held to the
reference: what it has to have is known for whatever cut it made.
"""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import pytest
from builders import FLIGHTS, event
from engines.fresh import fresh_name
from engines.places import KAFKA
from lakes import MAIN, PLACES, lake_at, landing, new_lake, urls
from metadata_builders import collection
from query_reference import NOW, Asked, Read, Searches, micros
from ready_store import ready_store
from receiving import Receiver, receiving
from replaying import MemoryLedger

from lakehouse.sql import Engine, open_engine
from lakehouse.upkeep import compact
from penstock.buffer import Appender, Buffer, Keeping, open_appender, open_buffer
from penstock.buffer.memory import MemoryLog
from penstock.clock import machine_clock
from penstock.envelope import CollectionId, Event, Position
from penstock.guard import Guard
from penstock.metadata.records import Destination
from penstock.schema.convert import Rules
from penstock.search import SearchRequest
from penstock.search.embedded import EmbeddedSearcher
from replay.lease import Bounds
from replay.plan import Planner, read_plan
from replay.request import read_request, record_of
from replay.run import Tools, run_replay

QUERIES = 50
BEFORE = 120
"""Events that are there before the first search."""
PAGE = 200
A_ROUND = 12
"""At most so many come in while one query is looked at: a slow machine has no more to do."""
EVERY_SECONDS = 0.02
MERGE_EVERY = 5
"""Rounds: small files are merged beside, as upkeep does."""
KINDS = ("placed", "paid", "sent", "sent back")
TAGS = ("alpha", "Bravo", "charlie delta", "33", "Straße")
PATHS: list[tuple[str, ...]] = [(), ("kind",), ("n",), ("tags",), ("to", "city"), ("to", "zip")]
VALUES = [*KINDS, *TAGS, "-5", "0", "33.0", "40", "02134", "true"]


class Answered(NamedTuple):
    """Ids that were answered, and the cut that the answer says it is about."""

    ids: Sequence[str]
    ends: Mapping[int, int]


@dataclass(frozen=True)
class Round:
    """One query: what was acknowledged before it, and what search, plan and receiver say."""

    asked: Asked
    acknowledged: int
    found: Answered
    counted: int
    planned: int
    replayed: Answered


def wrong(each: Round, reads: Sequence[Read]) -> list[str]:
    """Say what is not as it has to be; `reads` are all events, as they were acknowledged."""

    def meant(ends: Mapping[int, int]) -> Counter[str]:
        return Counter(
            read.event.id
            for read in reads
            if read.offset < ends.get(read.partition, 0) and each.asked.holds(read)
        )

    said = []
    before = reads[: each.acknowledged]
    for name, answered in (("search", each.found), ("plan", each.replayed)):
        if any(read.offset >= answered.ends.get(read.partition, 0) for read in before):
            said.append(f"the {name} is about less than was acknowledged before it")
    if Counter(each.found.ids) != meant(each.found.ends):
        said.append("the events found are not those that the query means")
    if Counter(each.replayed.ids) != meant(each.replayed.ends):
        said.append("the events replayed are not those that the query means")
    if each.planned != len(each.replayed.ids):
        said.append(f"{each.planned} events are planned, {len(each.replayed.ids)} replayed")
    if not len(each.found.ids) <= each.counted <= each.planned:
        said.append(
            f"{len(each.found.ids)} events are found, then {each.counted} counted, "
            f"then {each.planned} planned"
        )
    return said


def payloads(chance: random.Random) -> Iterator[bytes]:
    """Answer payloads without end: few columns, now and then a leaf that fits none, or no JSON."""
    while True:
        kind = chance.random()
        if kind < 0.05:
            yield chance.choice([b"plain alpha text", b"\xff\xfe alpha", b"33", b"[33, null]"])
            continue
        document: dict[str, object] = {
            "kind": chance.choice(KINDS),
            "n": "none" if kind < 0.1 else chance.randint(-5, 40),
            "tags": chance.sample(TAGS, chance.randint(0, 3)),
        }
        if kind < 0.7:
            document["to"] = {"city": chance.choice(TAGS), "zip": chance.choice(["02134", None])}
        yield json.dumps(document).encode()


def incoming(chance: random.Random) -> Iterator[Event]:
    """Answer events without end, in the order in which they are received."""
    for number, payload in enumerate(payloads(chance)):
        yield event(
            payload,
            id=f"e-{number}",
            received_at=micros(NOW) - (100_000 - number) * 1_000_000,
            content_type=None if payload.startswith(b"{") else "text/plain",
            key=chance.choice([None, b"alpha", b"33"]),
            headers=(("X-Request-Id", b"req alpha"),) if number % 3 else (),
        )


class Coming:
    """Events that keep coming in, and land, until the block ends."""

    def __init__(self, appender: Appender, world: World) -> None:
        self._events = incoming(random.Random(17))
        self._appender = appender
        self._world = world
        self._over = threading.Event()
        self._most = BEFORE
        self.reads: list[Read] = []
        self.error: Exception | None = None

    def some(self, count: int) -> None:
        """Bring so many."""
        for _ in range(count):
            one = next(self._events)
            [position] = self._appender.append(FLIGHTS, [one]).result(30)
            assert isinstance(position, Position)
            self.reads.append(Read(one, partition=position.partition, offset=position.offset))

    def let_in(self) -> int:
        """Let some more come in from now on; answer how many are there."""
        self._most += A_ROUND
        return len(self.reads)

    @contextmanager
    def more(self) -> Iterator[None]:
        thread = threading.Thread(target=self._go_on)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join(30)
        if self.error is not None:
            raise self.error

    def _go_on(self) -> None:
        chance = random.Random(5)
        try:
            while not self._over.wait(EVERY_SECONDS):
                if len(self.reads) < self._most:
                    self.some(chance.randint(1, 3))
                if chance.random() < 0.02:
                    self._world.land(FLIGHTS)
        except Exception as error:  # noqa: BLE001 - raised where the block ends
            self.error = error


@dataclass
class World:
    """A log, a lake, what searches them, and what replays from them to a receiver."""

    buffer: Buffer
    folder: Path
    engine: Engine
    receiver: Receiver
    landing_now: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.lake = new_lake(self.folder)
        self.landing = landing(self.buffer, self.lake)
        self.searcher = EmbeddedSearcher(
            self.lake,
            self.buffer,
            self.engine,
            rules=lambda _: Rules(),
            clock=lambda: micros(NOW),
            windows=(50, 400),
        )
        self.store = ready_store(self.folder / "metadata")
        self.store.create_collection(collection())
        self.store.add_destination(
            Destination(team="main", name="d1", url=self.receiver.url, created_at=machine_clock())
        )
        self.tools = Tools(
            store=self.store,
            planner=Planner(self.lake, self.buffer, self.engine, clock=lambda: micros(NOW)),
            guard=Guard((ip_network("127.0.0.1/32"),), (self.receiver.port,)),
            open_ledger=MemoryLedger,
            wake=self.land,
            doors=("http://127.0.0.1:8080",),
            clock=machine_clock,
            bounds=Bounds(checkpoint_seconds=0.1, linger_seconds=0.0),
        )

    def land(self, which: CollectionId) -> None:
        with self.landing_now:
            while self.landing.land_once(which):
                pass

    def merge(self, name: str) -> None:
        numbers = count()
        compact(self.lake, MAIN, new_name=lambda: f"{name}-{next(numbers)}", fewest=2)

    def find(self, query: str) -> Answered:
        """Answer what is on all pages, whatever comes in between two of them."""
        asked = SearchRequest(collection=FLIGHTS, query=query, limit=PAGE)
        page = self.searcher.search(asked)
        assert page.unsearched == 0
        ids = [found.event_id for found in page.events]
        ends = page.complete_up_to
        while page.cursor is not None:
            page = self.searcher.search(replace(asked, cursor=page.cursor))
            ids += [found.event_id for found in page.events]
        return Answered(ids, ends)

    def replay(self, query: str, replay_id: str) -> tuple[int, Answered]:
        """Answer how many events were planned, and which ones the receiver has got."""
        request = read_request(
            {"collection": "flights", "query": query, "destination": "d1"}, team="main"
        )
        self.store.create_replay(record_of(request, id=replay_id, now=machine_clock()))
        before = len(self.receiver.requests)
        record = run_replay(replay_id, self.tools, holder="run")
        assert record is not None
        assert (record.state, record.error) == ("finished", None)
        plan = read_plan(record.plan)
        ids = [r.header("penstock-event-id") or "" for r in self.receiver.requests[before:]]
        return plan.count, Answered(ids, dict(plan.ends))

    def round(self, asked: Asked, number: int, acknowledged: int) -> Round:
        found = self.find(asked.text)
        counted = self.searcher.count(SearchRequest(collection=FLIGHTS, query=asked.text))
        planned, replayed = self.replay(asked.text, f"r{number}")
        return Round(asked, acknowledged, found, counted, planned, replayed)


@contextmanager
def world_at(place: str, folder: Path) -> Iterator[tuple[World, Appender]]:
    """Answer a world here or on Kafka, PostgreSQL and S3, and what fills its log."""
    with ExitStack() as stack:
        stack.enter_context(lake_at(place, folder))
        engine = stack.enter_context(
            closing(open_engine(folder / "sql", memory="500MB", threads=1, s3=urls(folder)[2]))
        )
        receiver = stack.enter_context(receiving())
        if place == "here":
            log = MemoryLog()
            yield World(log, folder, engine, receiver), log
            return
        url = f"kafka://{KAFKA}/{fresh_name()}"
        appender = stack.enter_context(
            closing(open_appender(url, keeping=Keeping(partitions=2, hours=1)))
        )
        yield (
            World(stack.enter_context(closing(open_buffer(url))), folder, engine, receiver),
            appender,
        )


@pytest.mark.parametrize("place", PLACES)
def test_what_is_found_is_planned_and_replayed_while_events_come_in(
    place: str, tmp_path: Path
) -> None:
    """Somebody looks, counts, and replays: three numbers, of which none may be surprising."""
    with world_at(place, tmp_path) as (world, appender):
        coming = Coming(appender, world)
        coming.some(BEFORE)
        searches = Searches(random.Random(3), PATHS, VALUES, coming.reads[:BEFORE])
        with coming.more():
            rounds = []
            for number in range(QUERIES):
                rounds.append(world.round(searches.search(), number, coming.let_in()))
                if number % MERGE_EVERY == 0:
                    world.merge(f"merged-{number}")
        world.store.close()

    told = {each.asked.text: wrong(each, coming.reads) for each in rounds}
    assert {text: said for text, said in told.items() if said} == {}
    assert rounds[-1].acknowledged > BEFORE + QUERIES
    assert sum(0 < each.planned < each.acknowledged for each in rounds) > QUERIES // 4
    assert any(len(each.found.ids) < each.planned for each in rounds)


def right() -> tuple[Round, list[Read]]:
    """Answer a round with nothing wrong in it: five events, one more before the plan was made."""
    events = list(islice(incoming(random.Random(1)), 7))
    reads = [Read(one, partition=0, offset=offset) for offset, one in enumerate(events)]
    ids = [one.id for one in events]
    everything = Asked("*", lambda _: True)
    found, replayed = Answered(ids[:5], {0: 5}), Answered(ids[:6], {0: 6})
    return Round(everything, 5, found, 5, 6, replayed), reads


def test_a_round_with_nothing_wrong_in_it_passes() -> None:
    """A checker that says no to everything shows nothing, either."""
    assert wrong(*right()) == []


MUTANTS: dict[str, Callable[[Round], Round]] = {
    "the tail is not searched": lambda r: replace(r, found=Answered(r.found.ids[:3], {0: 3})),
    "an event is on two pages": lambda r: replace(
        r, found=r.found._replace(ids=[*r.found.ids, r.found.ids[-1]])
    ),
    "a later page is of a later cut": lambda r: replace(
        r, found=r.found._replace(ids=r.replayed.ids)
    ),
    "an event is missed": lambda r: replace(r, found=r.found._replace(ids=r.found.ids[1:])),
    "the plan does not wait for landing": lambda r: replace(
        r, planned=3, replayed=Answered(r.replayed.ids[:3], {0: 3})
    ),
    "what came later is replayed, too": lambda r: replace(
        r, replayed=r.replayed._replace(ids=[*r.replayed.ids, "e-6"])
    ),
    "less is replayed than was planned": lambda r: replace(r, planned=7),
    "the count is about another cut": lambda r: replace(r, counted=4),
}


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=list(MUTANTS))
def test_what_is_wrong_is_seen(mutant: Callable[[Round], Round]) -> None:
    """Each of these happened in some trial, and looked like an answer."""
    each, reads = right()

    assert wrong(mutant(each), reads)

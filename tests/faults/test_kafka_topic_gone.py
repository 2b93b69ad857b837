"""A topic that somebody deleted by hand: what comes back, and what stops."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from balance import compare
from builders import FLIGHTS, NOON, event
from confluent_kafka.admin import AdminClient
from engines.fresh import fresh_name
from engines.places import KAFKA
from evidence.sheet import found, happened
from lakes import MAIN, landing, new_lake
from ready_store import ready_store

from assets.accounting import read_books
from assets.resolve import find_stop, prepare, resolve
from ingest_api.auth import Keyring
from lakehouse import Lake
from penstock.buffer import (
    Appender,
    Buffer,
    Keeper,
    open_appender,
    open_buffer,
    open_keeper,
    start_of,
)
from penstock.buffer.keeping import make_places
from penstock.buffer.memory import MemoryLog
from penstock.envelope import Event, Position
from penstock.errors import LogChanged, LogReplaced, LogUnavailable
from penstock.metadata.records import CollectionRecord
from penstock.metadata.store import Store

pytestmark = pytest.mark.engines

PARTITIONS = 3


@dataclass
class World:
    """A collection of three partitions, which the log does not give by itself."""

    url: str
    store: Store
    keeper: Keeper
    buffer: Buffer

    def door(self) -> Appender:
        return open_appender(self.url, partitions_of=Keyring(self.store.known()).partitions)

    def store_one(self) -> None:
        """Let a door that just started take an event."""
        door = self.door()
        [outcome] = door.append(FLIGHTS, [event("{}")]).result(timeout=20)
        door.close()
        assert isinstance(outcome, Position)

    def delete_topic(self) -> str:
        """Answer the id that it had."""
        happened("deleted topics")
        before = self.buffer.log_id(FLIGHTS)
        topic = f"{self.url.rpartition('/')[2]}.{FLIGHTS}"
        admin = AdminClient({"bootstrap.servers": KAFKA})
        admin.delete_topics([topic])[topic].result(10)
        until = time.monotonic() + 20
        while FLIGHTS in self.buffer.collections() and time.monotonic() < until:
            time.sleep(0.05)
        return before

    def held(self) -> list[tuple[str, bytes]]:
        """Answer id and payload of each event that the log has."""
        log_id = self.buffer.log_id(FLIGHTS)
        return [
            (row["event_id"], row["payload"])
            for partition, extent in self.buffer.extents(FLIGHTS).items()
            for row in self.buffer.read(
                FLIGHTS, start_of(log_id, partition), end=extent.end, max_bytes=1 << 20
            ).rows.to_pylist()
        ]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    url = f"kafka://{KAFKA}/{fresh_name()}"
    store, keeper, buffer = ready_store(tmp_path), open_keeper(url), open_buffer(url)
    made = keeper.ensure(FLIGHTS, partitions=PARTITIONS)
    store.create_collection(CollectionRecord(id=FLIGHTS, created_at=NOON, partitions=made))
    yield World(url, store, keeper, buffer)
    buffer.close()
    keeper.close()
    store.close()


def test_the_platform_makes_it_anew_with_the_collections_partitions(world: World) -> None:
    """With one, all keys of a busy collection would meet in it, and nobody would know."""
    before = world.delete_topic()

    make_places(world.keeper, world.store)

    assert set(world.buffer.extents(FLIGHTS)) == {0, 1, 2}
    assert world.buffer.log_id(FLIGHTS) != before
    assert world.store.collection(FLIGHTS).partitions == PARTITIONS


@pytest.mark.breaks("the topic of the log, by deleting it before a door starts")
def test_a_door_makes_it_anew_with_the_collections_partitions(world: World) -> None:
    """A door is the first to notice; the platform may not be there."""
    world.delete_topic()

    world.store_one()

    assert set(world.buffer.extents(FLIGHTS)) == {0, 1, 2}
    found(log=compare({"{}": b"{}"}, world.held()))


@pytest.mark.breaks("the topic of the log, by deleting it while a door runs")
def test_a_door_that_runs_makes_it_anew_within_seconds(world: World) -> None:
    """Its client has the topic's leaders in its memory, and waits for them to answer."""
    door = world.door()
    door.append(FLIGHTS, [event("before")]).result(timeout=20)
    world.delete_topic()

    begun, tries = time.monotonic(), 0
    while (refused := door.append(FLIGHTS, [event("{}")])).exception(timeout=20) is not None:
        assert isinstance(refused.exception(), LogUnavailable)
        assert time.monotonic() - begun < 20
        tries += 1
        time.sleep(0.1)
    door.close()

    assert tries > 0
    assert set(world.buffer.extents(FLIGHTS)) == {0, 1, 2}
    found(log=compare({"{}": b"{}"}, world.held(), most_again=tries))


def test_one_that_came_back_too_small_is_made_as_large_as_it_was(world: World) -> None:
    """Kafka itself makes topics with its default where that is allowed."""
    world.delete_topic()
    world.keeper.ensure(FLIGHTS)
    assert set(world.buffer.extents(FLIGHTS)) == {0}

    make_places(world.keeper, world.store)

    assert set(world.buffer.extents(FLIGHTS)) == {0, 1, 2}


def test_one_that_was_given_more_keeps_them_and_they_are_noted(world: World) -> None:
    """Else it would come back with fewer than it had."""
    assert world.keeper.ensure(FLIGHTS, partitions=5) == 5

    make_places(world.keeper, world.store)

    assert world.keeper.ensure(FLIGHTS) == 5
    assert world.store.collection(FLIGHTS).partitions == 5


@pytest.mark.breaks("the topic of the log, by deleting it behind what has landed")
def test_nothing_lands_from_it_into_the_table_of_the_old_one(world: World, tmp_path: Path) -> None:
    """What had not landed is gone: that may not pass for an ordinary day (`log-changed`)."""
    lake, door = new_lake(tmp_path), world.door()
    events = [event("{}", id=f"e{n}", key=b"%d" % n) for n in range(20)]
    assert all(isinstance(one, Position) for one in door.append(FLIGHTS, events).result(timeout=20))
    work = landing(world.buffer, lake)
    while work.land_once(FLIGHTS):
        pass
    door.close()
    world.delete_topic()
    with pytest.raises(LogChanged, match=r"main\.flights was landed from the log"):
        work.land_once(FLIGHTS)

    make_places(world.keeper, world.store)
    world.store_one()

    with pytest.raises(LogChanged, match=r"main\.flights was landed from the log"):
        landing(world.buffer, lake).land_once(FLIGHTS)
    view = lake.view(FLIGHTS)
    assert view is not None
    assert view.rows == 20
    landed = [(row[0], row[3]) for row in identities(lake)]
    found(tables=compare({one.id: str(one.payload) for one in events}, landed))


def copy_topic(folder: Path, *words: str) -> str:
    """Run the program of the how-to; answer what it prints."""
    page = Path(__file__).parents[2] / "docs" / "howto" / "kafka.md"
    [program] = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    (folder / "copy_topic.py").write_text(program)
    ran = subprocess.run(
        [sys.executable, "copy_topic.py", KAFKA, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def identities(lake: Lake) -> list[tuple[Any, ...]]:
    """Answer what tells the landed events apart, and what they hold."""
    table = lake.table(MAIN)
    assert table is not None
    names = ("event_id", "received_at", "key", "payload", "source", "content_type", "headers")
    rows = table.scan(selected_fields=names).to_arrow().to_pylist()
    return sorted(tuple(str(row[name]) for name in names) for row in rows)


def twenty(first: int) -> list[Event]:
    """Answer events with keys and headers, one of them named as Penstock's own."""
    return [
        event(
            f'{{"n": {n}}}',
            id=f"e{n}",
            key=b"%d" % n,
            received_at=NOON + n,
            headers=(("trace", b"%d" % n), ("penstock", b"mine")),
        )
        for n in range(first, first + 20)
    ]


def land_all(log: Buffer, lake: Lake) -> None:
    while landing(log, lake).land_once(FLIGHTS):
        pass


@pytest.mark.breaks("the topic of the log, by deleting it with events that have not landed")
def test_what_has_not_landed_goes_to_the_new_topic_as_the_how_to_says(
    world: World, tmp_path: Path
) -> None:
    """With its id, time, key and headers, each once, whatever is typed twice."""
    lake = new_lake(tmp_path)

    def take(first: int) -> None:
        door = world.door()
        stored = door.append(FLIGHTS, twenty(first)).result(timeout=20)
        door.close()
        assert all(isinstance(one, Position) for one in stored)

    take(0)
    land_all(world.buffer, lake)
    ids = [row[0] for row in identities(lake)]
    (tmp_path / "landed").write_text("".join(f"{word}\n" for word in ["event_id", *ids]))
    take(20)
    topic = f"{world.url.rpartition('/')[2]}.{FLIGHTS}"
    kept = f"kept-{topic}"
    assert copy_topic(tmp_path, topic, kept, "landed").startswith("20 records")
    assert copy_topic(tmp_path, topic, kept, "landed").startswith("0 records")
    world.delete_topic()
    make_places(world.keeper, world.store)
    assert isinstance(find_stop(world.buffer, lake, FLIGHTS), LogReplaced)

    agreed = prepare(world.buffer, lake, FLIGHTS, "new-log")
    resolve(world.buffer, lake, agreed, done=lambda _: None)
    assert copy_topic(tmp_path, kept, topic).startswith("20 records")
    land_all(world.buffer, lake)
    assert copy_topic(tmp_path, kept, topic).startswith("0 records")
    take(40)
    land_all(world.buffer, lake)

    # What it would be if no topic had ever been lost.
    reference, log = new_lake(tmp_path / "reference"), MemoryLog()
    for first in (0, 20, 40):
        log.append(FLIGHTS, twenty(first))
    land_all(log, reference)
    wanted = {row[0]: row for row in identities(reference)}
    assert len(wanted) == 60
    found(tables=compare(wanted, [(row[0], row) for row in identities(lake)]))
    books = read_books(world.buffer, lake, FLIGHTS)
    assert (books.accepted, books.parts["landed"], books.difference) == (60, 60, 0)

"""The stores of a home, and what landing goes by while one of them is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from builders import FLIGHTS, event
from descriptors import SHOP

from assets.decoders import Decoders
from assets.stores import Contracts, Stores, opened
from assets.stores import Metadata as Asked
from penstock.buffer import open_appender
from penstock.cache import Cache, open_cache
from penstock.envelope import CollectionId
from penstock.errors import EngineUnavailable, NotFound
from penstock.metadata.records import CollectionRecord, Known
from penstock.schema.convert import Rules
from penstock.schema.formats import Format
from penstock.settings import load_settings
from penstock.vocabulary import Contract

ORDERS = CollectionId("main", "orders")


def no_registry(address: str, secret: str | None) -> Any:
    """Nobody has to be asked here."""
    raise AssertionError(address)


def frozen(which: CollectionId = FLIGHTS, contract: Contract = "freeze") -> CollectionRecord:
    return CollectionRecord(id=which, created_at=0, contract=contract)


class Metadata:
    """Answers one collection; counts how often it was asked while it was away."""

    def __init__(self) -> None:
        self.away = False
        self.record = frozen()
        self.refused = 0

    def collection(self, which: CollectionId) -> CollectionRecord:
        if self.away:
            self.refused += 1
            raise EngineUnavailable("locked")
        if which != self.record.id:
            raise NotFound("collection", str(which))
        return self.record


class Hand:
    """A clock that is moved by hand, in seconds."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def published(folder: Path, *records: CollectionRecord) -> Cache:
    cache = open_cache(f"embedded://{folder / 'cache'}")
    cache.publish(lambda: Known(version=1, collections=records, tokens=()))
    return cache


def contracts(metadata: Metadata, cache: Cache, clock: Hand) -> Contracts:
    asked = Asked(lambda: metadata, clock)  # type: ignore[arg-type, return-value]  # a stand-in
    return Contracts(asked, lambda: cache)


def test_the_metadata_says_what_holds_while_it_answers(tmp_path: Path) -> None:
    """What the doors know may be older; what was deleted after its events came still lands."""
    cache = published(tmp_path, frozen(contract="evolve"), frozen(ORDERS))
    asked = contracts(Metadata(), cache, Hand())

    assert asked.of(FLIGHTS).contract == "freeze"
    assert asked.of(ORDERS) == CollectionRecord(id=ORDERS, created_at=0)


def test_the_doors_knowledge_holds_while_the_metadata_is_away(tmp_path: Path) -> None:
    """A collection lands although landing never asked for it before; the log says why, once."""
    metadata, clock = Metadata(), Hand()
    metadata.away = True
    asked = contracts(metadata, published(tmp_path, frozen(), frozen(ORDERS)), clock)

    with structlog.testing.capture_logs() as lines:
        for seconds in (0.0, 1.0, 8.0, 2.0, 10.0):
            clock.now += seconds
            assert asked.of(ORDERS).contract == "freeze"
            assert asked.of(CollectionId("main", "deleted")).contract == "evolve"
        metadata.away = False
        clock.now += 10.0
        assert asked.of(ORDERS).contract == "evolve"

    # A database that is locked takes its time to say so: it is not asked at every batch.
    assert metadata.refused == 3
    assert [line["event"] for line in lines] == [
        "metadata is away, landing goes on without it",
        "metadata answers again",
    ]


def test_landing_waits_where_nobody_knows_the_contract(tmp_path: Path) -> None:
    """To guess could give a frozen collection columns that it never loses again."""
    metadata = Metadata()
    metadata.away = True
    empty = open_cache(f"embedded://{tmp_path / 'cache'}")

    with pytest.raises(EngineUnavailable, match="contract"):
        contracts(metadata, empty, Hand()).of(FLIGHTS)


def test_descriptors_are_asked_for_once_and_a_collection_waits_for_them() -> None:
    """Landed as something else, its events would be without columns for good."""
    answers: list[bytes | Exception] = [EngineUnavailable("locked"), SHOP]
    asked = []

    class Kept:
        def format_schema(self, id: CollectionId, digest: str) -> bytes:  # noqa: A002
            asked.append((id, digest))
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        def keep_format_schema(self, *_: Any) -> None:
            raise AssertionError

        def registry_secret(self, *_: Any) -> str:
            raise AssertionError

    decoders = Decoders(Kept(), no_registry)
    orders = Format(name="protobuf", schema="d1", message="shop.Order")

    with pytest.raises(EngineUnavailable, match=r"schema of main\.flights"):
        decoders.of(FLIGHTS, orders)
    first = decoders.of(FLIGHTS, orders)
    assert first is not None
    assert decoders.of(FLIGHTS, orders) is first
    assert decoders.of(FLIGHTS, Format()) is None
    assert asked == [(FLIGHTS, "d1")] * 2


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[Stores]:
    """Answer a home whose metadata database cannot be opened."""
    (tmp_path / "metadata.db").write_bytes(b"no database" * 1_000)
    published(tmp_path, frozen())
    appender = open_appender(f"embedded://{tmp_path / 'log'}")
    appender.append(FLIGHTS, [event('{"a": 1}')]).result(10)
    appender.close()
    with opened(load_settings(tmp_path, {})) as stores:
        yield stores


def test_a_home_lands_without_its_metadata(broken: Stores) -> None:
    """The log would fill up for as long as nobody repairs a database that landing hardly needs."""
    landed = broken.landing().land_once(FLIGHTS)

    assert landed is not None
    assert (landed.rows, landed.columns) == (1, 0)
    assert broken.rules(FLIGHTS) == Rules(contract="freeze", max_columns=1_000)
    with pytest.raises(EngineUnavailable):
        broken.store.ping()
    assert broken.hurried() == frozenset()

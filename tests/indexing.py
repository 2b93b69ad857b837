"""A log, a lake and an index of a test's own, with what fills and what searches them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from builders import FLIGHTS, NOON, event
from engines.fresh import fresh_name
from engines.places import ELASTICSEARCH, OPENSEARCH
from lakes import new_lake

from assets.landing import Landing
from assets.searchable import Indexing
from lakehouse.sql import Engine
from penstock.buffer.memory import MemoryLog
from penstock.envelope import Event
from penstock.schema.convert import Rules
from penstock.search import Page, SearchRequest
from penstock.search.elastic import ElasticIndex
from penstock.search.embedded import EmbeddedSearcher

SECOND = 1_000_000
DAY = 86_400 * SECOND

ENGINES = {"elasticsearch": ELASTICSEARCH, "opensearch": OPENSEARCH}


def index_url(engine: str, address: str = "", prefix: str = "") -> str:
    """Answer the setting for an engine; `address` stands in front of it."""
    return f"{engine}://{(address or ENGINES[engine]).removeprefix('http://')}/{prefix}"


@contextmanager
def fresh_index(engine: str, **more: Any) -> Iterator[ElasticIndex]:
    """Answer an index with a prefix of its own, and delete all that it made."""
    index = ElasticIndex(index_url(engine, prefix=fresh_name()), **more)
    try:
        yield index
    finally:
        wipe(index)
        index.close()


def wipe(index: ElasticIndex) -> None:
    """Delete every index of a prefix."""
    _, found = index._ask("GET", f"/{index._prefix}-*/_settings/index.uuid?flat_settings=true")
    index.drop(list(found))
    index._has_marks = False


class Home:
    """Events are sent, landed and indexed one after the other, as the test says."""

    def __init__(
        self,
        folder: Path,
        engine: Engine,
        index: ElasticIndex | None,
        *,
        rules: Rules | None = None,
        **more: Any,
    ) -> None:
        self.rules = rules or Rules()
        self.engine = engine
        self.index = index
        self.log = MemoryLog()
        self.lake = new_lake(folder)
        self.numbers = count()
        self.landing = Landing(
            self.log, self.lake, rules=lambda _: self.rules, clock=lambda: NOON, wait=lambda _: None
        )
        self.searcher = self.searching(index)
        self.indexing = self.indexing_with(index, **more)

    def indexing_with(self, index: Any, **more: Any) -> Indexing:
        more.setdefault("clock", lambda: NOON)
        return Indexing(index, self.lake, self.engine, log_id=self.log.log_id, **more)

    def searching(self, index: Any, **more: Any) -> EmbeddedSearcher:
        more.setdefault("clock", lambda: NOON + 3_600 * SECOND)
        return EmbeddedSearcher(
            self.lake, self.log, self.engine, rules=lambda _: self.rules, index=index, **more
        )

    def append(self, *events: Event) -> None:
        self.log.append(FLIGHTS, events).result()

    def send(self, *payloads: str | bytes, at: int = NOON) -> list[str]:
        """Acknowledge events; answer their ids."""
        events = []
        for payload in payloads:
            n = next(self.numbers)
            events.append(event(payload, id=f"e{n}", received_at=at + n * SECOND))
        self.append(*events)
        return [one.id for one in events]

    def land(self) -> None:
        while self.landing.land_once(FLIGHTS) is not None:
            pass

    def fill(self) -> int:
        """Index everything that has landed, if there is an index; answer how many rows."""
        rows = 0
        if self.index is not None:
            while (done := self.indexing.index_once(FLIGHTS)) is not None:
                rows += done.rows
        return rows

    def page(self, query: str = "", **asked: Any) -> Page:
        return self.searcher.search(SearchRequest(collection=FLIGHTS, query=query, **asked))

    def find(self, query: str = "", **asked: Any) -> list[str]:
        return [found.event_id for found in self.page(query, **asked).events]

    def find_all(self, query: str = "", **asked: Any) -> list[str]:
        """Answer the ids on all pages."""
        found, cursor = [], None
        while True:
            page = self.page(query, cursor=cursor, **asked)
            found += [one.event_id for one in page.events]
            cursor = page.cursor
            if cursor is None:
                return found

    def count(self, query: str = "", **asked: Any) -> int:
        return self.searcher.count(SearchRequest(collection=FLIGHTS, query=query, **asked))

"""Lakes of two teams with an engine over them, for the tests of what callers' SQL may do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from builders import NOON, event
from lakes import lake_at, new_lake, urls

from assets.landing import Landing
from lakehouse import Lake
from lakehouse.files import Files
from lakehouse.sql import Answer, Limits, Sql, open_engine, open_trino
from lakehouse.sql.tables import LakeTables
from penstock.buffer.memory import MemoryLog
from penstock.envelope import SYSTEM_TEAM, CollectionId
from penstock.errors import BadSql, PenstockError
from penstock.schema.convert import Rules

CANARY = "CANARY-4711"
FLIGHTS = CollectionId("main", "flights")
ORDERS = CollectionId("main", "orders")
THEIRS = CollectionId("others", "secrets")
CARDS = CollectionId("others", "cards")
ATTEMPTS = CollectionId(SYSTEM_TEAM, "replay_attempts")
LIMITS = Limits(seconds=30, rows=1_000)


@dataclass
class House:
    """A lake with two teams, and the engine over it."""

    engine: Any
    lake: Lake
    folder: Path = Path("/nowhere")
    log: MemoryLog = field(default_factory=MemoryLog)
    trino_url: str = ""

    @property
    def files(self) -> Files:
        """The files of the lake."""
        table = self.lake.table(("main", "flights"))
        assert table is not None
        return cast("Files", table.io)

    @property
    def place(self) -> str:
        """Where the lake's files are, as a statement would name it."""
        return urls(self.folder)[1].removeprefix("file://")

    def told(self, statement: str) -> str:
        """Answer rows or refusal, whichever comes."""
        try:
            return str(self.rows(statement))
        except PenstockError as refusal:
            return str(refusal)

    def furnish(self) -> None:
        """Land what the tests look for."""
        self.land(
            FLIGHTS, '{"carrier": "UA", "delay": 3}', '{"carrier": "AA", "delay": "?"}', '{"no'
        )
        self.land(ORDERS, '{"total": 1.5, "lines": [{"sku": "x"}, {"sku": "y"}]}')
        self.land(THEIRS, f'{{"word": "{CANARY}"}}')
        self.land(CARDS, '{"card": 4111111111111111}')
        self.land(ATTEMPTS, '{"replay": "r1"}')

    def land(self, collection: CollectionId, *payloads: str) -> None:
        events = [
            event(payload, id=f"{collection.name}-{n}", received_at=NOON + n)
            for n, payload in enumerate(payloads)
        ]
        self.log.append(collection, events).result()
        landing = Landing(
            self.log, self.lake, rules=lambda _: Rules(), clock=lambda: NOON, wait=lambda _: None
        )
        while landing.land_once(collection) is not None:
            pass

    def ask(
        self, statement: str, team: str = "main", *, system: bool = False, limits: Limits = LIMITS
    ) -> Answer:
        engine: Sql = self.engine
        return engine.query(statement, LakeTables(self.lake, team, system=system), limits)

    def rows(self, statement: str, team: str = "main", **more) -> list[tuple]:
        table = self.ask(statement, team, **more).rows
        return list(zip(*(column.to_pylist() for column in table.columns), strict=True))

    def refused(self, statement: str, team: str = "main", **more) -> str:
        with pytest.raises(BadSql) as refusal:
            self.ask(statement, team, **more)
        return str(refusal.value)

    def numbers(self, count: int) -> str:
        """Answer what to write behind FROM for the numbers from 0 on."""
        return f"TABLE(sequence(0, {count - 1}))" if self.trino_url else f"range({count})"

    def written(self) -> list[object]:
        """Answer what would be another if anything were written."""
        locations = [
            view and view.metadata_location
            for collection in self.lake.collections()
            for view in (self.lake.view(collection), self.lake.quarantine_view(collection))
        ]
        return [*locations, *sorted(self.folder.rglob("*"))]


@contextmanager
def house_of_duck(place: str, folder: Path) -> Iterator[House]:
    """Furnish a house with the embedded engine; canaries lie about in its folder and its lake."""
    with lake_at(place, folder):
        engine = open_engine(folder / "spill", memory="500MB", s3=urls(folder)[2])
        house = House(engine, new_lake(folder), folder)
        house.furnish()
        (folder / "canary.txt").write_text(CANARY)
        (folder / "canary.csv").write_text(f"a,b\n{CANARY},1\n")
        for stray in ("main/flights/data/stray.csv", "others/canary.csv"):
            with house.files.new_output(f"{urls(folder)[1]}/{stray}").create() as out:
                out.write(f"a,b\n{CANARY},1\n".encode())
        yield house
        engine.close()


@contextmanager
def house_in_trino() -> Iterator[House]:
    """Furnish a house with Trino."""
    from engine_lakes import trino_lake

    with trino_lake() as (lake, url):
        house = House(open_trino(url), lake, trino_url=url)
        house.furnish()
        yield house
        house.engine.close()

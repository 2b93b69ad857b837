"""A log, a lake and the SQL over it: on this machine, or on Kafka, PostgreSQL, S3 and Trino."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from balance import compare
from builders import FLIGHTS, NOON
from evidence.sheet import found
from lakes import log_url, new_lake, tell_elsewhere, tell_log, urls

from assets.checks import check_books, check_conservation
from lakehouse import Lake
from lakehouse.sql import Limits, Sql, open_engine, open_trino
from lakehouse.sql.tables import LakeTables
from penstock.buffer import Buffer, open_buffer, open_keeper
from penstock.envelope import Position

Rows = list[tuple[Any, ...]]

_LIMITS = Limits(seconds=120, rows=1_000_000)


@dataclass(frozen=True)
class Site:
    """Where events of the collection `FLIGHTS` are kept, for this process and those it starts."""

    folder: Path
    lake: Lake
    """Opened once: a test that waits for something looks at it all the time."""
    sql: Sql
    """The engine that callers ask: Trino, where the lake is not on this machine."""
    trino_catalog: str | None = None
    """Its name in Trino."""

    @contextmanager
    def log(self) -> Iterator[Buffer]:
        """Read the log for the block."""
        with closing(open_buffer(log_url(self.folder))) as buffer:
            yield buffer

    def rows(self, statement: str) -> Rows:
        """Ask as a caller does."""
        answer = self.sql.query(statement, LakeTables(self.lake, FLIGHTS.team), _LIMITS)
        if answer.truncated:
            raise AssertionError("there is more than a test can look at")
        return list(zip(*(column.to_pylist() for column in answer.rows.columns), strict=True))

    def accepted(self) -> list[Position]:
        """Answer every position that the log ever gave out."""
        with self.log() as log:
            extents = log.extents(FLIGHTS)
        return [Position(p, offset) for p, one in extents.items() for offset in range(one.end)]

    def landed(self) -> Counter[Position]:
        """Count the log's positions in the table and its quarantine, as SQL sees them."""
        positions: Counter[Position] = Counter()
        with self.log() as log:
            log_id = log.log_id(FLIGHTS)
        # Quarantine comes first, and callers see it only beside its table.
        tables = [FLIGHTS.name] if self.lake.view(FLIGHTS) is not None else []
        if tables and self.lake.quarantine_view(FLIGHTS) is not None:
            tables.append(f"{FLIGHTS.team}__quarantine.{FLIGHTS.name}")
        for table in tables:
            found = self.rows(
                f"select log_partition, log_offset from {table} where log_id = '{log_id}'"
            )
            positions.update(Position(*row) for row in found)
        return positions

    def assert_each_once(self, count: int) -> None:
        """Fail unless so many events were accepted, and each is in one of both tables, once."""
        accepted = dict.fromkeys(self.accepted())
        found(tables=compare(accepted, ((at, None) for at in self.landed().elements())))
        if len(accepted) != count:
            raise AssertionError(f"{len(accepted)} were accepted, not {count}")
        with self.log() as log:
            for verdict in (
                check_conservation(self.lake, FLIGHTS, log.log_id(FLIGHTS)),
                check_books(log, self.lake, FLIGHTS, NOON, None),
            ):
                if not verdict.passed:
                    raise AssertionError(verdict.sentence)


def write_settings(folder: Path) -> None:
    """Let the folder be the home of an installation, for commands."""
    catalog, warehouse, store = urls(folder)
    settings = {"log_url": log_url(folder), "catalog_url": catalog, "warehouse_url": warehouse}
    given = {f"s3_{name}": value for name, value in asdict(store).items()} if store else {}
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in (settings | given).items()]
    (folder / "penstock.toml").write_text("".join(lines))


@contextmanager
def site_at(place: str, folder: Path, *, partitions: int = 1) -> Iterator[Site]:
    """Let the folder's log and lake be at one of `lakes.PLACES` for the block; it is a home, too.

    On the engines the log has so many partitions; on this machine it always has one.
    """
    if place == "here":
        with closing(open_engine(folder / "asked", memory="500MB")) as sql:
            yield Site(folder, new_lake(folder), sql)
        return
    # Only who wants an engine needs its client.
    from engines.fresh import fresh_lake, fresh_name
    from engines.places import HOST, KAFKA, TRINO_PORT

    tell_log(folder, f"kafka://{KAFKA}/{fresh_name()}")
    with closing(open_keeper(log_url(folder))) as keeper:
        keeper.ensure(FLIGHTS, partitions=partitions)
    with fresh_lake() as fresh:
        tell_elsewhere(folder, fresh.catalog_url, fresh.warehouse_url)
        write_settings(folder)
        url = f"trino://{fresh.trino_catalog}@{HOST}:{TRINO_PORT}/{fresh.trino_catalog}"
        with closing(open_trino(url)) as sql:
            yield Site(folder, new_lake(folder), sql, fresh.trino_catalog)

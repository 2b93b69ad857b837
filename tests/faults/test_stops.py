"""Each stop made to happen where events are kept, and resolved by the command that landing says.

On this machine a stop is made by hand, on the engines by what an operator has there: Kafka's admin
client, and Trino.
"""

from __future__ import annotations

import re
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import pytest
import structlog
from balance import totals
from builders import FLIGHTS, NOON, event
from evidence.sheet import found, happened
from lakes import BROKEN, MAIN, PLACES, QUARANTINE, log_url
from sites import Site, site_at
from typer.testing import CliRunner

from assets.accounting import read_books
from penstock.buffer import open_appender, open_keeper
from penstock.buffer.embedded import EmbeddedAppender
from penstock.cli.main import app
from penstock.envelope import Position

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]

Name = tuple[str, ...]


class Hands(Protocol):
    """What an operator does that landing has to stop for."""

    def roll_back(self, name: Name) -> None:
        """Set a table back to its first snapshot but the empty one."""
        ...

    def replace_log(self) -> None:
        """Let the log be another one, an empty one."""
        ...

    def send_and_lose(self, first: int, end: int, *, lost: int) -> None:
        """Accept events, and let the log lose the first ones of them."""
        ...

    def copy_table(self, name: Name, where: str) -> None:
        """Let a copy of those rows take the table's place."""
        ...


class HereByHand:
    """Files are deleted, and the catalog is told."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def roll_back(self, name: Name) -> None:
        table = self._site.lake.table(name)
        assert table is not None
        table.manage_snapshots().rollback_to_snapshot(first_landed(self._site, name)).commit()

    def replace_log(self) -> None:
        shutil.rmtree(self._site.folder / "log")

    def send_and_lose(self, first: int, end: int, *, lost: int) -> None:
        log = self._site.folder / "log"
        before = {*(log / "segments").iterdir()}
        with closing(EmbeddedAppender(log, segment_bytes=1)) as appender:
            for number in range(first, end):
                appender.append(FLIGHTS, [numbered(number)]).result(10)
        segments = sorted({*(log / "segments").iterdir()} - before)
        for segment in [*before, *segments[:lost]]:
            segment.unlink()

    def copy_table(self, name: Name, where: str) -> None:
        lake = self._site.lake
        table = lake.table(name)
        assert table is not None
        rows = table.scan(where).to_arrow()
        lake.catalog.drop_table(name)
        lake.catalog.create_table(name, table.schema()).append(rows)


class OnEngines:
    """Kafka's admin client, and statements to Trino."""

    def __init__(self, site: Site) -> None:
        # Only who wants an engine needs its client.
        import trino
        from confluent_kafka.admin import AdminClient
        from engines.places import HOST, KAFKA, TRINO_PORT

        self._site = site
        self._admin = AdminClient({"bootstrap.servers": KAFKA})
        self._topic = f"{log_url(site.folder).rpartition('/')[2]}.{FLIGHTS}"
        self._trino = trino.dbapi.connect(
            host=HOST, port=TRINO_PORT, user="tests", catalog=site.trino_catalog
        )

    def roll_back(self, name: Name) -> None:
        snapshot = first_landed(self._site, name)
        self._run(f"ALTER TABLE {dotted(name)} EXECUTE rollback_to_snapshot({snapshot})")

    def replace_log(self) -> None:
        self._admin.delete_topics([self._topic])[self._topic].result(10)
        with self._site.log() as log:
            until = time.monotonic() + 20
            while FLIGHTS in log.collections() and time.monotonic() < until:
                time.sleep(0.05)
        with closing(open_keeper(log_url(self._site.folder))) as keeper:
            keeper.ensure(FLIGHTS)

    def send_and_lose(self, first: int, end: int, *, lost: int) -> None:
        from confluent_kafka import TopicPartition

        send(self._site.folder, first, end)
        place = TopicPartition(self._topic, 0, first + lost)
        self._admin.delete_records([place])[place].result(10)

    def copy_table(self, name: Name, where: str) -> None:
        there, aside = dotted(name), dotted((name[0], "copied"))
        self._run(f"CREATE TABLE {aside} AS SELECT * FROM {there} WHERE {where}")
        self._run(f"DROP TABLE {there}")
        self._run(f"ALTER TABLE {aside} RENAME TO {there}")

    def _run(self, statement: str) -> None:
        cursor = self._trino.cursor()
        cursor.execute(statement)
        cursor.fetchall()


def dotted(name: Name) -> str:
    return f'"{name[0]}"."{name[1]}"'


def first_landed(site: Site, name: Name) -> int:
    """Answer the first snapshot that has a row."""
    table = site.lake.table(name)
    assert table is not None
    with_rows = (
        one
        for one in table.metadata.snapshots
        if one.summary is not None and int(one.summary["total-records"] or 0) > 0
    )
    return next(with_rows).snapshot_id


@pytest.fixture(params=PLACES)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """Answer where five events have landed in two commits, the first and the last one aside."""
    with site_at(request.param, tmp_path) as site:
        for numbers in ((0, 2), (2, 5)):
            send(tmp_path, *numbers)
            penstock(site, "land")
        site.assert_each_once(5)
        yield site


@pytest.fixture
def hands(site: Site) -> Hands:
    return OnEngines(site) if site.trino_catalog else HereByHand(site)


def numbered(number: int) -> Any:
    payload: bytes | str = BROKEN if number in {0, 4} else f'{{"n": {number}}}'
    return event(payload, id=f"e{number}", received_at=NOON + number)


def send(folder: Path, first: int, end: int) -> None:
    with closing(open_appender(log_url(folder))) as appender:
        outcomes = appender.append(FLIGHTS, [numbered(n) for n in range(first, end)]).result(30)
    assert all(isinstance(outcome, Position) for outcome in outcomes)


def penstock(site: Site, *words: str, code: int = 0) -> str:
    """Run a command on the home; answer what it said, in one line."""
    result = CliRunner().invoke(app, [*words, "--home", str(site.folder)])
    # A command leaves the log of its process at a stream that is closed by now.
    structlog.reset_defaults()
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def stopped(site: Site) -> list[str]:
    """Assert that landing stops; answer the words of the command that it says."""
    said = penstock(site, "land", code=1)
    named = re.search(r"'penstock (collection resolve [^']+)'", said)
    assert named, said
    happened("stops")
    return shlex.split(named[1])


def goes_on(site: Site, *words: str) -> str:
    """Resolve the stop by the command, and land what waits; answer what the command said."""
    accepted = len(site.accepted())
    dry = penstock(site, *words, "--dry-run")
    assert "nothing was changed" in dry
    assert stopped(site), "a dry run resolved it"
    said = penstock(site, *words, "--yes")
    penstock(site, "land")
    assert len(site.accepted()) == accepted
    return said


def parts(site: Site) -> dict[str, int]:
    with site.log() as log:
        books = read_books(log, site.lake, FLIGHTS)
    return {**books.parts, "accepted": books.accepted, "difference": books.difference}


@pytest.mark.breaks("a table, by a rollback beneath its marks")
@pytest.mark.parametrize("by", ["reset-marks", "undo-rollback"])
def test_a_table_that_was_rolled_back(site: Site, hands: Hands, by: str) -> None:
    """Its marks are no part of a snapshot: they say more than it has."""
    hands.roll_back(MAIN)
    send(site.folder, 5, 7)

    said = stopped(site)
    assert said == ["collection", "resolve", "flights", "--by", "reset-marks"]
    goes_on(site, *said[:-1], by)

    site.assert_each_once(7)


@pytest.mark.breaks("a quarantine, by a rollback")
def test_a_quarantine_that_was_rolled_back(site: Site, hands: Hands) -> None:
    """What it had lies before the marks: nobody would land it again."""
    hands.roll_back(QUARANTINE)
    send(site.folder, 5, 7)

    said = stopped(site)
    assert said[-1] == "undo-rollback"
    goes_on(site, *said)

    site.assert_each_once(7)


@pytest.mark.breaks("a log, by another one in its place")
def test_a_log_that_is_another_one(site: Site, hands: Hands) -> None:
    """A topic is deleted and made anew: its offsets are given out again."""
    hands.replace_log()
    send(site.folder, 5, 8)

    said = stopped(site)
    assert said[-1] == "new-log"
    goes_on(site, *said)

    # The rows of the old log have the positions of the new one, and yet are others.
    site.assert_each_once(3)
    assert site.rows("select count(*) from flights") == [(3 + 3,)]
    books = parts(site)
    assert (books["accepted"], books["landed"], books["quarantined"]) == (8, 6, 2)
    found(books=totals(8, books["landed"] + books["quarantined"]))


def test_a_log_that_lost_what_had_not_landed(site: Site, hands: Hands) -> None:
    """It was let go of by age, or by hand: stop, do not skip; and then it is in the books."""
    hands.send_and_lose(5, 9, lost=3)

    said = stopped(site)
    assert said[-1] == "loss"
    told = goes_on(site, *said)

    assert "3 events from 5 on are lost" in told
    books = parts(site)
    assert [books[name] for name in ("accepted", "landed", "quarantined", "lost")] == [9, 4, 2, 3]
    assert books["difference"] == 0
    there = sorted(offset for _, offset in site.landed())
    assert there == [0, 1, 2, 3, 4, 8]


@pytest.mark.parametrize(("where", "lost"), [("true", 0), ("log_offset <> 2", 1)])
def test_a_table_that_something_else_made_anew(
    site: Site, hands: Hands, where: str, lost: int
) -> None:
    """It has the rows, and no marks: landing again what it has would double it."""
    hands.copy_table(MAIN, where)
    send(site.folder, 5, 7)

    said = stopped(site)
    assert said[-1] == "adopt-table"
    goes_on(site, *said)

    books = parts(site)
    assert (books["accepted"], books["lost"], books["difference"]) == (7, lost, 0)
    assert site.landed().total() == 7 - lost
    assert max(site.landed().values()) == 1

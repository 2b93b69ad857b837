"""Who comes to Trino directly, as its page tells them to: beside landing, and within the rules."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from builders import NOON, event
from engine_lakes import trino_lake
from engines.kit import Launch, default_root
from engines.places import HOST, TRINO_PORT
from engines.trino import Trino, catalog_properties
from houses import ATTEMPTS, CANARY, FLIGHTS, House
from lakes import landing
from ports import free_ports
from served import until

from lakehouse import Lake
from penstock.buffer.memory import MemoryLog
from penstock.envelope import CollectionId

pytestmark = pytest.mark.engines

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "trino.md"

Ask = Callable[[str], list[list[object]]]


@contextmanager
def connected(catalog: str, *, user: str = "tests", port: int = TRINO_PORT) -> Iterator[Ask]:
    """Connect with Trino's own client."""
    import trino

    with closing(
        trino.dbapi.connect(host=HOST, port=port, user=user, catalog=catalog, schema="main")
    ) as connection:

        def ask(statement: str) -> list[list[object]]:
            cursor = connection.cursor()
            cursor.execute(statement)
            rows: list[list[object]] = cursor.fetchall()
            return rows

        yield ask


@dataclass
class Busy:
    """A collection that grows by whole batches."""

    size: int
    batches: int = 0
    """So many have landed."""

    def grow(self) -> None:
        """Return when another batch has landed."""
        before = self.batches
        until(lambda: self.batches > before)


@contextmanager
def busy_landing(lake: Lake, *, size: int = 20) -> Iterator[Busy]:
    """Land batches into ``main.shop`` for as long as the block lasts, new columns in some."""
    log, busy, enough = MemoryLog(), Busy(size), threading.Event()
    shop, work = CollectionId("main", "shop"), landing(log, lake)

    def land() -> None:
        # Who reads beside it has the same few cores.
        while not enough.wait(0.1):
            batch = busy.batches
            events = [
                event(
                    json.dumps(
                        {"n": n, "customer": {"name": f"c{n}"}, "lines": [{"sku": "x", "n": n}],
                         f"new{batch % 12}": True}
                    ),
                    id=f"s-{n}",
                    received_at=NOON + n,
                )
                for n in range(batch * size, (batch + 1) * size)
            ]  # fmt: skip
            log.append(shop, events).result()
            while work.land_once(shop) is not None:
                pass
            busy.batches += 1

    thread = threading.Thread(target=land)
    thread.start()
    try:
        busy.grow()
        yield busy
        assert thread.is_alive(), "landing ended beside who reads"
    finally:
        enough.set()
        thread.join()


def test_a_collection_is_read_while_events_land_in_it() -> None:
    """Nested columns, older snapshots, the list of snapshots and a rewrite, all beside landing."""
    rounds = 3
    with trino_lake() as (lake, url), connected(url.rpartition("/")[2]) as ask:
        with busy_landing(lake) as busy:
            counts, merged = [], 0
            for _ in range(rounds):
                ((count, names),) = ask("SELECT count(*), count(data.customer.name) FROM shop")
                assert count == names
                counts.append(count)
                ask("SELECT sku, n FROM shop CROSS JOIN UNNEST(data.lines) AS line(sku, n) LIMIT 5")
                first, *_, last = [
                    snapshot for (snapshot,) in ask(
                        'SELECT snapshot_id FROM "shop$snapshots" ORDER BY committed_at'
                    )
                ] * 2  # fmt: skip
                assert ask(f"SELECT count(*) FROM shop FOR VERSION AS OF {first}") == [[busy.size]]
                assert ask(f"SELECT count(*) FROM shop FOR VERSION AS OF {last}")
                ask("SELECT * FROM \"shop$properties\" WHERE key LIKE 'penstock.mark.%'")
                merged += _optimized(ask)
                busy.grow()

        assert len(set(counts)) == rounds, "nothing landed between two looks"
        assert counts == sorted(counts)
        assert all(count % busy.size == 0 for count in counts), "half a batch was seen"
        assert merged
        whole = ask("SELECT count(*), count(DISTINCT log_offset), max(data.n) FROM shop")
        rows = busy.batches * busy.size
        assert whole == [[rows, rows, rows - 1]]


def test_trinos_own_command_line_reads_while_events_land() -> None:
    """It is what people have at hand: the same statements, as it prints their answers."""
    rounds = 2
    with trino_lake() as (lake, url), busy_landing(lake) as busy:
        catalog = url.rpartition("/")[2]

        def ask(statement: str) -> list[str]:
            command_line = Trino(default_root())
            return command_line.ask(statement, catalog=catalog, schema="main").splitlines()

        busy.grow()
        listed = ask('SELECT snapshot_id FROM "shop$snapshots" ORDER BY committed_at')
        heading, first, second, *_ = listed
        lines = "shop CROSS JOIN UNNEST(data.lines) AS line(sku, n)"
        # Together, because its own start costs more than all of them.
        statements = (
            f"SELECT data.customer.name AS name, sku, n FROM {lines} ORDER BY n LIMIT 2",
            f"SELECT count(*) AS rows FROM shop FOR VERSION AS OF {first}",
            f"SELECT count(*) AS rows FROM shop FOR VERSION AS OF {second}",
            "SELECT count(data.customer.name) AS rows FROM shop",
        )
        seen = []
        for _ in range(rounds):
            *always, count = ask("; ".join(statements))
            assert always == [
                *("name,sku,n", "c0,x,0", "c1,x,1"),
                *("rows", f"{busy.size}", "rows", f"{2 * busy.size}", "rows"),
            ]
            seen.append(int(count))
            busy.grow()

        assert heading == "snapshot_id"
        assert all(count % busy.size == 0 for count in seen), "half a batch was seen"
        assert seen[0] < seen[1], "nothing landed between two looks"


def test_what_the_page_asks_is_answered() -> None:
    """Its statements are copied, and their names replaced."""
    shop = CollectionId("main", "shop")
    payload = '{"id": "7", "customer": {"name": "c"}, "lines": [{"sku": "x", "n": 1}]}'
    log = MemoryLog()
    log.append(shop, [event(payload, headers=(("Tenant", b"t"),)), event('{"id": 8}')]).result()
    asked = re.findall(r"^\| [^|]+ \| `(SELECT [^`]*)`", PAGE.read_text(), re.MULTILINE)

    with trino_lake() as (lake, url), connected(url.rpartition("/")[2]) as ask:
        work = landing(log, lake)
        while work.land_once(shop) is not None:
            pass
        assert len(asked) == 8
        time.sleep(1.5)  # the table was not there an hour ago, but a second
        answers = [ask(statement.replace("'1' HOUR", "'1' SECOND")) for statement in asked]
    name, line, misfit, header, identity, then, snapshots, marks = answers
    assert (name, line, misfit) == ([["c"], [None]], [["x", 1]], [["id", "8"]])
    assert (header, identity) == ([["t"], [None]], [["7"], ["8"]])
    assert [len(then), len(snapshots), len(marks)] == [2, 1, 1]


def _optimized(ask: Ask) -> int:
    """Rewrite the table; say whether landing was not faster."""
    from trino.exceptions import TrinoQueryError

    try:
        ask("ALTER TABLE shop EXECUTE optimize(file_size_threshold => '100MB')")
    except TrinoQueryError as error:
        if error.error_name != "ICEBERG_COMMIT_ERROR":
            raise
        return 0
    return 1


def _refusal(ask: Ask, statement: str) -> str:
    """Answer how Trino refuses a statement, or what it answers."""
    from trino.exceptions import TrinoUserError

    try:
        return f"answered {ask(statement)}"
    except TrinoUserError as error:
        return str(error.error_name)


class Guarded(Trino):
    """One more Trino, with the page's rules and a lake of the test's own."""

    lake_url = ""

    def launch(self) -> Launch:
        """Write the rules beside the settings."""
        launch = super().launch()
        (rules,) = re.findall(r"^```json\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
        etc = self.run / "etc"
        (etc / "rules.json").write_text(rules)
        (etc / "access-control.properties").write_text(
            f"access-control.name=file\nsecurity.config-file={etc / 'rules.json'}\n"
        )
        settings = (etc / "config.properties").read_text()
        settings = re.sub(r"^catalog\..*\n", "", settings, flags=re.MULTILINE)
        (etc / "config.properties").write_text(
            f"{settings}access-control.config-files={etc / 'access-control.properties'}\n"
        )
        database = self.lake_url.rpartition("/")[2]
        properties = catalog_properties(database, f"s3://penstock/{database}")
        told = "\n".join(f"{name}={value}" for name, value in properties.items())
        for name, more in (("penstock", "iceberg.security=read_only"), ("penstock_upkeep", "")):
            (etc / "catalog" / f"{name}.properties").write_text(
                f"connector.name=iceberg\n{more}\n{told}\n"
            )
        return launch

    def prepare(self) -> None:
        """Its catalog is in its settings."""


def first_of(ask: Ask, statement: str) -> list[list[object]]:
    """Answer the first statement over tables: a server that has started may not know its nodes."""
    from trino.exceptions import TrinoQueryError

    end = time.monotonic() + 60
    while True:
        try:
            return ask(statement)
        except TrinoQueryError as error:
            if error.error_name != "NO_NODES_AVAILABLE" or time.monotonic() > end:
                raise
            time.sleep(0.5)


@pytest.mark.xdist_group("one-more-trino")
# The kit lets go of the process that it started, and finds it again by its number.
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.timeout(600)  # another Trino has to start
def test_the_rules_of_the_page_keep_teams_apart(trino: House, tmp_path: Path) -> None:
    """Who comes directly is not seen by Penstock's own check."""
    server = Guarded(default_root(), run=tmp_path / "trino", port=free_ports(1)[0])
    server.lake_url = trino.trino_url
    server.run.mkdir()
    server.start()
    try:
        with (
            connected("penstock", user="alice", port=server.port) as alice,
            connected("penstock", user="bob", port=server.port) as bob,
            connected("penstock", user="penstock", port=server.port) as penstock,
            connected("penstock_upkeep", user="operator", port=server.port) as operator,
        ):
            assert first_of(alice, "SELECT count(*) FROM flights") == [[2]]
            assert alice("SELECT count(*) FROM main__quarantine.flights") == [[1]]
            assert penstock("SELECT data.word FROM others.secrets") == [[CANARY]]
            assert alice("SELECT schema_name FROM information_schema.schemata ORDER BY 1") == [
                ["main"], ["main__quarantine"],
            ]  # fmt: skip
            assert ["secrets"] not in alice("SELECT table_name FROM system.jdbc.tables")
            refused = [
                (bob, "SELECT * FROM flights"),
                (bob, 'SELECT * FROM "flights$files"'),
                (alice, "SELECT * FROM others.secrets"),
                (alice, 'SELECT * FROM others."secrets$snapshots"'),
                (alice, f"SELECT * FROM {ATTEMPTS.team}.{ATTEMPTS.name}"),
                (alice, "SELECT * FROM TABLE(system.table_changes('others', 'secrets', 1, 2))"),
                (alice, "SELECT * FROM system.runtime.queries"),
                (alice, "INSERT INTO flights SELECT * FROM flights"),
                (alice, "ALTER TABLE flights EXECUTE optimize"),
                (alice, "ALTER TABLE flights EXECUTE expire_snapshots"),
                (alice, "ALTER TABLE penstock_upkeep.main.flights EXECUTE optimize"),
                (alice, "SELECT * FROM penstock_upkeep.main.flights"),
                (bob, "ALTER TABLE flights EXECUTE optimize"),
                (penstock, "ALTER TABLE flights EXECUTE remove_orphan_files"),
                (alice, "CREATE TABLE main.more AS SELECT 1 AS one"),
                (alice, "CREATE VIEW main.seen AS SELECT 1 AS one"),
                (penstock, "DELETE FROM flights"),
                (penstock, "CALL system.unregister_table('main', 'flights')"),
                (penstock, "DROP TABLE others.secrets"),
            ]
            told = {statement: _refusal(ask, statement) for ask, statement in refused}
            closed = {"PERMISSION_DENIED", "TABLE_NOT_FOUND"}
            assert {statement: said for statement, said in told.items() if said not in closed} == {}
            operator("ALTER TABLE flights EXECUTE optimize")
            assert trino.rows(f"SELECT count(*) FROM {FLIGHTS.name}") == [(2,)]
    finally:
        server.stop()

"""What is promised of SQL, against Trino's own ways of naming, hiding, writing and failing."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from engines.places import HOST, TRINO_PORT
from houses import CANARY, LIMITS, House

from lakehouse.sql import Limits, open_trino
from lakehouse.sql.tables import LakeTables
from lakehouse.sql.trino import TrinoSql
from lakehouse.sql.trino_statement import Checked
from penstock.api.values import csv_rows, rows_of, to_json
from penstock.envelope import CollectionId
from penstock.errors import EngineUnavailable

pytestmark = pytest.mark.engines


def catalog_of(house: House) -> str:
    return house.trino_url.rpartition("/")[2]


@pytest.mark.parametrize(
    "statement",
    [
        "TABLE others.secrets",
        "SELECT * FROM (TABLE others.secrets)",
        "SELECT 'x' IN (TABLE others.secrets)",
        'SELECT * FROM others."secrets$files"',
        'SELECT * FROM "others"."secrets$snapshots"',
        'SELECT * FROM "flights$nothing"',
        'SELECT * FROM "others.secrets"',
        "SELECT * FROM {catalog}.others.secrets",
        "SELECT * FROM system.runtime.queries",
        "SELECT * FROM system.metadata.table_comments",
        "SELECT * FROM system.jdbc.tables",
        "SELECT * FROM {catalog}.information_schema.tables",
        "SELECT * FROM information_schema.columns",
        "SELECT * FROM TABLE(system.table_changes('others', 'secrets', 1, 2))",
        "SELECT * FROM TABLE({catalog}.system.table_changes('others', 'secrets', 1, 2))",
        "SELECT * FROM TABLE(exclude_columns(TABLE(others.secrets), DESCRIPTOR(key)))",
        "SELECT * FROM TABLE(system.query('SELECT 1'))",
        "SELECT * FROM flights AS limit, others.secrets",
        "SELECT * FROM flights AS window, others.secrets",
        "SELECT * FROM flights AS tablesample, others.secrets",
        "SELECT * FROM flights -- \r, others.secrets",
        "SELECT '--' FROM flights, others.secrets --'",
        "SELECT '/*' FROM flights, others.secrets -- */'",
        "SELECT '''' FROM others.secrets",
        'SELECT 1 AS "--" FROM others.secrets',
        "SELECT * FROM flights, LATERAL (SELECT * FROM others.secrets)",
        "SELECT * FROM (flights CROSS JOIN others.secrets)",
        "SELECT * FROM ((SELECT '1') UNION ALL SELECT event_id FROM others.secrets)",
        "(SELECT event_id FROM flights) UNION (SELECT event_id FROM others.secrets)",
        "SELECT extract(year FROM (SELECT max(received_at) FROM others.secrets))",
        "SELECT trim(both FROM (SELECT max(data.word) FROM others.secrets))",
        (
            "SELECT a IS DISTINCT FROM (SELECT max(event_id) FROM others.secrets) "
            "FROM (VALUES '1') t(a)"
        ),
        "WITH flights AS (SELECT * FROM others.secrets) SELECT * FROM flights",
        "WITH a(x) AS (SELECT 1), b AS (SELECT * FROM others.secrets) SELECT * FROM a, b",
        "SELECT * FROM UNNEST((SELECT array_agg(data.word) FROM others.secrets))",
        "SELECT * FROM flights a JOIN flights b ON a.event_id = b.event_id, others.secrets",
        (
            "SELECT * FROM flights a JOIN flights b "
            "ON listagg(a.event_id) WITHIN GROUP (ORDER BY 1) = '', others.secrets"
        ),
        (
            "SELECT * FROM flights MATCH_RECOGNIZE "
            "(PATTERN (A) DEFINE A AS EXISTS (SELECT 1 FROM others.secrets))"
        ),
        (
            "SELECT * FROM JSON_TABLE((SELECT max(data.word) FROM others.secrets), 'lax $' "
            "COLUMNS (a VARCHAR PATH 'lax $'))"
        ),
        "SELECT count(*) FILTER (WHERE EXISTS (TABLE others.secrets)) FROM flights",
        "SELECT sum(1) OVER (ORDER BY (SELECT max(event_id) FROM others.secrets)) FROM flights",
        "SELECT 1 FROM flights WINDOW w AS (PARTITION BY (SELECT 1 FROM others.secrets))",
        "SELECT any_match(ARRAY[1], x -> EXISTS (TABLE others.secrets))",
        "SELECT * FROM flights FOR TIMESTAMP AS OF (SELECT max(received_at) FROM others.secrets)",
        "SELECT * FROM others.secrets FOR VERSION AS OF 1",
        "DESCRIBE information_schema.tables",
        'DESCRIBE others."secrets$files"',
    ],
)
def test_another_teams_tables_do_not_exist_by_other_names(trino: House, statement: str) -> None:
    """Neither to read them nor to learn that they are there."""
    refusal = trino.refused(statement.format(catalog=catalog_of(trino)))

    assert CANARY not in refusal
    assert "secrets, " not in refusal


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM others.secrets",
        "SELECT count(*) FROM flights, {catalog}.others.secrets",
        'SELECT * FROM others."secrets$files"',
        "SELECT * FROM system.runtime.queries",
        "SELECT * FROM information_schema.tables",
        "SELECT data.word FROM others.secrets WHERE data.word > 'A'",
        "INSERT INTO flights SELECT * FROM flights",
        "CREATE TABLE stolen AS SELECT * FROM flights",
    ],
)
def test_trinos_own_plan_decides_as_well(trino: House, statement: str) -> None:
    """The reading of the text could have a hole: behind it, Trino says what it would read."""

    def unread(text: str, *_: object, **__: object) -> Checked:
        return Checked("query", text, frozenset(), ())

    unchecked = House(TrinoSql(trino.trino_url, check=unread), trino.lake)
    before = trino.written()

    refusal = unchecked.refused(statement.format(catalog=catalog_of(trino)))

    assert CANARY not in refusal
    assert trino.written() == before
    assert unchecked.rows("SELECT count(*) FROM flights") == [(2,)]


@pytest.mark.parametrize(
    "statement",
    [
        "MERGE INTO flights USING flights f ON 1 = 2 WHEN MATCHED THEN DELETE",
        "TRUNCATE TABLE flights",
        "ALTER TABLE flights EXECUTE optimize",
        "ALTER TABLE flights EXECUTE expire_snapshots(retention_threshold => '0s')",
        "CALL system.rollback_to_snapshot('main', 'flights', 1)",
        "CALL system.unregister_table('main', 'flights')",
        "ANALYZE flights",
        "COMMENT ON TABLE flights IS 'x'",
        "CREATE SCHEMA more",
        "CREATE CATALOG more USING iceberg",
        "DROP CATALOG {catalog}",
        "CREATE FUNCTION f() RETURNS integer RETURN 1",
        "GRANT SELECT ON flights TO USER x",
        "START TRANSACTION",
        "SET SESSION query_max_run_time = '1h'",
        "SET SESSION AUTHORIZATION root",
        "EXECUTE IMMEDIATE 'SELECT * FROM others.secrets'",
        "WITH SESSION query_max_run_time = '1h' SELECT 1",
        "WITH FUNCTION f() RETURNS integer RETURN 1 SELECT f()",
        "EXPLAIN (TYPE IO) SELECT 1",
        "EXPLAIN (TYPE LOGICAL) DELETE FROM flights",
        "EXPLAIN VERBOSE SELECT 1",
        "SHOW SCHEMAS",
        "SHOW CREATE TABLE flights",
        "SHOW STATS FOR flights",
        "DESCRIBE INPUT p",
        "DESCRIBE",
        "SELECT system.builtin.abs(1)",
        "SELECT fail('x')",
        "SELECT `x`",
        "SELECT * FROM",
        "SELECT * FROM flights.",
        "SELECT * FROM 'flights'",
    ],
)
def test_nothing_but_a_query_is_run(trino: House, statement: str) -> None:
    """Whoever may run a procedure could take a table away from all."""
    before = trino.written()

    assert trino.refused(statement.format(catalog=catalog_of(trino)))
    assert trino.written() == before


@pytest.mark.parametrize(
    ("statement", "rows"),
    [
        ("SELECT count(*) FROM {catalog}.main.flights", [(2,)]),
        ('SELECT DISTINCT operation FROM "flights$snapshots"', [("append",)]),
        ('SELECT sum(record_count) FROM main."flights$files"', [(2,)]),
        ("TABLE orders", None),
        ("SELECT f.data.carrier FROM flights__distinct f ORDER BY 1", [("AA",), ("UA",)]),
        ("SELECT flights__distinct.data.delay FROM flights__distinct", [(3,), (None,)]),
        (
            "WITH a AS (SELECT 1 AS x) SELECT count(*) FROM a, main.flights__distinct",
            [(2,)],
        ),
        (
            "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 3) TABLE t",
            [(1,), (2,), (3,)],
        ),
        ("SELECT 1 WHERE 1 IS DISTINCT FROM 2", [(1,)]),
        ("SELECT extract(year FROM min(received_at)), trim(' ' FROM ' x ') FROM flights", None),
        ("SELECT b FROM (VALUES 1) t(a), LATERAL (SELECT a + 1) u(b)", [(2,)]),
        ("SELECT x FROM UNNEST(ARRAY[1, 2]) WITH ORDINALITY AS t(x, n) ORDER BY n", [(1,), (2,)]),
        ("SELECT 1 AS a FROM flights WINDOW w AS (ORDER BY 1), v AS (ORDER BY 2)", [(1,), (1,)]),
        ("SELECT count(*) FROM flights a JOIN flights b USING (event_id), orders", [(2,)]),
        ("SELECT 1; -- the end", [(1,)]),
        ("VALUES 1, 2", [(1,), (2,)]),
        ("EXPLAIN (SELECT 1)", None),
        ("SELECT 'others.secrets'", [("others.secrets",)]),
        ('DESCRIBE "flights$snapshots"', None),
        ("DESC flights__distinct", None),
    ],
)
def test_what_trinos_users_write_is_answered(trino: House, statement: str, rows: object) -> None:
    """A check that refuses good statements would be worked around."""
    answer = trino.rows(statement.format(catalog=catalog_of(trino)))

    assert answer
    if rows is not None:
        assert sorted(answer, key=str) == sorted(rows, key=str)


def test_a_table_is_read_as_of_an_older_snapshot(trino: House) -> None:
    """What was there before somebody's change is asked for by whoever looks for a fault."""
    history = CollectionId("main", "history")
    trino.land(history, '{"a": 1}')
    old = trino.lake.view(history)
    trino.land(history, '{"b": "x"}')
    assert old is not None

    then = f"SELECT * FROM history FOR VERSION AS OF {old.snapshot_id}"
    assert trino.ask(then).rows.column("data").to_pylist() == [{"a": 1}]
    assert trino.rows("SELECT count(*) FROM history") == [(2,)]
    assert trino.rows('SELECT count(*) FROM "history$snapshots"') == [(2,)]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT CAST(data.word AS INTEGER) FROM secrets",
        "SELECT CAST(data.word AS TIMESTAMP) FROM secrets",
        "SELECT CAST(from_utf8(payload) AS DATE) FROM secrets",
        "SELECT date_parse(data.word, '%Y') FROM secrets",
        "SELECT json_parse(data.word) FROM secrets",
        "SELECT parse_duration(data.word) FROM secrets",
        "SELECT from_iso8601_timestamp(data.word) FROM secrets",
        "SELECT CAST(data.word AS uuid) FROM secrets",
        "SELECT CAST(data.word AS ipaddress) FROM secrets",
        "SELECT from_base(data.word, 10) FROM secrets",
        "SELECT regexp_like('x', '(' || data.word) FROM secrets",
        "SELECT json_extract('{}', data.word) FROM secrets",
        "SELECT at_timezone(received_at, data.word) FROM secrets",
        "SELECT CAST(data.card AS TINYINT) FROM cards",
        "SELECT data.card * 100000 FROM cards",
        "SELECT chr(data.card) FROM cards",
    ],
)
def test_an_error_does_not_tell_what_is_in_a_row(trino: House, statement: str) -> None:
    """Errors end in logs and tickets, which not everybody may read who may read events."""
    refusal = trino.refused(statement, "others")

    assert CANARY not in refusal
    assert "4111111111111111" not in refusal


def test_distinct_events_stand_in_no_recursive_query(trino: House) -> None:
    """Trino wants the columns of each of its subqueries written out."""
    told = trino.refused(
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 3) "
        "SELECT max(n) FROM t, flights__distinct"
    )

    assert "duplicate_of IS NULL" in told


def test_an_error_points_into_the_statement_as_it_was_written(trino: House) -> None:
    """Also where something was put in front of it, or between."""
    plain = trino.refused("SELECT event_id,\n  nothing FROM flights")
    explained = trino.refused("EXPLAIN  SELECT nothing FROM flights")
    distinct = trino.refused("SELECT nothing FROM flights__distinct WHERE 1 = 1")
    behind = trino.refused("SELECT 1 FROM main.flights__distinct WHERE nothing = 1")

    assert "at line 2, character 3\n" in plain
    assert "at line 1, character 17\n" in explained
    assert "at line 1, character 8\n" in distinct
    assert "at line 1, character 44\n" in behind


def test_values_keep_their_types(trino: House) -> None:
    """Who reads the answer with Arrow must not parse texts."""
    (row,) = trino.ask(
        """SELECT true a, TINYINT '1' b, 2 c, BIGINT '3' d, REAL '1.5' e, nan() f, -infinity() g,
        DECIMAL '-1.20' h, 'x' i, X'00ff' j, DATE '2026-01-02' k, TIMESTAMP '2026-01-02 03:04' l,
        TIMESTAMP '2026-01-02 03:04:05.123456789 UTC' m,
        TIMESTAMP '2026-01-02 00:00 Europe/Berlin' n, ARRAY[1, NULL] o,
        MAP(ARRAY[1, 2], ARRAY['a', NULL]) p, CAST(ROW(1, NULL) AS ROW(x int, y int)) q,
        CAST(NULL AS ROW(x int)) r, CAST(NULL AS ARRAY(int)) s, NULL t, JSON '{"a": 1}' u,
        ARRAY[ROW(X'01'), NULL] v, ARRAY[]  w, MAP() x, TIME '01:02:03' y, ARRAY[ARRAY[nan()]] z,
        TIMESTAMP '2026-01-02 00:00 +02:00' aa"""
    ).rows.to_pylist()

    assert str(row.pop("z")) == "[[nan]]"
    assert str(row.pop("f")) == "nan"
    times = {name: row.pop(name).isoformat() for name in ("k", "l", "m", "n", "aa")}
    assert times == {
        "k": "2026-01-02",
        "l": "2026-01-02T03:04:00",
        "m": "2026-01-02T03:04:05.123456+00:00",
        "n": "2026-01-01T23:00:00+00:00",
        "aa": "2026-01-01T22:00:00+00:00",
    }
    assert row == {
        "a": True, "b": 1, "c": 2, "d": 3, "e": 1.5, "g": float("-inf"), "h": Decimal("-1.20"),
        "i": "x", "j": b"\x00\xff", "o": [1, None], "p": [(1, "a"), (2, None)],
        "q": {"x": 1, "y": None}, "r": None, "s": None, "t": None, "u": '{"a":1}',
        "v": [{"field0": b"\x01"}, None], "w": [], "x": [], "y": "01:02:03",
    }  # fmt: skip


def test_both_engines_answer_the_same_rows(trino: House, duck: House) -> None:
    """A statement that both understand must not depend on where it runs."""
    statement = "SELECT * FROM {} ORDER BY log_offset"

    for table in ("flights", "orders", "main__quarantine.flights"):
        ours = duck.ask(statement.format(table)).rows.to_pylist()
        theirs = trino.ask(statement.format(table)).rows.to_pylist()
        assert [_plain(row) for row in theirs] == [_plain(row) for row in ours]


def _plain(row: dict[str, object]) -> dict[str, object]:
    return {k: v.isoformat() if hasattr(v, "isoformat") else v or None for k, v in row.items()}


def test_an_answer_can_be_told_as_json_and_as_csv(trino: House, duck: House) -> None:
    """The API tells what this engine answers as it tells the other's."""
    statement = "SELECT * FROM {} ORDER BY log_offset"

    for table in ("flights", "orders", "main__quarantine.flights"):
        ours = duck.ask(statement.format(table)).rows
        theirs = trino.ask(statement.format(table)).rows
        assert to_json(rows_of(theirs)) == to_json(rows_of(ours))
        (batch,) = theirs.combine_chunks().to_batches()
        (expected,) = ours.combine_chunks().to_batches()
        assert csv_rows(batch) == csv_rows(expected)


def test_what_the_page_says_is_written_otherwise_means_the_same(
    trino: House, duck_here: House
) -> None:
    """People go from one engine to the other with this table in their hands."""
    shop = CollectionId("main", "shop")
    payload = '{"id": 7, "lines": [{"sku": "a", "n": 1}, {"sku": "b", "n": 2}], "tags": ["x", "v"]}'
    for house in (trino, duck_here):
        house.land(shop, payload)
    page = Path(__file__).parents[2] / "docs" / "reference" / "sql.md"
    table = re.findall(r"^\| [^|]* \| `(.*)` \| `(.*)` \|$", page.read_text(), re.MULTILINE)

    assert len(table) == 9
    for cells in table:
        ours, theirs = (c if c.startswith("SELECT") else f"SELECT {c} FROM shop" for c in cells)
        assert trino.rows(theirs) == duck_here.rows(ours), theirs


def running(house: House) -> int:
    """Answer how many statements of the house's user Trino works at."""
    import trino as client

    with closing(client.dbapi.connect(host=HOST, port=TRINO_PORT, user="tests")) as connection:
        cursor = connection.cursor()
        cursor.execute(
            'SELECT count(*) FROM system.runtime.queries WHERE "user" = ? '
            "AND state NOT IN ('FINISHED', 'FAILED')",
            [catalog_of(house)],
        )
        ((count,),) = cursor.fetchall()
        return int(count)


def test_what_nobody_reads_to_its_end_does_not_go_on(trino: House) -> None:
    """A client that went away must not keep a cluster busy."""
    tables = LakeTables(trino.lake, "main")
    statement = f"SELECT * FROM {trino.numbers(10**12)}"

    with trino.engine.stream(statement, tables, seconds=60) as (_, batches):
        assert next(batches).num_rows
        assert running(trino) == 1
    trino.ask(statement, limits=Limits(seconds=60, rows=10))

    deadline = time.monotonic() + 10
    while running(trino):
        assert time.monotonic() < deadline, "it still runs"
        time.sleep(0.2)


def test_large_rows_come_in_pieces(trino: House) -> None:
    """An export of payloads of a megabyte must not gather thousands of them."""
    tables = LakeTables(trino.lake, "main")
    statement = f"SELECT rpad('x', 1000000, 'x') FROM {trino.numbers(30)}"

    with trino.engine.stream(statement, tables, seconds=60) as (_, batches):
        sizes = [batch.num_rows for batch in batches]
    assert sum(sizes) == 30
    assert max(sizes) <= 20


# The way there


def test_an_engine_that_is_away_is_told_of_in_seconds(trino: House) -> None:
    """Nobody may wait for a minute to hear that nobody is there."""
    sql = open_trino("trino://me@127.0.0.1:9/lake")
    begun = time.monotonic()

    with pytest.raises(EngineUnavailable, match="cannot be reached"):
        sql.query("SELECT 1", LakeTables(trino.lake, "main"), LIMITS)
    assert time.monotonic() - begun < 10


class _Refusing(BaseHTTPRequestHandler):
    seen: list[str]

    def do_POST(self) -> None:
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b"no: hunter2")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def refusing() -> Iterator[int]:
    server = HTTPServer((HOST, 0), _Refusing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_refused_sign_in_is_no_fault_of_the_statement(trino: House) -> None:
    """The operator has to act, and the caller learns nothing of it."""
    with refusing() as port:
        sql = open_trino(f"trino://me@127.0.0.1:{port}/lake")
        with pytest.raises(EngineUnavailable) as refusal:
            sql.query("SELECT 1", LakeTables(trino.lake, "main"), LIMITS)
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize("files", ["parquet", "metadata.json"])
def test_files_that_are_gone_are_no_fault_of_the_statement(trino: House, files: str) -> None:
    """The caller is told to come again, not to change a word, and no address."""
    from engines.s3 import files as s3_files
    from pyarrow.fs import FileSelector

    gone = CollectionId("main", f"gone_{files[:4]}")
    trino.land(gone, '{"a": 1}')
    view = trino.lake.view(gone)
    assert view is not None
    folder = view.metadata_location.removeprefix("s3://").rpartition("/metadata/")[0]
    for info in s3_files().get_file_info(FileSelector(folder, recursive=True)):
        if info.path.endswith(files):
            s3_files().delete_file(info.path)

    with pytest.raises(EngineUnavailable) as refusal:
        trino.ask(f"SELECT data.a FROM {gone.name}")
    assert "s3" not in str(refusal.value)

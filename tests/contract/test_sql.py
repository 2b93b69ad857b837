"""What a caller's statement may do: read the tables of the caller, and nothing else at all.

What is promised of every engine runs on each of them, `house`; what is about the embedded engine
alone, as its own ways to name a table or a file, runs on `duck`. Trino's are in `test_sql_trino`.

Canaries lie about: files outside the lake, another team's tables, files of the caller's own tables
that no snapshot refers to. No statement may bring one of them to light, nor write anything.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest
from engines.places import S3_SECRET
from houses import CANARY, FLIGHTS, LIMITS, ORDERS, House
from lakes import PLACES, lake_at, new_lake, urls

from lakehouse.sql import Limits, TableName, open_engine
from lakehouse.sql.embedded import DuckSql
from lakehouse.sql.tables import LakeTables
from penstock.envelope import SYSTEM_TEAM, CollectionId
from penstock.errors import BadRequest, BadSql, EngineUnavailable
from penstock.schema.shape import EMPTY, Leaf, Struct

# What is there for a caller


def test_a_team_reads_its_collections_by_short_and_by_full_name(house) -> None:
    """People write ``flights``; programs that join teams' schemas write it out."""
    assert house.rows("SELECT data.carrier FROM flights ORDER BY 1") == [("AA",), ("UA",)]
    assert house.rows("SELECT count(*) FROM main.flights") == [(2,)]
    assert house.rows('SELECT count(*) FROM "main"."FLIGHTS"') == [(2,)]
    assert house.rows("SELECT word FROM (SELECT data.word FROM secrets)", "others") == [(CANARY,)]


def test_quarantine_and_distinct_events_have_tables_of_their_own(house) -> None:
    """What could not become a row is asked for like anything else."""
    assert house.rows("SELECT stage, reason FROM main__quarantine.flights") == [
        ("gate", "invalid_json")
    ]
    assert house.rows("SELECT count(*) FROM flights__distinct") == [(2,)]


def test_tables_are_joined_and_lists_unnested(house) -> None:
    """It is SQL, not a search box."""
    skus = "SELECT unnest(data.lines).sku AS sku FROM orders"
    if house.trino_url:
        skus = "SELECT sku FROM orders, UNNEST(data.lines) AS l(sku)"

    joined = house.rows(
        f"WITH skus AS ({skus}) "
        "SELECT carrier, sku FROM (SELECT data.carrier FROM flights), skus ORDER BY 1, 2"
    )

    assert joined == [("AA", "x"), ("AA", "y"), ("UA", "x"), ("UA", "y")]


def test_a_table_is_read_as_it_is_now(house) -> None:
    """A view that was made once would go on showing the snapshot it was made for."""
    before = house.rows("SELECT count(*) FROM orders")
    house.land(ORDERS, '{"total": 2, "new": "column"}')
    after = house.rows("SELECT count(*), count(data.new) FROM orders")

    assert (before, after) == ([(1,)], [(2, 1)])


def test_penstocks_own_tables_are_there_for_whom_they_are_meant(house) -> None:
    """They tell about every team's replays."""
    statement = f"SELECT data.replay FROM {SYSTEM_TEAM}.replay_attempts"

    assert house.rows(statement, system=True) == [("r1",)]
    assert "there is no table" in house.refused(statement)


def test_explain_and_describe_answer(house) -> None:
    """EXPLAIN is how people learn why a statement is slow, DESCRIBE what there is."""
    scan, data = "ICEBERG_SCAN", "STRUCT(carrier VARCHAR, delay BIGINT)"
    if house.trino_url:
        scan, data = "TableScan", "row(carrier varchar, delay bigint)"

    assert scan in house.rows("EXPLAIN SELECT data.carrier FROM flights")[0][-1]
    columns = dict(row[:2] for row in house.rows("DESCRIBE flights"))
    assert columns["data"] == data
    assert house.rows("explain /* why */ -- so\n SELECT 1")


def test_times_are_utc_wherever_the_machine_stands(house) -> None:
    """A day must begin at the same moment for everybody."""
    assert house.rows("SELECT extract(hour FROM min(received_at)) FROM flights") == [(16,)]


def test_the_names_of_an_answer_and_its_order_are_kept(house) -> None:
    """Nothing is wrapped around the statement that could reorder it."""
    answer = house.ask("SELECT data.delay AS b, data.carrier AS a FROM flights ORDER BY a")

    assert answer.rows.column_names == ["b", "a"]
    assert answer.rows["a"].to_pylist() == ["AA", "UA"]


# What is not


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM others.secrets",
        'SELECT * FROM "others"."secrets"',
        "SELECT * FROM secrets",
        "SELECT (SELECT count(*) FROM others.secrets)",
        "SELECT 1 WHERE EXISTS (SELECT * FROM others.secrets)",
        "WITH a AS (SELECT * FROM others.secrets) SELECT * FROM a",
        "WITH secrets AS (SELECT 1) SELECT * FROM others.secrets",
        "SELECT * FROM flights JOIN others.secrets USING (event_id)",
        "SELECT * FROM others__quarantine.secrets",
        "SELECT * FROM others.secrets__distinct",
        "EXPLAIN SELECT * FROM others.secrets",
        "DESCRIBE others.secrets",
        "SELECT event_id FROM flights UNION ALL SELECT event_id FROM others.secrets",
        "VALUES ((SELECT max(data.word) FROM others.secrets))",
        "SELECT * FROM others.secrets WHERE 1 = 0",
        "SELECT * FROM flights, others.secrets",
        "SELECT * FROM flights AS a, (SELECT 1) b, others /* . */ . -- x\n secrets",
    ],
)
def test_another_teams_tables_do_not_exist(house, statement: str) -> None:
    """Neither to read them nor to learn that they are there."""
    refusal = house.refused(statement)

    assert CANARY not in refusal
    assert "secrets, " not in refusal


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1 WHERE EXISTS (FROM others.secrets)",
        "WITH a AS (FROM others.secrets) SELECT * FROM a",
        "SELECT * FROM (WITH secrets AS (SELECT 1 AS x) FROM secrets) a, secrets b",
        "FROM others__quarantine.secrets",
        "SELECT * FROM memory.others.secrets",
        "SELECT * FROM query_table('others.secrets')",
        "SELECT * FROM query('SELECT * FROM others.secrets')",
        "SUMMARIZE others.secrets",
        "SELECT * FROM (DESCRIBE others.secrets)",
        "SELECT unnest(list) FROM (SELECT list(s) FROM others.secrets s)",
        "SELECT * FROM flights AT (VERSION => 1)",
    ],
)
def test_another_teams_tables_do_not_exist_by_other_names(duck, statement: str) -> None:
    """DuckDB has its own ways of naming a table."""
    refusal = duck.refused(statement)

    assert CANARY not in refusal
    assert "secrets, " not in refusal


def test_the_tables_of_another_team_stay_hidden_after_that_team_asked(house) -> None:
    """Databases are kept from one statement to the next."""
    house.rows("SELECT * FROM secrets", "others")

    assert "there is no table" in house.refused("SELECT * FROM secrets")
    assert "there is no table" in house.refused("SELECT * FROM others.secrets")


@pytest.mark.parametrize(
    "source",
    [
        "read_text('{folder}/canary.txt')",
        "read_blob('{folder}/canary.txt')",
        "read_csv('{folder}/canary.csv')",
        "read_csv_auto('{folder}/canary.csv')",
        "sniff_csv('{folder}/canary.csv')",
        "read_json('{folder}/canary.txt')",
        "read_parquet('{lake}/**/*.parquet')",
        "parquet_scan('{lake}/main/flights/data/**/*.parquet')",
        "parquet_metadata('{lake}/main/flights/data/**/*.parquet')",
        "iceberg_scan('{lake}/others/secrets')",
        "iceberg_metadata('{lake}/main/flights')",
        "iceberg_snapshots('{lake}/main/flights')",
        "read_text('{lake}/main/flights/data/stray.csv')",
        "read_avro('{lake}/main/flights/metadata/x.avro')",
        "glob('{folder}/*')",
        "glob('/etc/*')",
        "'{folder}/canary.csv'",
        '"{folder}/canary.csv"',
        "'{lake}/main/flights/data/stray.csv'",
        "'file://{folder}/canary.csv'",
        "'http://127.0.0.1:9/x.parquet'",
        "'/etc/passwd'",
        "duckdb_settings()",
        "duckdb_secrets()",
        "duckdb_views()",
        "duckdb_databases()",
        "duckdb_temporary_files()",
        "information_schema.tables",
        "pg_catalog.pg_tables",
        "duckdb_tables",
        "sqlite_master",
        "pragma_database_list()",
        "pragma_version()",
        "which_secret('x', 's3')",
        "json_execute_serialized_sql('x')",
        "checkpoint()",
        "test_all_types()",
        "repeat_row(1, num_rows = 3)",
    ],
)
def test_nothing_but_tables_is_read(duck, source: str) -> None:
    """Files of the machine, of the lake, and what the engine knows of itself."""
    refusal = duck.refused(f"SELECT * FROM {source.format(folder=duck.folder, lake=duck.place)}")

    assert CANARY not in refusal
    assert "disabled by configuration" not in refusal


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE t AS SELECT 1",
        "CREATE OR REPLACE VIEW flights AS SELECT 1",
        "INSERT INTO flights SELECT * FROM flights",
        "DELETE FROM flights",
        "UPDATE flights SET source = 'x'",
        "DROP TABLE flights",
        "ALTER TABLE flights RENAME TO f",
        "EXPLAIN ANALYZE SELECT * FROM flights",
        "EXPLAIN ANALYZE INSERT INTO flights SELECT * FROM flights",
        "EXPLAIN INSERT INTO flights SELECT * FROM flights",
        "/**/EXPLAIN--\nANALYZE DELETE FROM flights",
        "WITH a AS (SELECT 1) INSERT INTO flights SELECT * FROM flights",
        "SHOW TABLES",
        "USE main",
        "PREPARE p FROM SELECT 1",
        "EXECUTE p",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP TABLE flights",
        "",
        "  ",
        ";",
        "-- nothing",
        "SELECT",
        "SELEC 1",
        "SELECT ?",
        "SELECT 'x",
        "SELECT (1",
        "SELECT 1)",
        "SELECT nothing FROM flights",
        "SELECT unknown_function(1)",
        "SELECT CAST('x' AS INTEGER)",
    ],
)
def test_everything_but_one_select_or_explain_is_refused(house, statement: str) -> None:
    """And changes nothing."""
    before = house.written()

    assert house.refused(statement)
    assert house.written() == before


@pytest.mark.parametrize(
    "statement",
    [
        "COPY flights TO '{folder}/out.csv'",
        "COPY (SELECT 1) TO '{lake}/main/flights/data/out.parquet'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{lake}/main/flights/data/out.csv'",
        "EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{lake}/main/flights/data/out.csv'",
        "EXPLAIN COPY (SELECT 1) TO '{lake}/main/flights/data/out.csv'",
        "/**/EXPLAIN--\nANALYZE COPY (SELECT 1) TO '{lake}/main/flights/data/out.csv'",
        "EXPORT DATABASE '{folder}/out'",
        "ATTACH '{folder}/out.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET threads = 64",
        "RESET allowed_directories",
        "PRAGMA database_list",
        "PRAGMA enable_profiling",
        "CALL pragma_version()",
        "CREATE MACRO f() AS 1",
        "CREATE SECRET s (TYPE s3)",
        "DROP VIEW flights",
        "ALTER VIEW flights RENAME TO f",
        "BEGIN",
        "CHECKPOINT",
        "VACUUM",
        "PREPARE p AS SELECT 1",
        "SHOW ALL TABLES",
        "PIVOT flights ON source",
        "SELECT 1; COPY (SELECT 1) TO '{folder}/out.csv'",
        "SELECT $1",
        "SELECT current_setting('allowed_directories')",
        "SELECT current_setting('temp_directory')",
        "SELECT getenv('HOME')",
        "SELECT pg_get_viewdef(1)",
        "SELECT write_log('x')",
        "SELECT sleep_ms(10)",
        "SELECT nextval('x')",
        "SELECT error('x')",
    ],
)
def test_statements_of_duckdb_leave_no_file_behind(duck, statement: str) -> None:
    """An allowed folder is one that could be written to."""
    before = duck.written()

    asked = statement.format(folder=duck.folder, lake=duck.place)
    refusal = duck.refused(asked)

    assert str(duck.folder) not in refusal.replace(asked, "")
    assert duck.written() == before


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT data.word::INT FROM secrets",
        "SELECT CAST(decode(payload) AS INT) FROM secrets",
        "SELECT json(data.word) FROM secrets",
        "SELECT strptime(data.word, '%Y') FROM secrets",
        "SELECT data.word::TIMESTAMP FROM secrets",
        "SELECT error(data.word) FROM secrets",
        "SELECT data.word::ENUM('a') FROM secrets",
        "SELECT data.card::TINYINT FROM cards",
        "SELECT list_reduce([data.card, 10000], lambda a, b: a * b) FROM cards",
    ],
)
def test_an_error_does_not_tell_what_is_in_a_row(duck, statement: str) -> None:
    """Errors end in logs and tickets, which not everybody may read who may read events."""
    refusal = duck.refused(statement, "others")

    assert CANARY not in refusal
    assert "4111111111111111" not in refusal


def test_an_error_repeats_what_the_statement_says(house) -> None:
    """Who wrote it has to find the place."""
    assert "'no number'" in house.refused("SELECT CAST('no number' AS INTEGER)")
    assert "12345678" in house.refused("SELECT CAST(12345678 AS TINYINT)")


def test_variables_of_the_program_are_no_tables(duck) -> None:
    """The engine's Python package would take any table in a variable for one."""
    canary = pa.table({"word": [CANARY]})

    assert canary.num_rows == 1
    assert "there is no table" in duck.refused("SELECT * FROM canary")


def test_the_locks_hold_without_the_check(duck, tmp_path) -> None:
    """The check of the syntax could have a hole: behind it, no file outside the tables opens."""
    flights = frozenset({TableName("main", "flights")})
    s3 = urls(duck.folder)[2]
    engine = DuckSql(tmp_path, memory="100MB", s3=s3, check=lambda *_: flights)
    unchecked = House(engine, duck.lake, duck.folder)

    for source in (
        "read_text('{f}/canary.txt')",
        "'{f}/canary.csv'",
        "glob('{f}/*')",
        "iceberg_scan('{lake}/others/secrets')",
        "read_text('{lake}/main/../others/secrets/metadata/*.json')",
        "read_text('{lake}/others/canary.csv')",
        "read_text('{lake}/main/../others/canary.csv')",
        "read_text('{lake}/main/%2e%2e/others/canary.csv')",
        "read_text('{lake}/main/flights/data/stray.csv?s3_endpoint=127.0.0.1:9')",
        "read_text('s3a://penstock/x')",
        "read_text('http://127.0.0.1:6550/penstock/x')",
        "others.secrets",
    ):
        assert CANARY not in unchecked.told(
            f"SELECT * FROM {source.format(f=duck.folder, lake=duck.place)}"
        )
    assert unchecked.rows("SELECT count(*) FROM flights") == [(2,)]
    engine.close()


def test_no_key_of_the_object_store_is_shown(duck, tmp_path) -> None:
    """Neither what the engine knows of itself nor its errors tell it, check or no check."""
    engine = DuckSql(
        tmp_path,
        memory="100MB",
        s3=urls(duck.folder)[2],
        check=lambda *_: frozenset({TableName("main", "flights")}),
    )
    unchecked = House(engine, duck.lake, duck.folder)

    for source in ("duckdb_secrets()", "duckdb_settings()", "duckdb_views()"):
        assert S3_SECRET not in unchecked.told(f"SELECT * FROM {source}")
    engine.close()
    with pytest.raises(EngineUnavailable) as refusal, duck.engine.reader() as reader:
        reader.rows("SELECT * FROM read_text('s3://penstock/nothing/here')")
    assert S3_SECRET not in str(refusal.value)


# How much


def test_a_statement_is_stopped_when_its_time_is_over(house) -> None:
    """One person's cross join must not take the machine from everybody."""
    refusal = house.refused(
        f"SELECT count(*) FROM {house.numbers(10**7)} a, {house.numbers(10**7)} b",
        limits=Limits(seconds=0.3, rows=10),
    )

    assert "longer than 0.3 s" in refusal


def test_a_statement_is_stopped_while_its_rows_are_read(house) -> None:
    """The first row may come at once and the second never."""
    tables = LakeTables(house.lake, "main")
    numbers = house.numbers(10**12)
    statement = f"SELECT n FROM {numbers} t(n) WHERE n = 0 OR n = 999999999999"

    with (
        pytest.raises(BadSql, match=r"longer than 0\.3 s"),
        house.engine.stream(statement, tables, seconds=0.3) as (_, batches),
    ):
        for _ in batches:
            pass


def test_an_answer_that_is_cut_off_says_so(house) -> None:
    """Silence about the rest would be a lie about the data."""
    limits = Limits(seconds=30, rows=5)

    assert house.ask(f"SELECT * FROM {house.numbers(5)}", limits=limits).truncated is False
    cut = house.ask(f"SELECT * FROM {house.numbers(6)}", limits=limits)
    assert (cut.rows.num_rows, cut.truncated) == (5, True)
    huge = house.ask(f"SELECT * FROM {house.numbers(10**12)}", limits=limits)
    assert (huge.rows.num_rows, huge.truncated) == (5, True)


def test_an_answer_holds_no_more_bytes_than_it_may(house) -> None:
    """A thousand rows of a megabyte each would be a gigabyte in this process."""
    limits = Limits(seconds=30, rows=1_000, bytes=100_000)

    cut = house.ask(f"SELECT rpad('x', 10000, 'x') FROM {house.numbers(1000)}", limits=limits)
    one = house.ask("SELECT rpad('x', 1000000, 'x')", limits=limits)

    assert cut.truncated
    assert 5 <= cut.rows.num_rows <= 10
    assert (one.rows.num_rows, one.truncated) == (1, False)


def test_a_statement_has_no_more_memory_than_it_may(tmp_path, duck) -> None:
    """It ends with a sentence, and the process goes on."""
    engine = open_engine(tmp_path, memory="60MB")
    tables = LakeTables(duck.lake, "main")

    with pytest.raises(BadSql, match="more memory"):
        engine.query("SELECT list(repeat('x', 1000) || i) FROM range(1000000) t(i)", tables, LIMITS)
    assert engine.query("SELECT 1", tables, LIMITS).rows.num_rows == 1
    engine.close()


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT length(repeat('x', 1000000000))",
        "SELECT repeat('a', 4000000000)",
        "SELECT len(range(100000000)) FROM range(100)",
        "SELECT list_reduce(list_transform(range(64), lambda x: 'x'), lambda a, b: a || a)",
        "SELECT sum(length(repeat('x' || i, 1000000))) FROM range(100000) t(i)",
        "SELECT * FROM range(1000000000) ORDER BY hash(range)",
    ],
)
def test_neither_memory_nor_disk_nor_time_goes_to_a_hostile_statement(
    tmp_path, duck, statement: str
) -> None:
    """The engine does not count the texts that functions make: one took the machine's memory."""
    engine = open_engine(tmp_path, memory="60MB")
    tables = LakeTables(duck.lake, "main")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(BadSql):
        engine.query(statement, tables, Limits(seconds=5, rows=10))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100_000, "kB, in the process that everybody's searches run in"
    assert engine.query("SELECT 1", tables, LIMITS).rows.num_rows == 1
    engine.close()


def test_a_statement_that_cannot_be_interrupted_is_ended(duck) -> None:
    """Between two rows the engine looks at the clock, within a function it does not."""
    begun = time.monotonic()

    refusal = duck.refused(
        "SELECT levenshtein(repeat('a', 300000), repeat('b', 300000))",
        limits=Limits(seconds=0.3, rows=10),
    )

    assert "longer than 0.3 s" in refusal
    assert time.monotonic() - begun < 30, "to its end it would take minutes"
    assert duck.rows("SELECT 1") == [(1,)]


def test_a_row_too_large_for_an_answer_is_refused(duck) -> None:
    """Every byte of an answer is copied a few times in the process that all share."""
    assert "a row has 100,000,0" in duck.refused("SELECT repeat('x', 100000000)")


def test_large_rows_come_in_pieces(house) -> None:
    """Two thousand rows of a megabyte at once would be two gigabytes."""
    tables = LakeTables(house.lake, "main")
    statement = f"SELECT rpad('x', 1000000, 'x') FROM {house.numbers(30)}"

    with house.engine.stream(statement, tables, seconds=30) as (_, batches):
        sizes = [batch.num_rows for batch in batches]
    assert sum(sizes) == 30
    assert max(sizes) < 10


def test_an_export_that_nobody_reads_to_its_end_does_not_go_on(duck) -> None:
    """A client that went away must not keep a processor busy, nor its rows wait for the next."""
    tables = LakeTables(duck.lake, "main")

    for _ in range(3):
        statement = "SELECT * FROM range(1000000000000)"
        with duck.engine.stream(statement, tables, seconds=30) as (_, batches):
            assert next(batches).num_rows
    assert duck.rows("SELECT 7") == [(7,)]
    assert len(_children()) <= 5, "four are kept"


def test_a_statement_that_fails_does_not_cost_its_process(duck) -> None:
    """Starting one takes longer than most statements, and most statements fail at first."""
    duck.rows("SELECT 1")
    before = _children()
    duck.refused("SELECT nothing FROM range(3)")
    duck.refused("SELECT ('x' || range)::INT FROM range(3)")

    assert duck.rows("SELECT 1") == [(1,)]
    assert _children() == before


PLATFORM = """
import os, sys
from pathlib import Path
from lakehouse.sql import Limits, open_engine

class Nothing:
    home = "main"
    def names(self): return ()

engine = open_engine(Path(sys.argv[1]), memory="100MB")
engine.query("SELECT 1", Nothing(), Limits(seconds=30, rows=1))
statement = "SELECT * FROM range(1000000000000)"
with engine.stream(statement, Nothing(), seconds=30) as (_, batches):
    next(batches)
    children = Path("/proc/self/task").glob("*/children")
    print(*(file.read_text() for file in children), flush=True)
    os.kill(os.getpid(), 9)
"""


def test_a_platform_that_was_killed_leaves_no_process(tmp_path) -> None:
    """Nor does it print the rows it was about to send."""
    killed = subprocess.run(
        [sys.executable, "-c", PLATFORM, tmp_path], capture_output=True, text=True, check=False
    )
    (child,) = killed.stdout.split()
    deadline = time.monotonic() + 30

    while Path(f"/proc/{child}").exists():
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.05)
    assert killed.stderr == ""


def _children() -> list[str]:
    tasks = Path("/proc/self/task").glob("*/children")
    return [
        child
        for file in tasks
        for child in file.read_text().split()
        if b"worker.py" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def test_what_is_streamed_has_no_limit_on_rows(house) -> None:
    """An export is read piece by piece."""
    tables = LakeTables(house.lake, "main")

    statement = f"SELECT n FROM {house.numbers(50_000)} t(n)"

    with house.engine.stream(statement, tables, seconds=30) as (schema, batches):
        assert schema.names == ["n"]
        assert sum(batch.num_rows for batch in batches) == 50_000


def test_statements_run_beside_each_other(house) -> None:
    """Threads of the server share the engine."""
    failures: list[Exception] = []

    def ask(team: str, statement: str, answer: list[tuple]) -> None:
        try:
            for _ in range(5):
                assert house.rows(statement, team) == answer
        except Exception as failure:  # noqa: BLE001 - told below
            failures.append(failure)

    threads = [
        threading.Thread(target=ask, args=("main", "SELECT count(*) FROM flights", [(2,)])),
        threading.Thread(target=ask, args=("others", "SELECT count(*) FROM secrets", [(1,)])),
        threading.Thread(
            target=ask, args=("main", "SELECT count(*) FROM main__quarantine.flights", [(1,)])
        ),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert not failures


def test_a_field_taken_for_a_column_is_told_where_it_is(house) -> None:
    """It is the first mistake that everybody makes."""
    told = house.refused("SELECT number FROM flights")

    unknown = 'Binder Error: Referenced column "number" not found'
    if house.trino_url:
        unknown = "Column 'number' cannot be resolved, at line 1, character 8"
    assert told.startswith(unknown)
    assert told.endswith("A field of the payload is written data.number")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("files", [".parquet", ".avro", ".metadata.json"])
def test_files_that_are_gone_are_no_fault_of_the_statement(tmp_path, place, files) -> None:
    """The caller is told to come again, not to change a word, and no address."""
    with lake_at(place, tmp_path):
        engine = open_engine(tmp_path / "spill", memory="100MB", s3=urls(tmp_path)[2])
        other = House(engine, new_lake(tmp_path), tmp_path)
        other.land(FLIGHTS, '{"a": 1}')
        for file in other.files.list(urls(tmp_path)[1]):
            if file.endswith(files):
                other.files.delete(file)
        with pytest.raises(EngineUnavailable) as refusal:
            other.ask("SELECT data.a FROM flights")
        engine.close()
    assert str(tmp_path) not in str(refusal.value)
    assert "s3://" not in str(refusal.value)


# Our own SQL


def test_our_own_sql_reads_a_table_as_of_an_older_snapshot(duck) -> None:
    """A plan counts and sends what its snapshot holds, with the columns it had."""
    collection = CollectionId("main", "history")
    duck.land(collection, '{"a": 1}')
    old = duck.lake.view(collection)
    duck.land(collection, '{"b": "x"}')
    new = duck.lake.view(collection)

    with duck.engine.reader() as reader:
        then = reader.lake(new, snapshot_id=old.snapshot_id)
        now = reader.lake(new)
        counts = [reader.rows(f"SELECT count(*) n FROM {s}")["n"][0].as_py() for s in (then, now)]
        shapes = [reader.shape(source) for source in (then, now)]

    assert counts == [1, 2]
    assert shapes == [Struct((("a", Leaf("long")),)), new.shape]
    assert shapes[1] == Struct((("a", Leaf("long")), ("b", Leaf("string"))))


def test_a_source_without_columns_of_payloads_has_the_empty_shape(duck) -> None:
    """Quarantine tables, and collections of plain text."""
    with duck.engine.reader() as reader:
        assert reader.shape(reader.arrow(pa.table({"payload": [b"x"]}))) == EMPTY


@pytest.mark.parametrize("kept", [True, False])
def test_the_metadata_of_files_is_kept_for_who_wants_it(tmp_path, kept: bool) -> None:
    """Else each search parses the footers of all files, which a plain SET leaves to it."""
    engine = open_engine(tmp_path / "spill", memory="100MB", keep_metadata=kept)
    with closing(engine), engine.reader() as reader:
        told = reader.rows("SELECT current_setting('parquet_metadata_cache') AS kept")

    assert told["kept"].to_pylist() == [kept]


def test_our_own_sql_is_stopped_when_its_time_is_over(duck) -> None:
    """A search that nobody waits for any more must end."""
    with pytest.raises(BadRequest, match="longer"), duck.engine.reader(seconds=0.2) as reader:
        reader.rows("SELECT count(*) FROM range(10000000) a, range(10000000) b")


def test_temporary_files_go_with_the_engine(tmp_path) -> None:
    """They hold payloads."""
    engine = open_engine(tmp_path / "spill", memory="100MB")
    engine.close()

    assert list((tmp_path / "spill").iterdir()) == []

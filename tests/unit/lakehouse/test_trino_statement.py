"""A statement for Trino is read before Trino sees it: what it names, and what is put into it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.sql import TableName
from lakehouse.sql.trino_statement import Checked, checked
from penstock.errors import BadSql

FLIGHTS = TableName("main", "flights")
DISTINCT = TableName("main", "flights__distinct")
QUARANTINE = TableName("main__quarantine", "flights")
TABLES = (FLIGHTS, DISTINCT, QUARANTINE)


DEFINED = '"flights__distinct" AS (SELECT * FROM "main"."flights" WHERE duplicate_of IS NULL)'


def read(statement: str) -> Checked:
    return checked(statement, TABLES, home="main", catalog="lake")


@pytest.mark.parametrize(
    ("statement", "used"),
    [
        ("SELECT 1", set()),
        ("SELECT * FROM flights", {FLIGHTS}),
        ('SELECT * FROM "MAIN" . /* . */ "Flights"', {FLIGHTS}),
        ("SELECT * FROM lake.main__quarantine.flights, flights", {FLIGHTS, QUARANTINE}),
        ('TABLE "flights$snapshots"', {FLIGHTS}),
        ("WITH flights AS (SELECT 1) SELECT * FROM flights", set()),
        ("SELECT extract(year FROM now()), 1 IS NOT DISTINCT FROM 2", set()),
        ("SELECT others.secrets FROM flights others", {FLIGHTS}),
        ("SELECT 'FROM others.secrets' -- FROM others.secrets", set()),
        ("DESCRIBE flights", {FLIGHTS}),
        ("SELECT * FROM flights__distinct", {FLIGHTS}),
    ],
)
def test_the_tables_that_are_named_are_known(statement: str, used: set[TableName]) -> None:
    """By them it is decided what may run."""
    assert read(statement).used == used


@pytest.mark.parametrize(
    "source",
    [
        "others.secrets",
        '"others"."secrets"',
        "lake.others.secrets",
        "other.main.flights",
        "system.runtime.queries",
        "information_schema.tables",
        '"flights$data"',
        '"flights__distinct$files"',
        "flights, others.secrets",
        "flights AS limit, others.secrets",
        "flights AS offset, others.secrets",
        "flights AS fetch, others.secrets",
        "flights AS window, others.secrets",
        "flights AS window CROSS JOIN flights AS x, others.secrets",
        "flights JOIN others.secrets ON true",
        "(flights CROSS JOIN others.secrets)",
        "((flights) CROSS JOIN (others.secrets))",
        "((SELECT 1) UNION SELECT x FROM flights, others.secrets)",
        "(VALUES 1) a, others.secrets",
        "UNNEST(ARRAY[1]) WITH ORDINALITY AS t(a, b), others.secrets",
        "LATERAL (SELECT * FROM others.secrets)",
        "TABLE(f())",
        "TABLE(sequence(0, 1), TABLE(flights))",
        "TABLE(system.sequence(0, 1))",
        "TABLE(sequence.x(0, 1))",
        "flights FOR VERSION AS OF 1, others.secrets",
        "flights TABLESAMPLE BERNOULLI (50), others.secrets",
        "f(1)",
        "system.f(1)",
        "main.",
        "'flights'",
        "1",
    ],
)
def test_where_a_table_may_stand_only_theirs_may(source: str) -> None:
    """Wherever that place is hidden."""
    with pytest.raises(BadSql):
        read(f"SELECT * FROM {source}")
    with pytest.raises(BadSql):
        read(f"SELECT 1, (SELECT count(*) FROM {source}) FROM flights ORDER BY 1, 2")


@pytest.mark.parametrize(
    ("written", "run"),
    [
        (" SELECT 1 ; ", "SELECT 1"),
        ("/* a */ EXPLAIN -- b\n SELECT 1 -- c", "SELECT 1"),
        ("DESC flights", "DESCRIBE flights"),
        ("DESCRIBE flights__distinct", 'DESCRIBE "main"."flights"'),
        (
            "SELECT a FROM main.flights__distinct b",
            f'WITH {DEFINED} SELECT a FROM "flights__distinct" b',
        ),
        (
            "WITH x AS (SELECT 1) SELECT a FROM flights__distinct, x",
            f'WITH {DEFINED}, x AS (SELECT 1) SELECT a FROM "flights__distinct", x',
        ),
    ],
)
def test_what_is_run_is_what_was_written(written: str, run: str) -> None:
    """But for comments around it, and for what distinct events are."""
    assert read(written).text == run


def test_a_place_in_what_is_run_is_found_in_what_was_written() -> None:
    """Trino tells where it stopped reading, in a text that nobody wrote."""
    written = "EXPLAIN SELECT one,\n two FROM flights__distinct, flights__distinct WHERE three"
    read_ = read(written)

    for word in ("one", "two", "three"):
        before = read_.text[: read_.text.index(f" {word}") + 1]
        line = before.count("\n") + 1
        column = len(before) - (before.rfind("\n") + 1) + 1
        assert read_.origin(line, column) == written.index(f" {word}") + 1
    assert read_.origin(1, 8) is None, "nobody wrote this"


_BLANKS = st.text(" \n\t", min_size=1) | st.sampled_from(
    ["/* ' */", "/* FROM x */", "--\n", "-- '\r", "/**/", "-- /*\n"]
)
_BEFORE = st.sampled_from(["flights,", "flights AS a, flights b,", "(SELECT 1) a,", "flights JOIN"])
_NAMES = st.tuples(
    st.sampled_from(["others", "OTHERS", '"others"', "main__quarantine"]),
    st.sampled_from(["secrets", "Secrets", '"secrets"', '"secrets$files"']),
)


@given(st.lists(_BLANKS, min_size=6, max_size=6), st.lists(_BEFORE, max_size=3), _NAMES)
def test_a_table_of_others_is_seen_however_it_is_written(
    blanks: list[str], before: list[str], names: tuple[str, str]
) -> None:
    """Blanks and comments stand anywhere; a quote in a comment begins no text."""
    schema, name = names
    parts = ["SELECT *", "FROM", " ".join(before), schema, ".", name, ""]

    with pytest.raises(BadSql, match="there is no table"):
        read("".join(part + blank for part, blank in zip(parts, [*blanks, ""], strict=True)))


_PIECES = [
    *("SELECT", "*", "1", "FROM", "JOIN", ",", "(", ")", "WHERE", "AS", "WITH", "TABLE", "VALUES"),
    *("UNION", "x", "flights", "main", ".", "others.secrets", "LATERAL", "UNNEST", "ON", "IS"),
    *("NOT", "DISTINCT", "extract", "window", "limit", "ORDER", "BY", "'", '"', "--", "\n", "/*"),
    *(
        "*/",
        ";",
        "EXPLAIN",
        "DESCRIBE",
        "RECURSIVE",
        "sequence",
        "->",
        "GROUP",
        "flights__distinct",
    ),
]


@given(st.lists(st.sampled_from(_PIECES), max_size=14))
def test_every_text_is_read_or_refused(pieces: list[str]) -> None:
    """Nobody's statement may be an error of ours; and what is let through names known tables."""
    try:
        passed = read(" ".join(pieces))
    except BadSql:
        return
    assert passed.used <= set(TABLES)

"""From the tree to SQL: what the text of a condition is made of."""

from __future__ import annotations

import json
import random
import re
import time

import duckdb
import pytest

from penstock.query import parse
from penstock.query.dialects import DUCKDB, TRINO
from penstock.query.order import sort_value
from penstock.query.pieces import ALWAYS, NEVER, Sql, all_of, any_of, negated, quoted, sql, value
from penstock.query.spelling import Spelling
from penstock.query.sql import compile_before, compile_parts, compile_sql
from penstock.query.stored import columns_of
from penstock.query.text import lower
from penstock.query.tree import Payload
from penstock.schema.gate import Refused, read
from penstock.schema.shape import EMPTY, Leaf, List, Struct

SHAPE = Struct(
    (
        ("n", Leaf("long")),
        ("x", Leaf("double")),
        ("s", Leaf("string")),
        ("b", Leaf("bool")),
        ("tags", List(Leaf("string"))),
        ("items", List(Struct((("sku", Leaf("string")), ("qty", Leaf("long")))))),
        ("a%2Eb", Struct((("%00", Leaf("long")),))),
    )
)


def condition(text: str, shape: Struct = SHAPE) -> Sql:
    return compile_sql(parse(text, now=0), shape)


@pytest.fixture(scope="module")
def engine():
    with duckdb.connect() as engine:
        yield engine


@pytest.mark.parametrize(
    "text", ["s:INJECTED", 's:~"INJECTED x"', "INJECTED", "s:INJ*ECTED", "headers.INJECTED:x"]
)
@pytest.mark.parametrize("quote", ["'", '\\"', "\\\\", "%", ";--"])
def test_what_people_write_is_a_parameter_and_never_text(text: str, quote: str) -> None:
    """SQL in a search box would run."""
    made = condition(text.replace("INJECTED", f"injected{quote}x") if '"' in text else text)

    assert "injected" not in made.text.lower()
    assert any("inj" in str(parameter).lower() for parameter in made.parameters)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tags:x", 'any_match(data."tags", v0 -> lower(v0) = ?)'),
        ("items.sku:x", 'any_match(data."items", v0 -> lower(v0."sku") = ?)'),
        ("NOT n:1", "(NOT coalesce("),
        ("metadata.topic:x", "lower(element_at(metadata, ?)) = ?"),
        ("key:x", "CASE WHEN to_utf8(from_utf8(key)) = key THEN from_utf8(key) END"),
        ("received_at:>=2026-11-22", "AS timestamp(6) with time zone)"),
        ("headers.tenant:*", "any_match(headers, h -> lower(h.key) = ?)"),
    ],
)
def test_trino_has_words_of_its_own(text: str, told: str) -> None:
    """What its answers are is asked on the real engine, in the tests of agreement."""
    compiled = compile_sql(parse(text, now=0), SHAPE, dialect=TRINO)

    assert told in compiled.text
    assert len(compiled.parameters) == compiled.text.count("?")


def test_names_from_payloads_are_quoted(engine) -> None:
    """Senders choose the keys, and columns are named after them."""
    name = 'x" OR 1=1 --'
    shape = Struct((("y", Leaf("long")), (name, Leaf("long"))))
    engine.execute(
        "CREATE OR REPLACE TABLE t AS SELECT NULL::STRUCT(path VARCHAR, value VARCHAR)[] AS misfits"
    )
    engine.execute(f"ALTER TABLE t ADD COLUMN data STRUCT(y BIGINT, {quoted(name)} BIGINT)")
    made = condition(r"x\"\ OR\ 1=1\ --:5", shape)

    assert quoted(name) in made.text
    found = engine.execute(f"SELECT count(*) FROM t WHERE {made.text}", list(made.parameters))
    assert found.fetchall() == [(0,)]


def test_times_are_bare_comparisons_of_the_column() -> None:
    """Only so engines leave out the partitions and row groups that cannot match."""
    made = condition("received_at:[2026-11-22 TO 2026-11-22] n:1")

    assert made.text.startswith(
        "((received_at >= make_timestamptz(?) AND received_at < make_timestamptz(?)) AND "
    )
    assert made.parameters[:2] == (1_795_305_600_000_000, 1_795_392_000_000_000)


def test_not_is_the_plain_complement() -> None:
    """A missing field is NULL in SQL, and NOT NULL would lose the event."""
    assert condition("NOT n:1").text.endswith("IS NOT TRUE)")
    assert condition("NOT (n:1 AND NOT s:x)").text.count("IS NOT TRUE") == 2
    assert negated(NEVER) == ALWAYS
    assert condition("NOT *") == NEVER


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("n:5", 'data."n" = ?'),
        ("n:>5", 'data."n" > ?'),
        ("n:[5 TO 7}", '(data."n" >= ? AND data."n" < ?)'),
        ("n:>9007199254740992", 'CAST(data."n" AS DOUBLE) > ?'),
        ("x:5", 'data."x" = ?'),
        ("b:true", 'data."b"'),
        ("b:false", 'NOT data."b"'),
        ("tags:x", 'list_contains(list_transform(data."tags", lambda v0: lower(v0) = ?), TRUE)'),
        (
            "items.sku:x",
            'list_contains(list_transform(data."items", lambda v0: lower(v0."sku") = ?), TRUE)',
        ),
        (r"a\.b.:1", 'data."a%2Eb"."%00" = ?'),
        ("s:a*", "lower(data.\"s\") LIKE ? ESCAPE '\\'"),
    ],
)
def test_a_condition_asks_the_column_at_its_path(text: str, part: str) -> None:
    """And the misfits, for a value may have found no room in the column."""
    made = condition(text).text

    assert part in made
    assert "misfits" in made


@pytest.mark.parametrize(
    ("text", "spelling", "part", "parameter"),
    [
        ("s:Ua", "capital", 'data."s" = ?', "UA"),
        ("s:Ua", "small", 'data."s" = ?', "ua"),
        ("s:Åb", "small", 'data."s" = ?', "åb"),
        ("s:Ua*", "capital", "data.\"s\" LIKE ? ESCAPE '\\'", "UA%"),
        ("s:*a*b*", "capital", 'regexp_full_match(data."s", ?)', "(?s).*A.*B.*"),
    ],
)
def test_a_column_that_is_spelt_in_one_way_is_compared_as_it_is(
    text: str, spelling: Spelling, part: str, parameter: str
) -> None:
    """Engines then look into its dictionary and its statistics, and nothing is put in lower case.

    Misfits may be spelt in any way.
    """
    (column,) = (one for one in columns_of(SHAPE) if one.path == "s")
    made = compile_sql(parse(text, now=0), SHAPE, spelt=frozenset({(column, spelling)}))

    assert part in made.text
    assert made.parameters[0] == parameter
    assert "lower" not in made.text.partition("misfits")[0]
    assert "lower" in made.text.partition("misfits")[2]


@pytest.mark.parametrize("text", ["s:\u212a", "s:å*", "s:*å*b*"])
def test_capitals_of_ascii_have_no_letter_of_another_kind(text: str) -> None:
    """A Kelvin sign is looked for as the k that is its small letter."""
    (column,) = (one for one in columns_of(SHAPE) if one.path == "s")
    made = compile_sql(
        parse(text, now=0), SHAPE, misfits=False, spelt=frozenset({(column, "capital")})
    )

    assert made == (Sql('data."s" = ?', ("K",)) if text == "s:\u212a" else NEVER)


@pytest.mark.parametrize(
    ("text", "parameter"),
    [("n:>2.5", 2), ("n:>=2.5", 3), ("n:<2.5", 3), ("n:<=2.5", 2), ("n:>=-2.5", -2), ("n:2.0", 2)],
)
def test_fractions_bound_whole_numbers(text: str, parameter: int) -> None:
    """Compared as integers, row groups can be left out by them."""
    assert condition(text).parameters[0] == parameter


def test_a_column_that_cannot_hold_the_value_is_not_asked() -> None:
    """A condition of a thousand columns is slow to plan."""
    assert 'data."n"' not in condition("n:abc").text
    assert 'data."n"' not in condition("n:2.5").text
    assert 'data."s"' not in condition("s:>5").text
    assert 'data."b"' not in condition("b:yes").text


def test_words_are_looked_for_with_one_expression_whatever_the_columns() -> None:
    """Compiling one that knows all letters takes 8 ms; a hundred columns took a second."""
    wide = Struct(tuple((f"c{n}", Leaf("string")) for n in range(100)))
    stored, opaque = compile_parts(parse("word", now=0), wide)

    assert stored.text.count("regexp_matches") == 1
    assert "payload" not in stored.text
    assert opaque.text.count('data."c') == 1


def test_payloads_are_read_only_of_rows_without_any_telling_column() -> None:
    """Of events of another kind every payload was decoded, a third of two million."""
    columns = [column for column in columns_of(SHAPE) if None not in column.steps][:2]

    _, opaque = compile_parts(parse("word", now=0), SHAPE, telling=columns)

    signs = " AND ".join(f'data."{column.steps[0]}" IS NULL' for column in columns)
    assert opaque.text.startswith(f"({signs} AND coalesce(len(misfits), 0) = 0 AND ")


def test_words_among_all_leaves_are_looked_for_last() -> None:
    """Among two million events they took twice as long before a condition that few fulfil."""
    last = compile_parts(parse("n:>5 -s:x word", now=0), SHAPE)

    for text in ("word n:>5 -s:x", "n:>5 word -s:x"):
        assert compile_parts(parse(text, now=0), SHAPE) == last
    assert last[0].text.index(">") < last[0].text.index("regexp_matches")


def test_opaque_payloads_are_a_part_only_where_words_are_wanted() -> None:
    """Reading payloads costs more than everything else."""
    assert len(compile_parts(parse("s:x n:>5", now=0), SHAPE)) == 1
    assert len(compile_parts(parse("word OR s:x", now=0), SHAPE)) == 2
    assert len(compile_parts(parse("word NOT s:x", now=0), SHAPE)) == 2
    assert len(compile_parts(parse("NOT word", now=0), SHAPE)) == 1
    assert len(compile_parts(parse("word NOT other", now=0), SHAPE)) == 1


@pytest.mark.parametrize(
    ("text", "rows", "before"),
    [
        ("n:null log_offset:>5", "rows", "log_offset > ?"),
        ("n:null (log_offset:>5 OR s:null)", "rows", "TRUE"),
        ("(n:null log_offset:>5) OR log_offset:1", "rows", "(log_offset > ? OR log_offset = ?)"),
        ("NOT (n:null log_offset:>5)", "rows", "TRUE"),
        ("n:null NOT log_offset:5", "rows", "((log_offset = ?) IS NOT TRUE)"),
        ("n:1 log_offset:>5", "quarantine", "log_offset > ?"),
        ("word source:http", "quarantine", "lower(source) = ?"),
    ],
)
def test_payloads_are_read_of_rows_that_come_into_question_only(text, rows, before) -> None:
    """A search for a null in the last hour must not read a year of payloads."""
    shape = EMPTY if rows == "quarantine" else SHAPE

    assert compile_before(parse(text, now=0), shape, rows=rows).text == before


def test_fields_of_the_quarantine_find_nothing_elsewhere() -> None:
    """Rows were not refused for any reason."""
    assert condition("quarantine.reason:x") == NEVER
    query = parse("quarantine.reason:x", now=0)
    assert compile_sql(query, EMPTY, rows="quarantine") == Sql("lower(reason) = ?", ("x",))


def test_pieces_are_put_together_with_their_values_in_order() -> None:
    """One value too early, and the search is another one."""
    first, second = sql("a = {0}", value(1)), sql("{1} < {0}", value(2), Sql("b"))

    assert all_of(first, ALWAYS, second) == Sql("(a = ? AND b < ?)", (1, 2))
    assert any_of(NEVER, first) == first
    assert all_of() == ALWAYS
    assert any_of() == NEVER
    assert all_of(first, NEVER) == NEVER
    assert any_of(first, ALWAYS) == ALWAYS
    assert sql("{0} {1} {0}", value(1), value(2)) == Sql("? ? ?", (1, 2, 1))


JSON_PIECES = [
    *("{", "}", "[", "]", ",", ":", '"', '"a"', '"NaN"', '",]"', "1", "-", "0", ".", "e", "+", "5"),
    *("true", "null", "NaN", "nan", "Inf", "-Infinity", "nul", "\\", "\\n", "\\u00e9", "\\ud800"),
    *("\\ud83d\\ude00", " ", "\n", "\t", "\x0b", "\x00", "\ufeff", "//", "/*", "*/", "'", "é", "#"),
]
JSON_TEXTS = [
    *(
        '{"a":1}',
        "[1,]",
        '{"a":1,}',
        "[,]",
        "NaN",
        "[nan]",
        "-inf",
        '"NaN"',
        '{"nan":null}',
        '",]"',
    ),
    *(
        '["\\",]"]',
        '{"a":"\\\\",}',
        "1 2",
        "{}x",
        "{}\x00",
        "",
        " ",
        "01",
        "1.",
        ".5",
        "1e400",
        '"\t"',
    ),
    *("1" * 5_000, "[" * 100 + "]" * 100, '{"a":1,"a":2}', '"\\ud800"', "\ufeff1", "tru", "[1 2]"),
]


def spoilt(chance: random.Random) -> str:
    """Answer a document with a piece too many or too few, perhaps."""
    pieces = re.findall(
        r'"[^"]*"|[a-z]+|.', '{"a": [1, -2.5e3, null, {}], "b,]": "nan", "c": true}'
    )
    for _ in range(chance.randint(0, 2)):
        place = chance.randrange(len(pieces))
        pieces[place : place + chance.randint(0, 1)] = chance.choices(
            JSON_PIECES, k=chance.randint(0, 1)
        )
    start = chance.randrange(len(pieces)) if chance.random() < 0.2 else 0
    return "".join(pieces[start:])


def is_json(text: str) -> bool:
    try:
        read(text.encode(), max_depth=128, max_keys=10_000)
    except Refused:
        return False
    return True


def test_the_engine_takes_for_json_what_landing_takes_for_json(engine) -> None:
    """Else a document would be searched as text, keys and all, or a text not at all."""
    chance = random.Random(1)
    texts = [*JSON_TEXTS, *(spoilt(chance) for _ in range(5_000))]
    engine.execute("CREATE OR REPLACE TABLE texts AS SELECT unnest(?) AS t", [texts])
    found = engine.execute(f"SELECT t FROM texts WHERE {DUCKDB.is_json.format('t')}").fetchall()

    theirs = {text for (text,) in found}
    ours = {text for text in texts if is_json(text)}
    assert theirs ^ ours == set()
    assert len(ours) > 60


ROWS = (
    "SELECT * FROM (VALUES "
    "(1, {'s': 'b', 'l': [3, 1]}, []), "
    "(2, {'s': 'A', 'l': NULL}, [{'path': 'l', 'value': '\"x\"'}]), "
    "(3, {'s': NULL, 'l': [2]}, [{'path': 's', 'value': '7'}, {'path': 'l', 'value': 'true'}]), "
    "(4, {'s': NULL, 'l': []}, NULL)) t(id, data, misfits)"
)


@pytest.mark.parametrize(
    ("field", "descending", "order"),
    [
        ("s", False, [3, 2, 1, 4]),
        ("s", True, [1, 2, 3, 4]),
        ("l", False, [1, 3, 2, 4]),
        ("l", True, [2, 3, 1, 4]),
    ],
)
def test_events_are_ordered_by_numbers_then_text_wherever_they_are(
    engine, field: str, descending: bool, order: list[int]
) -> None:
    """A value beside its column has its place among the others; events without one come last."""
    shape = Struct((("s", Leaf("string")), ("l", List(Leaf("long")))))
    by = sort_value(Payload((field,)), shape, descending=descending)
    direction = "DESC" if descending else "ASC"
    text = (
        f"SELECT id FROM ({ROWS}) ORDER BY {by.rank.text}, "
        f"{by.number.text} {direction} NULLS LAST, {by.text.text} {direction} NULLS LAST"
    )
    parameters = [*by.rank.parameters, *by.number.parameters, *by.text.parameters]

    assert [row[0] for row in engine.execute(text, parameters).fetchall()] == order


@pytest.mark.parametrize("text", ["s:*a*a*b", "s:*a?*a*?b", "s:a*a*a*b*", "s:*" + "?*" * 9 + "b"])
def test_asterisks_do_not_multiply_the_work(engine, text: str) -> None:
    """Nothing interrupts a comparison: four of them and one long text took a thread for ever."""
    found = condition(text)
    rows = (
        "(SELECT {'s': repeat('a', 3000)} AS data, NULL::STRUCT(path TEXT, value TEXT)[] misfits)"
    )
    before = time.process_time()

    answer = engine.execute(f"SELECT {found.text} FROM {rows}", found.parameters).fetchone()

    assert not answer[0]
    assert time.process_time() - before < 3


def test_a_long_value_is_read_in_no_time() -> None:
    """Nobody else is served meanwhile."""
    before = time.process_time()

    parse("f:" + "a" * 9_000 + "*", now=0)

    assert time.process_time() - before < 1


def test_a_not_before_words_reads_no_payload_that_has_columns(engine) -> None:
    """Each would be read as JSON: four times the work of the columns."""
    shape = Struct((("s", Leaf("string")),))
    payload = json.dumps({"s": "bravo", "pad": "x y " * 500})
    engine.execute(
        "CREATE TABLE read AS SELECT {'s': CASE WHEN i > 0 THEN 'bravo ' || i END} AS data, "
        "NULL::STRUCT(path TEXT, value TEXT)[] AS misfits, "
        "encode(replace(?, 'pad', 'p' || i)) AS payload "
        "FROM range(20000) t(i)",
        [payload],
    )

    def seconds(text: str) -> float:
        found = condition(text, shape)
        begun = time.process_time()
        count = engine.execute(f"SELECT count(*) FROM read WHERE {found.text}", found.parameters)
        assert count.fetchone()[0] in (19_999, 20_000)
        return time.process_time() - begun

    of_columns = min(seconds("s:~bravo") for _ in range(3))
    assert min(seconds("NOT alpha") for _ in range(3)) < 5 * of_columns + 0.2


def test_as_many_words_as_may_be_asked_for_can_be_found(engine) -> None:
    """An engine that gives up on an expression looks like one that is down."""
    words = " ".join(f"wörd{n}" for n in range(200))
    found = condition(f'"{words}" OR s:~"{words}"')
    misfits = "NULL::STRUCT(path TEXT, value TEXT)[] AS misfits, NULL::BLOB AS payload"
    rows = (
        "(SELECT {'s': ?, 'tags': NULL::TEXT[], 'n': NULL::LONG, 'x': NULL::DOUBLE, "
        f"'items': NULL::STRUCT(sku TEXT, qty LONG)[]}} AS data, {misfits})"
    )

    answer = engine.execute(
        f"SELECT {found.text} FROM {rows}", [*found.parameters, f"so {words} on"]
    ).fetchone()

    assert answer[0]


def test_ids_are_compared_barely_first() -> None:
    """By that engines leave out the row groups of other times; by lower() they cannot."""
    found = condition('event_id:"0198-aF-k9"')

    assert found.text == "(event_id >= ? AND event_id < ? AND lower(event_id) = ?)"
    assert found.parameters == ("0198-AF-", "0198-af.", "0198-af-k9")


def test_ids_are_found_in_whatever_case(engine) -> None:
    """The bare comparisons must let everything pass that is the same in lower case."""
    chance = random.Random(8)
    letters = "aAzZkK\u212aiIİß\u017fÉé09@[_`{-\x7f\x80\uffff😀"
    ids = ["".join(chance.choices(letters, k=chance.randint(1, 4))) for _ in range(3_000)]
    engine.execute("CREATE OR REPLACE TABLE ids AS SELECT unnest(?) AS event_id", [ids])

    for one in ids[:300]:
        where = condition(f'event_id:"{one}"')
        statement = f"SELECT event_id FROM ids WHERE {where.text}"
        found = engine.execute(statement, where.parameters).fetchall()
        assert sorted(i for (i,) in found) == sorted(i for i in ids if lower(i) == lower(one))

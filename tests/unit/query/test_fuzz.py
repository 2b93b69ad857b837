"""Whatever is typed: an answer or a pointed error, and no word of it in SQL or in an index's query.

The texts are random characters, pieces of the language, searches of the corpus with something
changed in them, and what people try who mean harm.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from builders import event
from log_batches import log_batch
from query_corpus import EVENTS, FACTS, SEARCHES
from sql_tokens import brought_in, vocabulary

from lakehouse.sql import open_engine
from penstock.errors import BadQuery
from penstock.query import Fact, Query, parse
from penstock.query import sql as sql_module
from penstock.query.dialects import DUCKDB, TRINO, Dialect
from penstock.query.elastic import compile_elastic
from penstock.query.order import sort_value
from penstock.query.pieces import Sql
from penstock.query.sql import Rows, compile_before, compile_parts, compile_sql
from penstock.schema.convert import Converted, Rules, convert
from penstock.schema.shape import EMPTY, Struct
from penstock.search.facts import with_facts

NOW = 1_764_000_000_000_000
TEXTS = 20_000

HARM = (
    *("' OR 1=1 --", '" OR ""="', "'; DROP TABLE flights; --", "x') UNION SELECT * FROM t --"),
    *("f:'); SELECT 1; --", 'f:"\'); SELECT 1; --"', "f:\\'", "f'||'x:1", 'a"b.c:1', "${jndi:x}"),
    *('{"query": {"match_all": {}}}', '{"script": {"source": "1"}}', "_id:*", "f:/.*/", "f:(.*)+"),
    *("$1", "?1", "?", "%s", "%(x)s", "{0}", "{}", "{1}{0}", "/* */", "--", "#", "\\x00", "`x`"),
    *(
        "f:" + "9" * 400,
        "f:>1e999",
        "f:[-1e999 TO 1e999]",
        "f:>-0",
        "f:1e-999",
        "log_offset:>1e300",
    ),
    *("log_partition:-1", "f:[NaN TO 1]", "f:Infinity", "f.length():>9e99", "f.length():-1"),
    *("received_at:>now+999999999y", "received_at:9999-12-31", "received_at:0001-01-01"),
    *("received_at:now-1M/M", "received_at:[* TO *]", "event_time:>0000", "received_at:>now-0s"),
    *("(" * 49 + "a" + ")" * 49, "(" * 60, "NOT " * 60 + "a", "-" * 60 + "a", "f:" + "(" * 200),
    *(
        "a " * 250,
        "f:" + "*" * 30,
        "f:" + "*a" * 19,
        "f:?*?*?",
        "x" * 10_001,
        '"' + "a " * 300 + '"',
    ),
    *("\ud800", "f:\udfff", "\x00", "f:\x00*", "İ:İ", "f:ﬀ*", "f:~ß", "a\u2028b", "f:\U0010ffff"),
    *("a" + ".b" * 200 + ":1", "a" + "\\." * 200 + ":1", "f[][][]:1", "[]:1", "data:1", "data.:*"),
    *("f:>>1", "f:>=>1", "f:[1 TO 2", "f:[1 TO TO 2]", "f:{* TO *}", 'f:["a" TO 1]', "f:~", "f:~*"),
    *(
        "${",
        "${}",
        "${LIMIT 0}",
        "${LIMIT 99999999999}",
        "${ORDER_BY}",
        "a ${SORT ASC} b",
        "${UNIQUE '}",
    ),
    *("metadata.x'y:1", 'headers.x"y:1', 'metadata.\\":*', "headers.':*", "quarantine.reason:'"),
)

PIECES = (
    *(
        "a",
        "f:",
        "f.g:",
        "data.:",
        "headers.x:",
        "metadata.t:",
        "received_at:",
        "_exists_:",
        "key:",
    ),
    *(
        "AND",
        "OR",
        "NOT",
        " ",
        "  ",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        " TO ",
        "*",
        "?",
        '"',
        "\\",
        ":",
    ),
    *(
        "~",
        ">",
        ">=",
        "<",
        "<=",
        "1",
        "-5",
        "1e400",
        "2026-11-22",
        "now-1d",
        "now/d",
        "null",
        "true",
    ),
    *(".length():", "[]", "${", "ORDER_BY ", "SORT ", "LIMIT ", "UNIQUE ", "DESC", "é", "\u2028"),
    *(
        "\x00",
        "😀",
        "!",
        "&&",
        "||",
        "/",
        "^",
        "$",
        "İ",
        "\t",
        "\n",
        "'",
        "%",
        "Σ",
        ";",
        "--",
        "/*",
    ),
    *("';--", '"";', "carrier:", "delay:", "lines.sku:", "n:", "at:", "source:", "log_offset:"),
)


def texts(seed: int) -> Iterator[str]:
    """Answer as many texts as are asked for, of each kind about as many."""
    chance = random.Random(seed)
    searches = [asked.text for asked in (*SEARCHES, *FACTS) if asked.text]
    while True:
        yield "".join(chance.choices(PIECES, k=chance.randint(1, 12)))
        yield _changed(chance.choice(searches), chance)
        yield chance.choice((" ", " OR ", "", "(")).join(
            (chance.choice(searches), chance.choice(HARM))
        )
        yield chance.choice(HARM).replace("f", chance.choice(("carrier", "n", "lines.sku", "at")))
        yield _changed(_changed(chance.choice((*searches, *HARM)), chance), chance)
        size = chance.randint(1, 30)
        yield bytes(chance.randrange(256) for _ in range(size)).decode("utf-8", "surrogateescape")
        yield "".join(chr(chance.randrange(1, 0x3000)) for _ in range(size))


def _changed(text: str, chance: random.Random) -> str:
    """Answer the text with a character or a piece in it left out, doubled, moved or replaced."""
    start = chance.randrange(len(text) + 1)
    end = min(len(text), start + chance.randint(0, 4))
    cut = text[start:end]
    put = chance.choice(("", cut * 2, cut[::-1], chance.choice(PIECES), chance.choice(PIECES)))
    return text[:start] + put + text[end:]


def some(count: int, seed: int = 11) -> Iterator[str]:
    found = texts(seed)
    return (next(found) for _ in range(count))


def read(text: str) -> Query | None:
    """Answer the search, None for a text that is none; a refusal has to point into the text."""
    refused: BadQuery | None = None
    try:
        return parse(text, now=NOW)
    except BadQuery as error:
        refused = error
    assert 0 <= refused.position <= len(text), text
    assert refused.expected, text
    return None


@pytest.fixture(scope="module")
def corpus() -> Converted:
    # Each kind of column once: with all of the corpus every text would be looked for in 28.
    return convert(log_batch(*EVENTS[:4], EVENTS[9], *EVENTS[46:48], EVENTS[52]), EMPTY, Rules())


def compiled(query: Query, shape: Struct, dialect: Dialect, *, all_ways: bool) -> Iterator[Sql]:
    """Answer the condition of a search or, in all ways, whatever else it becomes, too."""
    if not all_ways:
        yield compile_sql(query, shape, dialect=dialect)
        return
    kinds: tuple[Rows, ...] = ("rows", "quarantine")
    for rows in kinds:
        known = shape if rows == "rows" else EMPTY
        more: dict[str, Any] = {"dialect": dialect, "rows": rows}
        yield compile_sql(query, known, **more)
        if dialect is DUCKDB:
            yield from compile_parts(query, known, **more)
            yield compile_before(query, known, **more)
        for field in (query.order_by, query.unique):
            if field is not None:
                yield from _columns(query, field, known, more)


def _columns(query: Query, field: Any, shape: Struct, more: dict[str, Any]) -> Sequence[Sql]:
    by = sort_value(field, shape, descending=query.descending, **more)
    return (by.rank, by.number, by.text)


# Together they use all of the language, and every column of the corpus.
HARMLESS = (
    *(asked.text for asked in (*SEARCHES, *FACTS)),
    "f:(a OR b) NOT c -d f:null f.length():>1",
    "f:*a*b*c",
    "f:[2026-11-01T10:30:00Z TO 2027-01]",
    "received_at:[2026-11-01 TO 2026-11-02] event_time:<now",
    "quarantine.reason:~x headers:*",
    "metadata:* headers.x:*a* quarantine.stage:x _exists_:data.x log_offset:{1.5 TO 2.5}",
    "data:* data:~x data:x OR log_partition:>1e300 OR log_offset:[1 TO 2] OR key:*",
    "n:[1 TO 9007199254740993] lines.qty:{1 TO 2} n:>9e18 n:{0.5 TO 1e300} n:1 n:1.5 n:9e18",
    "* ${ORDER_BY x AND SORT ASC}",
    "* ${ORDER_BY headers.x AND UNIQUE metadata.x}",
    "* ${ORDER_BY quarantine.reason AND UNIQUE key}",
    "* ${ORDER_BY log_offset AND UNIQUE data}",
    "* ${ORDER_BY event_time AND UNIQUE headers}",
    "* ${ORDER_BY metadata AND UNIQUE event_id}",
)


def all_columns(shape: Struct) -> Iterator[str]:
    """Answer searches that look into every column in every way."""
    from penstock.query.stored import columns_of
    from penstock.query.tree import Payload
    from penstock.query.writing import field_text
    from penstock.schema.names import keys_of

    for column in columns_of(shape):
        name = field_text(Payload(keys_of(column.path)))
        yield f"{name}:1 {name}:true {name}:false {name}:a* {name}:*a*b*c {name}:~x {name}:*"
        yield f"{name}:[1 TO 2] {name}:{{1.5 TO 2.5}} {name}:>9e18 {name}:{{9e18 TO 1e300]"
        yield f"{name}:>=2026-11-01 {name}:<2026-11-01T10:30:00Z {name}:[2026-11 TO 2026-12]"
        yield f"* ${{ORDER_BY {name} AND UNIQUE {name}}}"
        yield f"* ${{ORDER_BY {name} AND SORT ASC}}"


def known_tokens(shape: Struct, dialect: Dialect) -> frozenset[str]:
    queries = [parse(text, now=NOW) for text in (*HARMLESS, *all_columns(shape))]
    return vocabulary(
        sql for query in queries for sql in compiled(query, shape, dialect, all_ways=True)
    )


@pytest.mark.parametrize(
    ("dialect", "count"), [(DUCKDB, TEXTS), (TRINO, TEXTS // 4)], ids=["duckdb", "trino"]
)
def test_whatever_is_typed_only_values_are_bound(
    corpus: Converted, dialect: Dialect, count: int
) -> None:
    """No text becomes a word of SQL, and none makes another error than that it is no search."""
    known = known_tokens(corpus.shape, dialect)
    searches = 0
    for text in some(count):
        query = read(text)
        if query is None:
            continue
        searches += 1
        for one in compiled(query, corpus.shape, dialect, all_ways=searches % 8 == 0):
            assert not brought_in(one, known), text
    assert count // 8 < searches < 7 * count // 8


@pytest.mark.parametrize(
    "inlined",
    [
        lambda parameter: Sql(f"'{parameter}'"),
        lambda parameter: Sql("'" + str(parameter).replace("'", "''") + "'"),
        lambda parameter: Sql(repr(parameter)),
        lambda parameter: Sql("?"),
    ],
    ids=["as text", "quoted", "as Python", "forgotten"],
)
def test_a_value_written_into_the_text_is_noticed(
    corpus: Converted, monkeypatch: pytest.MonkeyPatch, inlined: Any
) -> None:
    """The check itself: with quotes doubled it would be safe, and would still be refused."""
    known = known_tokens(corpus.shape, DUCKDB)
    query = parse('carrier:"x\' OR 1=1 --"', now=NOW)
    assert not brought_in(compile_sql(query, corpus.shape), known)

    monkeypatch.setattr(sql_module, "value", inlined)

    assert brought_in(compile_sql(query, corpus.shape), known)


def test_whatever_is_typed_an_index_is_asked_with_terms_only() -> None:
    """No text becomes the name of a query or of a field."""
    names = {name for text in HARMLESS for name in _names(_dsl(parse(text, now=NOW)))}
    for text in some(TEXTS, seed=12):
        query = read(text)
        if query is None:
            continue
        brought = set(_names(_dsl(query))) - names
        assert not brought, text


def _dsl(query: Query) -> list[object]:
    bounds = compile_elastic(query)
    return [bounds.certain, bounds.possible]


def _names(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield str(name)
            yield from _names(item)
    elif isinstance(value, list):
        for item in value:
            yield from _names(item)


def test_what_is_accepted_can_be_run(corpus: Converted, tmp_path: Path) -> None:
    """What the parser lets through, the engine must not choke on."""
    engine = open_engine(tmp_path, memory="500MB", threads=1)
    small = convert(log_batch(*EVENTS[::6], event(b"'; --", id="harm")), EMPTY, Rules())
    [batch] = small.rows.combine_chunks().to_batches()
    rows = pa.Table.from_batches([with_facts(batch, frozenset(Fact))])
    run = 0
    with engine.reader() as reader:
        relation = reader.arrow(rows)
        for text in some(1_500, seed=13):
            query = read(text)
            if query is None:
                continue
            if (run := run + 1) > 100:
                break
            condition = compile_sql(query, small.shape)
            reader.rows(
                f"SELECT count(*) FROM {relation} WHERE {condition.text}", condition.parameters
            )
    engine.close()
    assert run > 100

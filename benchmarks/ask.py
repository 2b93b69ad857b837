"""SQL and search on 2 million landed rows, beside DuckDB on the same Parquet files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import duckdb

from assets.stores import Stores, opened
from benchmarks.data import append, event_id, nested
from benchmarks.measure import Question, asked_together
from lakehouse.sql import Engine, Limits, open_engine
from lakehouse.sql.tables import LakeTables
from penstock.clock import machine_clock
from penstock.envelope import DEFAULT_TEAM, CollectionId, Micros
from penstock.search import SearchRequest
from penstock.search.embedded import EmbeddedSearcher
from penstock.settings import load_settings

ROWS = 2_000_000
DAYS = 10
TAIL = 1_000
COLLECTION = CollectionId(DEFAULT_TEAM, "asked")

# Seconds for each question, and the most times it is asked.
SECONDS = 6.0
MOST = 100

_PAGE = 100
_BARS = 60
_DAY: Micros = 86_400 * 1_000_000
_RARE = "gadolinium"
_RARE_EVERY = 100_000
_SHOWN = (
    "event_id, received_at, event_time, source, content_type, key, headers, metadata, payload, "
    "log_partition, log_offset, misfits"
)
_WORDS = "contains(lower(decode(payload)), '{word}')"


@dataclass(frozen=True)
class _Ask:
    """A question: what to ask of Penstock, and how it is put plainly to DuckDB."""

    name: str
    ours: Callable[[], int]
    plain: str
    """Over ``{files}``."""
    scalar: bool = False
    """The answer is one number, not rows."""


def results(folder: Path) -> Iterator[Question]:
    """Measure questions of every kind."""
    settings = load_settings(folder / "home", {})
    settings.home.mkdir()
    begin = (machine_clock() // _DAY - DAYS) * _DAY
    with (
        opened(settings) as stores,
        closing(
            open_engine(
                settings.home / "sql",
                memory=settings.sql_memory,
                s3=settings.s3,
                keep_metadata=True,
            )
        ) as engine,
        duckdb.connect(config={"memory_limit": settings.sql_memory, "threads": 2}) as plain,
    ):
        _fill(stores, begin)
        plain.execute("SET TimeZone = 'UTC'")
        files = [str(file) for file in (settings.home / "lake").rglob("*.parquet")]
        searcher = EmbeddedSearcher(
            stores.lake, stores.buffer, engine, rules=stores.rules, clock=machine_clock
        )
        limits = Limits(settings.sql_seconds, settings.sql_rows)
        questions = [*_sql(stores, engine, limits, begin), *_searches(searcher, begin)]
        for question in questions:
            yield _asked(question, plain, files)

        last = ROWS + TAIL
        append(
            settings.log,
            COLLECTION,
            nested(TAIL, seed=11),
            received_at=lambda _: machine_clock(),
            first=ROWS,
        )
        yield _asked(_looked_up(searcher, "one that landed", ROWS // 3), plain, files)
        new = _looked_up(searcher, f"one of {TAIL:,} that have not landed", last - 1)
        yield _asked(new, plain, files)


def _fill(stores: Stores, begin: Micros) -> None:
    """Land the rows, a day's at a time: the same payloads come again every day."""
    a_day = ROWS // DAYS
    payloads = nested(a_day)
    landing = stores.landing()
    for day in range(DAYS):
        for place in range(_RARE_EVERY // 2, a_day, _RARE_EVERY):
            payloads[place] = payloads[place].replace(b"neighbour", _RARE.encode())
        append(
            stores.settings.log,
            COLLECTION,
            payloads,
            received_at=lambda place: begin + place * (DAYS * _DAY // ROWS),
            first=day * a_day,
        )
        while landing.land_once(COLLECTION) is not None:
            pass


def _sql(stores: Stores, engine: Engine, limits: Limits, begin: Micros) -> Iterator[_Ask]:
    tables = LakeTables(stores.lake, COLLECTION.team)

    def ask(name: str, statement: str, *, scalar: bool = False) -> _Ask:
        def ours() -> int:
            rows = engine.query(statement.format(files=COLLECTION.name), tables, limits).rows
            return int(rows[0][0].as_py()) if scalar else int(rows.num_rows)

        return _Ask(f"SQL: {name}", ours, statement, scalar)

    nested_filter = (
        "SELECT count(*) FROM {files} "
        "WHERE data.customer.address.city = 'Oslo' AND data.total > 900"
    )
    yield ask("a nested filter", nested_filter, scalar=True)
    yield ask("the same within one day", f"{nested_filter} AND {_within(begin)}", scalar=True)
    yield ask(
        "group by",
        "SELECT data.type, data.customer.address.city, count(*), avg(data.total) FROM {files} "
        "GROUP BY ALL",
    )
    yield ask(
        "one event by its id",
        f"SELECT payload FROM {{files}} WHERE event_id = '{event_id(ROWS // 3)}'",
    )


def _searches(searcher: EmbeddedSearcher, begin: Micros) -> Iterator[_Ask]:
    def page(name: str, query: str, where: str) -> _Ask:
        asked = SearchRequest(collection=COLLECTION, query=query, limit=_PAGE)
        return _Ask(
            f"search: {name}",
            lambda: len(searcher.search(asked).events),
            f"SELECT {_SHOWN} FROM {{files}} WHERE {where} "
            f"ORDER BY received_at DESC, log_offset DESC LIMIT {_PAGE}",
        )

    yield page("the first page, newest first", "", "true")
    yield page(
        "a field equals", 'customer.name:"customer 4711"', "data.customer.name = 'customer 4711'"
    )
    yield page(
        "a numeric range and a field",
        "total:>999 AND customer.address.city:Riga",
        "data.total > 999 AND data.customer.address.city = 'Riga'",
    )
    yield page("a word in 20 events", _RARE, _WORDS.format(word=_RARE))
    yield page("a word in no event", "praseodymium", _WORDS.format(word="praseodymium"))

    counted = SearchRequest(collection=COLLECTION, query="total:>900 AND paid:true")
    where = "data.total > 900 AND data.paid"
    yield _Ask(
        "search: count",
        lambda: searcher.count(counted),
        f"SELECT count(*) FROM {{files}} WHERE {where}",
        scalar=True,
    )
    day = SearchRequest(
        collection=COLLECTION,
        query="total:>900 AND paid:true",
        since=begin,
        until=begin + DAYS * _DAY,
    )
    yield _Ask(
        "search: histogram",
        lambda: sum(bar.count > 0 for bar in searcher.histogram(day, bars=_BARS).bars),
        "SELECT epoch_us(received_at) // {step}, count(*) FROM {files} "
        f"WHERE {where} GROUP BY 1".replace("{step}", str(DAYS * _DAY // _BARS)),
    )


def _looked_up(searcher: EmbeddedSearcher, name: str, place: int) -> _Ask:
    landed = event_id(min(place, ROWS - 1))
    return _Ask(
        f"event: {name}",
        lambda: len([searcher.event(COLLECTION, event_id(place))]),
        f"SELECT {_SHOWN} FROM {{files}} WHERE event_id = '{landed}'",
    )


def _within(begin: Micros) -> str:
    since, until = begin + 4 * _DAY, begin + 5 * _DAY
    return f"received_at >= make_timestamptz({since}) AND received_at < make_timestamptz({until})"


def _asked(question: _Ask, plain: duckdb.DuckDBPyConnection, files: Sequence[str]) -> Question:
    statement = question.plain.replace("{files}", f"read_parquet({list(files)!r})")

    def limit() -> int:
        rows = plain.execute(statement).to_arrow_table()
        return int(rows[0][0].as_py()) if question.scalar else int(rows.num_rows)

    ours, theirs = asked_together(question.ours, limit, seconds=SECONDS, most=MOST)
    return Question(question.name, ROWS, ours, "DuckDB read_parquet", theirs)

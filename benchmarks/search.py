"""Searches of every kind on two million events, beside the same put plainly to DuckDB.

Each class has forty questions: every one of its searches as a first page of everything, and again
as another page, in another order or of a shorter time. They are asked with the files in no cache
and a database that knows nothing, then again and again, and then while events come in and land.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import duckdb

from assets.stores import Stores, opened
from benchmarks.bus import COLLECTION, DAYS, ROWS, Bus, filters_of, kept_bus, make_filters
from benchmarks.measure import Facts, percentile
from lakehouse.files import path_of
from lakehouse.sql import Engine, open_engine
from penstock.clock import machine_clock
from penstock.envelope import Micros
from penstock.query.tree import Payload
from penstock.search import SearchRequest, View
from penstock.search.embedded import EmbeddedSearcher
from penstock.search.index import Index

PAGE = 50
BARS = 60
FACETS = (Payload(("carrier",)), Payload(("state",)))
VALUES = 10
WARM = 3
RATE = 1_000
"""Events a second that come in and land beside."""

_HOUR: Micros = 3_600 * 1_000_000
_DAY: Micros = 24 * _HOUR
_SHOWN = (
    "event_id, received_at, event_time, source, content_type, key, headers, metadata, payload, "
    "log_partition, log_offset, duplicate_of, misfits"
)
_SHOWN_IN_QUARANTINE = _SHOWN.replace("duplicate_of, misfits", "stage, reason, detail, attempts")


@dataclass(frozen=True)
class Asked:
    """A search, and its condition as somebody writes it who knows the table."""

    query: str
    plain: str


@dataclass(frozen=True)
class Kind:
    """A class of questions; 95 of a hundred shall be answered in `floor` milliseconds."""

    name: str
    floor: float
    asked: Sequence[Asked]
    how: Sequence[str] = ("page",)
    view: View = "main"


def _lines(condition: str) -> str:
    return f"len(list_filter(data.lines, lambda l: {condition})) > 0"


FIELDS = (
    Asked("carrier:UA", "data.carrier = 'UA'"),
    Asked("tailnum:N14228", "data.tailnum = 'N14228'"),
    Asked("customer.id:customer-17", "data.customer.id = 'customer-17'"),
    Asked("order_id:order-0012345", "data.order_id = 'order-0012345'"),
    Asked("dest:XYZ", "data.dest = 'XYZ'"),
    Asked(
        "customer.city:Bergen AND state:returned",
        "data.customer.city = 'Bergen' AND data.state = 'returned'",
    ),
    Asked("dep_delay:>600", "data.dep_delay > 600"),
    Asked(
        "distance:[2000 TO 2500] AND origin:JFK",
        "data.distance BETWEEN 2000 AND 2500 AND data.origin = 'JFK'",
    ),
    Asked("dep_delay:>120", "data.dep_delay > 120"),
    Asked("tailnum:N14*", "data.tailnum LIKE 'N14%'"),
    Asked("customer.id:*-3?7", "data.customer.id LIKE '%-3_7'"),
    Asked(
        "lines.name:zucchini AND lines.quantity:5",
        f"{_lines('l.name = $$zucchini$$')} AND {_lines('l.quantity = 5')}",
    ),
    Asked("lines.sku:KOH-777", _lines("l.sku = $$KOH-777$$")),
    Asked(
        "NOT carrier:UA AND origin:EWR AND dest:LAX",
        "data.carrier <> 'UA' AND data.origin = 'EWR' AND data.dest = 'LAX'",
    ),
    Asked(
        "-_exists_:order_id AND -_exists_:carrier",
        "data.order_id IS NULL AND data.carrier IS NULL",
    ),
    Asked(
        "total:~EUR",
        "len(list_filter(misfits, lambda m: m.path = 'total' AND contains(m.value, 'EUR'))) > 0",
    ),
    Asked("discount.percent:[25 TO 30]", "data.discount.percent BETWEEN 25 AND 30"),
    Asked("state:paid OR state:packed", "data.state IN ('paid', 'packed')"),
    Asked("gift:true AND customer.vip:true", "data.gift AND data.customer.vip"),
    Asked(
        "dep_delay:>200 AND dest:BOS AND carrier:DL",
        "data.dep_delay > 200 AND data.dest = 'BOS' AND data.carrier = 'DL'",
    ),
)


def _text(*words: str) -> str:
    return " AND ".join(
        f"regexp_matches(TRY(decode(payload)), '(?i)\\b{word}\\b')" for word in words
    )


WORDS = (
    Asked("zucchini", _text("zucchini")),
    Asked("N14228", _text("N14228")),
    Asked('"customer 17"', _text("customer-17")),
    Asked('"order 0012345"', _text("order-0012345")),
    Asked("gadolinium", _text("gadolinium")),
    Asked("spring30", _text("spring30")),
    Asked("bergen returned", _text("bergen", "returned")),
    Asked("organic -offer", f"{_text('organic')} AND NOT {_text('offer')}"),
    Asked("EUR", _text("EUR")),
    Asked("N14228 EWR", _text("N14228", "EWR")),
    Asked("praseodymium OR lutetium", f"({_text('praseodymium')} OR {_text('lutetium')})"),
    Asked("córdoba", _text("córdoba")),
    Asked('"only text"', _text("only text")),
    Asked("two", _text("two")),
    Asked("N725MQ", _text("N725MQ")),
    Asked("customer kohlrabi turnip", _text("customer", "kohlrabi", "turnip")),
    Asked("LAX state:paid", f"{_text('LAX')} AND data.state = 'paid'"),
    Asked("gdańsk dep_delay:>10", f"{_text('gdańsk')} AND data.dep_delay > 10"),
    Asked("lga carrier:9E", f"{_text('lga')} AND data.carrier = '9E'"),
    Asked("fresh local", _text("fresh", "local")),
)

COUNTED = (Asked("", "true"), *FIELDS[:3], *FIELDS[5:9], *FIELDS[11:13])

QUARANTINED = (
    Asked("", "true"),
    Asked("quarantine.stage:gate", "stage = 'gate'"),
    Asked("NOT quarantine.stage:gate", "stage <> 'gate'"),
    Asked("content_type:application/json", "content_type = 'application/json'"),
    Asked("state", _text("state")),
)

KINDS = (
    Kind("a field filter", 300, FIELDS),
    Kind("free words", 1_500, WORDS),
    Kind("histogram", 500, COUNTED, ("histogram",)),
    Kind("facets", 500, COUNTED, ("facets",)),
    Kind("count", 500, COUNTED, ("count",)),
    Kind("quarantine", 300, QUARANTINED, ("page", "count"), view="quarantine"),
)

_TIMES: dict[str, Micros | None] = {"all": None, "a day": _DAY, "an hour": _HOUR}


@dataclass(frozen=True)
class Question:
    """What is asked of both, and told apart by when, in which order, and which page."""

    kind: Kind
    asked: Asked
    how: str = "page"
    back: str = "all"
    oldest_first: bool = False
    second: bool = False

    def __str__(self) -> str:
        page = "second page" if self.second else "oldest first" if self.oldest_first else self.how
        return f"{self.kind.name}: {self.asked.query or '*'} ({page}, {self.back})"


@dataclass
class Taken:
    """The milliseconds that one question took."""

    question: Question
    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)


def questions(kind: Kind) -> list[Question]:
    """Answer forty questions of a kind, the same in every run."""
    found = []
    for number in range(40):
        question = Question(
            kind, kind.asked[number % len(kind.asked)], kind.how[number % len(kind.how)]
        )
        # As many in each way, whatever the number of searches.
        again = number // len(kind.asked)
        if again and question.how == "page":
            question = _otherwise(question, (number + again) % 4)
        elif again:
            question = replace(question, back=("all", "a day", "an hour")[(number + again) % 3])
        found.append(question)
    return found


def _otherwise(question: Question, way: int) -> Question:
    match way:
        case 0:
            return replace(question, back="a day")
        case 1:
            return replace(question, second=True)
        case 2:
            return replace(question, back="an hour")
        case _:
            return replace(question, oldest_first=True)


def results(folder: Path) -> Iterator[Facts]:
    """Measure every class of questions on two million events."""
    yield from measured(folder, rows=ROWS)


def short(folder: Path) -> Iterator[Facts]:
    """Measure them on a tenth of the events."""
    yield from measured(folder, rows=ROWS // 10)


def measured(folder: Path, *, rows: int) -> Iterator[Facts]:
    """Measure them on so many events, unless the environment says another number.

    ``BENCH_KINDS`` names some classes, ``BENCH_SLOWEST`` says how many questions of each are told
    by themselves.
    """
    bus = kept_bus(os.environ, folder, rows=rows)
    behind = machine_clock() - bus.end
    slowest = int(os.environ.get("BENCH_SLOWEST", "0"))
    named = os.environ.get("BENCH_KINDS", "").split(",")
    taken = [
        Taken(question)
        for kind in KINDS
        if named == [""] or kind.name in named
        for question in questions(kind)
    ]
    with opened(bus.settings) as stores, plainly(bus) as plain:
        yield _filter(bus, stores)
        for one in taken:
            _forget(bus)
            with searching(bus, stores, behind) as searcher:
                one.cold.append(_timed(ours(searcher, bus, one.question))[1])
        with searching(bus, stores, behind) as searcher:
            for one in taken:
                ask_both(one, searcher, plain, bus)
            with _coming_in(bus, behind):
                for one in taken:
                    one.beside.append(_timed(ours(searcher, bus, one.question))[1])
    for kind in dict.fromkeys(one.question.kind for one in taken):
        mine = [one for one in taken if one.question.kind == kind]
        yield _told(kind, bus, mine)
        for one in sorted(mine, key=lambda one: -max(one.warm))[:slowest]:
            yield Facts(
                str(one.question),
                {
                    "warm ms": statistics.median(one.warm),
                    "cold": max(one.cold),
                    "beside landing": max(one.beside),
                    "DuckDB": min(one.plain),
                },
            )


def _told(kind: Kind, bus: Bus, taken: Sequence[Taken]) -> Facts:
    warm = [ms for one in taken for ms in one.warm]
    cold = [ms for one in taken for ms in one.cold]
    beside = [ms for one in taken for ms in one.beside]
    shares = [statistics.median(one.warm) / min(one.plain) for one in taken]
    figures = {
        "p50 ms": statistics.median(warm),
        "p95 ms": percentile(warm, 0.95),
        "max ms": max(warm),
        "cold p50 ms": statistics.median(cold),
        "cold p95 ms": percentile(cold, 0.95),
        f"p95 ms beside {RATE:,} events/s": percentile(beside, 0.95),
        "DuckDB p95 ms": percentile([min(one.plain) for one in taken], 0.95),
        "times DuckDB's time, in the middle": statistics.median(shares),
    }
    short = [
        f"{name} {figures[name]:,.0f} > {kind.floor:,.0f}"
        for name in ("p95 ms", f"p95 ms beside {RATE:,} events/s")
        if figures[name] > kind.floor
    ]
    return Facts(f"search, {bus.rows:,} events: {kind.name}", figures, short)


def ask_both(
    one: Taken, searcher: EmbeddedSearcher, plain: duckdb.DuckDBPyConnection, bus: Bus
) -> None:
    asked, theirs = ours(searcher, bus, one.question), _theirs(plain, bus, one.question)
    found = asked(), theirs()
    if found[0] != found[1]:
        raise RuntimeError(f"the answers to {one.question} differ: {found[0]:,} and {found[1]:,}")
    for _ in range(WARM):
        one.warm.append(_timed(asked)[1])
        one.plain.append(_timed(theirs)[1])


def ours(searcher: EmbeddedSearcher, bus: Bus, question: Question) -> Callable[[], int]:
    """Answer what asks a question of a searcher, and counts what it answers."""
    back = _TIMES[question.back]
    asked = SearchRequest(
        collection=COLLECTION,
        query=question.asked.query,
        since=None if back is None else bus.end - back,
        until=None if back is None else bus.end,
        view=question.kind.view,
        limit=PAGE,
        newest_first=not question.oldest_first,
    )
    match question.how:
        case "count":
            return lambda: searcher.count(asked)
        case "histogram":
            return lambda: sum(bar.count for bar in searcher.histogram(asked, bars=BARS).bars)
        case "facets":
            return lambda: sum(
                value.count
                for facet in searcher.facets(asked, FACETS, most=VALUES)
                for value in facet.values
            )
    if question.second:
        cursor = searcher.search(asked).cursor
        if cursor is not None:
            asked = replace(asked, cursor=cursor)
    return lambda: len(searcher.search(asked).events)


def _theirs(plain: duckdb.DuckDBPyConnection, bus: Bus, question: Question) -> Callable[[], int]:
    back = _TIMES[question.back]
    quarantined = question.kind.view == "quarantine"
    where = question.asked.plain
    if back is not None:
        where += f" AND received_at >= make_timestamptz({bus.end - back})"
        where += f" AND received_at < make_timestamptz({bus.end})"
    files = "quarantined" if quarantined else "rows"
    match question.how:
        case "count":
            text = f"SELECT count(*) AS n FROM {files} WHERE {where}"
        case "histogram":
            step = (back or DAYS * _DAY) // BARS
            text = (
                f"SELECT sum(n)::BIGINT AS n FROM (SELECT epoch_us(received_at) // {step} AS bar, "
                f"count(*) AS n FROM {files} WHERE {where} GROUP BY 1)"
            )
        case "facets":
            counted = " UNION ALL ".join(
                f"(SELECT count(*) AS n FROM {files} WHERE {where} AND data.{name} IS NOT NULL "
                f"GROUP BY data.{name} ORDER BY n DESC LIMIT {VALUES})"
                for (name,) in (field.keys for field in FACETS)
            )
            text = f"SELECT sum(n)::BIGINT AS n FROM ({counted})"
        case _:
            sign = "ASC" if question.oldest_first else "DESC"
            columns = _SHOWN_IN_QUARANTINE if quarantined else _SHOWN
            text = (
                f"SELECT {columns} FROM {files} WHERE {where} "
                f"ORDER BY received_at {sign}, log_offset {sign} LIMIT {PAGE}"
            )
            if question.second:
                text = f"{text} OFFSET {PAGE}"

    def ask() -> int:
        rows = plain.execute(text).to_arrow_table()
        if question.how != "page":
            return int(rows["n"][0].as_py() or 0)
        return int(rows.num_rows)

    if question.second and not ask():
        text = text.removesuffix(f" OFFSET {PAGE}")
    return ask


def _timed(ask: Callable[[], int]) -> tuple[int, float]:
    begun = time.perf_counter()
    found = ask()
    return found, (time.perf_counter() - begun) * 1000


@contextmanager
def searching(
    bus: Bus, stores: Stores, behind: Micros, index: Index | None = None
) -> Iterator[EmbeddedSearcher]:
    """Answer a searcher as the platform has it, over a database that knows nothing yet."""
    settings = bus.settings
    engine: Engine = open_engine(
        settings.home / "sql", memory=settings.sql_memory, s3=settings.s3, keep_metadata=True
    )
    with closing(engine):
        yield EmbeddedSearcher(
            stores.lake,
            stores.buffer,
            engine,
            rules=stores.rules,
            clock=lambda: machine_clock() - behind,
            filters=filters_of(bus),
            index=index,
        )


def _filter(bus: Bus, stores: Stores) -> Facts:
    """Make the filters of the files, as the platform does beside everything else."""
    filters = filters_of(bus)
    begun, worked = time.perf_counter(), time.process_time()
    made = make_filters(bus, stores)
    seconds, worked = time.perf_counter() - begun, time.process_time() - worked
    view = stores.lake.view(COLLECTION)
    assert view is not None
    return Facts(
        f"search, {bus.rows:,} events: filters",
        {
            "files": made,
            "seconds": seconds,
            "CPU us an event": worked * 1e6 / view.rows,
            "bytes an event": filters.bytes() / view.rows,
            "percent of the table": 100 * filters.bytes() / view.bytes,
        },
    )


@contextmanager
def plainly(bus: Bus) -> Iterator[duckdb.DuckDBPyConnection]:
    """Answer DuckDB with the current files of the tables, and nothing of ours."""
    with (
        opened(bus.settings) as stores,
        duckdb.connect(config={"memory_limit": bus.settings.sql_memory, "threads": 2}) as plain,
    ):
        plain.execute("SET TimeZone = 'UTC'")
        for name, table in (
            ("rows", stores.lake.table((COLLECTION.team, COLLECTION.name))),
            ("quarantined", stores.lake.table((f"{COLLECTION.team}__quarantine", COLLECTION.name))),
        ):
            assert table is not None
            files = [path_of(task.file.file_path) for task in table.scan().plan_files()]
            source = f"read_parquet({files!r}, union_by_name := true)"
            plain.execute(f"CREATE VIEW {name} AS SELECT * FROM {source}")
        yield plain


def _forget(bus: Bus) -> None:
    """Have the system let go of what it holds of the tables' files."""
    for file in (bus.settings.home / "lake").rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


@contextmanager
def _coming_in(bus: Bus, behind: Micros) -> Iterator[None]:
    """Send and land events in another process for the block."""
    arguments = (str(bus.settings.home), str(bus.rows), str(RATE), str(behind))
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.beside", *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "begun\n":
                raise RuntimeError("events do not come in")
            yield
        finally:
            process.kill()

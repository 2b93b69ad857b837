"""What every searcher promises, with and without an index beside the lake."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from builders import FLIGHTS, NOON, event
from indexing import DAY, SECOND, Home, fresh_index
from query_corpus import EVENTS, FACTS, MANY, READS, SEARCHES, many
from query_reference import NOW, Asked, Read, Searches, micros
from ugly_events import NUMBERS, TEXTS, UglyEvents

from lakehouse.sql import Engine, Reader, open_engine
from penstock.query.elastic import Dsl
from penstock.query.parse import field_of
from penstock.query.pieces import Sql
from penstock.search import Place, SearchRequest, looking
from penstock.search.index import last_moment
from penstock.search.indexed import Part
from penstock.search.places import PLACE, exactly_at

ENGINES = [
    "embedded",
    pytest.param("elasticsearch", marks=pytest.mark.engines),
    pytest.param("opensearch", marks=pytest.mark.engines),
]


@pytest.fixture(scope="module")
def sql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = open_engine(tmp_path_factory.mktemp("spill"), memory="500MB", threads=1)
    yield engine
    engine.close()


@pytest.fixture(params=ENGINES)
def home(request: pytest.FixtureRequest, tmp_path: Path, sql: Engine) -> Iterator[Home]:
    if request.param == "embedded":
        yield Home(tmp_path, sql, None)
        return
    with fresh_index(request.param) as index:
        yield Home(tmp_path, sql, index)


def settled(home: Home, events: list) -> None:
    """Index a half, land a quarter more, and leave the rest on the log."""
    half, most = len(events) // 2, 3 * len(events) // 4
    home.append(*events[:half])
    home.land()
    home.fill()
    home.append(*events[half:most])
    home.land()
    home.append(*events[most:])


def agree(home: Home, asked: Asked, reads: tuple[Read, ...] | list[Read]) -> None:
    wanted = {read.event.id for read in reads if asked.holds(read)}
    got = home.find(asked.text, limit=1_000)
    assert len(got) == len(set(got)), f"doubled by {asked.text!r}"
    assert set(got) == wanted, asked.text
    if len(asked.text) % 4 == 0:
        assert home.count(asked.text) == len(wanted), asked.text


def test_every_search_of_the_corpus_finds_what_the_reference_finds(home) -> None:
    """In the index, in the lake and on the log at once: where an event is changes nothing."""
    settled(home, list(EVENTS))
    home.searcher = home.searching(home.index, clock=lambda: micros(NOW))

    for asked in (*SEARCHES, *FACTS)[:: 1 if home.index else 8]:
        agree(home, asked, READS)


@pytest.mark.parametrize("home", ENGINES[1:], indirect=True)
def test_everything_in_the_index_is_found_as_the_reference_finds_it(home) -> None:
    """With nothing left to the lake but to read the events found."""
    home.append(*EVENTS)
    home.land()
    rows = home.fill()
    home.searcher = home.searching(home.index, clock=lambda: micros(NOW))

    assert rows == len(EVENTS)
    for asked in (*SEARCHES, *FACTS)[::2]:
        agree(home, asked, READS)


@pytest.mark.parametrize("seed", range(2))
def test_random_searches_find_what_the_reference_finds(home, seed: int) -> None:
    """What nobody thought of when the corpus was written."""
    source = UglyEvents(seed)
    corpus = source.events(60)
    # Few days: each is an index.
    corpus = [
        event(
            one.payload,
            id=one.id,
            received_at=micros(NOW) - (micros(NOW) - one.received_at) // 10,
            content_type=one.content_type,
            key=one.key,
            headers=one.headers,
            metadata=one.metadata,
            event_time=one.event_time,
            source=one.source,
        )
        for one in corpus
    ]
    reads = [Read(one, partition=0, offset=offset) for offset, one in enumerate(corpus)]
    settled(home, corpus)
    home.searcher = home.searching(home.index, clock=lambda: micros(NOW))
    maker = Searches(random.Random(seed), source.paths, [*TEXTS, *NUMBERS], reads)

    for _ in range(40 if home.index else 10):
        agree(home, maker.search(), reads)


@pytest.mark.engines
@pytest.mark.timeout(900)  # a minute, unless others use the machine
@pytest.mark.parametrize("kind", ["elasticsearch", "opensearch"])
def test_many_searches_find_what_the_reference_finds_among_many_events(
    kind: str, tmp_path: Path, sql: Engine
) -> None:
    """The same events and searches as embedded; all of them are in the index."""
    corpus, _, searches = many()
    with fresh_index(kind) as index:
        home = Home(tmp_path, sql, index, rules=MANY)
        home.append(*corpus)
        home.land()
        assert home.fill() == len(corpus)
        home.searcher = home.searching(index, clock=lambda: micros(NOW), seconds=300)
        for asked, wanted in searches:
            found = home.find_all(asked.text, limit=1_000)
            assert len(found) == len(set(found)), f"doubled by {asked.text!r}"
            assert set(found) == wanted, asked.text


LONG = "x" * 2_000


def test_texts_words_and_paths_of_any_length_are_found(home) -> None:
    """Terms of an engine have a bound; what is longer must not be lost for it."""
    word = "w" * 300
    key = "k" * 500
    huge = "z" * 200_000
    sent = home.send(
        f'{{"a": "{LONG}", "b": 1}}',
        f'{{"a": "{LONG}y tail", "b": 2}}',
        f'{{"a": "some {word} and {word}x"}}',
        f'{{"{key}": {{"{key}": "deep", "n": 5}}}}',
        f'{{"a": "{huge}"}}',
        '{"a": "\U0001f600' + "\U0001d400" * 200 + '"}',
        '{"c": "2026-11-05T10:30:00.' + "1" * 1_200 + '"}',
    )
    home.land()
    home.fill()

    assert home.find(f'a:"{LONG}"') == [sent[0]]
    assert home.find("a:xxx*") == [sent[1], sent[0]]
    assert home.find("a:*tail") == [sent[1]]
    assert home.find("NOT a:*tail") == [sent[n] for n in (6, 5, 4, 3, 2, 0)]
    assert home.find("a:x* b:>1") == [sent[1]]
    assert home.count("a:*x*") == 3
    assert home.find(word) == [sent[2]]
    assert home.find(f'a:~"some {word} and"') == [sent[2]]
    assert home.find(f'"{word} {word}"') == []
    assert home.find(f"{key}.{key}:deep") == [sent[3]]
    assert home.find(f"_exists_:{key}") == [sent[3]]
    assert home.find(f"{key}.n:>4") == [sent[3]]
    assert home.find(f"{key}.{key}:*") == [sent[3]]
    assert home.find("a:z*") == [sent[4]]
    assert home.find("a:*\U0001d400") == [sent[5]]
    assert home.find("\U0001d400" * 200) == [sent[5]]
    assert home.find("c:>2026-11-05T10:30") == []
    assert home.find("c:>=2026-11-05T10:30") == [sent[6]]


def test_a_wildcard_that_an_engine_cannot_work_out_is_answered_all_the_same(home) -> None:
    """The index says no to it, and the lake is read."""
    sent = home.send('{"a": "xx' + "y" * 19 + '"}', '{"a": "x"}')
    home.land()
    home.fill()

    assert home.find("a:*x" + "?" * 19) == [sent[0]]


def test_an_event_is_found_once_wherever_it_is(home) -> None:
    """On the log, in the lake, in the index: the next request finds it, and once."""
    sent: list[str] = []
    chance = random.Random(3)
    for _ in range(12):
        sent += home.send('{"k": 1}', '{"k": 2}')
        assert home.find("k:*", limit=100) == sent[::-1]
        if chance.random() < 0.6:
            home.land()
            assert home.count("k:2") == len(sent) // 2
        if chance.random() < 0.6:
            home.fill()
        assert home.find("k:1", limit=100) == sent[::2][::-1]
        assert home.count() == len(sent)


def test_pages_and_orders_are_those_of_one_cut(home) -> None:
    """While events arrive, land and are indexed between two pages."""
    sent = home.send(*('{"k": 1}' for _ in range(11)))
    for newest_first in (True, False):
        pages, cursor = [], None
        for step in range(20):
            page = home.page("k:1", limit=3, cursor=cursor, newest_first=newest_first)
            pages += [found.event_id for found in page.events]
            cursor = page.cursor
            if cursor is None:
                break
            home.send('{"k": 1}')
            (home.land, home.fill)[step % 2]()
        assert pages == (sent[::-1] if newest_first else sent)
        sent = [f"e{n}" for n in range(next(home.numbers))]
        home.send('{"k": 2}')


@pytest.mark.parametrize("home", ENGINES[1:], indirect=True)
def test_a_day_that_is_over_is_merged_once(home) -> None:
    """What is found stays the same; what comes in late is not worth writing all of it again."""
    sent: list[str] = []
    for _ in range(6):
        sent += home.send(*(f'{{"k": {n}}}' for n in range(5)))
        home.land()
        home.fill()
    during, over = (home.indexing_with(home.index, clock=lambda at=at: at) for at in _AFTER)

    assert during.merge(FLIGHTS) == 0
    assert over.merge(FLIGHTS) == 1
    assert over.merge(FLIGHTS) == 0
    assert home.find("k:*", limit=100) == sent[::-1]

    sent += home.send('{"k": 1}')
    home.land()
    home.fill()
    assert over.merge(FLIGHTS) == 0
    assert home.find("k:1", limit=100) == [*sent[1::5], sent[-1]][::-1]
    assert home.count() == len(sent)


_AFTER = (last_moment("x-2025.11.24-x"), last_moment("x-2025.11.24-x") + 3_600 * SECOND)
"""When the day of `NOON` ends, and when it is over for long enough."""


def test_a_chart_adds_up(home) -> None:
    """Each of its events comes from the place where it is."""
    home.send(*('{"k": 1}' for _ in range(50)))
    home.land()
    home.fill()
    home.send(*('{"k": 1}' for _ in range(20)))
    home.land()
    home.send(*('{"k": 2}' for _ in range(30)))

    drawn = home.searcher.histogram(SearchRequest(collection=FLIGHTS), bars=10)
    some = home.searcher.histogram(
        SearchRequest(collection=FLIGHTS, query="k:1", since=NOON, until=NOON + 60 * SECOND),
        bars=6,
    )

    assert sum(bar.count for bar in drawn.bars) == 100
    assert [bar.count for bar in some.bars if bar.count] == [10] * 6


@pytest.mark.parametrize("home", ENGINES[1:], indirect=True)
@pytest.mark.parametrize("most", [7, 5_000])
def test_facets_are_those_of_the_lake_alone(home, monkeypatch, most: int) -> None:
    """Few events are read where the index says they are, of many all are looked at."""
    asked_at: list[int] = []

    def heard(log_id: str, places: Sequence[Place]) -> Sql:
        asked_at.append(len(places))
        return exactly_at(log_id, places)

    monkeypatch.setattr(looking, "MOST_PLACES", most)
    monkeypatch.setattr(looking, "exactly_at", heard)
    settled(home, list(EVENTS))
    home.searcher = home.searching(home.index, clock=lambda: micros(NOW))
    alone = home.searching(None, clock=lambda: micros(NOW))
    fields = [field_of(name) for name in ("data.carrier", "data.state", "source", "key")]

    for number, asked in enumerate((*SEARCHES, *FACTS)[::4]):
        request = SearchRequest(
            collection=FLIGHTS, query=asked.text, duplicates=("include", "fold", "only")[number % 3]
        )
        wanted = alone.facets(request, fields, most=20)
        assert home.searcher.facets(request, fields, most=20) == wanted, asked.text

    assert all(asked_at)
    assert len(asked_at) > 10
    assert max(asked_at) > 7 or most < 5_000


@pytest.mark.parametrize("home", ENGINES[1:], indirect=True)
def test_the_index_counts_which_events_have_a_value(home, monkeypatch) -> None:
    """What it is in doubt about, what it does not have yet, and what has not landed is added."""
    asked: list[int] = []
    counts = Part.counts

    def heard(part: Part, of: Sequence[Dsl]) -> list[int]:
        asked.append(len(of))
        return counts(part, of)

    monkeypatch.setattr(Part, "counts", heard)
    settled(home, list(EVENTS))
    home.searcher = home.searching(home.index, clock=lambda: micros(NOW))
    alone = home.searching(None, clock=lambda: micros(NOW))

    def agree_on(number: int, query: str, *names: str) -> None:
        fields = [field_of(name) for name in names]
        ways = ("include", "fold", "only")
        request = SearchRequest(collection=FLIGHTS, query=query, duplicates=ways[number % 3])
        for most in (2, 1_000):
            wanted = alone.facets(request, fields, most=most)
            assert home.searcher.facets(request, fields, most=most) == wanted, query

    told_by_index = [
        ("data.n", "data.delay"),
        ("data.late", "data.zip", "data.nowhere"),
        ("headers.x-request-id", "headers.tenant", "metadata.topic"),
        ("key", "content_type"),
    ]
    for number, search in enumerate((*SEARCHES, *FACTS)[::4]):
        agree_on(number, search.text, *told_by_index[number % len(told_by_index)])
    assert len(asked) > 30
    assert max(asked) > 20

    del asked[:]
    # Spelt in several ways, in no term, or both beside one that the index can be asked for.
    for names in [("data.carrier",), ("source",), ("log_offset",), ("data.n", "data.city")]:
        agree_on(0, "", *names)
    assert not asked


@pytest.mark.parametrize("home", ENGINES[1:], indirect=True)
def test_values_that_come_later_are_counted(home) -> None:
    """Which values there are is remembered for the files there were."""

    def told() -> dict[str, int]:
        request = SearchRequest(collection=FLIGHTS)
        [facet] = home.searcher.facets(request, [field_of("data.state")], most=10)
        assert facet.found == sum(one.count for one in facet.values) + facet.missing
        return {one.value: one.count for one in facet.values}

    home.send('{"state": "paid"}', '{"state": "paid"}', "{}")
    home.land()
    home.fill()
    assert told() == {"paid": 2}
    home.send('{"state": "sent"}', '{"state": 7}')
    home.land()
    assert told() == {"paid": 2, "sent": 1, "7": 1}
    home.fill()
    assert told() == {"paid": 2, "sent": 1, "7": 1}
    home.send('{"state": "Paid"}')
    assert told() == {"Paid": 3, "sent": 1, "7": 1}
    home.land()
    home.fill()
    assert told() == {"Paid": 3, "sent": 1, "7": 1}


def test_an_event_of_another_partition_or_log_is_not_counted_for_one_that_is_found(
    sql: Engine,
) -> None:
    """Offsets alone do not say which event is meant."""
    here = [Place(NOON, 0, 3), Place(NOON + SECOND, 1, 4)]
    with sql.reader() as reader:
        condition = exactly_at("log", here)
        rows = reader.rows(
            "SELECT log_id, log_partition, log_offset FROM (VALUES "
            "('log', 0, 3), ('log', 1, 3), ('log', 0, 4), ('log', 1, 4), ('other', 0, 3)) "
            "AS rows(log_id, log_partition, log_offset), "
            f"(SELECT make_timestamptz({NOON}) AS received_at) WHERE {condition.text}",
            condition.parameters,
        )

    found = list(zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True))
    assert found == [("log", 0, 3), ("log", 1, 4)]


@pytest.mark.parametrize("home", ENGINES[1:], indirect=True)
def test_an_index_that_has_everything_is_asked_alone(home, monkeypatch) -> None:
    """Then the lake is read to show the events, and for nothing else."""
    selected = looking._selected
    asked: list[str] = []

    def heard(reader: Reader, select: Sql, relation: str, where: Sql, rest: str) -> pa.Table:
        asked.append(select.text)
        return selected(reader, select, relation, where, rest)

    monkeypatch.setattr(looking, "_selected", heard)
    home.send('{"k": 1}', '{"k": 2}', '{"k": 1}')
    home.land()
    home.fill()

    assert home.find("k:1") == ["e2", "e0"]
    assert [text.startswith("event_id, ") for text in asked] == [True]
    assert home.count("k:1") == 2
    assert len(asked) == 1

    home.send('{"k": 1}')
    home.land()
    assert home.find("k:1") == ["e3", "e2", "e0"]
    assert PLACE.text in asked


def test_times_bound_the_search(home) -> None:
    """Days are indices, and a bound may lie within one or leave them all out."""
    home.send("{}", "{}")
    home.send("{}", at=NOON + DAY)
    home.send("{}", at=NOON + 2 * DAY)
    home.land()
    home.fill()

    assert home.find(since=NOON + SECOND) == ["e3", "e2", "e1"]
    assert home.find(until=NOON + 2 * SECOND) == ["e1", "e0"]
    assert home.find(since=NOON + DAY, until=NOON + 2 * DAY) == ["e2"]
    assert home.find(since=NOON + 9 * DAY) == []
    assert home.find(until=NOON - 9 * DAY) == []


def test_modifiers_and_quarantine_are_answered(home) -> None:
    """The lake answers them, as far as it is."""
    home.send('{"n": 3}', '{"n": 1}', '{"broken', '{"n": 3}')
    home.land()
    home.fill()
    home.send('{"n": 2}')

    assert home.find("n:* ${ORDER_BY n AND SORT ASC}") == ["e1", "e4", "e3", "e0"]
    assert home.find("${UNIQUE n}") == ["e4", "e3", "e1"]
    assert home.find("${ORDER_BY received_at AND SORT ASC AND LIMIT 2}") == ["e0", "e1"]
    assert home.find(view="quarantine") == ["e2"]
    assert home.searcher.event(FLIGHTS, "e1").payload == b'{"n": 1}'

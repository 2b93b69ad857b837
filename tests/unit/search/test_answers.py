"""What a search answers: order, pages, windows, modifiers, and everything acknowledged, always."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import msgspec
import pytest
from builders import FLIGHTS, NOON, event
from lakes import BROKEN, new_lake

from assets.landing import Landing
from lakehouse.listing import Listing
from lakehouse.sql import Engine, open_engine
from penstock.buffer.embedded import EmbeddedAppender, EmbeddedBuffer
from penstock.buffer.memory import MemoryLog
from penstock.envelope import Event
from penstock.errors import BadRequest, EngineUnavailable
from penstock.query import parse
from penstock.schema.convert import Rules
from penstock.search import Page, SearchRequest, View
from penstock.search import cursor as cursors
from penstock.search.bars import nice_step
from penstock.search.cut import Cuts
from penstock.search.embedded import MOST_ORDERED, EmbeddedSearcher
from penstock.search.looking import Definite, Looking, TableFiles
from penstock.search.ordering import Ordered, Value, first_of
from penstock.search.tail import Tails
from penstock.search.values import KnownValues

SECOND = 1_000_000


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = open_engine(tmp_path_factory.mktemp("spill"), memory="500MB")
    yield engine
    engine.close()


class Home:
    """A log, a lake, and searchers over both."""

    def __init__(self, folder: Path, engine: Engine, log=None) -> None:
        self.log = log or MemoryLog()
        self.lake = new_lake(folder)
        self.engine = engine
        self._numbers = count()
        self.landing = Landing(
            self.log, self.lake, rules=lambda _: Rules(), clock=lambda: NOON, wait=lambda _: None
        )
        self.searcher = self.searching()

    def searching(self, **more) -> EmbeddedSearcher:
        return EmbeddedSearcher(
            self.lake, self.log, self.engine, rules=lambda _: Rules(), clock=lambda: NOON, **more
        )

    def event(self, payload: bytes | str, at: int | None = None) -> Event:
        n = next(self._numbers)
        return event(payload, id=f"e{n}", received_at=NOON + (n if at is None else at) * SECOND)

    def send(self, *payloads: bytes | str) -> None:
        self.log.append(FLIGHTS, [self.event(payload) for payload in payloads]).result()

    def land(self) -> None:
        while self.landing.land_once(FLIGHTS) is not None:
            pass

    def page(self, query: str = "", searcher: EmbeddedSearcher | None = None, **asked) -> Page:
        request = SearchRequest(collection=FLIGHTS, query=query, **asked)
        return (searcher or self.searcher).search(request)

    def find(self, query: str = "", **asked) -> list[str]:
        return [found.event_id for found in self.page(query, **asked).events]

    def find_all(self, query: str = "", **asked) -> list[str]:
        """Answer the ids on all pages of a search."""
        found, cursor = [], None
        for _ in range(200):
            page = self.page(query, cursor=cursor, **asked)
            found += [one.event_id for one in page.events]
            cursor = page.cursor
            if cursor is None:
                return found
        raise AssertionError("the pages never end")


@pytest.fixture
def home(tmp_path: Path, engine: Engine) -> Home:
    return Home(tmp_path, engine)


# Modifiers


def test_events_come_in_the_order_asked_for_wherever_they_are(home) -> None:
    """Half of them have landed, and one of the values has no column."""
    home.send('{"n": 3}', '{"n": 1}', '{"m": 0}')
    home.land()
    home.send('{"n": 2}', '{"n": "x"}', '{"n": 3}')

    assert home.find("${ORDER_BY n AND SORT ASC}") == ["e1", "e3", "e5", "e0", "e4", "e2"]
    assert home.find("${ORDER_BY n}") == ["e4", "e5", "e0", "e3", "e1", "e2"]
    assert home.find("n:* ${ORDER n AND SORT ASC AND LIMIT 2}") == ["e1", "e3"]
    assert home.find("${ORDER_BY received_at AND SORT ASC AND LIMIT 2}") == ["e0", "e1"]
    assert home.find("${ORDER_BY log_offset AND SORT ASC}") == [f"e{n}" for n in range(6)]


def test_one_event_of_each_value_is_shown(home) -> None:
    """The newest of each; those without the field are none of them."""
    home.send('{"c": "UA"}', '{"c": "aa"}', '{"c": 7}')
    home.land()
    home.send('{"c": "ua"}', "{}", '{"c": 7.0}', '{"c": "AA"}')

    assert home.find("${UNIQUE c}") == ["e6", "e5", "e3"]
    assert home.find("${UNIQUE c AND LIMIT 1}") == ["e6"]
    assert home.find("${UNIQUE c AND ORDER_BY log_offset AND SORT ASC}") == ["e0", "e1", "e2"]
    assert home.searcher.count(SearchRequest(collection=FLIGHTS, query="${UNIQUE c}")) == 7


def test_a_limit_holds_for_all_pages_together(home) -> None:
    """It says how many events somebody wants, not how large a page is."""
    home.send(*("{}" for _ in range(9)))

    assert home.find_all("${LIMIT 7}", limit=3) == [f"e{n}" for n in range(8, 1, -1)]
    assert home.find_all("${LIMIT 3}", limit=3) == ["e8", "e7", "e6"]
    assert home.page("${LIMIT 3}", limit=3).cursor is None


def test_every_page_of_another_order_is_told(home) -> None:
    """An answer without a cursor says that this was all."""
    home.send(*(f'{{"n": {n % 7}, "k": {n}}}' for n in range(20)))
    home.land()
    home.send(*(f'{{"n": {n % 7}, "k": {n}}}' for n in range(20, 30)))
    whole = home.find("* ${ORDER_BY n AND SORT ASC}", limit=1_000)

    assert len(set(whole)) == 30
    assert home.find_all("* ${ORDER_BY n AND SORT ASC}", limit=4) == whole
    assert len(home.find_all("${UNIQUE n}", limit=3)) == 7
    assert home.find_all("* ${ORDER_BY n AND SORT ASC AND LIMIT 9}", limit=4) == whole[:9]


def test_another_order_is_told_as_far_as_it_can_be_and_no_further(home) -> None:
    """Each page would take longer than the one before, and in the end the memory."""
    home.send(*("{}" for _ in range(3)))
    text = home.page("* ${ORDER_BY n}", limit=1).cursor
    asked = SearchRequest(collection=FLIGHTS, query="* ${ORDER_BY n}", cursor=text)
    cursor = msgspec.structs.replace(
        cursors.read(asked, home.log.log_id(FLIGHTS)), given=MOST_ORDERED
    )

    with pytest.raises(BadRequest, match="look for fewer"):
        home.page("* ${ORDER_BY n}", limit=1, cursor=cursors.write(cursor))


def test_ordered_answers_of_several_sources_are_merged() -> None:
    """Rank first, then number or text, then the newest; of equal ones only the first."""
    rows = [
        Ordered((3, 0, 3), (0, 1.0, None), (1, None, "a")),
        Ordered((1, 0, 1), (0, 2.0, None), (1, None, "a")),
        Ordered((2, 0, 2), (1, None, "x"), (1, None, "b")),
        Ordered((4, 0, 4), (0, 2.0, None), (1, None, "c")),
    ]

    assert first_of(_typed(rows), descending=False) == [(3, 0, 3), (4, 0, 4), (2, 0, 2)]
    assert first_of(_typed(rows), descending=True) == [(4, 0, 4), (1, 0, 1), (2, 0, 2)]


def _typed(rows: Sequence[Ordered]) -> list[Ordered]:
    from penstock.search import Place

    return [Ordered(Place(*r.place), Value(*r.value), Value(*r.same)) for r in rows]


# Windows


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("view", ["main", "quarantine"])
def test_searching_the_newest_first_finds_the_same_events(
    home, newest_first: bool, view: View
) -> None:
    """Also where events were not received in the order of the log."""
    chance = random.Random(3)
    for _ in range(3):
        events = [
            home.event(
                chance.choice([BROKEN, '{"k": 1, "w": "alpha"}', '{"k": 2}', b"alpha text"]),
                at=chance.randrange(40),
            )
            for _ in range(25)
        ]
        home.log.append(FLIGHTS, events).result()
        home.land()
    small = home.searching(windows=(2, 7, 30))

    for query in ("", "k:1", "NOT alpha", "k:3"):
        asked = {"newest_first": newest_first, "view": view, "limit": 9}
        plain = home.find_all(query, searcher=home.searching(windows=()), **asked)
        assert home.find_all(query, searcher=small, **asked) == plain


def test_a_full_page_of_new_events_needs_no_older_ones(home) -> None:
    """The point of it: a page of a large table is answered without reading it all."""
    home.send(*('{"k": 1}' for _ in range(50)))
    home.land()
    asked: list[str] = []

    class Heard:
        def __init__(self, reader) -> None:
            self._reader = reader

        def __getattr__(self, name: str):
            return getattr(self._reader, name)

        def rows(self, text, parameters=()):
            asked.append(text)
            return self._reader.rows(text, parameters)

    request = SearchRequest(collection=FLIGHTS, query="k:1")
    search = Definite(request, parse("k:1", now=NOON), NOON, None)
    cut = Cuts(home.lake, home.log, Tails(home.log, lambda _: Rules())).take(FLIGHTS, "main")
    with home.engine.reader() as reader:
        looking = Looking(search, cut, Heard(reader), home.engine, (10, 20))
        places = looking.first(5)

    assert [place.offset for place in places] == [49, 48, 47, 46, 45]
    assert sum("LIMIT" in text for text in asked) == 1


def test_the_rows_of_a_page_are_read_and_few_besides(home) -> None:
    """Rare events stand far apart, and unpacking all payloads between them takes as long again."""
    sent = [home.event(f'{{"k": {n % 2_500 == 0:d}}}'.encode()) for n in range(10_000)]
    home.log.append(FLIGHTS, sent).result()
    home.land()
    explained: list[str] = []

    class Explaining:
        def __init__(self, reader) -> None:
            self._reader = reader

        def __getattr__(self, name: str):
            return getattr(self._reader, name)

        def rows(self, text, parameters=()):
            plan = self._reader.rows(f"EXPLAIN (ANALYZE, FORMAT json) {text}", parameters)
            explained.append(plan["explain_value"][0].as_py())
            return self._reader.rows(text, parameters)

    request = SearchRequest(collection=FLIGHTS, query="k:1")
    search = Definite(request, parse("k:1", now=NOON), NOON, None)
    cut = Cuts(home.lake, home.log, Tails(home.log, lambda _: Rules())).take(FLIGHTS, "main")
    with home.engine.reader() as reader:
        places = Looking(search, cut, reader, home.engine).first(10)
        events = Looking(search, cut, Explaining(reader), home.engine).read(places)

    assert [found.log_offset for found in events] == [7_500, 5_000, 2_500, 0]
    assert [_scanned(json.loads(plan)) for plan in explained] == [4]


@pytest.mark.parametrize("singly", [True, False])
def test_payloads_of_a_page_are_read_one_by_one_where_that_can_be_done(home, singly: bool) -> None:
    """The engine unpacks all payloads before them, which takes longer than everything else."""
    for part in range(2):
        sent = [home.event(f'{{"n": {n}, "part": {part}}}'.encode()) for n in range(3_000)]
        home.log.append(FLIGHTS, sent).result()
        home.land()
    listing = Listing(home.lake)
    cut = Cuts(home.lake, home.log, Tails(home.log, lambda _: Rules())).take(FLIGHTS, "main")
    listed = listing.files(cut.table)
    assert listed is not None
    asked: list[str] = []

    class Heard:
        def __init__(self, reader) -> None:
            self._reader = reader

        def __getattr__(self, name: str):
            return getattr(self._reader, name)

        def rows(self, text, parameters=()):
            asked.append(text)
            return self._reader.rows(text, parameters)

    request = SearchRequest(collection=FLIGHTS, query="n:7 OR n:2999")
    search = Definite(request, parse(request.query, now=NOON), NOON, None)
    read = listing.payloads if singly else lambda file, rows: None
    files = TableFiles(listed, cut.table.uuid, None, read, KnownValues())
    with home.engine.reader() as reader:
        looking = Looking(search, cut, Heard(reader), home.engine, files=lambda: files)
        events = looking.read(looking.first(10))

    assert [found.payload for found in events] == [
        f'{{"n": {n}, "part": {part}}}'.encode() for part in (1, 0) for n in (2_999, 7)
    ]
    assert any(" payload," in text for text in asked) is not singly


def _scanned(plan) -> int:
    """Answer how many rows a plan's scans gave to what is above them."""
    if "SCAN" in plan.get("operator_type", ""):
        return plan["operator_cardinality"]
    return sum(_scanned(child) for child in plan["children"])


@pytest.mark.parametrize("limit", [10, 100])
def test_pages_of_few_and_of_many_events_show_what_is_there(home, limit: int) -> None:
    """Their rows are found in two ways."""
    home.send(*("{}" for _ in range(150)))
    home.land()

    assert home.find_all(limit=limit) == [f"e{n}" for n in range(149, -1, -1)]


# How far


def test_a_page_says_how_far_it_goes_and_a_number_is_not_given_then(home) -> None:
    """Landing stands still, and more waits than can be searched."""
    home.send('{"n": 1}')
    home.land()
    for n in range(5):
        home.send(f'{{"n": {n}}}')
    little = home.searching(tail_bytes=1)
    home.log.read = _one_by_one(home.log.read)

    page = home.page(searcher=little)

    assert [found.event_id for found in page.events] == ["e1", "e0"]
    assert (page.complete_up_to, page.unsearched, page.tail_rows) == ({0: 2}, 4, 1)
    with pytest.raises(EngineUnavailable, match="4 events"):
        little.count(SearchRequest(collection=FLIGHTS))


def _one_by_one(read):
    return lambda *args, max_bytes, **more: read(*args, max_bytes=1, **more)


def test_a_page_says_what_it_covers(home) -> None:
    """And whether payloads had to be read for it."""
    home.send('{"a": null}')
    home.land()
    home.send("{}", "{}")

    page = home.page("a:null")

    assert (page.complete_up_to, page.unsearched, page.tail_rows) == ({0: 3}, 0, 2)
    assert page.reads_payloads
    assert not home.page("a:1").reads_payloads
    assert home.page("a:1", view="quarantine").reads_payloads


def test_what_cannot_be_asked_is_refused(home) -> None:
    """With a sentence."""
    with pytest.raises(BadRequest, match="1 to 1,000"):
        home.page(limit=0)
    with pytest.raises(BadRequest, match="since is not before until"):
        home.page(since=NOON, until=NOON)
    with pytest.raises(BadRequest, match="1 bar"):
        home.searcher.histogram(SearchRequest(collection=FLIGHTS), bars=0)


def test_garbage_for_a_cursor_is_refused_and_nothing_worse(home) -> None:
    """Cursors come back from browsers."""
    chance = random.Random(1)
    home.send("{}", "{}")
    whole = home.page(limit=1).cursor
    assert whole is not None

    for _ in range(300):
        place = chance.randrange(len(whole))
        spoilt = (
            whole[:place] + chance.choice("Az09-_=é\n ") + whole[place + chance.randint(0, 2) :]
        )
        if spoilt.rstrip("=") != whole:
            with pytest.raises(BadRequest):
                home.page(limit=1, cursor=spoilt)


def test_a_cursor_of_another_log_is_refused(home, tmp_path) -> None:
    """Its ends mean other events there."""
    home.send("{}", "{}")
    cursor = home.page(limit=1).cursor
    other = Home(tmp_path / "other", home.engine, MemoryLog("00000000-0000-0000-0000-000000000002"))

    with pytest.raises(BadRequest, match="another log"):
        other.page(limit=1, cursor=cursor)


def test_now_stands_still_from_page_to_page(home) -> None:
    """Else events would fall out of a window while somebody reads."""
    times = iter(range(NOON + 10 * SECOND, NOON + 10_000 * SECOND, 5 * SECOND))
    searcher = EmbeddedSearcher(
        home.lake, home.log, home.engine, rules=lambda _: Rules(), clock=lambda: next(times)
    )
    home.send(*("{}" for _ in range(10)))

    found = home.find_all("received_at:>=now-10s", searcher=searcher, limit=2)

    assert found == [f"e{n}" for n in range(9, -1, -1)]


def test_bars_of_a_window_cover_the_window(home) -> None:
    """The page shows the time that was asked for, events or not."""
    home.send("{}")
    request = SearchRequest(collection=FLIGHTS, since=NOON - 60 * SECOND, until=NOON + 60 * SECOND)

    drawn = home.searcher.histogram(request, bars=12)

    assert (drawn.step, len(drawn.bars)) == (10 * SECOND, 12)
    assert [bar.count for bar in drawn.bars] == [0] * 6 + [1] + [0] * 5


def test_bars_of_all_times_there_are_begin_in_the_first_year(home) -> None:
    """A step that began before it could not be told."""
    least = -62_135_596_800 * SECOND
    request = SearchRequest(collection=FLIGHTS, since=least, until=253_402_300_799 * SECOND)

    assert home.searcher.histogram(request, bars=1_000).bars[0].start == least


def test_a_very_long_time_has_few_bars_all_the_same() -> None:
    """`since` may be the year 1970."""
    span = 56 * 365 * 86_400 * SECOND

    assert span // nice_step(span, 60) < 60


# The promise


def test_an_event_on_the_real_log_is_found_at_once(tmp_path, engine) -> None:
    """Acknowledged means findable, with the files that doors write."""
    appender = EmbeddedAppender(tmp_path / "log", trim_seconds=0)
    buffer = EmbeddedBuffer(tmp_path / "log")
    home = Home(tmp_path / "home", engine, buffer)
    for n in range(6):
        appender.append(FLIGHTS, [event(f'{{"n": {n}}}', id=f"e{n}")]).result(30)
        assert home.find(f"n:{n}") == [f"e{n}"]
        if n % 2:
            home.land()
            assert sorted(home.find()) == [f"e{m}" for m in range(n + 1)]
    buffer.close()
    appender.close()


@pytest.mark.parametrize("seed", range(2))
def test_whatever_happens_each_acknowledged_event_is_found_once(tmp_path, engine, seed) -> None:
    """A model that only remembers what was acknowledged, beside sending, landing and paging."""
    chance = random.Random(seed)
    home = Home(tmp_path, engine)
    rows: list[str] = []
    quarantined: list[str] = []
    open_pages: list[tuple[str | None, list[str], list[str]]] = []
    for _ in range(50):
        match chance.randrange(6):
            case 0 | 1:
                sent = [
                    home.event(
                        BROKEN if chance.random() < 0.2 else f'{{"k{chance.randrange(9)}": 1}}'
                    )
                    for _ in range(chance.randint(1, 5))
                ]
                home.log.append(FLIGHTS, sent).result()
                for one in sent:
                    (quarantined if one.payload == BROKEN else rows).append(one.id)
            case 2:
                home.land()
            case 3:
                open_pages.append((None, [], list(reversed(rows))))
            case 4 if open_pages:
                cursor, seen, wanted = open_pages.pop()
                if cursor is None:
                    wanted = list(reversed(rows))
                page = home.page(limit=4, cursor=cursor)
                seen = seen + [found.event_id for found in page.events]
                if page.cursor is None:
                    assert seen == wanted
                else:
                    open_pages.append((page.cursor, seen, wanted))
            case _:
                assert home.find(limit=1_000) == list(reversed(rows))
                asked = SearchRequest(collection=FLIGHTS, view="quarantine")
                assert home.searcher.count(asked) == len(quarantined)

"""Search over lake and tail: every acknowledged event, once, whatever landing does meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from builders import FLIGHTS, NOON, event
from lakes import new_lake

from assets.landing import Landing
from lakehouse import Lake
from lakehouse.sql import Engine, open_engine
from penstock.buffer.memory import MemoryLog
from penstock.errors import BadQuery, BadRequest, EngineUnavailable, NotFound
from penstock.schema.convert import Rules
from penstock.search import SearchRequest
from penstock.search.bars import nice_step
from penstock.search.embedded import EmbeddedSearcher

SECOND = 1_000_000


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = open_engine(tmp_path_factory.mktemp("spill"), memory="500MB")
    yield engine
    engine.close()


class Home:
    """A log, a lake and the search over both."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self._engine = engine
        self.log = MemoryLog()
        self.lake = new_lake(folder)
        self.numbers = count()
        self.searcher = self.searching(self.lake)
        self.landing = Landing(
            self.log, self.lake, rules=lambda _: Rules(), clock=lambda: NOON, wait=lambda _: None
        )

    def searching(self, lake: Lake) -> EmbeddedSearcher:
        return EmbeddedSearcher(
            lake,
            self.log,
            self._engine,
            rules=lambda _: Rules(),
            clock=lambda: NOON + 3_600 * SECOND,
        )

    def send(self, *payloads: str) -> list[str]:
        """Acknowledge events; answer their ids."""
        events = []
        for payload in payloads:
            n = next(self.numbers)
            events.append(event(payload, id=f"e{n}", received_at=NOON + n * SECOND))
        self.log.append(FLIGHTS, events).result()
        return [one.id for one in events]

    def land(self) -> None:
        while self.landing.land_once(FLIGHTS) is not None:
            pass

    def find(self, query: str = "", **asked) -> list[str]:
        request = SearchRequest(collection=FLIGHTS, query=query, **asked)
        return [found.event_id for found in self.searcher.search(request).events]

    def count(self, query: str = "", **asked) -> int:
        return self.searcher.count(SearchRequest(collection=FLIGHTS, query=query, **asked))


@pytest.fixture
def home(tmp_path: Path, engine: Engine) -> Home:
    return Home(tmp_path, engine)


def test_an_event_is_found_before_and_after_it_landed_and_once(home) -> None:
    """Neither missing while it waits, nor doubled once it is a row as well."""
    sent = home.send('{"n": 1}')
    before = home.find("n:1")
    home.land()

    assert before == home.find("n:1") == sent


def test_lake_and_tail_are_one_answer_newest_first(home) -> None:
    """People do not know, and need not know, what has landed."""
    home.send('{"n": 1}', '{"n": 2}')
    home.land()
    home.send('{"n": 3}', '{"n": "four"}')

    assert home.find() == ["e3", "e2", "e1", "e0"]
    assert home.find(newest_first=False) == ["e0", "e1", "e2", "e3"]
    assert home.find("n:>1") == ["e2", "e1"]
    assert home.count() == 4


def test_a_tail_with_new_columns_is_found_beside_a_lake_without(home) -> None:
    """Both are asked with the shape they have."""
    home.send('{"old": 1}')
    home.land()
    home.send('{"new": {"deep": ["x"]}}')

    assert home.find("new.deep:x") == ["e1"]
    assert home.find("_exists_:old") == ["e0"]
    assert home.find("NOT old:1") == ["e1"]


def test_pages_of_one_cursor_are_disjoint_and_complete_while_events_arrive_and_land(home) -> None:
    """A page that shifts under new events shows some twice and others never."""
    sent = home.send(*('{"k": 1}' for _ in range(10)))
    pages, cursor = [], None
    for _ in range(10):
        asked = SearchRequest(collection=FLIGHTS, query="k:1", limit=3, cursor=cursor)
        page = home.searcher.search(asked)
        pages += [found.event_id for found in page.events]
        cursor = page.cursor
        if cursor is None:
            break
        home.send('{"k": 1}')
        home.land()

    assert pages == sorted(sent, key=lambda e: -int(e[1:]))


@pytest.mark.parametrize(
    "spoil", [lambda c: c[:-4], lambda c: "x" + c, lambda _: "", lambda _: "ä"]
)
def test_a_cursor_that_is_not_whole_is_refused(home, spoil) -> None:
    """Guessing at it would show a wrong page."""
    home.send('{"k": 1}', '{"k": 2}')
    cursor = home.searcher.search(SearchRequest(collection=FLIGHTS, limit=1)).cursor

    with pytest.raises(BadRequest, match="cursor"):
        home.searcher.search(SearchRequest(collection=FLIGHTS, limit=1, cursor=spoil(cursor)))


def test_a_cursor_of_another_search_is_refused(home) -> None:
    """It would answer a mixture of two questions."""
    home.send('{"k": 1}', '{"k": 2}')
    cursor = home.searcher.search(SearchRequest(collection=FLIGHTS, limit=1)).cursor

    with pytest.raises(BadRequest, match="another search"):
        home.find("k:1", cursor=cursor)


def test_quarantined_events_are_found_in_their_view_before_and_after_landing(home) -> None:
    """What cannot become a row must be findable, or nobody repairs it."""
    home.send('{"broken', '{"n": 1}')
    before = home.find(view="quarantine"), home.find()
    home.land()
    request = SearchRequest(collection=FLIGHTS, view="quarantine")
    found = home.searcher.search(request).events[0]

    assert before == (["e0"], ["e1"])
    assert (home.find(view="quarantine"), home.find()) == before
    assert (found.stage, found.reason, found.payload) == ("gate", "invalid_json", b'{"broken')


def test_everything_about_an_event_is_answered(home) -> None:
    """The page of an event shows what was received, and nothing made up."""
    sent = event(
        '{"n": 1}',
        id='odd "id" \\ with: signs',
        key=b"\x00k",
        headers=(("x", b"1"), ("x", b""), ("y", b"\xff")),
        metadata={"topic": "t"},
        event_time=NOON - 5,
    )
    home.log.append(FLIGHTS, [sent]).result()
    before = home.searcher.event(FLIGHTS, sent.id)
    home.land()
    after = home.searcher.event(FLIGHTS, sent.id)

    assert before == after
    assert (after.key, after.headers, after.metadata, after.event_time, after.received_at) == (
        sent.key,
        sent.headers,
        sent.metadata,
        sent.event_time,
        sent.received_at,
    )


def test_an_unknown_event_is_said_to_be_unknown(home) -> None:
    """404 and not an empty page."""
    home.send('{"n": 1}')

    with pytest.raises(NotFound):
        home.searcher.event(FLIGHTS, "nobody")


def test_the_newest_event_of_an_id_is_answered_wherever_it_stands(home) -> None:
    """A sender that sends again takes the id again; clocks of doors may have been set back."""

    def send(payload: str, at: int) -> None:
        home.log.append(FLIGHTS, [event(payload, id="twice", received_at=NOON + at)]).result()

    def found() -> bytes:
        return home.searcher.event(FLIGHTS, "twice").payload

    send("[0]", 5)
    home.land()
    send("[1]", 7)
    assert found() == b"[1]"
    home.land()
    assert found() == b"[1]"
    send("[2]", 6)
    assert found() == b"[1]"
    send('{"broken', 8)
    assert found() == b'{"broken'
    home.land()
    assert found() == b'{"broken'
    send("[3]", 8)
    assert found() == b"[3]"


def test_an_id_is_that_id_and_no_other(home) -> None:
    """Searches do not mind case, but senders may tell their events apart by it."""
    for name in ("a1", "A1"):
        home.log.append(FLIGHTS, [event("{}", id=name, received_at=NOON)]).result()

    assert home.searcher.event(FLIGHTS, "a1").event_id == "a1"
    with pytest.raises(NotFound):
        home.searcher.event(FLIGHTS, "a1 ")


def test_an_event_that_has_not_landed_is_answered_without_a_file_of_the_lake(
    home, tmp_path: Path
) -> None:
    """Right after it was acknowledged it is looked at most, and the lake is large."""
    landed = home.send('{"n": 1}')
    home.land()
    sent = home.send('{"n": 2}')
    for file in tmp_path.rglob("*.parquet"):
        file.unlink()

    assert home.searcher.event(FLIGHTS, sent[0]).payload == b'{"n": 2}'
    with pytest.raises(EngineUnavailable):
        home.searcher.event(FLIGHTS, landed[0])


def test_counts_and_histograms_agree_with_what_is_found(home) -> None:
    """A chart that does not add up is worse than none."""
    home.send(*('{"k": 1}' for _ in range(90)))
    home.land()
    home.send(*('{"k": 2}' for _ in range(30)))

    drawn = home.searcher.histogram(SearchRequest(collection=FLIGHTS), bars=10)

    assert sum(bar.count for bar in drawn.bars) == home.count() == 120
    assert len(drawn.bars) <= 11
    assert [b.start - a.start for a, b in zip(drawn.bars, drawn.bars[1:], strict=False)] == [
        drawn.step
    ] * (len(drawn.bars) - 1)


def test_times_bound_the_search(home) -> None:
    """Since is inclusive, until exclusive."""
    home.send(*("{}" for _ in range(4)))
    home.land()

    found = home.find(since=NOON + SECOND, until=NOON + 3 * SECOND)

    assert found == ["e2", "e1"]


def test_explicit_nulls_and_lengths_are_read_from_payloads(home) -> None:
    """No column tells a null from an absent field."""
    home.send('{"a": null, "l": [1, 2]}', '{"b": 1, "l": []}')
    before = home.find("a:null"), home.find("l.length():>1")
    home.land()

    assert before == (home.find("a:null"), home.find("l.length():>1")) == (["e0"], ["e0"])


def test_a_wrong_query_points_at_the_character(home) -> None:
    """Never a stack trace."""
    with pytest.raises(BadQuery) as refused:
        home.find("a AND")

    assert refused.value.position == 5


class LandsDuring(Lake):
    """A lake in which landing commits right after the table was loaded for a search."""

    def __init__(self, real: Lake, after_view: Callable[[], None]) -> None:
        self.__dict__.update(real.__dict__)
        self._after_view = after_view

    def view(self, collection):
        view = super().view(collection)
        self._after_view()
        return view


def test_landing_between_the_reads_neither_hides_nor_doubles(home) -> None:
    """Snapshot and marks come from one load, and the log's ends were read before it."""
    home.send('{"n": 1}')
    home.land()
    sent = home.send('{"n": 2}')
    home.searcher = home.searching(LandsDuring(home.lake, home.land))

    assert home.find("n:2") == sent
    assert home.count() == 2


def test_events_acknowledged_after_the_search_began_stay_out_of_its_pages(home) -> None:
    """The cut is what was acknowledged when the search began."""
    home.send('{"n": 1}')
    home.land()
    home.searcher = home.searching(LandsDuring(home.lake, lambda: home.send('{"n": 1}')))

    assert home.count("n:1") == 1


def test_many_small_growths_of_the_tail_are_one_answer(home) -> None:
    """The tail is kept in pieces between searches."""
    for n in range(20):
        home.send(f'{{"n": {n}}}')
        assert home.count() == n + 1
    home.land()
    home.send('{"n": 20}')

    assert home.count() == 21
    assert len(home.find(limit=100)) == 21


def test_steps_are_times_people_use() -> None:
    """A bar of 37 seconds reads badly."""
    assert nice_step(0, 60) == SECOND
    assert nice_step(3_600 * SECOND, 60) == 120 * SECOND
    assert nice_step(3_599 * SECOND, 60) == 60 * SECOND

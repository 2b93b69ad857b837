"""A quarantine as a workplace: look, try, release, discard; each event is there once, always."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from builders import FLIGHTS, NOON, event
from lakes import landing as landing_of
from lakes import new_lake
from releasing import ALL, AppendingDoor, books, closings, land_all, release_all, workplace

from assets.checks import check_conservation
from assets.landing import Limits
from assets.release import Asked
from lakehouse.closings import Closing, close, count_closed
from lakehouse.sql import Engine, open_engine
from penstock.buffer.memory import MemoryLog
from penstock.errors import BadRequest, NotFound
from penstock.quarantine.release import Origin
from penstock.quarantine.repair import Put, Repair, transform
from penstock.quarantine.repair import replace as put_in_place
from penstock.schema.convert import Rules
from penstock.search import SearchRequest
from penstock.search.embedded import EmbeddedSearcher

BOM = b"\xef\xbb\xbf"
AS_TEXT = Repair(content_type="text/plain")
DROP_BOM = Repair(steps=(transform("bom"),))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = open_engine(tmp_path_factory.mktemp("spill"), memory="500MB")
    yield engine
    engine.close()


class Home:
    """A log with good events and bad ones, landed."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self.log = MemoryLog()
        self.lake = new_lake(folder)
        self.landing = landing_of(self.log, self.lake)
        self.work = workplace(self.lake, self.log, engine)
        self.door = AppendingDoor(self.log.append)
        self.ids: list[str] = []

    def send(self, *payloads: bytes, **more: object) -> None:
        first = len(self.ids)
        events = [
            event(payload, id=f"e{n}", received_at=NOON + n, **more)  # type: ignore[arg-type]  # a builder's
            for n, payload in enumerate(payloads, first)
        ]
        self.ids += [one.id for one in events]
        self.log.append(FLIGHTS, events).result()

    def land(self) -> None:
        land_all(self.landing)

    def conserved(self) -> bool:
        return check_conservation(self.lake, FLIGHTS, self.log.log_id(FLIGHTS)).passed


@pytest.fixture
def home(tmp_path: Path, engine: Engine) -> Home:
    home = Home(tmp_path, engine)
    home.send(b'{"n": 0}', BOM + b'{"n": 1}', b'{"n": NaN}', BOM + b'{"n": 3}')
    home.land()
    return home


def test_causes_are_counted_over_time(home: Home) -> None:
    """People look for what to do first."""
    home.send(b"{}", quarantine=True)
    home.land()

    causes = home.work.causes(FLIGHTS)

    assert [(c.why, c.count, c.first, c.last) for c in causes.causes] == [
        (("gate", "invalid_json"), 3, NOON + 1, NOON + 3),
        (("wish", "sender"), 1, NOON + 4, NOON + 4),
    ]
    assert [c.bars for c in causes.causes] == [(3,), (1,)]
    assert (causes.open, causes.closed) == (4, 0)
    assert home.work.causes(FLIGHTS, since=NOON + 4).open == 1
    assert home.work.causes(FLIGHTS, until=NOON + 2).open == 1


def test_a_quarantine_is_read_again_only_when_it_has_changed(home: Home) -> None:
    """Pages ask every few seconds: each time all rows would be read, of every collection."""
    first, before = home.work.causes(FLIGHTS), home.work.works(FLIGHTS)
    home.send(b'{"n": 9}')
    home.land()

    assert home.work.causes(FLIGHTS) is first
    assert home.work.works(FLIGHTS) is before
    assert home.work.causes(FLIGHTS, until=NOON + 2).open == 1

    home.work.discard(ALL, why="a test", by="ann", limit=1)
    assert (home.work.causes(FLIGHTS).open, home.work.causes(FLIGHTS).closed) == (2, 1)
    assert [one.count for one in home.work.works(FLIGHTS)] == [1]

    home.send(b'{"n": NaN}')
    home.land()
    assert home.work.causes(FLIGHTS).open == 3


def test_a_collection_of_which_nothing_landed_has_no_causes(tmp_path: Path, engine: Engine) -> None:
    assert Home(tmp_path, engine).work.causes(FLIGHTS).causes == ()


def test_an_event_is_shown_with_the_place_where_it_is_wrong(home: Home) -> None:
    shown = home.work.show(FLIGHTS, "e2")

    assert shown.closing is None
    assert (shown.place.byte, shown.place.before, shown.place.after) == (6, '{"n": ', "NaN}")
    with pytest.raises(NotFound):
        home.work.show(FLIGHTS, "e0")
    with pytest.raises(NotFound):
        home.work.show(FLIGHTS, 'E2" OR "')


def test_a_trial_tells_what_each_event_would_become_and_changes_nothing(home: Home) -> None:
    tried = home.work.attempt(ALL, DROP_BOM, limit=10)

    assert [(t.found.event_id, t.row, t.reason, t.columns) for t in tried.trials] == [
        ("e1", True, None, (("n", "1"),)),
        ("e2", False, "invalid_json", ()),
        ("e3", True, None, (("n", "3"),)),
    ]
    assert home.door.sent == []
    assert books(home.lake).open == Counter(["e1", "e2", "e3"])


def test_a_released_event_becomes_a_row_and_its_quarantine_row_is_closed(home: Home) -> None:
    pages = release_all(home.work, home.door, DROP_BOM, limit=2)
    home.land()

    assert sum(page.done for page in pages) == 2
    assert [(h.event_id, h.why.split(",")[0]) for p in pages for h in p.held] == [
        ("e2", "gate: invalid_json")
    ]
    after = books(home.lake)
    after.each_once(home.ids)
    assert after.rows == Counter(["e0", "e1", "e3"])
    assert after.open == Counter(["e2"])
    assert home.conserved()
    told = home.work.show(FLIGHTS, "e1").closing
    assert told is not None
    assert (told.state, told.release, told.closed_by, told.to) == (
        "released",
        "r1",
        "ann",
        Origin(home.log.log_id(FLIGHTS), 0, 4),
    )
    found = home.work._searcher.event(FLIGHTS, "e1")
    assert found.payload == b'{"n": 1}'
    assert found.metadata["penstock_received_at"] == str(NOON + 1)


def test_a_release_that_is_repeated_sends_nothing_once_it_has_landed(home: Home) -> None:
    release_all(home.work, home.door, DROP_BOM)
    home.land()
    sent = len(home.door.sent)

    [again] = release_all(home.work, home.door, DROP_BOM)

    assert (again.done, again.closed, len(home.door.sent)) == (0, 2, sent)


def test_two_who_release_the_same_event_make_one_row(home: Home) -> None:
    """Both read it while it is open; their repairs may even differ."""
    release_all(home.work, home.door, DROP_BOM, release="r1", by="ann")
    release_all(home.work, home.door, AS_TEXT, release="r2", by="bob")
    home.land()

    after = books(home.lake)
    after.each_once(home.ids)
    # Bob's for e2, which Ann could not repair; of the others Ann was first.
    assert [(c["event_id"], c["state"], c["closed_by"]) for c in closings(home.lake)] == [
        ("e1", "released", "ann"),
        ("e2", "released", "bob"),
        ("e3", "released", "ann"),
        ("e1", "copy", "bob"),
        ("e3", "copy", "bob"),
    ]
    assert home.conserved()
    assert after.positions == 4 + 2 + 3
    view = home.lake.quarantine_view(FLIGHTS)
    assert view is not None
    assert view.rows - count_closed(home.lake, FLIGHTS) == after.open.total() == 0


def test_a_search_of_the_quarantine_shows_what_is_open(home: Home, engine: Engine) -> None:
    """Whoever repaired everything expects to find nothing there, copies of it neither."""
    searcher = EmbeddedSearcher(
        home.lake, home.log, engine, rules=lambda _: Rules(), clock=lambda: NOON
    )

    def found(query: str = "", *, closed: bool = False) -> tuple[list[str], int, int]:
        asked = SearchRequest(
            collection=FLIGHTS, query=query, view="quarantine", closed=closed, limit=2
        )
        first = searcher.search(asked)
        rest = searcher.search(replace(asked, cursor=first.cursor)) if first.cursor else None
        drawn = searcher.histogram(asked, bars=5)
        return (
            [one.event_id for page in (first, rest) if page for one in page.events],
            searcher.count(asked),
            sum(bar.count for bar in drawn.bars),
        )

    assert found() == (["e3", "e2", "e1"], 3, 3)
    home.work.discard(replace(ALL, query="event_id:e3"), why="a test", by="ann", limit=5)
    assert found() == (["e2", "e1"], 2, 2)
    release_all(home.work, home.door, DROP_BOM, release="r1")
    release_all(home.work, home.door, DROP_BOM, release="r2")
    home.land()
    # Two copies of e1 came to the log, of which one is a row.
    assert found() == (["e2"], 1, 1)
    assert found("n:NaN OR quarantine.reason:*") == (["e2"], 1, 1)
    assert found(closed=True)[1:] == (4, 4)
    assert found("event_id:e1") == ([], 0, 0)
    assert found("event_id:e1", closed=True) == (["e1", "e1"], 2, 2)
    assert home.work.show(FLIGHTS, "e3").closing is not None


def test_copies_in_batches_of_their_own_are_folded_too(home: Home) -> None:
    release_all(home.work, home.door, DROP_BOM)
    release_all(home.work, home.door, DROP_BOM)
    land_all(landing_of(home.log, home.lake, limits=Limits(batch_bytes=1)))

    books(home.lake).each_once(home.ids)
    assert home.conserved()


def test_what_a_new_contract_refuses_is_quarantined_with_its_attempts(home: Home) -> None:
    """The rules changed between the release and landing: it is open again, and once."""
    home.send(BOM + b'{"new": 4}')
    home.land()
    release_all(home.work, home.door, DROP_BOM)
    land_all(landing_of(home.log, home.lake, rules=Rules(max_keys=0)))

    after = books(home.lake)
    after.each_once(home.ids)
    assert after.rows == Counter(["e0", "e1", "e3"])
    shown = home.work.show(FLIGHTS, "e4")
    assert (shown.closing, shown.found.attempts, shown.found.reason) == (None, 2, "too_many_keys")

    release_all(home.work, home.door, Repair(), release="r2")
    home.land()
    after = books(home.lake)
    after.each_once(home.ids)
    assert after.rows == Counter(["e0", "e1", "e3", "e4"])


def test_what_the_sender_wished_aside_is_released_as_it_is(home: Home) -> None:
    home.send(b'{"n": 9}', quarantine=True)
    home.land()

    release_all(
        home.work,
        home.door,
        Repair(),
        asked=Asked(collection=FLIGHTS, query="quarantine.stage:wish"),
    )
    home.land()

    assert books(home.lake).rows == Counter(["e0", "e4"])


def test_a_discarded_event_is_out_of_the_list_and_its_bytes_stay(home: Home) -> None:
    one = Asked(collection=FLIGHTS, query='event_id:"e2"')

    done = home.work.discard(one, why="a test of theirs", by="ann", limit=10)
    again = home.work.discard(one, why="once more", by="bob", limit=10)

    assert (done.done, done.closed, again.done, again.closed) == (1, 0, 0, 1)
    shown = home.work.show(FLIGHTS, "e2")
    assert shown.closing is not None
    assert (shown.closing.state, shown.closing.closed_by, shown.closing.why) == (
        "discarded",
        "ann",
        "a test of theirs",
    )
    assert shown.found.payload == b'{"n": NaN}'
    assert (home.work.causes(FLIGHTS).open, home.work.causes(FLIGHTS).closed) == (2, 1)
    with pytest.raises(BadRequest):
        home.work.discard(one, why=" ", by="ann", limit=10)


def test_an_event_that_was_discarded_while_it_was_released_makes_no_row(home: Home) -> None:
    release_all(home.work, home.door, DROP_BOM)
    home.work.discard(ALL, why="junk", by="bob", limit=10)
    home.land()

    after = books(home.lake)
    assert (after.rows, after.open) == (Counter(["e0"]), Counter())
    assert home.conserved()


def test_an_event_that_has_not_landed_is_left_alone(home: Home) -> None:
    """Its contract may change before it lands, and it would be a row and a released one."""
    home.send(BOM + b'{"n": 4}')

    [page] = release_all(home.work, home.door, DROP_BOM, limit=10)

    assert (page.done, page.waiting) == (2, 1)


def test_a_whole_payload_is_for_one_event_only(home: Home) -> None:
    repair = Repair(steps=(Put(b'{"n": 2}'),))
    with pytest.raises(BadRequest):
        release_all(home.work, home.door, repair)

    release_all(home.work, home.door, repair, asked=Asked(collection=FLIGHTS, query="event_id:e2"))
    home.land()

    assert books(home.lake).rows == Counter(["e0", "e2"])


def test_what_the_door_refuses_stays_open(home: Home) -> None:
    home.door.refuses = {"e1": "too large"}

    pages = release_all(home.work, home.door, DROP_BOM, limit=10)
    home.land()

    assert [(h.event_id, h.why.split(",")[0]) for h in pages[0].held] == [
        ("e2", "gate: invalid_json"),
        ("e1", "too large"),
    ]
    assert books(home.lake).open == Counter(["e1", "e2"])


def test_a_repair_without_bounds_is_held_back(home: Home) -> None:
    home.send(b"a" * 4_000)
    home.land()

    grown = Repair(steps=(put_in_place("a", "b" * 100),))
    tried = home.work.attempt(ALL, grown, limit=10)

    assert tried.trials[-1].stage == "repair"


def test_of_several_closings_the_first_counts(home: Home) -> None:
    origin = Origin(home.log.log_id(FLIGHTS), 0, 1)

    def closing(by: str) -> Closing:
        return Closing(
            origin=origin,
            event_id="e1",
            received_at=NOON,
            state="discarded",
            closed_at=NOON,
            closed_by=by,
        )

    assert close(home.lake, FLIGHTS, [closing("ann"), closing("bob")])[origin].closed_by == "ann"
    assert close(home.lake, FLIGHTS, [closing("eve")])[origin].closed_by == "ann"
    assert len(closings(home.lake)) == 1

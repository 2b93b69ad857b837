"""Plans on a real lake: exact, pinned, and refused where they could not be."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from builders import FLIGHTS, NOON, event
from hypothesis import given
from hypothesis import strategies as st
from lakes import BROKEN, HASTY, MAIN, landing, new_lake
from msgspec.structs import replace

from lakehouse import Lake, Run
from lakehouse.sql import Engine, open_engine
from lakehouse.upkeep import expire
from penstock.buffer.memory import MemoryLog
from penstock.envelope import CollectionId, Event, Position
from penstock.errors import (
    BadQuery,
    BadRequest,
    EngineUnavailable,
    NotFound,
    TableChanged,
    WrongState,
)
from penstock.schema.convert import Rules
from penstock.search import SearchRequest
from penstock.search.embedded import EmbeddedSearcher
from replay.events import Original
from replay.matches import NOWHERE, Bucket, Matches, Slice, cut_up, merged, slices
from replay.plan import Plan, Planner, estimated_seconds, pin_of, read_plan
from replay.request import Options, ReplayRequest, read_request


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    opened = open_engine(tmp_path_factory.mktemp("sql"), memory="500MB", threads=1)
    yield opened
    opened.close()


class World:
    """A log, a lake and a planner; landing happens when it is woken."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self.log = MemoryLog()
        self.lake = new_lake(folder)
        self.engine = engine
        self.woken: list[CollectionId] = []
        self.landing = landing(self.log, self.lake)
        self.seconds = 0.0
        self.now = NOON + 1_000_000_000

    def append(self, *events: Event) -> None:
        for each in events:
            self.log.append(FLIGHTS, [each])

    def wake(self, collection: CollectionId) -> None:
        self.woken.append(collection)
        while self.landing.land_once(collection):
            pass

    def wait(self, seconds: float) -> None:
        self.seconds += seconds

    @property
    def planner(self) -> Planner:
        return Planner(
            self.lake,
            self.log,
            self.engine,
            clock=lambda: self.now,
            wait=self.wait,
            steady=lambda: self.seconds,
        )

    def plan(self, wanted: ReplayRequest, replay_id: str | None = None, **more) -> Plan:
        more.setdefault("wake", self.wake)
        return self.planner.plan(wanted, replay_id=replay_id, **more)

    def read(self, wanted: ReplayRequest, plan: Plan, after: Position | None = None):
        found = self.planner.open(wanted, plan)
        return [] if found is None else list(all_of(found, after))


def all_of(
    found: Matches, after: Position | None = None, size: int = 1 << 20
) -> Iterator[Original]:
    for batch in found.batches(found.buckets(), after, size=size):
        yield from batch


@pytest.fixture
def world(tmp_path: Path, engine: Engine) -> World:
    return World(tmp_path, engine)


def request(query: str = "", **more) -> ReplayRequest:
    return read_request(
        {"collection": "flights", "query": query, "destination": "d1", **more}, team="main"
    )


def flights(count: int, first: int = 0) -> list[Event]:
    """Answer events that differ in everything a replay carries."""
    return [
        event(
            b'{"n": %d, "origin": "%s"}' % (n, b"JFK" if n % 3 else b"EWR"),
            id=f"e{n}",
            received_at=NOON + n,
            key=b"k%d" % (n % 5) if n % 4 else None,
            headers=(("x-n", b"%d" % n), ("x-n", b"\xff")) if n % 2 else (),
            metadata={"topic": f"t{n}"} if n % 7 == 0 else None,
            event_time=NOON - n if n % 3 == 0 else None,
            content_type="application/json" if n % 5 else None,
        )
        for n in range(first, first + count)
    ]


def test_a_plan_counts_the_tail_that_search_shows(world: World) -> None:
    """A search showed 105 events and the plan 100: the tail has to land first."""
    world.append(*flights(100))
    world.wake(FLIGHTS)
    world.append(*flights(5, first=100))
    world.woken.clear()

    plan = world.plan(request(), "r1")

    assert plan.count == 105
    assert world.woken == [FLIGHTS]
    assert plan.ends == plan.marks == ((0, 105),)


def test_what_arrives_after_the_plan_is_not_in_it(world: World) -> None:
    """The number previewed is the number replayed, however long somebody thinks about it."""
    world.append(*flights(50))
    plan = world.plan(request(), "r1")
    world.append(*flights(20, first=50))
    world.wake(FLIGHTS)

    assert plan.count == 50
    assert [o.event.id for o in world.read(request(), plan)] == [f"e{n}" for n in range(50)]


def test_what_landed_between_cut_and_snapshot_is_not_in_it(world: World) -> None:
    """The snapshot may hold more than the cut: the log grows while landing is waited for."""
    world.append(*flights(50))

    def wake(collection: CollectionId) -> None:
        world.append(*flights(7, first=50))
        world.wake(collection)

    plan = world.plan(request(), "r1", wake=wake)

    assert (plan.count, plan.ends, plan.marks) == (50, ((0, 50),), ((0, 57),))
    assert len(world.read(request(), plan)) == 50


def test_the_events_read_are_those_received_byte_for_byte(world: World) -> None:
    """What a receiver gets is what the door got: nothing is lost on the way through the lake."""
    odd = [
        event(each, id=f"odd{len(each)}", content_type=None) for each in (bytes(256), b"\xff", b"")
    ]
    sent = [*flights(60), *odd]
    world.append(*sent)
    plan = world.plan(request(), "r1")

    read = world.read(request(), plan)

    assert [each.event for each in read] == sent
    assert [each.position for each in read] == [Position(0, n) for n in range(len(sent))]
    assert plan.bytes == sum(len(each.payload) for each in sent)


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", lambda n: True),
        ("origin:JFK", lambda n: n % 3 != 0),
        ("n:>=40", lambda n: n >= 40),
        ("n:>=40 AND NOT origin:JFK", lambda n: n >= 40 and n % 3 == 0),
        ("key:k3", lambda n: n % 4 and n % 5 == 3),
        ("nothing:here", lambda n: False),
    ],
)
def test_the_query_decides_what_is_counted_and_read(
    world: World, query: str, wanted: Callable[[int], bool]
) -> None:
    """Search is the selector: plan and reader must agree with it, and with each other."""
    world.append(*flights(60))
    plan = world.plan(request(query), "r1")

    read = [each.event.id for each in world.read(request(query), plan)]

    assert read == [f"e{n}" for n in range(60) if wanted(n)]
    assert plan.count == len(read)


def test_the_time_range_includes_its_start_and_not_its_end(world: World) -> None:
    """Two ranges that meet must not share an event, nor miss one."""
    world.append(*flights(30))
    wanted = request(since=NOON + 10, until=NOON + 20)

    plan = world.plan(wanted, "r1")

    assert [each.event.id for each in world.read(wanted, plan)] == [f"e{n}" for n in range(10, 20)]
    assert (plan.earliest, plan.latest) == (
        "2025-11-24T16:00:00.000010Z",
        "2025-11-24T16:00:00.000019Z",
    )


@pytest.mark.parametrize("view", ["main", "quarantine"])
@pytest.mark.parametrize(
    "query", ["", "JFK", "origin:JFK", "n:null", "NOT n:<9", "key:k1", "closed"]
)
def test_the_number_searched_is_the_number_planned(world: World, query: str, view) -> None:
    """The search is the selector, its tail included, in both views."""
    broken = [event(BROKEN, id=f"b{n}") for n in range(3)]
    world.append(*flights(30), *broken, event(b'{"n": null}', id="null"))
    world.wake(FLIGHTS)
    world.append(*flights(10, first=30), event(b"free JFK text", id="t", content_type=None))
    searcher = EmbeddedSearcher(
        world.lake,
        world.log,
        world.engine,
        rules=lambda _: Rules(),
        clock=lambda: world.now,
    )
    counted = searcher.count(SearchRequest(collection=FLIGHTS, query=query, view=view))

    plan = world.plan(request(query, view=view), "r1")

    assert plan.count == counted == len(world.read(request(query, view=view), plan))


def test_a_plan_says_where_it_begins_and_ends(world: World) -> None:
    """Who confirms a replay looks at the first and the last event."""
    world.append(*flights(30))

    plan = world.plan(request("n:[5 TO 9]", rate=2), "r1")

    assert (plan.first.event_id, plan.last.event_id) == ("e5", "e9")
    assert [(s.partition, s.start, s.end, s.events) for s in plan.spans] == [(0, 5, 10, 5)]
    assert plan.estimated_seconds == 2.5
    assert read_plan(plan.as_dict()) == plan


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({"speed": 1.0}, 58.0),
        ({"speed": 10.0}, 5.8),
        ({"speed": 1.0, "gap": 0.5}, 14.5),
        ({"speed": 10.0, "rate": 1.0}, 30.0),
        ({"speed": 1.0, "max_events": 11}, 20.0),
        ({"speed": 1.0, "timing": "event"}, 29.0),
    ],
)
def test_a_plan_says_how_long_a_replay_in_time_takes(
    world: World, options: dict[str, object], seconds: float
) -> None:
    """Nobody should find out on the second day that the first one is a week."""
    world.append(
        *(
            replace(one, received_at=NOON + n * 2_000_000, event_time=NOON + n * 1_000_000)
            for n, one in enumerate(flights(30))
        )
    )

    plan = world.plan(request(**options), "r1")

    # What is cut off by a number of events is known to the minute only.
    assert plan.estimated_seconds == pytest.approx(seconds, abs=38 if plan.to_send < 30 else 0.01)


@pytest.mark.parametrize(("bound", "seconds"), [(2.0, 15.0), (500.0, 3.0), (None, 3.0)])
def test_a_plan_knows_the_rate_of_the_destination(bound: float | None, seconds: float) -> None:
    """The slower of both decides."""
    assert estimated_seconds(30, Options(rate=10), bound) == seconds


def test_a_plan_warns_of_what_times_cannot_be(world: World) -> None:
    """A gap without a speed, and an order that waits for answers."""
    world.append(*flights(3))

    assert "gap shortens" in " ".join(world.plan(request(gap=5.0)).warnings)
    told = " ".join(world.plan(request(speed=1.0, order="log")).warnings)
    assert "sent late" in told


def test_now_in_a_query_means_the_time_of_the_plan_for_ever(world: World) -> None:
    """A replay that is resumed tomorrow must not mean other events."""
    world.append(*flights(10))
    world.now = NOON + 5
    wanted = request("received_at:<now")
    plan = world.plan(wanted, "r1")
    world.now += 3_600_000_000

    assert plan.count == len(world.read(wanted, plan)) == 5


def test_reading_goes_on_behind_a_position(world: World) -> None:
    """A successor reads neither twice nor from the beginning."""
    world.append(*flights(100))
    plan = world.plan(request(), "r1")
    found = world.planner.open(request(), plan)
    everything = list(all_of(found))

    for after in (0, 41, 98):
        rest = list(all_of(found, Position(0, after), size=400))
        assert rest == everything[after + 1 :]


def test_large_events_are_read_in_small_slices(world: World) -> None:
    """Four thousand events of a megabyte in one bucket must not be in memory together."""
    world.append(*(event(b"x" * 1_000, id=f"e{n}", content_type=None) for n in range(50)))
    plan = world.plan(request(), "r1")
    found = world.planner.open(request(), plan)

    batches = list(found.batches(found.buckets(), None, size=5_000))

    assert [len(batch) for batch in batches] == [5] * 10
    assert [o.event.id for batch in batches for o in batch] == [f"e{n}" for n in range(50)]


def test_a_slice_that_holds_something_else_than_counted_stops_the_replay(world: World) -> None:
    """Fewer rows would be events skipped in silence."""
    world.append(*flights(10))
    plan = world.plan(request(), "r1")
    found = world.planner.open(request(), plan)
    [bucket] = found.buckets()

    with pytest.raises(TableChanged, match="holds 10 matches, not 11"):
        list(found.batches([bucket._replace(events=11)], None))


def test_what_was_counted_for_a_plan_is_counted_again_for_whoever_comes_later(
    world: World,
) -> None:
    """Another process finds the matches by itself; the one that made the plan knows them."""
    world.append(*flights(10))
    planner = world.planner
    plan = planner.plan(request(), wake=world.wake, replay_id="r1")
    found = planner.open(request(), plan)
    counted = found.buckets()
    asked: list[Plan] = []
    found.buckets = lambda: asked.append(plan) or counted

    assert planner.count(read_plan(plan.as_dict()), found) == counted
    assert asked == []
    assert planner.count(plan, found) == counted
    assert asked == [plan]

    planner.plan(request(), wake=world.wake, replay_id="r2")
    assert planner.count(plan, found) == counted
    assert asked == [plan, plan]


def test_the_snapshot_stays_while_the_plan_needs_it(world: World) -> None:
    """Upkeep expires snapshots; the one of a plan must outlive it, and no longer."""
    world.append(*flights(10))
    plan = world.plan(request(), "r1")
    for n in range(10, 16):
        world.append(*flights(1, first=n))
        world.wake(FLIGHTS)
    expire(world.lake, MAIN, keep=1)

    assert len(world.read(request(), plan)) == 10
    assert world.lake.pins(FLIGHTS) == {pin_of("r1"): int(plan.snapshot_id)}
    assert world.planner.release(FLIGHTS, lambda _: False) == []

    assert world.planner.release(FLIGHTS, lambda replay: replay == "r1") == ["r1"]
    assert world.lake.pins(FLIGHTS) == {}
    with pytest.raises(TableChanged, match="no longer pinned"):
        world.planner.open(request(), plan)


@pytest.mark.parametrize(
    ("again", "says"), [(True, "no longer pinned"), (False, "the table of the plan is gone")]
)
def test_a_plan_whose_table_was_dropped_says_where_to_read_on(
    world: World, again: bool, says: str
) -> None:
    """It has no command: a new plan is made of the table that is there then."""
    world.append(*flights(10))
    plan = world.plan(request(), "r1")
    world.lake.catalog.drop_table(MAIN)
    if again:
        world.lake.create(FLIGHTS)

    with pytest.raises(TableChanged, match=f"{says}.*; see 'When landing has stopped' in docs/"):
        world.planner.open(request(), plan)


def test_a_preview_keeps_nothing(world: World) -> None:
    """Looking must not cost storage for ever."""
    world.append(*flights(10))

    plan = world.plan(request())

    assert plan.count == 10
    assert plan.pin is None
    assert world.lake.pins(FLIGHTS) == {}


def test_a_plan_made_again_takes_the_place_of_one_that_was_never_written_down(world: World) -> None:
    """A planner that died after pinning must not stop its successor."""
    world.append(*flights(10))
    first = world.plan(request(), "r1")
    world.append(*flights(10, first=10))

    second = world.plan(request(), "r1")

    assert (first.count, second.count) == (10, 20)
    assert world.lake.pins(FLIGHTS) == {pin_of("r1"): int(second.snapshot_id)}


class Expiring(Lake):
    """A lake whose first pins come too late."""

    late = 2

    def pin(self, collection, snapshot_id, name, *, quarantine=False) -> None:
        if self.late:
            self.late -= 1
            raise NotFound("snapshot", str(snapshot_id))
        super().pin(collection, snapshot_id, name, quarantine=quarantine)


def test_a_snapshot_that_expires_before_it_is_pinned_is_replaced_by_a_newer_one(
    world: World, tmp_path: Path
) -> None:
    """Between the load and the tag upkeep may be faster."""
    world.append(*flights(10))
    world.wake(FLIGHTS)
    world.lake = Expiring(world.lake.catalog, HASTY)

    plan = world.plan(request(), "r1")

    assert plan.count == 10
    assert world.lake.late == 0


def test_a_collection_without_events_gives_an_empty_plan(world: World) -> None:
    """Nothing is an answer, not an error."""
    plan = world.plan(request(), "r1")

    assert (plan.count, plan.first, plan.spans, plan.snapshot_id) == (0, None, (), None)
    assert plan.warnings == ("nothing matches",)
    assert world.read(request(), plan) == []


def test_quarantined_events_are_planned_and_read_like_others(world: World) -> None:
    """Repairing the receiver and replaying what failed is what quarantine is for."""
    world.append(
        *flights(5), event(BROKEN, id="bad1"), *flights(5, first=5), event(BROKEN, id="bad2")
    )
    wanted = request("quarantine.stage:*", view="quarantine")

    plan = world.plan(wanted, "r1")
    read = world.read(wanted, plan)

    assert plan.count == 2
    assert [(o.position.offset, o.event.id, o.event.payload) for o in read] == [
        (5, "bad1", BROKEN),
        (11, "bad2", BROKEN),
    ]
    assert world.lake.pins(FLIGHTS, quarantine=True) == {pin_of("r1"): int(plan.snapshot_id)}
    assert world.lake.pins(FLIGHTS) == {}
    assert world.planner.release(FLIGHTS, lambda _: True) == ["r1"]
    assert world.lake.pins(FLIGHTS, quarantine=True) == {}


def test_quarantined_events_are_found_by_their_content(world: World) -> None:
    """They have no columns, and can be searched all the same."""
    world.append(
        event(b'{"a": "x"}', id="q1", quarantine=True),
        event(b'{"a": "y"}', id="q2", quarantine=True),
    )
    wanted = request("a:y", view="quarantine")

    plan = world.plan(wanted, "r1")

    assert [o.event.id for o in world.read(wanted, plan)] == ["q2"]
    assert plan.count == 1


def test_queries_that_read_payloads_work_and_say_that_they_are_slow(world: World) -> None:
    """An explicit null is in no column."""
    world.append(event(b'{"a": null}', id="e1"), event(b'{"b": 1}', id="e2"))

    plan = world.plan(request("a:null"), "r1")

    assert plan.count == 1
    assert [o.event.id for o in world.read(request("a:null"), plan)] == ["e1"]
    assert "the query reads every payload, so counting and reading are slow" in plan.warnings


@pytest.mark.parametrize(
    "query", ["* ${LIMIT 10}", "* ${ORDER_BY n AND SORT DESC}", "* ${UNIQUE n}"]
)
def test_a_query_that_says_more_than_which_events_is_refused(world: World, query: str) -> None:
    """A limit that search obeys and the replay does not would send too much."""
    with pytest.raises(BadRequest, match="max_events"):
        world.plan(request(query))


def test_a_query_that_cannot_be_read_is_refused_before_anything_is_waited_for(world: World) -> None:
    """A typing mistake should not cost two minutes."""
    with pytest.raises(BadQuery):
        world.plan(request("a:("))
    assert world.woken == []


def test_landing_that_does_not_get_there_is_said_in_time(world: World) -> None:
    """A plan that waits for ever looks like one that works."""
    world.append(*flights(10))
    told = []

    with pytest.raises(EngineUnavailable, match=r"10 events of .* have not landed"):
        world.plan(request(), wake=lambda _: None, patience=5.0, told=told.append)

    assert 5.0 <= world.seconds < 6.0
    assert {(each.absorbed, each.wanted) for each in told} == {(0, 10)}


def test_landing_is_woken_again_and_again(world: World) -> None:
    """A lost wake-up may cost seconds, never the plan."""
    world.append(*flights(10))
    calls = itertools.count(1)

    plan = world.plan(request(), wake=lambda c: world.wake(c) if next(calls) == 3 else None)

    assert plan.count == 10


def test_a_table_that_was_rolled_back_is_refused(world: World) -> None:
    """Its marks promise rows that it no longer has: 30 rows for mark 80."""
    for n in range(3):
        world.append(*flights(1, first=n))
        world.wake(FLIGHTS)
    table = world.lake.table(MAIN)
    table.manage_snapshots().set_current_snapshot(table.history()[0].snapshot_id).commit()

    with pytest.raises(TableChanged, match="rolled back"):
        world.plan(request())


def test_a_table_of_another_log_is_refused(world: World) -> None:
    """Offsets of two logs cannot be cut by one end."""
    world.append(*flights(3))
    world.wake(FLIGHTS)
    other = World.__new__(World)
    other.__dict__.update(world.__dict__)
    other.log = MemoryLog("another")

    with pytest.raises(TableChanged, match="another log"):
        other.plan(request())


def test_a_plan_serves_the_request_it_was_made_for_and_no_other(world: World) -> None:
    """Resuming with another query would send events that nobody planned."""
    world.append(*flights(10))
    plan = world.plan(request("n:>5"), "r1")

    with pytest.raises(WrongState, match="another request"):
        world.planner.open(request("n:>4"), plan)
    world.planner.open(request("n:>5", rate=5, concurrency=2), plan)


def test_a_table_that_took_the_place_of_the_planned_one_is_refused(world: World) -> None:
    """Same name, other rows."""
    world.append(*flights(10))
    plan = world.plan(request(), "r1")
    found = world.planner.open(request(), replace(plan, table_uuid="another"))

    with pytest.raises(TableChanged, match="not the one"):
        found.buckets()


def test_max_events_shortens_the_plan_and_says_so(world: World) -> None:
    """The count stays what search shows; what is sent is another number."""
    world.append(*flights(10))

    plan = world.plan(request(max_events=4))

    assert (plan.count, plan.to_send) == (10, 4)
    assert plan.warnings == ("only the first 4 of 10 matches are sent",)


def test_warnings_tell_what_may_surprise(world: World) -> None:
    """Said before, not after."""
    world.append(*flights(1))

    plan = world.plan(request(headers="verbatim", order="log", dry_run=True))

    assert plan.warnings == (
        "verbatim: receivers cannot tell the replay from the original",
        "log order sends one event at a time, whatever the concurrency",
        "dry run: nothing is sent",
    )


PER_BUCKET = 50
PER_GROUP = 200


def bucket(partition: int, number: int, size: int, matching: list[bool]) -> Bucket:
    """Answer what matches of `PER_BUCKET` rows, as if one file held the partition."""
    rows = [number * PER_BUCKET + n for n, matches in enumerate(matching) if matches]
    offsets = [number * 4096 + row % PER_BUCKET for row in rows]
    return Bucket(
        partition,
        number,
        rows[0] // PER_GROUP,
        Run(f"file-{partition}", rows[0], rows[-1]),
        len(rows),
        size,
        offsets[0],
        offsets[-1],
        NOON,
        NOON + 1,
    )


matching = st.lists(st.booleans(), min_size=1, max_size=PER_BUCKET).filter(any)
counts = st.lists(
    st.builds(
        bucket,
        st.integers(0, 2),
        st.integers(0, 9),
        st.integers(0, 99),
        st.one_of(st.just([True] * PER_BUCKET), matching),
    ),
    unique_by=lambda each: (each.partition, each.number),
    max_size=20,
)


@given(counts, st.integers(1, 400), st.integers(1, 400))
def test_slices_meet_and_cover(found: list[Bucket], rows: int, size: int) -> None:
    """A slice too few loses events, one that overlaps doubles them."""
    buckets = merged(found)

    cut = list(slices(buckets, rows=rows, size=size))

    assert sum(each.events for each in cut) == sum(each.events for each in buckets)
    assert sum(each.bytes for each in cut) == sum(each.bytes for each in buckets)
    places = [(s.partition, s.first) for s in cut] + [(s.partition, s.last) for s in cut]
    assert sorted(places) == [
        p for s in cut for p in ((s.partition, s.first), (s.partition, s.last))
    ]
    alone = {(each.partition, each.first): each for each in buckets}
    for each in cut:
        single = alone[each.partition, each.first]
        small = each.events <= rows and each.bytes <= size
        assert small or (each.events, each.last) == (single.events, single.last)


@given(counts, st.integers(1, 400), st.integers(1, 400))
def test_rows_are_taken_from_files_only_where_each_of_them_matches(
    found: list[Bucket], rows: int, size: int
) -> None:
    """One row that does not match, or was deleted, and an engine has to tell which are left."""
    buckets = merged(found)

    for each in slices(buckets, rows=rows, size=size):
        inside = [
            b
            for b in buckets
            if b.partition == each.partition and each.first <= b.first <= each.last
        ]
        taken = [n for run in each.runs for n in range(run.first, run.last + 1)]
        if all(b.whole for b in inside):
            assert taken == [n for b in inside for n in range(b.run.first, b.run.last + 1)]
            assert len(taken) == each.events
        else:
            assert taken == []


@given(counts, st.integers(1, 400))
def test_a_row_group_that_fits_is_not_parted(found: list[Bucket], rows: int) -> None:
    """It would be unpacked once for each part."""
    buckets = merged(found)
    cut = list(slices(buckets, rows=rows, size=1 << 30))

    for _, group in itertools.groupby(buckets, key=lambda b: (b.partition, b.group)):
        parts = list(group)
        if sum(b.events for b in parts) <= rows:
            [_] = [
                s
                for s in cut
                if s.partition == parts[0].partition
                and s.first <= parts[0].first
                and parts[-1].last <= s.last
            ]


@given(st.lists(st.integers(0, 60), max_size=40), st.integers(1, 100))
def test_cutting_up_keeps_every_event_once(lengths: list[int], size: int) -> None:
    """The same for slices of large events."""
    events = [(offset * 3, length) for offset, length in enumerate(lengths)]

    cut = list(cut_up(iter(events), 1, size))

    covered = [o for part in cut for o, _ in events if part.first <= o <= part.last]
    assert covered == [offset for offset, _ in events]
    assert sum(part.events for part in cut) == len(events)
    assert all(part.bytes <= size or part.events == 1 for part in cut)


def test_parts_of_a_bucket_add_up() -> None:
    """Where payloads decide, rows come in batches that know nothing of buckets."""
    parts = [
        Bucket(0, 1, 0, Run("a", 14, 17), 2, 20, 5000, 5003, 7, 9),
        Bucket(0, 0, 0, Run("a", 3, 3), 1, 1, 3, 3, 5, 5),
        Bucket(0, 1, 0, Run("a", 13, 16), 3, 30, 4999, 5002, 6, 8),
    ]

    assert merged(parts) == [
        Bucket(0, 0, 0, Run("a", 3, 3), 1, 1, 3, 3, 5, 5),
        Bucket(0, 1, 0, Run("a", 13, 17), 5, 50, 4999, 5003, 6, 9),
    ]
    runs = (Run("a", 3, 3), Run("a", 13, 17))
    assert list(slices(merged(parts))) == [Slice(0, 3, 5003, 6, 51, runs)]


def test_files_that_lie_across_each_other_are_read_by_an_engine() -> None:
    """Their rows are not in the order of the log, one file after the other."""
    across = [
        Bucket(0, 0, 0, Run("a", 0, 9), 10, 100, 0, 18, 5, 9),
        Bucket(0, 0, 0, Run("b", 0, 9), 10, 100, 1, 19, 5, 9),
    ]

    assert list(slices(merged(across))) == [Slice(0, 0, 19, 20, 200)]


def test_rows_come_from_files_as_an_engine_answers_them(world: World) -> None:
    """Which way they are read is a matter of speed."""
    for first in range(0, 60, 20):
        world.append(*flights(20, first))
        world.wake(FLIGHTS)
    plan = world.plan(request(), "r1")
    found = world.planner.open(request(), plan)
    buckets = found.buckets()
    asked = [each._replace(run=NOWHERE) for each in buckets]

    assert [len(part.runs) for part in slices(buckets)] == [3]
    assert [part.runs for part in slices(asked)] == [()]
    assert [o for b in found.batches(buckets, None) for o in b] == [
        o for b in found.batches(asked, None) for o in b
    ]


def test_a_file_that_cannot_be_read_is_an_engine_that_is_away(world: World) -> None:
    """The replay goes on when the store is back; nothing is said of paths."""
    world.append(*flights(20))
    plan = world.plan(request(), "r1")
    found = world.planner.open(request(), plan)
    buckets = found.buckets()
    for file in Path(world.lake.table(MAIN).location().removeprefix("file://")).rglob("*.parquet"):
        file.unlink()

    with pytest.raises(EngineUnavailable, match=r"^the tables cannot be read now$"):
        list(found.batches(buckets, None))

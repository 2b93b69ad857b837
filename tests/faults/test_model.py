"""Log, landing, quarantine, releases, upkeep and search together, against a model of a few rules.

The model knows what was acknowledged and what people did. Whatever order that came in, and wherever
somebody died in between, the tables and the search hold what it says, byte for byte. Deaths are
errors raised at the fault points, after which somebody begins anew; `test_landing_crash` and its
siblings kill processes at the same points.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from balance import compare
from builders import FLIGHTS, NOON, event
from evidence.sheet import found, happened
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from lakes import MAIN, QUARANTINE, new_lake
from releasing import AppendingDoor, release_all

from assets.landing import Landing, Limits
from assets.release import Asked, Workplace
from assets.retention import first_kept, retain
from lakehouse import Lake, commit
from lakehouse.catalog import closed_table
from lakehouse.duplicates import Duplicates
from lakehouse.sql import Engine, open_engine
from lakehouse.upkeep import compact, expire, sweep_orphans
from penstock import faults
from penstock.buffer.memory import MemoryLog
from penstock.buffer.released import KEPT_AFTER_RELEASE
from penstock.envelope import Event
from penstock.errors import TableRolledBack
from penstock.quarantine.release import read_release
from penstock.quarantine.repair import Repair, transform
from penstock.schema.convert import Rules
from penstock.search import SearchRequest, View
from penstock.search.embedded import EmbeddedSearcher
from penstock.vocabulary import Contract

EXAMPLES = int(os.environ.get("FAULT_KILLS", "3"))
"""So many lives are looked at."""

STEPS = 20
DAY = 86_400_000_000
WINDOW = 30 * DAY
BATCH_BYTES = 60
"""Some four events, so that what waits takes several commits."""

DROP_BOM = Repair(steps=(transform("bom"),))

KINDS = ("good", "misfit", "new", "bom", "broken")
"""What fits, has another type, brings a field, is right once repaired, never is."""

CONTRACTS: tuple[Contract, ...] = ("evolve", "freeze", "quarantine", "drop_value")

LANDING = ("span_read", "mid_parquet", "after_parquet", "before_commit", "after_commit")
LANDING += ("release_before_close", "release_closed")
RELEASE = ("release_read", "release_before_send", "release_sent")
UPKEEP = ("compact_before_commit", "expire_mid", "mid_parquet")


def payload(kind: str, number: int) -> bytes:
    """Answer the payload of an event of its kind."""
    return {
        "good": b'{"n": %d}' % number,
        "misfit": b'{"n": "x%d"}' % number,
        "new": b'{"n": %d, "f%d": 1}' % (number, number),
        "bom": b'\xef\xbb\xbf{"n": %d}' % number,
        "broken": b'{"n": %d' % number,
    }[kind]


@dataclass(frozen=True)
class Known:
    """What was acknowledged at a position."""

    event: Event
    kind: str
    origin: int | None = None
    """Where the quarantined event is that it was released from."""

    @property
    def day(self) -> int:
        """The day it was received."""
        return self.event.received_at // DAY

    def is_row(self, contract: Contract) -> bool:
        """Whether it is a row under the contract."""
        kind = "good" if self.kind == "bom" and self.origin is not None else self.kind
        return kind == "good" or (kind in ("misfit", "new") and contract != "quarantine")

    def repeats(self, other: Known) -> bool:
        """Whether it says the same as an earlier one."""
        return (self.event.id, self.event.payload) == (other.event.id, other.event.payload)


@dataclass
class Model:
    """Where each acknowledged event has to be."""

    told: list[Known] = field(default_factory=list)
    landed: int = 0
    rows: dict[int, bool] = field(default_factory=dict)
    """The positions that are rows, and whether they repeat others."""
    aside: set[int] = field(default_factory=set)
    """The positions in quarantine, closed ones included."""
    closed: set[int] = field(default_factory=set)
    heirs: dict[int, int | None] = field(default_factory=dict)
    """As what a quarantined position goes on: as another one, or, discarded, as none."""
    tried: dict[int, set[bool]] = field(default_factory=dict)
    """Of what has not landed, whether it was a row under the contracts of landings that died."""

    @property
    def waiting(self) -> range:
        """The positions that have not landed."""
        return range(self.landed, len(self.told))

    def open(self) -> set[int]:
        """Answer the positions that somebody has to do something about."""
        return self.aside - self.closed

    def attempt(self, contract: Contract) -> None:
        """Know that a landing under this contract has begun."""
        for at in self.waiting:
            self.tried.setdefault(at, set()).add(self.told[at].is_row(contract))

    def land(self, upto: int, is_row: Callable[[int], bool]) -> None:
        """Know that so much has landed; `is_row` is asked where two contracts differ."""
        for at in range(self.landed, upto):
            known, tried = self.told[at], self.tried.pop(at)
            row = is_row(at) if len(tried) > 1 else tried == {True}
            if known.origin is not None:
                self.closed.add(known.origin)
                if self.heirs.setdefault(known.origin, at) != at:
                    self.closed.add(at)
                    row = False
            if row:
                self.rows[at] = any(known.repeats(self.told[other]) for other in self.rows)
            else:
                self.aside.add(at)
        self.landed = upto

    def drop(self, before: int) -> None:
        """Know that these days are gone, and how their events were closed."""
        gone = {at for at in (*self.rows, *self.aside) if self.told[at].day < before}
        self.rows = {at: repeats for at, repeats in self.rows.items() if at not in gone}
        self.aside -= gone
        self.closed -= gone

    def shown(self) -> tuple[set[int], set[int]]:
        """Answer what searches find, and what they may fold, since it waits and may repeat some."""
        visible = {at for at, repeats in self.rows.items() if not repeats} | self.open()
        before = [*self.rows]
        folded = set()
        for at in self.waiting:
            if any(self.told[at].repeats(self.told[other]) for other in before):
                folded.add(at)
            before.append(at)
        return visible | (set(self.waiting) - folded), folded


class Forgetful:
    """Statistics that nobody asks."""

    def forget_before(self, _collection: object, _before: int) -> None:
        """Forget nothing."""


@contextmanager
def dying(point: str) -> Iterator[None]:
    """Let the block die at the point, if it comes there."""
    faults.arm(f"{point}:raise")
    try:
        yield
    except faults.Injected:
        happened("deaths")
    finally:
        faults.arm(None)


class Life(RuleBasedStateMachine):
    """One collection, whatever is done to it."""

    engine: Engine

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.log = MemoryLog()
        self.contract: Contract = "evolve"
        self.model = Model()
        self.kinds: dict[str, str] = {}
        """Of each event, by its id."""
        self.numbers, self.names = count(), count()
        self.begin()
        self.lake.create(FLIGHTS)
        # The column that misfits do not fit. Every life has a death.
        self.send([("good", 0)])
        self.land_and_die("after_parquet", 1)
        self.land()

    def teardown(self) -> None:
        """Leave nothing."""
        self.folder.cleanup()

    def begin(self) -> None:
        """Begin anew, as after a death: nothing is remembered."""
        self.lake: Lake = new_lake(Path(self.folder.name))
        self.work = Landing(
            self.log,
            self.lake,
            rules=self.rules_now,
            clock=lambda: NOON,
            limits=Limits(batch_bytes=BATCH_BYTES),
            duplicates=Duplicates(window=WINDOW),
        )
        self.searcher = EmbeddedSearcher(
            self.lake,
            self.log,
            self.engine,
            rules=self.rules_now,
            clock=lambda: NOON + 2 * 3_600_000_000,
            duplicates=Duplicates(window=WINDOW),
        )
        self.desk = Workplace(
            self.lake, self.log, self.searcher, rules=self.rules_now, clock=lambda: NOON
        )
        self.door = AppendingDoor(self.accept)

    def rules_now(self, _collection: object) -> Rules:
        return Rules(contract=self.contract)

    def accept(self, collection: Any, events: Sequence[Event]) -> Any:
        """Take events to the log as doors do, and know what was acknowledged."""
        future = self.log.append(collection, events)
        for position, one in zip(future.result(), events, strict=True):
            assert position.offset == len(self.model.told)  # type: ignore[union-attr]
            release = read_release(one.metadata)
            origin = release.origin.offset if release else None
            kind = self.kinds[one.id]
            self.model.told.append(Known(one, kind, origin))
        return future

    # What happens

    @rule(
        events=st.lists(
            st.tuples(st.sampled_from(KINDS), st.integers(0, 3)), min_size=1, max_size=5
        )
    )
    def send(self, events: list[tuple[str, int]]) -> None:
        """Accept events that were received so many days ago."""
        for kind, ago in events:
            number = next(self.numbers)
            self.kinds[f"e{number}"] = kind
            received = NOON - ago * DAY + number
            one = event(payload(kind, number), id=f"e{number}", received_at=received, named=True)
            self.accept(FLIGHTS, [one])

    @rule(which=st.integers(0, 50))
    def send_again(self, which: int) -> None:
        """Accept an event again whose sender did not hear the answer."""
        firsts = [known.event for known in self.model.told if known.origin is None]
        self.accept(FLIGHTS, [firsts[which % len(firsts)]])

    @rule(contract=st.sampled_from(CONTRACTS))
    def switch(self, contract: Contract) -> None:
        """Let another contract hold from here on."""
        self.contract = contract

    @rule()
    def land(self) -> None:
        """Land all that waits."""
        self.model.attempt(self.contract)
        while self.work.land_once(FLIGHTS):
            pass
        self.learn()
        assert not self.model.waiting

    @rule(point=st.sampled_from(LANDING), nth=st.integers(1, 3))
    def land_and_die(self, point: str, nth: int) -> None:
        """Die while landing."""
        self.model.attempt(self.contract)
        with dying(f"{point}:{nth}"):
            while self.work.land_once(FLIGHTS):
                pass
        self.begin()
        self.learn()

    def learn(self) -> None:
        """Let the model know how far the table is, and what nobody but the table can know."""
        view = self.lake.view(FLIGHTS)
        assert view is not None
        mark = view.mark(self.log.log_id(FLIGHTS), 0).next
        assert self.model.landed <= mark <= len(self.model.told)
        rows = {at for at, _, _ in self.stored(MAIN)}
        self.model.land(mark, rows.__contains__)
        # A landing that died may have closed what the releases that wait come from.
        for origin, to in self.closings().items():
            if origin not in self.model.closed:
                self.foresee(origin, to)

    def foresee(self, origin: int, to: int | None) -> None:
        """Let the model know of a closing by a landing that died."""
        told, waiting = self.model.told, self.model.waiting
        of = origin if origin not in waiting else told[origin].origin
        assert of is not None
        heirs = [at for at in waiting if told[at].origin == of]
        first = self.model.heirs.setdefault(of, heirs[0])
        assert to == first, "the first of all copies goes on"
        self.model.closed.add(origin)

    @rule(which=st.integers(0, 3), point=st.sampled_from(("", *RELEASE)))
    def release(self, which: int, point: str) -> None:
        """Send what the repair helps to the log once more, and die or not."""
        before = len(self.model.told)
        could = {
            at
            for at in self.model.open()
            if Known(self.model.told[at].event, self.model.told[at].kind, at).is_row(self.contract)
        }
        if point:
            with dying(f"{point}:{which + 1}"):
                release_all(self.desk, self.door, DROP_BOM, limit=2)
            self.begin()
        else:
            release_all(self.desk, self.door, DROP_BOM, limit=2)
        sent = Counter(known.origin for known in self.model.told[before:])
        assert sent <= Counter(could)
        if not point:
            assert sent == Counter(could)

    @rule(which=st.integers(0, 5))
    def discard(self, which: int) -> None:
        """Discard an open event, and all that are sent as the same."""
        if not (ids := sorted({self.model.told[at].event.id for at in self.model.open()})):
            return
        chosen = ids[which % len(ids)]
        asked = Asked(collection=FLIGHTS, query=f'event_id:"{chosen}"')
        self.desk.discard(asked, why="no use", by="ann", limit=100)
        for at in self.model.open():
            if self.model.told[at].event.id == chosen:
                self.model.heirs[at] = None
                self.model.closed.add(at)

    @rule(point=st.sampled_from(("", *UPKEEP)))
    def tend(self, point: str) -> None:
        """Merge, expire and sweep, and die or not."""
        for name in (MAIN, QUARANTINE, closed_table(FLIGHTS)):
            with dying(point or "nowhere"):
                compact(self.lake, name, new_name=lambda: f"merged-{next(self.names)}", fewest=2)
                expire(self.lake, name, keep=2)
                # Nobody writes meanwhile, so whatever nobody refers to is left over.
                sweep_orphans(self.lake, name, {}, NOON, age=0)
        if point:
            self.begin()

    @rule()
    def trim(self) -> None:
        """Let the log forget what has landed."""
        view = self.lake.view(FLIGHTS)
        assert view is not None
        self.log.release(FLIGHTS, view.marks)
        self.log.trim(0)
        self.log.trim(KEPT_AFTER_RELEASE)

    @precondition(lambda self: not self.model.waiting)
    @rule(keep=st.integers(1, 3), die=st.booleans())
    def drop(self, keep: int, die: bool) -> None:
        """Drop old days; whoever dies doing it begins again."""
        for point in ("retention_before_commit", "nowhere") if die else ("nowhere",):
            with dying(point):
                retain(
                    self.lake,
                    FLIGHTS,
                    keep_days=keep,
                    now=NOON,
                    unindex=lambda _before: None,
                    stats=Forgetful,  # type: ignore[arg-type]  # a stand-in
                )
            self.begin()
        self.model.drop(first_kept(keep, NOON))

    @rule()
    def roll_back(self) -> None:
        """Set the table back behind what landed last: landing stops until that is undone."""
        table = self.lake.table(MAIN)
        view = self.lake.view(FLIGHTS)
        assert table is not None
        assert view is not None
        now = table.metadata.current_snapshot_id
        kept = {one.snapshot_id: one for one in table.metadata.snapshots}
        [last] = [one for one in kept.values() if one.sequence_number == view.landed_sequence] or [
            None
        ]
        if now is None or last is None or last.parent_snapshot_id not in kept:
            return
        table.manage_snapshots().rollback_to_snapshot(last.parent_snapshot_id).commit()
        self.accept_one()
        self.model.attempt(self.contract)
        with pytest.raises(TableRolledBack):
            self.work.land_once(FLIGHTS)
        happened("rollbacks")
        table = self.lake.table(MAIN)
        assert table is not None
        table.manage_snapshots().set_current_snapshot(now).commit()

    def accept_one(self) -> None:
        """Accept an event, so that there is something to land."""
        self.send([("good", 0)])

    # What is there

    def stored(self, name: tuple[str, ...]) -> list[tuple[int, bytes, bool]]:
        """Answer position and payload of each row, and whether it repeats another."""
        table = self.lake.table(name)
        if table is None:
            return []
        return [
            (row["log_offset"], row["payload"], row.get("duplicate_of") is not None)
            for row in table.scan().to_arrow().to_pylist()
        ]

    def closings(self) -> dict[int, int | None]:
        """Answer which positions are closed, and as what they go on."""
        table = self.lake.table(closed_table(FLIGHTS))
        rows = [] if table is None else table.scan().to_arrow().to_pylist()
        found = {row["log_offset"]: row["to_offset"] for row in rows}
        assert len(found) == len(rows), "a position is closed twice"
        return found

    @invariant()
    def the_tables_hold_it(self) -> None:
        """Each position is where the model has it, once and byte for byte."""
        model = self.model
        rows, aside = self.stored(MAIN), self.stored(QUARANTINE)
        expected = {at: model.told[at].event.payload for at in (*model.rows, *model.aside)}
        # A landing that died may have put some of what waits into quarantine.
        early = [at for at, _, _ in aside if at in model.waiting]
        there = [(at, text) for at, text, _ in rows + aside if at not in model.waiting]
        found(tables=compare(expected, there))
        assert len(early) == len(set(early))
        assert all(False in model.tried[at] or self.is_copy(at) for at in early)
        assert {at: repeats for at, _, repeats in rows} == model.rows
        assert {at for at, _, _ in aside} - set(early) == model.aside
        assert self.closings().keys() == model.closed

    def is_copy(self, at: int) -> bool:
        origin = self.model.told[at].origin
        return origin is not None and self.model.heirs.get(origin) != at

    @invariant()
    def searches_show_it(self) -> None:
        """Find by searches what has landed and what waits, folded and without what is closed.

        What waits is shown by a contract that held while it did, in one of both views; in both
        where a landing died that had put it into quarantine, and another contract holds since.
        """
        shown, folded = self.model.shown()
        told = {at: self.model.told[at].event.payload for at in shown}
        rows, aside = self.searched("main"), self.searched("quarantine")
        early = [at for at, _, _ in self.stored(QUARANTINE) if at in self.model.waiting]
        found(search=compare(told, rows + aside, known=folded, most_again=len(early)))
        assert {at for at, _ in rows} - set(self.model.waiting) <= self.model.rows.keys()

    def searched(self, view: View) -> list[tuple[int, bytes]]:
        page = self.searcher.search(SearchRequest(collection=FLIGHTS, view=view, limit=1_000))
        assert page.cursor is None
        return [(one.log_offset, one.payload) for one in page.events]


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[type[Life]]:
    with closing(
        open_engine(tmp_path_factory.mktemp("spill"), memory="300MB", threads=1)
    ) as engine:
        yield type("LifeHere", (Life,), {"engine": engine})


Step = tuple[str, dict[str, Any]]

STORY: Sequence[Step] = (
    ("send", {"events": [("good", 3), ("misfit", 2), ("new", 1), ("bom", 3), ("broken", 0)]}),
    ("switch", {"contract": "quarantine"}),
    ("land_and_die", {"point": "after_commit", "nth": 2}),
    ("switch", {"contract": "evolve"}),
    ("land", {}),
    ("switch", {"contract": "quarantine"}),
    ("send", {"events": [("misfit", 3), ("new", 0), ("bom", 0), ("bom", 2), ("good", 0)]}),
    ("send_again", {"which": 1}),
    ("land", {}),
    ("send_again", {"which": 1}),
    ("send_again", {"which": 4}),
    ("switch", {"contract": "freeze"}),
    ("release", {"which": 0, "point": "release_sent"}),
    ("release", {"which": 0, "point": ""}),
    ("land_and_die", {"point": "release_closed", "nth": 1}),
    ("discard", {"which": 0}),
    ("land", {}),
    ("discard", {"which": 1}),
    ("tend", {"point": "compact_before_commit"}),
    ("tend", {"point": ""}),
    ("trim", {}),
    ("send", {"events": [("good", 3), ("broken", 3), ("broken", 0)]}),
    ("land", {}),
    ("roll_back", {}),
    ("land", {}),
    ("drop", {"keep": 2, "die": True}),
    ("release", {"which": 0, "point": ""}),
    ("tend", {"point": "expire_mid"}),
    ("land", {}),
)
"""One of each, in an order in which each meets what the others left."""


def live(life: type[Life], story: Sequence[Step]) -> None:
    """Go through the story, and look after each step whether the model says the same."""
    one = life()
    try:
        for name, how in story:
            getattr(one, name)(**how)
            one.the_tables_hold_it()
            one.searches_show_it()
    finally:
        one.teardown()


@pytest.mark.breaks("landing, releases, upkeep and retention, one after the other")
def test_a_life_with_one_of_each_goes_as_the_model_says(life: type[Life]) -> None:
    """The mutants below are found by the same life."""
    live(life, STORY)


@pytest.mark.breaks("landing, releases, upkeep and retention, in any order")
def test_whatever_happens_tables_and_search_hold_what_the_model_says(life: type[Life]) -> None:
    """Lives that nobody thought of; so many as FAULT_KILLS says."""
    run_state_machine_as_test(
        life, settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS)
    )


def decided_anew(patch: pytest.MonkeyPatch) -> None:
    """Decide again what reached quarantine before a death."""
    patch.setattr(commit, "held_by_quarantine", lambda _table, _view, _starts: ())


def copies_kept(patch: pytest.MonkeyPatch) -> None:
    """Let every copy of a released event be a row, and close nothing."""
    patch.setattr("assets.landing.settle_releases", lambda _lake, _id, made, **_: made)


def closings_kept(patch: pytest.MonkeyPatch) -> None:
    """Leave what says how dropped events were closed."""
    patch.setattr("assets.retention._drop_closings", lambda *_: None)


def nothing_folded(patch: pytest.MonkeyPatch) -> None:
    """Mark no row that repeats another."""
    patch.setattr(Duplicates, "among", lambda *_: commit.unmarked)


def rollback_unseen(patch: pytest.MonkeyPatch) -> None:
    """Land into a table that was rolled back, by its marks."""
    for module in ("assets.landing", "lakehouse.commit"):
        patch.setattr(f"{module}.refuse_changed", lambda *_, **__: None)


@pytest.mark.parametrize(
    "mutant",
    [decided_anew, copies_kept, closings_kept, nothing_folded, rollback_unseen],
)
def test_a_bug_in_any_of_the_parts_is_found(
    life: type[Life],
    monkeypatch: pytest.MonkeyPatch,
    mutant: Callable[[pytest.MonkeyPatch], None],
) -> None:
    """Mutants: without them nobody knows that the model could say no."""
    mutant(monkeypatch)

    with pytest.raises((AssertionError, pytest.fail.Exception)):
        live(life, STORY)

"""Two landings that disagree about quarantine, interleaved at each of their steps.

One takes an event for a row, the other for quarantine: a contract changed between their looks, or
two releases run side by side. Whoever is faster, each event is in one table, once.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from balance import compare
from builders import NOON, event
from evidence.sheet import found, happened
from lakes import HASTY, landing, urls
from pyiceberg.catalog import Catalog
from pyiceberg.table import CommitTableResponse, Table

from assets.checks import check_conservation
from lakehouse import Lake, commit
from lakehouse.catalog import open_catalog
from penstock.buffer.memory import MemoryLog
from penstock.envelope import CollectionId
from penstock.schema.convert import Rules

pytestmark = pytest.mark.crash

LENIENT, STRICT, CLOSED = Rules(), Rules(max_keys=2), Rules(contract="quarantine")
CALLS = {LENIENT: 4, STRICT: 7, CLOSED: 7}
"""Calls of the catalog that a landing makes until its rows are in."""


class Turns(threading.Thread):
    """A landing that makes one call of the catalog for each turn it is given."""

    def __init__(self, real: Catalog, log: MemoryLog, where: CollectionId, rules: Rules) -> None:
        super().__init__(daemon=True)
        self.real = real
        self.error: BaseException | None = None
        self._go = threading.Semaphore(0)
        self._there = threading.Semaphore(0)
        self._work = landing(log, Lake(self, HASTY), rules=rules)  # type: ignore[arg-type]  # a stand-in
        self._where = where
        self.start()
        self._there.acquire()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def run(self) -> None:
        """Land everything."""
        try:
            while self._work.land_once(self._where):
                pass
        except BaseException as error:  # noqa: BLE001 - told by `finish`
            self.error = error
        self.over = True
        self._there.release()

    over = False

    def turn(self) -> None:
        """Let it go on to its next call."""
        if not self.over:
            self._go.release()
            self._there.acquire()

    def finish(self) -> None:
        """Let it go on to its end; raise what it raised."""
        while not self.over:
            self.turn()
        if self.error:
            raise self.error

    def _wait(self) -> None:
        self._there.release()
        self._go.acquire()

    def load_table(self, name: Any) -> Table:
        self._wait()
        return self.real.load_table(name)

    def commit_table(
        self, table: Table, requirements: tuple[Any, ...], updates: tuple[Any, ...]
    ) -> CommitTableResponse:
        self._wait()
        return self.real.commit_table(table, requirements, updates)


class Home:
    """A lake, and a log of which each run takes a collection of its own."""

    def __init__(self, folder: Path) -> None:
        self.catalog = open_catalog(*urls(folder))
        self.lake = Lake(self.catalog, HASTY)
        self.log = MemoryLog()
        self.runs = 0
        self.held: list[tuple[int, int]] = []
        """The run and the offset of each row."""

    def interleaved(self, rules: tuple[Rules, Rules], turns: tuple[int, int]) -> Counter[int]:
        """Give so many turns to the first, to the second, then let both finish; count the rows."""
        self.runs += 1
        where = CollectionId("main", f"run_{self.runs}")
        self.lake.create(where)
        payloads = ('{"n": 0}', '{"n": 1, "a": 1, "b": 2}', '{"n": 2}')
        events = [event(text, id=f"e{n}", received_at=NOON + n) for n, text in enumerate(payloads)]
        self.log.append(where, events[:2])
        first, second = (Turns(self.catalog, self.log, where, each) for each in rules)
        for _ in range(turns[0]):
            first.turn()
        # The second one's batch may be longer.
        self.log.append(where, events[2:])
        for _ in range(turns[1]):
            second.turn()
        first.finish()
        second.finish()
        main, aside = (self.offsets(where, quarantine=q) for q in (False, True))
        self.held += [(self.runs, offset) for offset in main + aside]
        verdict = check_conservation(self.lake, where, self.log.log_id(where))
        assert verdict.passed is (Counter(main + aside) == Counter(range(3)))
        return Counter(main + aside)

    def offsets(self, where: CollectionId, *, quarantine: bool) -> list[int]:
        team = f"{where.team}__quarantine" if quarantine else where.team
        rows = self.catalog.load_table((team, where.name)).scan(selected_fields=("log_offset",))
        return rows.to_arrow()["log_offset"].to_pylist()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def doubled(home: Home, first: Rules, second: Rules) -> Iterator[tuple[int, int]]:
    """Answer the schedules after which an event is not there exactly once."""
    for turns in product(range(CALLS[first] + 1), range(CALLS[second] + 1)):
        if home.interleaved((first, second), turns) != Counter(range(3)):
            yield turns


@pytest.mark.breaks("two landings that disagree, by each other at each of their steps")
@pytest.mark.parametrize(
    ("first", "second"),
    [(LENIENT, STRICT), (STRICT, LENIENT), (LENIENT, CLOSED), (CLOSED, LENIENT)],
    ids=["row first", "aside first", "evolves first", "quarantines first"],
)
def test_two_that_disagree_put_no_event_into_both_tables(
    home: Home, first: Rules, second: Rules
) -> None:
    """The first one stops anywhere, the second one goes as far as it likes, the first goes on."""
    wrong = list(doubled(home, first, second))

    happened("interleavings", home.runs)
    sent = product(range(1, home.runs + 1), range(3))
    found(tables=compare(dict.fromkeys(sent), ((one, None) for one in home.held)))
    assert wrong == []


def test_the_interleavings_catch_a_quarantine_without_claims(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise these schedules would prove nothing."""
    monkeypatch.setattr(commit, "_claim", lambda _lake, _batch, _clock: None)

    assert any(doubled(home, LENIENT, STRICT))


def test_the_interleavings_catch_a_landing_that_does_not_look_at_claims(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim that nobody heeds is no better than none."""
    monkeypatch.setattr(commit, "claimed_beyond", lambda _main, _aside, _batch: False)

    assert any(doubled(home, LENIENT, STRICT))

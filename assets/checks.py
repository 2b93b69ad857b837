"""What can be proven about a collection at any time: the decisions, and what they look at.

Conservation is the promise itself: below the table's mark every log position is one row or one
quarantined event, and above it there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

from assets.accounting import (
    LOOKS,
    Standing,
    answered,
    expired_beyond,
    stand,
    stand_all,
    troubles,
)
from assets.remedies import explained
from lakehouse import Lake, TableView
from lakehouse.catalog import main_table, quarantine_table
from lakehouse.commit import refuse_either_changed
from lakehouse.tables import NOTHING_EXPIRED, Expired, read_view, scanned
from penstock.buffer import Buffer, start_of
from penstock.envelope import CollectionId, Mark, Micros
from penstock.errors import LogReplaced, PenstockError, Stopped, Unavailable

_SECOND: Micros = 1_000_000

Run = tuple[int, int]
"""Positions from the first to the second, which is exclusive."""

# More than enough to go looking; a message is no list.
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a check passed, a sentence for people, and the numbers behind it."""

    passed: bool
    sentence: str
    facts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Account:
    """How often the positions of a log partition from 0 until a mark are in the tables.

    `expired` are those that retention dropped: as many are missing, and none of the rest.
    """

    rows: int
    doubled: int
    missing: tuple[Run, ...]
    beyond: int
    expired: Expired = NOTHING_EXPIRED


def runs_of(offsets: pa.Array) -> list[Run]:
    """Answer the offsets as runs; one that is there twice begins a run of its own."""
    if not len(offsets):
        return []
    ordered = pc.array_take(offsets, pc.array_sort_indices(offsets))
    steps = pc.subtract(ordered[1:], ordered[:-1])
    breaks = [i + 1 for i in pc.indices_nonzero(pc.not_equal(steps, 1)).to_pylist()]
    bounds = [0, *breaks, len(ordered)]
    return [
        (ordered[first].as_py(), ordered[after - 1].as_py() + 1)
        for first, after in pairwise(bounds)
    ]


def account(
    runs: Iterable[Run],
    upto: int,
    gaps: Iterable[Run] = (),
    expired: Expired = NOTHING_EXPIRED,
) -> Account:
    """Compare the runs with every position from 0 until `upto`; in `gaps` there must be none."""
    runs, gaps = list(runs), list(gaps)
    found = _account([*runs, *gaps], upto)
    rows = found.rows - sum(end - start for start, end in gaps)
    return replace(found, rows=rows, expired=expired)


def _account(runs: Iterable[Run], upto: int) -> Account:
    rows = doubled = beyond = 0
    missing: list[Run] = []
    reached = 0
    for start, end in sorted(runs):
        rows += end - start
        beyond += max(0, end - max(start, upto))
        if start > reached and reached < upto:
            missing.append((reached, min(start, upto)))
        doubled += max(0, min(reached, end) - start)
        reached = max(reached, end)
    if reached < upto:
        missing.append((reached, upto))
    return Account(rows, doubled, tuple(missing), beyond)


def conserved(accounts: Mapping[int, Account]) -> Verdict:
    """Say whether every position is there once, from the accounts of all partitions."""
    rows = sum(a.rows for a in accounts.values())
    doubled = sum(a.doubled for a in accounts.values())
    beyond = sum(a.beyond for a in accounts.values())
    gaps: list[tuple[int, Run]] = []
    missing = expired = 0
    for partition, one in sorted(accounts.items()):
        gone = sum(end - start for start, end in one.missing)
        below = sum(max(0, min(end, one.expired.upto) - start) for start, end in one.missing)
        expired += one.expired.rows
        missing += max(0, below - one.expired.rows) + gone - below
        # Counted as dropped, and there all the same.
        doubled += max(0, one.expired.rows - below)
        if gone != one.expired.rows:
            gaps += [(partition, run) for run in one.missing]
    facts = {
        "rows": rows,
        "doubled": doubled,
        "missing": missing,
        "beyond": beyond,
        "expired": expired,
    }
    if not doubled and not missing and not beyond:
        dropped = f", {expired:,} dropped by retention" if expired else ""
        return Verdict(True, f"{rows:,} events landed, each once{dropped}", facts)
    named = ", ".join(f"[{p}]:{start}-{end}" for p, (start, end) in gaps[:_NAMED])
    return Verdict(
        False,
        f"{missing:,} events are missing{f' ({named})' if named else ''}, {doubled:,} are there "
        f"twice, {beyond:,} are there although no mark says so",
        facts,
    )


def fresh(oldest: Micros | None, now: Micros, *, limit: Micros) -> Verdict:
    """Say whether the oldest event that has not landed is younger than the limit."""
    if oldest is None:
        return Verdict(True, "everything has landed", {"seconds": 0})
    seconds = max(0, now - oldest) // _SECOND
    sentence = f"the oldest event that has not landed waits for {seconds:,} seconds"
    return Verdict(now - oldest <= limit, sentence, {"seconds": seconds})


def checked(check: Callable[[], Verdict]) -> Verdict:
    """Answer the check's verdict; what cannot be checked has not passed."""
    try:
        return check()
    except PenstockError as error:
        return Verdict(False, str(error))
    except Exception as error:  # noqa: BLE001 - others are checked, and this one is told
        # Without the error's own words: a library may quote what it could not read.
        return Verdict(False, f"could not be checked: {type(error).__name__}")


def check_conservation(lake: Lake, collection: CollectionId, log_id: str) -> Verdict:
    """Compare the positions in both tables with the marks, which are read with them."""
    for _ in range(LOOKS):
        runs: dict[int, list[Run]] = {}
        # Main first: what quarantine gets after that lies behind these marks or below them with
        # the row it belongs to, and the former is left out.
        view, batches = _positions(lake, collection, quarantine=False)
        if view is None:
            break
        marks = {mark.partition: mark.next for mark in view.marks if mark.log_id == log_id}
        _collect(runs, batches, log_id)
        beside, batches = _positions(lake, collection, quarantine=True)
        _collect(runs, batches, log_id, below=marks)
        if not expired_beyond(view, beside):
            break
    if view is None:
        return Verdict(True, "nothing has landed yet", {"rows": 0})
    # The count of what was dropped is of the same load as the rows that were not.
    expired: dict[int, Expired] = {}
    for each in (view, beside):
        for (of, partition), dropped in each.expired.items() if each else ():
            if of == log_id:
                expired[partition] = expired.get(partition, NOTHING_EXPIRED) + dropped
    gaps: dict[int, list[Run]] = {}
    for gap in (*view.lost, *view.carried):
        if gap.log_id == log_id:
            gaps.setdefault(gap.partition, []).append((gap.start, gap.end))
    accounts = {
        p: account(
            runs.get(p, ()), marks.get(p, 0), gaps.get(p, ()), expired.get(p, NOTHING_EXPIRED)
        )
        for p in marks.keys() | runs.keys() | expired.keys()
    }
    return conserved(accounts)


def check_books(
    buffer: Buffer, lake: Lake, collection: CollectionId, now: Micros, retention: Micros | None
) -> Verdict:
    """Compare what was accepted with what became of it, and lag with what the log keeps."""
    return _books(stand(buffer, lake, None, collection, now=now), retention)


def check_all_books(
    buffer: Buffer,
    lake: Lake,
    collections: Sequence[CollectionId],
    now: Micros,
    retention: Micros | None,
) -> Mapping[CollectionId, Verdict]:
    """Answer for each collection what `checked` does of `check_books`, looked at together."""
    try:
        told = stand_all(buffer, lake, None, collections, now=now)
    except Exception:  # noqa: BLE001 - what is wrong with one shall not be said of the others
        return {
            one: checked(partial(check_books, buffer, lake, one, now, retention))
            for one in collections
        }
    return {one: checked(partial(_answered_books, told[one], retention)) for one in collections}


def _answered_books(told: Standing | Unavailable, retention: Micros | None) -> Verdict:
    return _books(answered(told), retention)


def _books(standing: Standing, retention: Micros | None) -> Verdict:
    books = standing.books
    said = troubles(standing, retention)
    facts = {"accepted": books.accepted, **books.parts, "difference": books.difference}
    return Verdict(not said, "; ".join(said) or books.sentence, facts)


def check_freshness(
    buffer: Buffer, lake: Lake, collection: CollectionId, now: Micros, *, limit: Micros
) -> Verdict:
    """Look at the first event of each partition that has not landed."""
    view = lake.view(collection)
    log_id = buffer.log_id(collection)
    waiting = []
    for partition, extent in buffer.extents(collection).items():
        mark = _mark(view, log_id, partition)
        if mark.next < extent.end:
            portion = buffer.read(collection, mark, end=extent.end, max_bytes=1)
            received = portion.rows["received_at"].cast(pa.int64())
            waiting += received[:1].to_pylist()
    return fresh(min(waiting, default=None), now, limit=limit)


def check_marks(buffer: Buffer, lake: Lake, collection: CollectionId) -> Verdict:
    """Ask the log whether it still is the one, and holds the records, that have landed."""
    view = lake.view(collection)
    if view is None:
        return Verdict(True, "nothing has landed yet")
    try:
        refuse_either_changed(view, lake.quarantine_view(collection))
        extents = buffer.extents(collection)
        log_id = buffer.log_id(collection)
        for mark in view.marks:
            if mark.log_id != log_id:
                continue
            extent = extents.get(mark.partition)
            if extent is None or mark.next > extent.end:
                return Verdict(False, f"the log ends before the mark {mark} in {mark.partition}")
            buffer.read(collection, mark, end=mark.next, max_bytes=1)
    except Stopped as error:
        return Verdict(False, explained(collection, error))
    logs = {mark.log_id for mark in view.marks}
    if logs and log_id not in logs:
        another = LogReplaced(
            f"{collection} was landed from another log, {', '.join(sorted(logs))}, this is {log_id}"
        )
        return Verdict(False, explained(collection, another))
    return Verdict(True, "the log holds what the marks say")


def _mark(view: TableView | None, log_id: str, partition: int) -> Mark:
    return view.mark(log_id, partition) if view else start_of(log_id, partition)


def _positions(
    lake: Lake, collection: CollectionId, *, quarantine: bool
) -> tuple[TableView | None, Iterator[pa.RecordBatch]]:
    """Answer what one load of a table says, and the log positions of its rows."""
    table = lake.table(quarantine_table(collection) if quarantine else main_table(collection))
    if table is None:
        return None, iter(())
    rows = scanned(table, ("log_id", "log_partition", "log_offset"))
    return read_view(collection, table), rows


def _collect(
    runs: dict[int, list[Run]],
    batches: Iterator[pa.RecordBatch],
    log_id: str,
    below: Mapping[int, int] | None = None,
) -> None:
    """Add the positions of this log to the runs of their partitions."""
    for batch in batches:
        mine = batch.filter(pc.equal(batch["log_id"], log_id))
        for partition in pc.unique(mine["log_partition"]).to_pylist():
            of_it = mine.filter(pc.equal(mine["log_partition"], partition))
            offsets = of_it["log_offset"]
            if below is not None:
                offsets = offsets.filter(pc.less(offsets, below.get(partition, 0)))
            runs.setdefault(partition, []).extend(runs_of(offsets))

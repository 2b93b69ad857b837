"""How a stop is resolved: what an operator chooses is looked at, told, and done in one commit.

Nothing is decided here but what follows from the choice. What a plan says is what is committed: if
log or tables move on in between, the plan is made again, and carried out only if it is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow.compute as pc
import structlog

from assets.accounting import read_books, stop_of
from assets.checks import Run, account, runs_of
from assets.remedies import Choice, choices_for, command_for
from lakehouse import Lake, TableView
from lakehouse.commit import refuse_either_changed
from lakehouse.statements import Loaded, Moved, load
from lakehouse.tables import (
    ADOPTED,
    NOTHING_EXPIRED,
    Expired,
    Gap,
    gap_properties,
    mark_properties,
    repeats_property,
)
from penstock.buffer import Buffer
from penstock.envelope import CollectionId, Mark
from penstock.errors import (
    EngineUnavailable,
    LogReplaced,
    NotFound,
    Stopped,
    Unavailable,
    WrongState,
)

log = structlog.get_logger()

Place = tuple[str, int]
"""A log id and a partition."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One commit: of `properties`, or back to the snapshot `back_to`."""

    quarantine: bool
    properties: Mapping[str, str] = field(default_factory=dict)
    back_to: int | None = None
    on: Loaded = field(compare=False)
    """What it is committed on top of."""


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """What will be done, in sentences and in commits. Two that are equal do the same."""

    collection: CollectionId
    choice: Choice
    stop: str = field(compare=False)
    """The sentence of the stop that it resolves."""
    says: tuple[str, ...]
    steps: tuple[Step, ...]
    released: tuple[Mark, ...] = field(default=(), compare=False)
    """What the log is told that the table has absorbed: it may keep more again."""


# Deciding, pure


def mark_after(rows: Iterable[Run], gaps: Iterable[Run], expired: Expired = NOTHING_EXPIRED) -> int:
    """Answer where a log partition goes on after these rows, and what `expired` before them.

    Landing appends in the order of the log, so what a snapshot has of it ends at its last row; what
    was given up right behind that does not come either.
    """
    reached = max([expired.upto, *(end for _, end in rows)])
    for start, end in sorted(gaps):
        if start <= reached < end:
            reached = end
    return reached


def missing(rows: Iterable[Run], upto: int, gaps: Iterable[Run]) -> list[Run]:
    """Answer the positions before `upto` that are neither rows nor given up."""
    return list(account(rows, upto, gaps).missing)


def unexplained(missing: Iterable[Run], expired: Expired) -> Iterator[Run]:
    """Answer what of the missing positions retention did not drop, as far as that is known.

    It is known how many it dropped below a position. Of those that are missing there the first
    are taken for them: retention drops what is old.
    """
    left = expired.rows
    for start, end in missing:
        dropped = min(left, max(0, min(end, expired.upto) - start))
        left -= dropped
        if start + dropped < end:
            yield start + dropped, end


def cut_off(rows: Iterable[Run], start: int, end: int) -> list[Run]:
    """Answer what lies from `start` until `end` and is no row, as it is not in these runs."""
    inside = [
        (max(first, start) - start, min(after, end) - start)
        for first, after in rows
        if first < end and after > start
    ]
    return [(a + start, b + start) for a, b in account(inside, end - start).missing]


# Looking


def prepare(buffer: Buffer, lake: Lake, collection: CollectionId, choice: Choice) -> Resolution:
    """Look at log and tables, and answer what the choice would do; nothing is changed.

    Raises `NotFound` without a table, `WrongState` if the choice does not fit what has stopped, or
    nothing has.
    """
    main, quarantine = load(lake, collection), load(lake, collection, quarantine=True)
    if main is None:
        raise NotFound("table of a collection", str(collection))
    stop = find_stop(buffer, lake, collection)
    if stop is None and choice != "adopt-table":
        raise WrongState(f"landing of {collection} has not stopped: there is nothing to resolve")
    if stop is not None and choice not in choices_for(stop):
        command = command_for(collection, stop)
        fitting = " or ".join(f"--by {one}" for one in choices_for(stop)) or command
        raise WrongState(
            f"landing has stopped because {stop}; that is not resolved by {choice!r}"
            + (f" but {fitting}" if fitting else ", nor by any command")
        )
    look = _Look(buffer, collection, stop, main, quarantine)
    return _HOW[choice](look)


def find_stop(buffer: Buffer, lake: Lake, collection: CollectionId) -> Stopped | None:
    """Answer why landing of the collection has stopped, None if it has not.

    The records before and behind each mark are looked at as well. A table is told first: it is
    resolved without the log, which may be one that cannot be read.
    """
    view = lake.view(collection)
    if view is not None:
        try:
            refuse_either_changed(view, lake.quarantine_view(collection))
        except Stopped as error:
            return error
    books = read_books(buffer, lake, collection)
    stop = stop_of(books, buffer.extents(collection))
    if stop is None and books.table is not None:
        try:
            for one in books.partitions:
                mark = books.table.mark(books.log_id, one.partition)
                buffer.read(collection, mark, end=max(mark.next, one.end), max_bytes=1)
        except Stopped as error:
            return error
    return stop


def resolve(
    buffer: Buffer, lake: Lake, agreed: Resolution, *, done: Callable[[str], None]
) -> TableView:
    """Do what was agreed to; answer the main table as it is afterwards. `done` hears of each step.

    Raises `WrongState` if it would not be the same any more: then somebody has to look again. Who
    is killed in between finds the stop as it was, or resolved, or a smaller one.
    """
    collection = agreed.collection
    for _ in lake.patience.attempts():
        now = prepare(buffer, lake, collection, agreed.choice)
        if now != agreed:
            raise WrongState(f"{collection} has changed meanwhile: look at it again")
        # Before the marks: what is to land again must not be let go of, and is waited for.
        _release(buffer, now)
        try:
            for step in now.steps:
                _commit(step, agreed.choice)
                done("quarantine" if step.quarantine else "table")
        except Moved:
            log.info("the table moved on beside a resolution", collection=str(collection))
            continue
        view = lake.view(collection)
        if view is None:
            raise EngineUnavailable(f"the table of {collection} is gone")
        return view
    raise EngineUnavailable(f"the table of {collection} kept changing beside this resolution")


def _commit(step: Step, choice: Choice) -> None:
    if step.back_to is not None:
        step.on.set_back(step.back_to)
    else:
        step.on.state(choice, step.properties)


def _release(buffer: Buffer, resolution: Resolution) -> None:
    for mark in resolution.released:
        try:
            buffer.release(resolution.collection, [mark])
        except (Stopped, Unavailable, OSError) as error:
            # The next landing says it again; where the log is another one there is nothing to say.
            log.info("log not told of the marks", mark=str(mark), reason=type(error).__name__)


@dataclass(frozen=True)
class _Look:
    """What was found, and what the choices need of it."""

    buffer: Buffer
    collection: CollectionId
    stop: Stopped | None
    main: Loaded
    quarantine: Loaded | None

    def log_id(self) -> str:
        return self.buffer.log_id(self.collection)

    def logs_that_are_over(self) -> set[str]:
        """Answer the logs that the table has landed from before the one there is now.

        With a single one nobody asks the log, which may be damaged. Where the one that is there
        now is none of them, nobody knows which of them comes back.
        """
        logs = {mark.log_id for mark in self.main.view.marks}
        return logs - {now} if len(logs) > 1 and (now := self.log_id()) in logs else set()

    def gaps(self, place: Place) -> list[Run]:
        """Answer what will not land from there: it is lost, or was carried to another log."""
        view = self.main.view
        return [
            (gap.start, gap.end)
            for gap in (*view.lost, *view.carried)
            if (gap.log_id, gap.partition) == place
        ]

    def expired(self, place: Place) -> Expired:
        """Answer what retention dropped of both tables."""
        return _expired(self.main, place) + _expired(self.quarantine, place)

    def lost_with(self, more: Iterable[Gap]) -> dict[str, str]:
        """Answer the properties of all that is given up."""
        gaps = sorted({*self.main.view.lost, *more}, key=lambda g: (g.log_id, g.partition, g.start))
        return gap_properties(gaps)

    def answer(
        self,
        choice: Choice,
        says: Sequence[str],
        steps: Sequence[Step],
        released: Iterable[Mark] = (),
    ) -> Resolution:
        return Resolution(
            collection=self.collection,
            choice=choice,
            stop=str(self.stop) if self.stop is not None else "landing has not stopped",
            says=tuple(says),
            steps=tuple(steps),
            released=tuple(released),
        )


def _new_log(look: _Look) -> Resolution:
    log_id, view = look.log_id(), look.main.view
    assert isinstance(look.stop, LogReplaced)  # noqa: S101 - the only stop that has this choice
    extents = look.buffer.extents(look.collection)
    marks = [Mark(log_id, partition, 0, "") for partition in sorted(extents)]
    others = sorted({mark.log_id for mark in view.marks})
    absorbed = sum(mark.next for mark in view.marks)
    stay = (
        f"the {absorbed:,} events of {', '.join(others)} that landed stay; what that log held "
        "beyond them is not known any more, and is in no books"
    )
    says = [
        f"land from the log {log_id}, from its beginning",
        stay,
        "replays of the collection are refused from then on: one end does not cut two logs",
    ]
    return look.answer(
        "new-log",
        says,
        [Step(quarantine=False, properties=mark_properties(marks), on=look.main)],
        marks,
    )


def _loss(look: _Look) -> Resolution:
    log_id, view = look.log_id(), look.main.view
    aside = rows_of(look.quarantine)
    marks, gaps, says = [], [], []
    for partition, extent in sorted(look.buffer.extents(look.collection).items()):
        mark = view.mark(log_id, partition)
        if mark.next >= extent.start:
            continue
        marks.append(Mark(log_id, partition, extent.start, ""))
        # After a landing that broke off, some of it is in quarantine already.
        gone = cut_off(aside.get((log_id, partition), ()), mark.next, extent.start)
        gaps += [Gap(log_id, partition, start, end) for start, end in gone]
        says.append(
            f"go on at {extent.start} in partition {partition}: "
            f"{sum(end - start for start, end in gone):,} events from {mark.next} on are lost, and "
            "the books say so from then on"
        )
    properties = {**mark_properties(marks), **look.lost_with(gaps)}
    return look.answer(
        "loss", says, [Step(quarantine=False, properties=properties, on=look.main)], marks
    )


def _reset_marks(look: _Look) -> Resolution:
    if not look.main.view.rolled_back:
        return _reset_quarantine(look)
    view = look.main.view
    rows, aside = rows_of(look.main), rows_of(look.quarantine)
    over = look.logs_that_are_over()
    gone = {(one.log_id, one.partition): one.next for one in view.marks if one.log_id in over}
    gaps = _missing(look, gone)
    marks, says = [], []
    still: dict[Place, Expired] = {}
    for mark in view.marks:
        place = mark.log_id, mark.partition
        if mark.log_id in over:
            continue
        here = _expired(look.main, place)
        upto = min(mark.next, mark_after(rows.get(place, ()), look.gaps(place), here))
        if upto == mark.next:
            continue
        marks.append(Mark(mark.log_id, mark.partition, upto, ""))
        beside = _expired(look.quarantine, place)
        if beside.upto > upto:
            # What it dropped behind the mark lands again, and then as rows.
            none = missing([*rows.get(place, ()), *aside.get(place, ())], upto, look.gaps(place))
            kept = sum(end - start for start, end in none) - here.rows
            still[place] = Expired(min(beside.rows, max(0, kept)), upto)
        says.append(
            f"the mark of partition {mark.partition} of {mark.log_id} goes back from {mark.next} "
            f"to {upto}: {mark.next - upto:,} events land again that the table does not have; what "
            "quarantine has of them stays there"
        )
    if gaps:
        says.append(
            f"{sum(map(len, gaps)):,} events of {', '.join(sorted({gap.log_id for gap in gaps}))} "
            "that the table no longer has are lost, and the books say so from then on: another "
            "log has followed that one; 'undo-rollback' brings them back while the snapshot is kept"
        )
    says = says or ["the table has all that its marks say: it is taken as it is"]
    # What went with the rows is not in the table's properties: those stay as they were.
    properties = {
        **mark_properties(marks),
        **look.lost_with(gaps),
        **repeats_property(look.main.repeats()),
    }
    steps = [Step(quarantine=False, properties=properties, on=look.main)]
    if still and look.quarantine is not None:
        # Before: the main table tells that there is something to resolve until it is.
        counts = look.quarantine.expired_as(still)
        steps.insert(0, Step(quarantine=True, properties=counts, on=look.quarantine))
    return look.answer("reset-marks", says, steps, marks)


def _reset_quarantine(look: _Look) -> Resolution:
    """Give up what quarantine lost: it lies before main's marks, beside rows that are there."""
    quarantine = look.quarantine
    assert quarantine is not None  # noqa: S101 - it is what was rolled back
    gaps = _missing(look)
    lost = (
        f"{sum(map(len, gaps)):,} events that the quarantine no longer has are lost, and the books "
        "say so from then on: 'undo-rollback' brings them back while the snapshot is kept"
    )
    says = [lost, "the quarantine is taken as it is"]
    steps = [
        # The loss first: who is killed in between finds the same events missing, stated already.
        Step(quarantine=False, properties=look.lost_with(gaps), on=look.main),
        Step(quarantine=True, on=quarantine),
    ]
    return look.answer("reset-marks", says, steps)


def _undo_rollback(look: _Look) -> Resolution:
    quarantine = look.quarantine
    at_fault = look.main if look.main.view.rolled_back else quarantine
    assert at_fault is not None  # noqa: S101 - one of them was rolled back
    which = "table" if at_fault is look.main else "quarantine"
    back_to = at_fault.landed_snapshot()
    if back_to is None:
        raise WrongState(
            f"the snapshot that landing made last of the {which} is not kept any more: use "
            "--by reset-marks"
        )
    says = [f"the {which} goes back to snapshot {back_to}, which landing made last"]
    step = Step(quarantine=at_fault is not look.main, back_to=back_to, on=at_fault)
    return look.answer("undo-rollback", says, [step])


def _adopt(look: _Look) -> Resolution:
    """Take the tables as they are, with marks behind their last rows."""
    view = look.main.view
    adopted = {ADOPTED: view.uuid}
    rows, aside = rows_of(look.main), rows_of(look.quarantine)
    marks, says, steps = [], [], []
    if view.rows and not view.marks:
        marks = [
            Mark(*place, mark_after(runs, look.gaps(place), look.expired(place)), "")
            for place, runs in sorted(rows.items())
        ]
        gaps = _missing(look, {(mark.log_id, mark.partition): mark.next for mark in marks})
        says += [
            f"partition {mark.partition} of {mark.log_id} goes on at {mark.next}, behind the last "
            "row that the table has of it"
            for mark in marks
        ]
        if gaps:
            says.append(
                f"{sum(map(len, gaps)):,} events before that are in neither table: they are lost, "
                "and the books say so from then on"
            )
        adopted |= {**mark_properties(marks), **look.lost_with(gaps)}
        adopted |= repeats_property(look.main.repeats())
    says.append(f"the table {view.uuid} is the one to land into from then on")
    steps.append(Step(quarantine=False, properties=adopted, on=look.main))
    quarantine = look.quarantine
    if quarantine is not None and quarantine.view.rows and not quarantine.view.marks:
        # What lies before main's marks is decided; so is what quarantine has beyond them.
        mains = {(m.log_id, m.partition): m.next for m in marks or view.marks}
        decided = [
            Mark(*place, max(mains.get(place, 0), mark_after(aside.get(place, ()), ())), "")
            for place in sorted(mains.keys() | aside.keys())
        ]
        says.append("its quarantine is taken as it is")
        properties = mark_properties(decided)
        steps.append(Step(quarantine=True, properties=properties, on=quarantine))
    return look.answer("adopt-table", says, steps, marks)


def _missing(look: _Look, upto: Mapping[Place, int] | None = None) -> list[Gap]:
    """Answer what lies before main's marks (or `upto`) and is in neither table."""
    if upto is None:
        upto = {(mark.log_id, mark.partition): mark.next for mark in look.main.view.marks}
    rows, aside = rows_of(look.main), rows_of(look.quarantine)
    return [
        Gap(*place, start, end)
        for place, mark in sorted(upto.items())
        for start, end in unexplained(
            missing(
                [
                    *rows.get(place, ()),
                    *(run for run in aside.get(place, ()) if run[0] < mark),
                ],
                mark,
                look.gaps(place),
            ),
            look.expired(place),
        )
    ]


def _expired(table: Loaded | None, place: Place) -> Expired:
    return NOTHING_EXPIRED if table is None else table.view.expired.get(place, NOTHING_EXPIRED)


def rows_of(table: Loaded | None) -> dict[Place, list[Run]]:
    """Answer the positions of a table's rows, as runs."""
    found: dict[Place, list[Run]] = {}
    for batch in table.positions() if table is not None else ():
        for log_id in pc.unique(batch["log_id"]).to_pylist():
            mine = batch.filter(pc.equal(batch["log_id"], log_id))
            for partition in pc.unique(mine["log_partition"]).to_pylist():
                offsets = mine.filter(pc.equal(mine["log_partition"], partition))["log_offset"]
                found.setdefault((log_id, partition), []).extend(runs_of(offsets))
    return found


_HOW: Mapping[Choice, Callable[[_Look], Resolution]] = {
    "new-log": _new_log,
    "loss": _loss,
    "reset-marks": _reset_marks,
    "undo-rollback": _undo_rollback,
    "adopt-table": _adopt,
}

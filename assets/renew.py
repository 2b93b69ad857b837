"""A log that cannot go on is followed by a new one, with what of it no table has.

An embedded log is one for all collections, so this is done for all of them at once. What a plan
says is what is done: the log is held, so that it stays as it was looked at, and a table that
moves on meanwhile is looked at again before it is told. Each table is told before the new log is
there, in one commit that moves its mark of the old log to the end: a landing that is under way
finds that somebody did it, and nothing of it lands twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import structlog

from assets.checks import Run, runs_of
from assets.remedies import command_for
from assets.resolve import rows_of
from lakehouse import Lake
from lakehouse.commit import refuse_either_changed
from lakehouse.statements import IDENTITY, RENEWED, Loaded, Moved, load
from lakehouse.tables import CARRIED, Gap, gap_properties, mark_properties
from penstock.buffer import renewal, salvage
from penstock.buffer.files import Files
from penstock.buffer.renewal import Intent, Share
from penstock.buffer.salvage import Found, without
from penstock.codec import Gathering
from penstock.envelope import CollectionId, Mark, Micros, parse_collection
from penstock.errors import BadRequest, EngineUnavailable, Stopped, WrongState
from penstock.faults import fault

log = structlog.get_logger()

_NAMED = 5
"""So many runs are shown of what is lost."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What would be done with the log in a folder."""

    folder: Path
    found: Found | None
    """None where the new log is made already."""
    begun: Intent | None
    """The renewal that is finished by it, if one was begun."""
    shares: Mapping[CollectionId, Share]
    says: tuple[str, ...]


# Deciding, pure


def divide(
    readable: Iterable[Run], decided: Iterable[Run], *, mark: int, end: int
) -> tuple[list[Run], list[Run]]:
    """Answer what of the positions from `mark` to `end` is carried over, and what is lost.

    What is `decided` is in a table already, or in another log.
    """
    decided = list(decided)
    gone = without([(mark, end)], [*decided, *readable])
    return without([(mark, end)], [*decided, *gone]), gone


def apart(readable: pa.Table, rows: pa.Table, *, log_id: str) -> tuple[list[Run], int, bool]:
    """Compare events of a log with rows of tables; answer what is in no row, by position.

    Also answers the position behind the last event that is the row of the same position, and
    whether any row of a position is another event: then the log is not the one that landed.
    Both are of `lakehouse.statements.IDENTITY`.
    """
    mine = rows.filter(pc.equal(rows["log_id"], log_id))
    ours, theirs = _keys(readable), _keys(mine)
    offsets = readable["log_offset"]
    place = pc.index_in(offsets, value_set=pc.unique(mine["log_offset"]))
    known = pc.is_valid(place)
    with_place = pc.is_in(_placed(ours, offsets), value_set=_placed(theirs, mine["log_offset"]))
    same = pc.and_(known, with_place)
    last = pc.max(offsets.filter(same)).as_py() if pc.any(same).as_py() else -1
    # Up to there it is the log that landed, whatever has become of a row since.
    fresh = pc.and_(pc.greater(offsets, last), pc.invert(pc.is_in(ours, value_set=_keys(rows))))
    another = pc.and_(known, pc.invert(with_place))
    return runs_of(offsets.filter(fresh).combine_chunks()), last + 1, bool(pc.any(another).as_py())


def _keys(events: pa.Table) -> pa.ChunkedArray:
    times = events["received_at"].cast(pa.int64()).cast(pa.string())
    return pc.binary_join_element_wise(times, events["event_id"], "@")


def _placed(keys: pa.ChunkedArray, offsets: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(offsets.cast(pa.string()), keys, "@")


def _told(collection: CollectionId, share: Share) -> Iterator[str]:
    """Say what becomes of a collection."""
    if share.forked:
        yield (
            f"{collection}: the log holds other events than the table where that has landed: it "
            f"is an older copy, or has lost its end, and goes on from position {share.mark} no more"
        )
    if share.events:
        yield f"{collection}: {share.events:,} events that no table has are carried over"
    if share.gone:
        some = ", ".join(f"{start}-{end}" for start, end in share.lost[:_NAMED])
        more = ", …" if len(share.lost) > _NAMED else ""
        yield (
            f"{collection}: {share.gone:,} events are lost for good (positions {some}{more}), and "
            "the books say so from then on"
        )


# Looking


def folder_of(log_url: str) -> Path:
    """Answer where an embedded log is; raises `BadRequest` for another one."""
    parts = urlsplit(log_url)
    if parts.scheme != "embedded":
        raise BadRequest(
            "a log on Kafka has a topic for each collection: see 'Make a topic anew' in "
            "docs/howto/kafka.md"
        )
    return Path(parts.path)


def prepare(folder: Path, lake: Lake) -> Plan:
    """Look at the log and every table, and answer what a renewal would do; nothing is changed.

    Raises `NotFound` without a log, `WrongState` if it is whole and goes on where the tables are,
    or if a table has to be resolved before.
    """
    begun = renewal.begun(folder)
    if begun is not None and renewal.made(folder):
        # Every table is told, and files may have changed places: nothing is left to look at.
        shares = {parse_collection(name): share for name, share in begun.shares.items()}
        return Plan(
            folder=folder, found=None, begun=begun, shares=shares, says=tuple(_says(begun, shares))
        )
    tables = lake.collections()
    found = salvage.read_folder(
        folder, known=[str(begun.old)] if begun is not None else _log_ids(lake, tables)
    )
    shares = {
        collection: _share_again(folder, lake, found, collection, begun)
        for collection in sorted({*tables, *found.ends})
    }
    if begun is None and not found.damage and not any(one.forked for one in shares.values()):
        raise WrongState(
            f"the log in {folder} can be read, and goes on where every table is: there is nothing "
            "to renew"
        )
    return Plan(
        folder=folder,
        found=found,
        begun=begun,
        shares=shares,
        says=tuple(_says(begun, shares, found.damage)),
    )


def _says(
    begun: Intent | None, shares: Mapping[CollectionId, Share], damage: Sequence[str] = ()
) -> Iterator[str]:
    if begun is not None:
        yield f"the renewal that {begun.by} began is finished"
    yield from (f"the log is damaged: {what}" for what in damage)
    for collection, share in shares.items():
        yield from _told(collection, share)
    if not any(share.events or share.gone for share in shares.values()):
        yield "no event is carried over, and none is known to be lost"
    yield (
        "the log is put aside as it is, and a new one takes its place; what the old one had "
        "accepted beyond what can be told from it is in no books"
    )
    yield (
        "replays of collections that have landed from it are refused from then on: one end does "
        "not cut two logs"
    )


def _log_ids(lake: Lake, tables: Iterable[CollectionId]) -> list[str]:
    views = (lake.view(collection) for collection in tables)
    return sorted({mark.log_id for view in views if view is not None for mark in view.marks})


def _share_again(
    folder: Path, lake: Lake, found: Found, collection: CollectionId, begun: Intent | None
) -> Share:
    """Answer what was decided, where a table was told of it already; else decide."""
    main = load(lake, collection)
    if begun is not None and main is not None and main.renewed == begun.name:
        decided = begun.share(collection)
        if decided is not None:
            return decided
    return _share(folder, found, collection, main, load(lake, collection, quarantine=True))


def _share(
    folder: Path,
    found: Found,
    collection: CollectionId,
    main: Loaded | None,
    quarantine: Loaded | None,
) -> Share:
    """Decide what becomes of a collection."""
    end = found.ends.get(collection, 0)
    readable = [piece.run for piece in found.pieces.get(collection, ())]
    if main is None:
        carried, _ = divide(readable, (), mark=0, end=end)
        gone = found.unreadable(collection, found.starts.get(collection, 0))
        # It gets a table that says so; without a loss the first landing makes one.
        return _made(0, end, carried, gone, stated=bool(gone))
    _refuse_unsettled(main, quarantine)
    place = found.log_id, 0
    mark = main.view.mark(*place)
    aside = rows_of(quarantine).get(place, [])
    decided = [
        *(run for run in aside if run[1] > mark.next),
        *((g.start, g.end) for g in main.view.carried if (g.log_id, g.partition) == place),
    ]
    beside = max((after for _, after in aside), default=0)
    stated = end > 0 or mark in main.view.marks
    print_ = found.fingerprint(collection, mark.next) if mark.next else ""
    forked, reached = mark.next > end, 0
    fresh: list[Run] = []
    if forked or print_ is None or print_ != mark.fingerprint:
        fresh, reached, differs = _compare(folder, found, collection, [main, quarantine])
        forked = forked or differs or bool(print_ and mark.fingerprint)
    if not forked:
        end = max(end, beside)
        carried, gone = divide(readable, decided, mark=mark.next, end=end)
        return _made(mark.next, end, carried, gone, stated=stated)
    # What the copy holds counts in the books of the new log; of the right one nobody has more
    # than its tables.
    end = max(mark.next, beside)
    gone = without([(mark.next, end)], decided)
    unreadable = sum(after - start for start, after in found.unreadable(collection, reached))
    if unreadable:
        # Their positions may be those of rows: they are told as so many behind the mark.
        gone.append((end, end + unreadable))
        end += unreadable
    return _made(mark.next, end, fresh, gone, forked=True, stated=stated)


def _made(
    mark: int,
    end: int,
    carried: Sequence[Run],
    lost: Sequence[Run],
    *,
    stated: bool,
    forked: bool = False,
) -> Share:
    return Share(
        mark=mark,
        end=end,
        carried=tuple(carried),
        lost=tuple(lost),
        forked=forked,
        stated=stated,
    )


def _refuse_unsettled(main: Loaded, quarantine: Loaded | None) -> None:
    """Raise `WrongState` where nobody knows what the tables have: that is resolved before."""
    try:
        refuse_either_changed(main.view, quarantine.view if quarantine is not None else None)
    except Stopped as error:
        raise WrongState(
            f"{error}; before the log is renewed: '{command_for(main.view.collection, error)}'"
        ) from error


def _compare(
    folder: Path, found: Found, collection: CollectionId, tables: Iterable[Loaded | None]
) -> tuple[list[Run], int, bool]:
    """Compare what can be read with both tables, see `apart`."""
    parts = [IDENTITY.empty_table()]
    for piece, block in salvage.blocks(folder, found.log_id, found.pieces.get(collection, ())):
        gathering = Gathering()
        gathering.add(block, piece.frame.first, 0, piece.frame.events)
        batch = gathering.batch(found.log_id, 0).select(IDENTITY.names)
        parts.append(pa.Table.from_batches([batch]).cast(IDENTITY))
    readable = pa.concat_tables(parts)
    if not readable.num_rows:
        return [], 0, False
    times = pc.min_max(readable["received_at"]).as_py()
    rows = [
        table.identities(found.log_id, times["min"], times["max"])
        for table in tables
        if table is not None
    ]
    return apart(readable, pa.concat_tables(rows), log_id=found.log_id)


# Acting


def renew(
    files: Files,
    lake: Lake,
    agreed: Plan,
    *,
    by: str,
    why: str,
    new_id: UUID,
    now: Micros,
    done: Callable[[str], None],
) -> Intent:
    """Do what was agreed to; answer what was done. `done` hears of each step.

    The caller holds the log, see `penstock.buffer.renewal.held`, and has since before it was
    looked at. Raises `WrongState` if the tables have changed so that something else would be done.
    Who is killed in between is where the next call goes on.
    """
    folder = agreed.folder
    intent, found = renewal.begun(folder), agreed.found
    if intent is None:
        if found is None or prepare(folder, lake).shares != agreed.shares:
            raise WrongState("the tables have changed meanwhile: look at it again")
        intent = Intent(
            old=UUID(found.log_id),
            new=new_id,
            at=now,
            by=by,
            why=why,
            damage=found.damage,
            shares={},
        )
        renewal.begin(files, folder, intent)
        fault("after_intent")
    if found is not None:
        for collection in agreed.shares:
            intent = _tell(files, lake, folder, found, intent, collection)
            fault("after_telling")
            done(str(collection))
        renewal.make(files, folder, intent)
        done("the new log")
    aside = renewal.finish(files, folder, intent)
    log.warning(
        "log renewed",
        folder=str(folder),
        old=str(intent.old),
        new=str(intent.new),
        by=by,
        aside=str(aside),
        carried=sum(share.events for share in intent.shares.values()),
        lost=sum(share.gone for share in intent.shares.values()),
    )
    return intent


def _tell(
    files: Files, lake: Lake, folder: Path, found: Found, intent: Intent, collection: CollectionId
) -> Intent:
    """Let the collection's tables say what becomes of it, once; answer with that."""
    for _ in lake.patience.attempts():
        main = load(lake, collection)
        if main is not None and main.renewed == intent.name:
            return intent
        quarantine = load(lake, collection, quarantine=True)
        share = _share(folder, found, collection, main, quarantine)
        if main is None and share.gone:
            lake.create(collection)
            continue
        try:
            upto = max(share.end, found.ends.get(collection, 0))
            quarantine = _fenced(lake, quarantine, str(intent.old), upto)
            share = _share(folder, found, collection, main, quarantine)
            intent = msgspec.structs.replace(
                intent, shares={**intent.shares, str(collection): share}
            )
            # Before the table: once that is told, nothing else says what is to be carried over.
            renewal.write(files, folder, intent)
            fault("before_telling")
            if main is not None and share.stated:
                main.state("renew-log", _properties(main, intent, share))
        except Moved:
            continue
        return intent
    raise EngineUnavailable(f"the table of {collection} kept changing beside this renewal")


def _fenced(lake: Lake, quarantine: Loaded | None, log_id: str, end: int) -> Loaded | None:
    """Let nothing of the old log come to quarantine any more; answer what it has."""
    if quarantine is None or quarantine.view.mark(log_id, 0).next >= end:
        return quarantine
    quarantine.state("renew-log", mark_properties([Mark(log_id, 0, end, "")]))
    return load(lake, quarantine.view.collection, quarantine=True)


def _properties(main: Loaded, intent: Intent, share: Share) -> dict[str, str]:
    old, new = str(intent.old), str(intent.new)
    view = main.view
    marks = [Mark(old, 0, share.end, "")]
    if not view.marks or any(mark.log_id == old for mark in view.marks):
        # One that was landed from another log still waits for somebody to say so.
        marks.append(Mark(new, 0, 0, ""))
    lost = {*view.lost, *(Gap(old, 0, start, end) for start, end in share.lost)}
    carried = {*view.carried}
    if not share.forked:
        carried |= {Gap(old, 0, start, end) for start, end in share.carried}
    return {
        **mark_properties(marks),
        **gap_properties(_ordered(lost)),
        **gap_properties(_ordered(carried), CARRIED),
        RENEWED: intent.name,
    }


def _ordered(gaps: Iterable[Gap]) -> list[Gap]:
    return sorted(gaps, key=lambda gap: (gap.log_id, gap.partition, gap.start))

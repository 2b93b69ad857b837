"""Retyping: columns of longs that fractions are sent to become columns of doubles, in place."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import structlog

from assets.landing import History
from lakehouse import Lake
from lakehouse.rewrite import Progress, Rewritten, newest, rewrite
from penstock.envelope import Clock, CollectionId
from penstock.errors import BadRequest, NotFound, Unavailable
from penstock.schema.again import Payloads
from penstock.schema.convert import Rules
from penstock.schema.retype import (
    Column,
    Counted,
    Difference,
    columns_of,
    differences,
    due,
    gains,
    longs_of,
    loses,
    widened,
)
from penstock.schema.shape import Struct

log = structlog.get_logger()

NEWEST_ROWS = 100_000
"""Rows whose misfits are counted: those received last."""
NEWEST_FILES = 20
"""Files that are opened for it, at most."""

# Longs within these are doubles as well.
_EXACT = 2**53

Tell = Callable[[Progress], None]


def silent(_progress: Progress) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retyped:
    """What retyping found and did; `rewritten` is None if there was nothing to do."""

    collection: CollectionId
    counted: tuple[Counted, ...]
    """The columns of longs that have such misfits in the newest rows."""
    rows: int
    """How many rows that were."""
    chosen: tuple[Column, ...]
    rewritten: Rewritten | None


def retype(
    lake: Lake,
    collection: CollectionId,
    history: History | None = None,
    *,
    rules: Rules,
    clock: Clock,
    chance: Callable[[int], bytes],
    columns: Sequence[str] = (),
    dry_run: bool = False,
    tell: Tell = silent,
) -> Retyped:
    """Make doubles of the columns of longs whose fractions have added up, or of those `columns`.

    Their misfits that a double holds are in the column then, and what no double is exactly is a
    misfit. What changed and why is entered in `history`. Safe beside landing; interrupted
    anywhere, the table is as before or as after. Raises as `lakehouse.rewrite.rewrite` does, and
    `BadRequest` if one of `columns` is no column of longs. Rows that landed in another format than
    that of today keep what they have: it raises `WrongState` where they would not.
    """
    view = lake.view(collection)
    if view is None:
        raise NotFound("table", str(collection))
    asked = [_named(view.shape, path) for path in columns]
    counted, rows = count(lake, collection, view.shape)
    chosen = asked or [one.column for one in counted if due(one, rows)]
    done = None
    if chosen:
        reasons = {one.column.path: f"{one.gained:,} misfits in {rows:,} rows" for one in counted}
        done = rewrite(
            lake,
            collection,
            _Retyping(rules, tuple(chosen)),
            why={"penstock.upkeep": "retype", "penstock.columns": _paths(chosen)},
            new_name=lambda: f"retyped-{chance(8).hex()}",
            clock=clock,
            tell=tell,
            dry_run=dry_run,
        )
        if done is not None and not dry_run:
            note(
                history,
                collection,
                clock(),
                differences(done.before, done.after),
                why=lambda path: reasons.get(path, "asked for"),
                only={column.path for column in chosen},
            )
    return Retyped(
        collection=collection,
        counted=tuple(counted),
        rows=rows,
        chosen=tuple(chosen),
        rewritten=done,
    )


@dataclass(frozen=True, slots=True)
class _Retyping:
    """What `lakehouse.rewrite` asks: the shape with some columns of longs as doubles."""

    rules: Rules
    chosen: tuple[Column, ...]

    @property
    def keeps_columns(self) -> bool:
        """Nobody asked for another format of rows that are there."""
        return True

    def shape(self, present: Struct, payloads: Payloads) -> Struct | None:
        """Answer that shape; None once they are no longs any more. No payload has a say."""
        del payloads
        wanted = widened(present, self.chosen)
        return None if wanted == present else wanted


def _named(shape: Struct, path: str) -> Column:
    for column in columns_of(shape):
        if column.path == path:
            if column.kind == "long":
                return column
            raise BadRequest(f"the column {path} is a {column.kind}; only a long becomes a double")
    raise BadRequest(f"there is no column {path}; lists are written as in items[].price")


def _paths(columns: Sequence[Column]) -> str:
    return json.dumps([column.path for column in columns])


def count(lake: Lake, collection: CollectionId, shape: Struct) -> tuple[list[Counted], int]:
    """Count, in the newest rows, what columns of doubles would gain and lose; and those rows."""
    longs = longs_of(shape)
    if not longs:
        return [], 0
    gained, rows = _gained(lake, collection, {one.misfit_path for one in longs})
    found = [Counted(one, gained[one.misfit_path]) for one in longs if gained[one.misfit_path]]
    if not any(due(one, rows) for one in found):
        return found, rows
    lost = _lost(lake, collection, [one.column for one in found])
    return [Counted(one.column, one.gained, lost[one.column]) for one in found], rows


def _newest(lake: Lake, collection: CollectionId, column: str) -> Iterator[pa.Array]:
    for part in newest(lake, collection, column, most_rows=NEWEST_ROWS, most_files=NEWEST_FILES):
        yield part.column(column)


def _gained(lake: Lake, collection: CollectionId, paths: set[str]) -> tuple[Counter[str], int]:
    gained: Counter[str] = Counter()
    rows = 0
    wanted = pa.array(sorted(paths), pa.string())
    for misfits in _newest(lake, collection, "misfits"):
        rows += len(misfits)
        leaves = pc.list_flatten(misfits)
        leaves = leaves.filter(pc.is_in(pc.struct_field(leaves, "path"), wanted))
        for leaf in leaves.to_pylist():
            gained[leaf["path"]] += gains(leaf["value"])
    return gained, rows


def _lost(lake: Lake, collection: CollectionId, columns: Sequence[Column]) -> Counter[Column]:
    lost: Counter[Column] = Counter()
    for data in _newest(lake, collection, "data"):
        for column in columns:
            values = _values(data, column.steps)
            if values is None:
                continue
            beyond = pc.or_(pc.greater(values, _EXACT), pc.less(values, -_EXACT))
            lost[column] += sum(loses(value) for value in values.filter(beyond).to_pylist())
    return lost


def _values(data: pa.Array, steps: Sequence[str | None]) -> pa.Array | None:
    """Answer the values of a column, the elements of lists one behind the other."""
    for step in steps:
        if step is None:
            data = pc.list_flatten(data)
        elif data.type.get_field_index(step) < 0:
            return None
        else:
            data = pc.struct_field(data, step)
    return data


def note(
    history: History | None,
    collection: CollectionId,
    at: int,
    changes: Sequence[Difference],
    *,
    why: Callable[[str], str],
    only: set[str] | None = None,
) -> None:
    """Enter in the history which columns a rewrite changed, and why.

    The table has them already: that the history could not take them is told, and nothing else.
    """
    entered: list[Mapping[str, object]] = [
        {
            "path": one.path,
            "what": one.what,
            "type": one.after or one.before,
            "before": one.before,
            "why": why(one.path),
            "event_id": None,
        }
        for one in changes
        if only is None or one.path in only
    ]
    if history is None or not entered:
        return
    try:
        history.add_schema_version(collection, at, entered)
    except (NotFound, Unavailable) as error:
        log.warning("changed columns not noted", name=str(collection), error=str(error))

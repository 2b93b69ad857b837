"""What an operator states about a table: marks, gaps, an adoption, in one commit of its own.

It is fenced as landing's commits are: an empty append carries the properties, for the snapshot that
the statement was made from, because a commit of properties alone is not checked against others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import structlog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import ancestors_of

from lakehouse.catalog import main_table, quarantine_table
from lakehouse.commit import Staged
from lakehouse.tables import (
    LANDED,
    PROPERTIES,
    Expired,
    Lake,
    TableView,
    expired_properties,
    read_view,
    scanned,
    scanned_as,
)
from lakehouse.updates import same_ref, set_branch
from penstock.codec import ENVELOPE
from penstock.envelope import CollectionId
from penstock.errors import EngineUnavailable, WrongState
from penstock.faults import fault

log = structlog.get_logger()

RENEWED = "penstock.renewed"
STATED = "penstock.stated"
"""In the summary of the snapshot that a statement made: which choice it was."""

_POSITION = ("log_id", "log_partition", "log_offset")
IDENTITY = pa.schema([ENVELOPE.field(name) for name in ("event_id", "received_at", *_POSITION)])
"""What tells events apart, and where they are."""

# The format of a table that somebody else made stays what it is.
_OURS = {name: value for name, value in PROPERTIES.items() if name != "format-version"}


class Moved(Exception):
    """The table is not as it was looked at: look again."""


@dataclass(frozen=True)
class Loaded:
    """One load of a table, and what may be stated on top of it."""

    view: TableView
    _table: Table
    _lake: Lake

    @property
    def renewed(self) -> str:
        """The renewal of a log that the table was told of last; empty if there was none."""
        return self._table.metadata.properties.get(RENEWED, "")

    def positions(self) -> Iterator[pa.RecordBatch]:
        """Yield the log positions of all rows: log id, partition and offset.

        Raises `WrongState` if the table has no such columns: landing has not made it.
        """
        names = set(self._table.schema().column_names)
        if not set(_POSITION) <= names:
            raise WrongState(f"the table of {self.view.collection} was not made by landing")
        if self.view.snapshot_id is None:
            return iter(())
        return scanned(self._table, _POSITION)

    def identities(self, log_id: str, since: datetime, until: datetime) -> pa.Table:
        """Answer what tells apart the rows of a log since a time, and all until another one.

        It is a table of `IDENTITY`; both ends are included.
        """
        if self.view.snapshot_id is None:
            return IDENTITY.empty_table()
        wanted = (
            f"received_at >= '{since.isoformat()}' and "
            f"(log_id = '{log_id}' or received_at <= '{until.isoformat()}')"
        )
        return scanned_as(self._table, IDENTITY, wanted)

    def repeats(self) -> int:
        """Count the rows that repeat others, by looking at them, and those that expired."""
        expired = sum(one.repeats for one in self.view.expired.values())
        if self.view.snapshot_id is None:
            return expired
        found = scanned(self._table, ("duplicate_of",), "duplicate_of is not null")
        there: int = sum(batch.num_rows for batch in found)
        return expired + there

    def state(self, choice: str, properties: Mapping[str, str]) -> TableView:
        """Commit the properties on top of this load; answer the table as it then is.

        Marks in it are as good as landing's from then on. Raises `Moved` if the table has changed
        since it was loaded, `EngineUnavailable` if the outcome is not known.
        """
        staged = Staged(self._table)
        append = staged.update_snapshot({STATED: choice}).merge_append()
        append.commit()
        staged.snapshot_id = append.snapshot_id
        sequence = str(self._table.metadata.next_sequence_number())
        staged.set_properties({**_OURS, **properties, LANDED: sequence})
        return self._sent(staged, append.snapshot_id)

    def expired_as(self, totals: Mapping[tuple[str, int], Expired]) -> dict[str, str]:
        """Answer the properties that say, stated on top of this load, what retention dropped."""
        return expired_properties(self._table.metadata, totals)

    def landed_snapshot(self) -> int | None:
        """Answer the snapshot that landing made last, None if the table does not have it any more.

        Raises `WrongState` if something was committed on top of an older one since: going back to
        it would take that away.
        """
        metadata = self._table.metadata
        wanted = next(
            (s for s in metadata.snapshots if s.sequence_number == self.view.landed_sequence), None
        )
        if wanted is None:
            return None
        line = {snapshot.snapshot_id for snapshot in ancestors_of(wanted, metadata)}
        if self.view.snapshot_id is not None and self.view.snapshot_id not in line:
            raise WrongState(
                f"something was written to the table of {self.view.collection} after it was rolled "
                "back, and undoing that would take it away"
            )
        return wanted.snapshot_id

    def set_back(self, snapshot_id: int) -> TableView:
        """Make the snapshot the current one; raises like `state`."""
        staged = Staged(self._table)
        staged.change(
            (set_branch(MAIN_BRANCH, snapshot_id),), same_ref(MAIN_BRANCH, self.view.snapshot_id)
        )
        return self._sent(staged, snapshot_id)

    def _sent(self, staged: Staged, snapshot_id: int) -> TableView:
        """Commit once; after an error the table tells what holds."""
        collection = self.view.collection
        fault("before_statement")
        try:
            after = staged.send(self._lake)
        except Exception as error:
            now = self._lake.table(self._table.name())
            current = now.metadata.current_snapshot() if now is not None else None
            line = ancestors_of(current, now.metadata) if now is not None else ()
            if now is not None and snapshot_id in {one.snapshot_id for one in line}:
                log.info("a statement was reported as failed, and holds", error=repr(error))
                return read_view(collection, now)
            if isinstance(error, CommitFailedException):
                raise Moved from error
            raise EngineUnavailable(f"the table of {collection} could not be committed") from error
        fault("after_statement")
        return read_view(collection, after)


def load(lake: Lake, collection: CollectionId, *, quarantine: bool = False) -> Loaded | None:
    """Load one of a collection's tables; None where there is none."""
    table = lake.table(quarantine_table(collection) if quarantine else main_table(collection))
    return None if table is None else Loaded(read_view(collection, table), table, lake)

"""Keeps the filters of data files: makes those that are missing, and deletes what lost its file.

It goes beside everything else and holds nothing up: a file whose filter is not made yet is read.
"""

from __future__ import annotations

import threading

import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from lakehouse import Lake, TableView
from lakehouse.listing import Listed, Listing
from lakehouse.sql import Engine
from penstock.background import give_way
from penstock.envelope import CollectionId
from penstock.errors import PenstockError
from penstock.search.filling import COLUMNS, group_of
from penstock.search.filters import LEAST_CHUNK, Filters, Group

log = structlog.get_logger()

LEAST_ROWS = 5_000
"""Smaller files are read in a moment, and are merged before long."""

EVERY_SECONDS = 60.0
REST_SECONDS = 60.0
"""After an error of the catalog or of its files."""

_TROUBLES = (PenstockError, OSError, pa.ArrowException)


class Keeping:
    """Keeps filters in a thread of its own until it is closed."""

    def __init__(
        self,
        lake: Lake,
        filters: Filters,
        engine: Engine,
        *,
        most_bytes: int,
        least_rows: int = LEAST_ROWS,
        least_chunk: int = LEAST_CHUNK,
    ) -> None:
        """Make none for files of fewer rows, and no more once there are `most_bytes` of them.

        The engine is for this alone, and has one thread: that is the one that asks it.
        """
        self._lake = lake
        self._listing = Listing(lake)
        self._filters = filters
        self._engine = engine
        self._most_bytes = most_bytes
        self._least_rows = least_rows
        self._least_chunk = least_chunk
        self._done: dict[CollectionId, str] = {}
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run, name="filters", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End after the row group that is being read."""
        self._leaving.set()
        if self._thread.is_alive():
            self._thread.join()

    def keep(self, collection: CollectionId) -> int:
        """Make what is missing of a collection, delete what lost its file; answer how many came.

        Raises `EngineUnavailable` if catalog or files do not answer.
        """
        view = self._lake.view(collection)
        return 0 if view is None else self._keep(view)

    def keep_all(self) -> int:
        """Do so for all collections, and delete what lost its table; answer how many filters came.

        A table whose files cannot be read is left for the next round: what the others lost has to
        go all the same. Raises as `keep` does where the catalog does not answer.
        """
        views = [self._lake.view(collection) for collection in self._lake.collections()]
        known = [view for view in views if view is not None]
        self._filters.sweep_tables({view.uuid for view in known})
        made = 0
        for view in known:
            try:
                made += self._keep(view)
            except _TROUBLES as error:
                log.warning(
                    "filters of a table are not kept for now",
                    table=str(view.collection),
                    error=type(error).__name__,
                )
        return made

    def _keep(self, view: TableView) -> int:
        collection = view.collection
        if self._done.get(collection) == view.metadata_location:
            return 0
        files = self._listing.files(view) or ()
        self._filters.sweep(view.uuid, {file.path for file in files})
        room = self._most_bytes - self._filters.bytes()
        made = 0
        whole = True
        for file in sorted(files, key=lambda file: file.last, reverse=True):
            if file.rows < self._least_rows or self._filters.has(view.uuid, file.path):
                continue
            if self._leaving.is_set() or room <= 0:
                whole = False
                break
            groups = self._read(file)
            if groups is None:
                return made
            size = self._filters.write(view.uuid, file.path, groups)
            made += 1
            room -= size
            log.debug("filter made", table=str(collection), rows=file.rows, bytes=size)
        if whole:
            self._done[collection] = view.metadata_location
        return made

    def _read(self, file: Listed) -> list[Group] | None:
        """Answer the filter of a file, None if it is to end."""
        groups = []
        with self._lake.open(file.path) as stream:
            opened = pq.ParquetFile(stream, page_checksum_verification=True)
            columns = [name for name in COLUMNS if name in opened.schema_arrow.names]
            for number in range(opened.num_row_groups):
                if self._leaving.is_set():
                    return None
                rows = opened.read_row_group(number, columns=columns, use_threads=False)
                if not rows.num_rows:
                    continue
                with self._engine.reader() as reader:
                    groups.append(group_of(reader, rows, file.shape, least=self._least_chunk))
        return groups

    def _run(self) -> None:
        give_way()
        wait = 0.0
        while not self._leaving.wait(wait):
            wait = EVERY_SECONDS
            try:
                self.keep_all()
            except _TROUBLES as error:
                log.warning("filters are not kept for now", error=type(error).__name__)
                wait = REST_SECONDS

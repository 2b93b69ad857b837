"""Events by content, their number, their number over time, and the values of their fields."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TypedDict, Unpack

from penstock.client.wire import Wire, asked, path_of
from penstock.contract.events import AroundTold, DeliveriesTold
from penstock.contract.search import (
    Completed,
    CountTold,
    EventTold,
    FacetsTold,
    HistogramTold,
    Looked,
    LookedForBars,
    LookedForEvents,
    LookedForFacets,
    PageTold,
    StatementTold,
    SuggestionsTold,
)


class SearchOptions(TypedDict, total=False):
    """Which events are looked at.

    Those received from `since` until before `until`, in the `view` main or quarantine, with
    `duplicates` fold, include or only; `closed` takes in what was released or discarded.
    """

    since: datetime | None
    until: datetime | None
    view: str
    duplicates: str
    closed: bool


class ListOptions(SearchOptions, total=False):
    """Likewise, and which come first: `order` is newest or oldest."""

    order: str


class PageOptions(ListOptions, total=False):
    """Likewise, and which page of them: at most `limit` events, those after `cursor`."""

    limit: int
    cursor: str | None


class Search(Wire):
    """Searches in a collection."""

    def search(self, collection: str, query: str = "", **options: Unpack[PageOptions]) -> PageTold:
        """Answer a page of the events found; see `PageOptions`."""
        body = asked(LookedForEvents, query=query, **options)
        return self._post(path_of("collections", collection, "search"), PageTold, body)

    def search_all(
        self,
        collection: str,
        query: str = "",
        *,
        page: int = 500,
        **options: Unpack[ListOptions],
    ) -> Iterator[EventTold]:
        """Yield every event found, asking for a page at a time; all are from one moment."""
        cursor = None
        while True:
            found = self.search(collection, query, limit=page, cursor=cursor, **options)
            yield from found.events
            cursor = found.cursor
            if cursor is None:
                return

    def count(
        self, collection: str, query: str = "", **options: Unpack[SearchOptions]
    ) -> CountTold:
        """Answer how many events are found; see `SearchOptions`."""
        body = asked(Looked, query=query, **options)
        return self._post(path_of("collections", collection, "count"), CountTold, body)

    def histogram(
        self,
        collection: str,
        query: str = "",
        *,
        bars: int | None = None,
        **options: Unpack[SearchOptions],
    ) -> HistogramTold:
        """Answer the events found over time, in at most about `bars` steps, or 60."""
        body = asked(LookedForBars, query=query, bars=bars, **options)
        return self._post(path_of("collections", collection, "histogram"), HistogramTold, body)

    def facets(
        self,
        collection: str,
        query: str = "",
        *,
        fields: Sequence[str],
        most: int | None = None,
        **options: Unpack[SearchOptions],
    ) -> FacetsTold:
        """Answer how many of the events found have each value of the fields.

        Of each field the `most` (10) frequent values; see `SearchOptions`.
        """
        body = asked(LookedForFacets, query=query, fields=list(fields), most=most, **options)
        return self._post(path_of("collections", collection, "facets"), FacetsTold, body)

    def statement(
        self, collection: str, query: str = "", **options: Unpack[SearchOptions]
    ) -> StatementTold:
        """Answer the search as a SELECT for `sql`; see `SearchOptions`."""
        body = asked(Looked, query=query, **options)
        return self._post(path_of("collections", collection, "statement"), StatementTold, body)

    def complete(
        self,
        collection: str,
        query: str,
        *,
        position: int | None = None,
        view: str | None = None,
    ) -> SuggestionsTold:
        """Answer what may stand at the position, or the end, of a search being written."""
        body = asked(Completed, query=query, position=position, view=view)
        return self._post(path_of("collections", collection, "complete"), SuggestionsTold, body)

    def event(self, collection: str, event_id: str) -> EventTold:
        """Answer one event by its id."""
        return self._get(path_of("collections", collection, "events", event_id), EventTold)

    def around(self, collection: str, event_id: str, *, most: int | None = None) -> AroundTold:
        """Answer an event's row, its neighbours on the log (5 on each side), and its repeats."""
        path = path_of("collections", collection, "around", event_id, most=most)
        return self._get(path, AroundTold)

    def deliveries(self, collection: str, event_id: str) -> DeliveriesTold:
        """Answer every attempt of a replay to send an event."""
        path = path_of("collections", collection, "deliveries", event_id)
        return self._get(path, DeliveriesTold)

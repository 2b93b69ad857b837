"""Quarantine: why events are there, one of them, a repair tried, release, discard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from penstock.client.wire import Wire, asked, path_of
from penstock.contract.quarantine import (
    CausesTold,
    DiscardAsked,
    DoneTold,
    QuarantinedTold,
    ReleaseAsked,
    TriedTold,
    TryAsked,
    WorkTold,
)


class Quarantine(Wire):
    """Quarantined events of a collection."""

    def quarantine(
        self,
        collection: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        bars: int | None = None,
    ) -> CausesTold:
        """Answer why the landed events of a collection are in quarantine, over time."""
        path = path_of("collections", collection, "quarantine", since=since, until=until, bars=bars)
        return self._get(path, CausesTold)

    def quarantined(self, collection: str, event_id: str) -> QuarantinedTold:
        """Answer a quarantined event, and where its payload is wrong."""
        path = path_of("collections", collection, "quarantine", "events", event_id)
        return self._get(path, QuarantinedTold)

    def quarantine_works(self, collection: str, *, limit: int | None = None) -> list[WorkTold]:
        """Answer who released or discarded how many events of a collection, the latest first."""
        path = path_of("collections", collection, "quarantine", "works", limit=limit)
        return self._get(path, list[WorkTold])

    def try_repair(
        self,
        collection: str,
        query: str = "",
        *,
        repair: Mapping[str, object] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> TriedTold:
        """Answer what the first open events (5) would become after a repair; changes nothing."""
        body = asked(
            TryAsked,
            query=query,
            repair=repair,
            since=since,
            until=until,
            limit=limit,
            cursor=cursor,
        )
        return self._post(path_of("collections", collection, "quarantine", "try"), TriedTold, body)

    def release(
        self,
        collection: str,
        query: str = "",
        *,
        repair: Mapping[str, object] | None = None,
        release: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Iterator[DoneTold]:
        """Send quarantined events to the log again, repaired; yield what each page of them did.

        All of it may be repeated, after an error too: each event becomes a row once.
        """
        body = asked(
            ReleaseAsked, query=query, repair=repair, release=release, since=since, until=until
        )
        path = path_of("collections", collection, "quarantine", "release")
        while True:
            page = self._post(path, DoneTold, body)
            yield page
            if page.cursor is None:
                return
            body = body.model_copy(update={"release": page.release, "cursor": page.cursor})

    def discard(
        self,
        collection: str,
        query: str = "",
        *,
        why: str,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Iterator[DoneTold]:
        """Take quarantined events out of the list; yield what each page of them did."""
        body = asked(DiscardAsked, query=query, why=why, since=since, until=until)
        path = path_of("collections", collection, "quarantine", "discard")
        while True:
            page = self._post(path, DoneTold, body)
            yield page
            if page.cursor is None:
                return
            body = body.model_copy(update={"cursor": page.cursor})

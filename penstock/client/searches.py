"""Searches that a team keeps under names."""

from __future__ import annotations

from typing import TypedDict, Unpack

from penstock.client.wire import Wire, asked, path_of, read
from penstock.contract.searches import NewSavedSearch, SavedSearchTold, SearchKept


class KeptOptions(TypedDict, total=False):
    """Which events a kept search looks at.

    `since` and `until` are texts: relative, as ``now-24h``, or fixed, as ``2026-11-22T08:00:00Z``.
    """

    since: str | None
    until: str | None
    order: str
    view: str
    duplicates: str
    closed: bool


class Searches(Wire):
    """The team's saved searches."""

    def saved_searches(self, *, collection: str | None = None) -> list[SavedSearchTold]:
        """List them by name, those of one collection or all."""
        return self._get(path_of("searches", collection=collection), list[SavedSearchTold])

    def saved_search(self, name: str) -> SavedSearchTold:
        """Answer one, and what its times mean now."""
        return self._get(path_of("searches", name), SavedSearchTold)

    def save_search(
        self, name: str, collection: str, query: str = "", **options: Unpack[KeptOptions]
    ) -> SavedSearchTold:
        """Keep a search under a new name; see `KeptOptions`."""
        body = asked(NewSavedSearch, name=name, collection=collection, query=query, **options)
        return self._post(path_of("searches"), SavedSearchTold, body)

    def change_search(
        self, name: str, collection: str, query: str = "", **options: Unpack[KeptOptions]
    ) -> SavedSearchTold:
        """Put another search under the name; what is left out is as in a new one."""
        body = asked(SearchKept, collection=collection, query=query, **options)
        return read(self._checked("PUT", path_of("searches", name), body), SavedSearchTold)

    def delete_search(self, name: str) -> None:
        """Forget a saved search."""
        self._checked("DELETE", path_of("searches", name))

"""Searches that a team keeps under names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from penstock.contract.base import Asked, LongText, ShortText, Time, Told, example

TimeText = Annotated[str, Field(max_length=100)]


class SearchKept(Asked):
    """A search to keep under a name."""

    model_config = example(collection="flights", query="dep_delay:>120", since="now-24h")

    collection: ShortText
    query: LongText = ""
    since: TimeText | None = Field(
        default=None, description="Received then or later: `now-24h`, `now/d`, 2026-11-22 …"
    )
    until: TimeText | None = Field(default=None, description="Received before; likewise.")
    order: Literal["newest", "oldest"] = "newest"
    view: Literal["main", "quarantine"] = "main"
    duplicates: Literal["fold", "include", "only"] = "fold"
    closed: bool = False


class NewSavedSearch(SearchKept):
    """A search to keep under a new name."""

    model_config = example(
        name="late_today", collection="flights", query="dep_delay:>120", since="now/d"
    )

    name: ShortText


class SavedSearchTold(Told):
    """A search that the team kept; `since_at` and `until_at` are what its times mean now."""

    name: str
    collection: str
    query: str
    since: str | None
    until: str | None
    since_at: Time | None
    until_at: Time | None
    order: Literal["newest", "oldest"]
    view: Literal["main", "quarantine"]
    duplicates: Literal["fold", "include", "only"]
    closed: bool
    created_at: Time
    changed_at: Time

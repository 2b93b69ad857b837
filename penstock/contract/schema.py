"""The columns of a collection, and how they came."""

from __future__ import annotations

from pydantic import Field

from penstock.contract.base import Time, Told


class ColumnTold(Told):
    """A discovered column: its path in the payload, and its Iceberg type."""

    path: str
    type: str
    since: Time | None = Field(description="When it came, if the history knows.")
    event_id: str | None = Field(description="The first event that had it.")
    filled: int | None = Field(description="Rows that have a value, if asked for and counted.")


class ChangeTold(Told):
    """What one version changed; `event_id` is the first event that brought it.

    A column that was retyped or removed says what it was `before`, and `why`.
    """

    path: str = Field(description="The column; empty for what concerns all of them.")
    what: str = Field(description="`added`, `full` (no room for more) or `contract`, for example.")
    type: str | None = Field(description="The column's type since, or the new contract.")
    before: str | None = Field(description="The type, or the contract, until then.")
    event_id: str | None
    why: str | None = Field(description="Why it changed, where no event did it.")


class VersionTold(Told):
    """One change of the columns; versions count from 1."""

    version: int
    at: Time
    changes: list[ChangeTold]


class Schema(Told):
    """The columns that the collection's events have now, and how they came."""

    columns: list[ColumnTold]
    versions: list[VersionTold]
    rows: int | None = Field(description="How many there are, if `fill` was asked for.")

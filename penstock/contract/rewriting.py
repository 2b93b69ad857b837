"""What would change if the columns of a collection were made anew."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from penstock.contract.base import Told


class LongTold(Told):
    """A column of longs that numbers were sent to which only a column of doubles can hold."""

    path: str
    gained: int = Field(description="Misfits that would be values of the column.")
    lost: int = Field(description="Values that would be misfits: no double is that number.")
    due: bool = Field(description="Whether upkeep would retype it by itself.")


class RetypeTold(Told):
    """The columns of longs with such misfits in the newest rows, and how many rows that were."""

    columns: list[LongTold]
    rows: int


class ColumnChange(Told):
    """A column that would come, go, or have another type; a type is null where there is none."""

    path: str
    what: Literal["added", "removed", "retyped"]
    before: str | None
    after: str | None


class MisfitsChange(Told):
    """Misfits at a path, before and after."""

    path: str
    before: int
    after: int


class RebuildTold(Told):
    """What a rebuild would make of all rows."""

    rows: int
    files: int
    refused: int = Field(description="Rows whose payload the format of today refuses.")
    columns_before: int
    columns_after: int
    changes: list[ColumnChange]
    misfits: list[MisfitsChange] = Field(description="Only paths where they change in number.")
    misfits_before: int
    misfits_after: int

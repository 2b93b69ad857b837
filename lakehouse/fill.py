"""How full columns are, from what manifests know of each file. No row is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from lakehouse.catalog import main_table
from lakehouse.columns import DATA
from lakehouse.parquet import Column, columns_of
from lakehouse.tables import Lake
from penstock.envelope import CollectionId


@dataclass(frozen=True, slots=True)
class Fill:
    """How many rows there are, and how many of them have a value, by column.

    Columns are named as in `penstock.schema.shape.columns`. Those in lists are not there, nor
    those beyond the first hundred: files keep no counts of them. A row that was deleted beside
    its file counts until the file is written anew.
    """

    rows: int
    values: Mapping[str, int]


class Counted(NamedTuple):
    """What a manifest knows of a file: its rows, and by field id how many values and nulls."""

    rows: int
    values: Mapping[int, int]
    nulls: Mapping[int, int]


def fill_of(files: Iterable[Counted], columns: Iterable[Column]) -> Fill:
    """Add up the files of a table that has these columns.

    A file without counts of a column was written before the column came: a table only gets
    columns behind others, so that one which is counted now was counted in every file that has it.
    A column of which a file says anything less has no count.
    """
    named = {
        column.path.removeprefix(f"{DATA}."): column.field_id
        for column in columns
        if column.measured and column.path.startswith(f"{DATA}.")
    }
    rows = 0
    values: dict[str, int | None] = dict.fromkeys(named, 0)
    for file in files:
        rows += file.rows
        for name, number in named.items():
            before = values[name]
            if number in file.values and before is not None:
                nulls = file.nulls.get(number)
                values[name] = None if nulls is None else before + file.values[number] - nulls
            elif not file.values:
                # Written by an engine that counts nothing.
                values[name] = None
    return Fill(rows, {name: count for name, count in values.items() if count is not None})


def fill(lake: Lake, collection: CollectionId) -> Fill | None:
    """Answer how full the columns of a collection are; None before its first landing.

    Raises `EngineUnavailable` if the catalog or its files do not answer.
    """
    table = lake.table(main_table(collection))
    if table is None:
        return None
    files = (
        Counted(
            task.file.record_count,
            task.file.value_counts or {},
            task.file.null_value_counts or {},
        )
        for task in table.scan().plan_files()
    )
    return fill_of(files, columns_of(table.schema()))

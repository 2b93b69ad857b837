"""What a JSON column may hold: the same on every database. Pure."""

from __future__ import annotations

import math

from penstock.errors import BadRequest


def document(name: str, value: object) -> object:
    """Answer the value of the column `name`.

    Raises `BadRequest` for a number that JSON does not have: SQLite would keep it, for readers of
    JSON to stumble over, and PostgreSQL would refuse the whole change with an error of its own.
    """
    if not _is_json(value):
        raise BadRequest(f"{name} holds a number that JSON does not have: NaN, or an infinity")
    return value


def _is_json(value: object) -> bool:
    match value:
        case float():
            return math.isfinite(value)
        case dict():
            return all(map(_is_json, value.values()))
        case list() | tuple():
            return all(map(_is_json, value))
        case _:
            return True

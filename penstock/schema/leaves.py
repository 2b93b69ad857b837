"""An event is a bag of leaves: ``(path, scalar)``.

Positions in lists are dropped; null and empty objects and lists have no leaf.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import msgspec

from penstock.schema.names import join

Scalar = str | bool | int | float | msgspec.Raw
"""What stands at a leaf. A `Raw` is the text of a number, just as it was sent."""

_CONTAINERS = (dict, list)
_encode = msgspec.json.Encoder().encode


def leaves(value: object, path: str | None = None) -> Iterator[tuple[str, Scalar]]:
    """Answer every leaf of a decoded JSON value that stands at `path` (None: at the top)."""
    if isinstance(value, dict):
        for key, item in value.items():
            where = join(path, key)
            if isinstance(item, _CONTAINERS):
                yield from leaves(item, where)
            elif item is not None:
                # Not by calling itself: a generator for each scalar would take twice the time.
                yield where, item
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, path)
    elif value is not None:
        yield path or "", cast("Scalar", value)


def json_text(scalar: Scalar) -> str:
    """Answer the JSON text of a leaf; numbers keep every digit that was sent."""
    return _encode(scalar).decode()

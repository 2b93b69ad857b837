"""The formats that payloads come in, a file each: how each becomes the JSON that columns are of.

A payload is never touched. For a collection whose format is not JSON, landing and the tail of a
search read a JSON text beside each payload, and everything that holds for JSON holds for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Literal, Protocol

import msgspec
import pyarrow as pa

from penstock.schema.gate import Refused

FormatName = Literal["json", "plain"]


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """What the payloads of a collection are."""

    name: FormatName = "json"
    changed_at: int | None = None
    """When it last became another one, in microseconds; null where it never did."""

    @property
    def always_json(self) -> bool:
        """Whether every row of the collection has the columns that its payload has as JSON."""
        return self.name == "json" and self.changed_at is None


@dataclass(frozen=True)
class Decoded:
    """What became of some payloads. They are known by their row."""

    texts: pa.Array
    """A JSON object for each payload, as binary; ``{}`` for those that have none."""
    bare: AbstractSet[int] = frozenset()
    """Rows that have no columns."""
    refused: Mapping[int, Refused] = field(default_factory=dict)
    """Rows whose payload is not of the format."""
    beside: Mapping[int, Sequence[tuple[str, str]]] = field(default_factory=dict)
    """Misfits that are in no text: paths and JSON texts."""


class Decoder(Protocol):
    """Makes JSON texts of the payloads of one format. Threads may share it."""

    def decode(self, payloads: pa.Array) -> Decoded:
        """Answer what becomes of each payload; no payload makes it raise."""
        ...


def open_decoder(format: Format) -> Decoder | None:  # noqa: A002 - the field's name
    """Answer what decodes a format, None for JSON, which needs nothing."""
    match format.name:
        case "json":
            return None
        case "plain":
            from penstock.schema.formats.plain import Plain

            return Plain()

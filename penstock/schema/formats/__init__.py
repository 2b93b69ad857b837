"""The formats that payloads come in, a file each: how each becomes the JSON that columns are of.

A payload is never touched. For a collection whose format is not JSON, landing and the tail of a
search read a JSON text beside each payload, and everything that holds for JSON holds for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import msgspec
import pyarrow as pa

from penstock.errors import BadRequest
from penstock.schema.discover import Seen
from penstock.schema.gate import Refused
from penstock.vocabulary import FormatName, Framing

if TYPE_CHECKING:
    from penstock.schema.formats.avro import Registered


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """What the payloads of a collection are."""

    name: FormatName = "json"
    schema: str | None = None
    """The digest (SHA-256, hex) of the descriptor set, for Protobuf; of the schemas, for Avro."""
    message: str | None = None
    """The full name of the message that a payload is."""
    payload_field: int | None = None
    """The number of its field that holds another message, for a shallow envelope."""
    payload_message: str | None = None
    """The full name of that one."""
    framing: Framing | None = None
    """What is before a payload of Avro."""
    versions: int | None = None
    """How many schemas of Avro are known, without those of a registry."""
    registry: str | None = None
    """Where schemas are asked for by their id."""
    secret: bool = False
    """Whether that asks for one."""
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
    seen: Seen | None = None
    """Fields that have a type although their values look like another one."""


class TooMuchText(Exception):
    """Payloads make more text than was allowed; the first `rows` of them (at least 1) did not."""

    def __init__(self, rows: int) -> None:
        super().__init__(rows)
        self.rows = rows


class Decoder(Protocol):
    """Makes JSON texts of the payloads of one format. Threads may share it."""

    def decode(self, payloads: pa.Array, *, most_text: int | None = None) -> Decoded:
        """Answer what becomes of each payload; no payload makes it raise.

        Raises `TooMuchText` rather than make more than `most_text` bytes for several payloads.
        """
        ...


def open_decoder(
    format: Format,  # noqa: A002
    schema: bytes | None = None,
    registered: Registered | None = None,
) -> Decoder | None:
    """Answer what decodes a format, None for JSON, which needs nothing.

    `schema` is what the format's digest is of, `registered` what its registry knows. Raises
    `BadRequest` where it cannot be used, or does not have what the format names.
    """
    match format.name:
        case "json":
            return None
        case "plain":
            from penstock.schema.formats.plain import Plain

            return Plain()
        case "protobuf":
            from penstock.schema.formats.protobuf import Protobuf

            if schema is None or format.message is None:
                raise BadRequest("protobuf needs a descriptor set, and the name of a message")
            if (format.payload_field is None) != (format.payload_message is None):
                raise BadRequest("a payload's field and its message need each other")
            return Protobuf(
                schema,
                message=format.message,
                payload_field=format.payload_field,
                payload_message=format.payload_message,
            )
        case "avro":
            from penstock.schema.formats.avro import Avro, schemas_of

            return Avro(
                schemas_of(schema).versions,
                framing=format.framing or "datum",
                registered=registered,
            )

"""Plain: payloads that nobody looks into. Any bytes are a row, and none has columns."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from penstock.schema.formats import Decoded


@dataclass(frozen=True)
class Plain:
    """Decodes nothing. All are equal."""

    def decode(self, payloads: pa.Array, *, most_text: int | None = None) -> Decoded:  # noqa: ARG002
        """Answer that no payload has columns."""
        count = len(payloads)
        return Decoded(pa.repeat(pa.scalar(b"{}", pa.binary()), count), frozenset(range(count)))

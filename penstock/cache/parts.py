"""A `Known` in parts, so that the change of one token writes one part anew. Pure.

Records are taken in their order and cut after those whose id says so. A record more or less moves
no other cut, so all parts but one stay what they were. A part is named by what it holds: who has
one of that name need not fetch it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from zlib import crc32

import msgspec
import zstandard

from penstock.errors import EngineUnavailable
from penstock.metadata.records import CollectionRecord, Known, TokenRecord

FORMAT = 1

# A part has 256 records on average: 75 kB, packed 14. etcd takes 1.5 MB in one request, and a
# token's change writes one part and the list of all.
_CUT_ONE_IN = 256
_LARGEST_BYTES = 512 << 10


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What a publication consists of: the names of its parts, in order."""

    format: int = FORMAT
    version: int
    collections: tuple[str, ...]
    tokens: tuple[str, ...]

    def names(self) -> set[str]:
        """Answer the names of all parts."""
        return {*self.collections, *self.tokens}


Records = Sequence[CollectionRecord] | Sequence[TokenRecord]

_head = msgspec.json.Decoder(Head)
_collections = msgspec.json.Decoder(CollectionRecord)
_tokens = msgspec.json.Decoder(TokenRecord)


def cut(known: Known) -> tuple[Head, dict[str, bytes]]:
    """Answer the head of a publication, and its parts by name, packed."""
    parts: dict[str, bytes] = {}

    def names(records: Records, id_of: Callable[[object], str]) -> tuple[str, ...]:
        found = []
        for body in _bodies(records, id_of):
            name = hashlib.sha256(body).hexdigest()[:32]
            parts[name] = zstandard.compress(body)
            found.append(name)
        return tuple(found)

    head = Head(
        version=known.version,
        collections=names(known.collections, lambda record: str(record.id)),  # type: ignore[attr-defined]  # both kinds have one
        tokens=names(known.tokens, lambda record: str(record.id)),  # type: ignore[attr-defined]  # likewise
    )
    return head, parts


def read_head(content: bytes) -> Head:
    """Read a head; raise `EngineUnavailable` if it was written by something else."""
    try:
        head = _head.decode(content)
    except msgspec.MsgspecError as error:
        raise EngineUnavailable(f"what the cache holds cannot be read: {error}") from error
    if head.format != FORMAT:
        raise EngineUnavailable(
            f"the cache has format {head.format}, this release reads {FORMAT}; "
            "the platform writes it anew when it starts"
        )
    return head


def put_together(head: Head, parts: Mapping[str, bytes], had: dict[str, Records]) -> Known:
    """Answer what was cut. `had` keeps what parts hold, and loses those that are not needed.

    Raises `EngineUnavailable` for a part that is missing or is not what its name says.
    """
    kept: dict[str, Records] = {}

    def records(names: Sequence[str], decoder: msgspec.json.Decoder[object]) -> list[object]:
        found: list[object] = []
        for name in names:
            if name not in kept:
                kept[name] = had[name] if name in had else _read(name, parts, decoder)  # type: ignore[assignment]  # of this kind
            found.extend(kept[name])
        return found

    known = Known(
        version=head.version,
        collections=tuple(records(head.collections, _collections)),  # type: ignore[arg-type]  # of this kind
        tokens=tuple(records(head.tokens, _tokens)),  # type: ignore[arg-type]  # of this kind
    )
    had.clear()
    had.update(kept)
    return known


def _bodies(records: Records, id_of: Callable[[object], str]) -> Iterator[bytes]:
    lines: list[bytes] = []
    size = 0
    for record in records:
        line = msgspec.json.encode(record)
        lines.append(line)
        size += len(line)
        if crc32(id_of(record).encode()) % _CUT_ONE_IN == 0 or size >= _LARGEST_BYTES:
            yield b"\n".join(lines)
            lines, size = [], 0
    if lines:
        yield b"\n".join(lines)


def _read(
    name: str, parts: Mapping[str, bytes], decoder: msgspec.json.Decoder[object]
) -> list[object]:
    try:
        body = zstandard.decompress(parts[name])
        if hashlib.sha256(body).hexdigest()[:32] != name:
            raise EngineUnavailable(f"part {name} of the cache holds something else")
        return decoder.decode_lines(body)
    except KeyError as error:
        raise EngineUnavailable(f"part {name} of the cache is missing") from error
    except (zstandard.ZstdError, msgspec.MsgspecError) as error:
        raise EngineUnavailable(f"part {name} of the cache cannot be read") from error

"""Single payloads of a data file, without unpacking all of those before them.

Payloads are nine tenths of a file, in pages of about a thousand events. Engines unpack every page
of a row group up to the last row that is asked for; twenty events that lie far apart cost as much
as twenty row groups. Where a file was written as ours are, the pages are found by their headers,
and only those are unpacked that hold what is asked for.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

PAYLOAD = "payload"

_LENGTH = 4
_DATA_PAGE = 0
_PLAIN = 0
_CODEC = pa.Codec("zstd")

# Of a page of payloads a header has some 30 bytes; one with statistics may have many more.
_HEADER = 64
_LONGER = 16


class OtherPagesError(Exception):
    """Pages are of a kind that is left to engines."""


Read: TypeAlias = Callable[[int, int], "bytes | memoryview"]
"""Reads from a place of a chunk so many bytes, or fewer where the chunk ends."""


class Chunk(NamedTuple):
    """Where the payloads of a row group are in its file."""

    start: int
    size: int


class _Page(NamedTuple):
    """A page: where its bytes are stored, how many, and how many they are when unpacked."""

    start: int
    stored: int
    size: int
    rows: int
    checksum: int | None


def chunk_of(footer: pq.FileMetaData, group: int) -> Chunk | None:
    """Answer where the payloads of a row group are; None if they are not written as we do."""
    names = [footer.schema.column(number).path for number in range(footer.num_columns)]
    if PAYLOAD not in names:
        return None
    at = names.index(PAYLOAD)
    kind, written = footer.schema.column(at), footer.row_group(group).column(at)
    if (
        (kind.physical_type, kind.max_definition_level, kind.max_repetition_level)
        != ("BYTE_ARRAY", 0, 0)
        or written.compression != "ZSTD"
        or written.has_dictionary_page
        or not {"PLAIN", "RLE"}.issuperset(written.encodings)
    ):
        return None
    return Chunk(written.data_page_offset, written.total_compressed_size)


def payloads_in(read: Read, rows: Sequence[int]) -> Iterator[bytes]:
    """Answer the payloads of these rows of a row group, whose numbers rise, from its chunk.

    Of that are read the headers of pages, and the pages that have one of the rows. Raises
    `OSError` if a page does not have the checksum that it was written with, or ends early, and
    `OtherPagesError`.
    """
    try:
        yield from _payloads(read, rows)
    except (IndexError, OverflowError, ValueError, pa.ArrowException) as error:
        raise OSError("a page of payloads cannot be read") from error


def _payloads(read: Read, rows: Sequence[int]) -> Iterator[bytes]:
    at, first, taken = 0, 0, 0
    while taken < len(rows):
        page = _page(read, at)
        end = first + page.rows
        here = taken
        while taken < len(rows) and rows[taken] < end:
            taken += 1
        if taken > here:
            yield from _values(_unpacked(page, read), [row - first for row in rows[here:taken]])
        at, first = page.start + page.stored, end


def _unpacked(page: _Page, read: Read) -> bytes:
    stored = read(page.start, page.stored)
    if len(stored) < page.stored:
        raise ValueError("it ends early")
    if page.checksum is not None and zlib.crc32(stored) != page.checksum & 0xFFFFFFFF:
        raise ValueError("it has another checksum")
    unpacked: bytes = _CODEC.decompress(stored, page.size, asbytes=True)
    return unpacked


def _values(page: bytes, places: Sequence[int]) -> Iterator[bytes]:
    """Answer the values at these places of a plain page: each has its length before it."""
    at, passed = 0, 0
    for place in places:
        for _ in range(place - passed):
            at += _LENGTH + int.from_bytes(page[at : at + _LENGTH], "little")
        passed = place
        start = at + _LENGTH
        end = start + int.from_bytes(page[at:start], "little")
        if start > len(page) or end > len(page):
            raise ValueError("it ends early")
        yield page[start:end]


def _page(read: Read, at: int) -> _Page:
    """Answer the page whose header begins here."""
    header, start = _header(read, at)
    kind, size, packed, checksum, data = (header.get(number) for number in range(1, 6))
    if kind != _DATA_PAGE or not isinstance(data, dict) or data.get(2) != _PLAIN:
        raise OtherPagesError
    rows = data.get(1)
    if not (isinstance(size, int) and isinstance(packed, int) and isinstance(rows, int)):
        raise OtherPagesError
    if packed < 0 or rows < 0:
        raise ValueError("it ends early")
    known = checksum if isinstance(checksum, int) else None
    return _Page(start, packed, size, rows, known)


def _header(read: Read, at: int) -> tuple[_Struct, int]:
    """Answer the header that begins here, and where it ends."""
    size = _HEADER
    while True:
        stored = read(at, size)
        try:
            header, length = _struct(stored, 0)
        except IndexError:
            if len(stored) < size:
                raise
            size *= _LONGER
        else:
            return header, at + length


# Headers are structs of Thrift's compact protocol: each field has a byte with its type, and with
# how much greater its number is than that of the one before.
_STOP = 0
_LAST_BYTE = 0x80

_Struct: TypeAlias = dict[int, "int | bytes | _Struct"]


def _struct(stored: bytes | memoryview, at: int) -> tuple[_Struct, int]:
    fields: _Struct = {}
    number = 0
    while True:
        head = stored[at]
        at += 1
        if head == _STOP:
            return fields, at
        kind, step = head & 0xF, head >> 4
        if step:
            number += step
        else:
            number, at = _integer(stored, at)
        match kind:
            case 1 | 2:  # true and false
                fields[number] = int(kind == 1)
            case 3:  # a byte
                fields[number], at = stored[at], at + 1
            case 4 | 5 | 6:  # integers
                fields[number], at = _integer(stored, at)
            case 8:  # bytes
                size, at = _unsigned(stored, at)
                fields[number], at = bytes(stored[at : at + size]), at + size
            case 12:  # a struct
                fields[number], at = _struct(stored, at)
            case _:
                raise OtherPagesError


def _integer(stored: bytes | memoryview, at: int) -> tuple[int, int]:
    coded, at = _unsigned(stored, at)
    return (coded >> 1) ^ -(coded & 1), at


def _unsigned(stored: bytes | memoryview, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = stored[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < _LAST_BYTE:
            return number, at

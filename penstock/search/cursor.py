"""Cursors: how a search goes on where its last page ended, on the same cut through the log.

A cursor is opaque to whoever holds it and gives no rights: collection and query come with each
request. The checksum finds cursors that were cut off or mixed up on their way.
"""

from __future__ import annotations

import base64
import binascii
from hashlib import blake2b

import msgspec

from penstock.envelope import Micros
from penstock.errors import BadRequest
from penstock.search import Place, SearchRequest

_CHECK_BYTES = 6
_UNREADABLE = "the cursor cannot be read; begin without one"


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """What the next page has to know."""

    query: bytes
    """What `digest` says of the request."""
    now: Micros
    """What ``now`` means in the query."""
    log_id: str
    ends: dict[int, int]
    last: Place
    """The last event of the page before."""
    given: int = 0
    """How many events the pages before had together."""


_decoder = msgspec.msgpack.Decoder(Cursor)


def digest(asked: SearchRequest) -> bytes:
    """Answer what all pages of a search have in common."""
    return _digest(
        msgspec.msgpack.encode(
            (
                asked.collection,
                asked.query,
                asked.since,
                asked.until,
                asked.view,
                asked.newest_first,
                asked.duplicates,
                asked.closed,
            )
        )
    )


def write(cursor: Cursor) -> str:
    """Answer the text of a cursor; it may stand in a URL."""
    body = msgspec.msgpack.encode(cursor)
    return base64.urlsafe_b64encode(_digest(body) + body).decode().rstrip("=")


def read(asked: SearchRequest, log_id: str) -> Cursor | None:
    """Answer the request's cursor, None if it has none.

    Raises `BadRequest` unless the cursor is whole, of this search and of this log.
    """
    if asked.cursor is None:
        return None
    padded = asked.cursor + "=" * (-len(asked.cursor) % 4)
    try:
        data = base64.b64decode(padded, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(_UNREADABLE) from error
    check, body = data[:_CHECK_BYTES], data[_CHECK_BYTES:]
    if check != _digest(body):
        raise BadRequest(_UNREADABLE)
    try:
        cursor = _decoder.decode(body)
    except msgspec.DecodeError as error:
        raise BadRequest(_UNREADABLE) from error
    if cursor.query != digest(asked):
        raise BadRequest("the cursor belongs to another search; begin without one")
    if cursor.log_id != log_id:
        raise BadRequest("the cursor belongs to another log; begin without one")
    return cursor


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=_CHECK_BYTES).digest()

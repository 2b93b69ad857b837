"""Undoing a body's content coding without ever holding more than its limits allow."""

from __future__ import annotations

import pyarrow as pa

from penstock.errors import Malformed, TooLarge, UnknownEncoding

CODINGS = ("gzip", "zstd")
"""What a body may be coded in; ``identity`` and no coding at all are always fine."""

_STEP = 64 << 10
# A few kilobytes of blanks shrink by any factor; only what is bigger can hurt.
_JUDGED_FROM = 64 << 10


def coding_of(header: bytes | None) -> str | None:
    """Read a `Content-Encoding` header: one of `CODINGS`, or None where nothing is to be undone.

    Raises `UnknownEncoding`, also for several codings one over the other.
    """
    if header is None:
        return None
    name = header.decode("latin-1").strip().lower().removeprefix("x-")
    if name in CODINGS:
        return name
    if name in ("", "identity"):
        return None
    raise UnknownEncoding(name[:40], CODINGS)


def decoded(body: bytes, coding: str, *, max_bytes: int, max_ratio: int) -> bytes:
    """Answer the body with its coding undone; several members one after the other are one body.

    Stops with `TooLarge` as soon as the output is over `max_bytes`, or over `max_ratio` times the
    body. Raises `Malformed` for bytes in no such coding, and for a stream that ends too early.
    """
    if not body:
        raise Malformed(f"an empty body is no {coding} stream")
    most = min(max_bytes, max(_JUDGED_FROM, max_ratio * len(body)))
    parts = []
    size = 0
    # Arrow's stream is used because it notices a cut stream in both codings; zstandard's reader
    # answers what it has and says nothing.
    stream = pa.CompressedInputStream(pa.BufferReader(body), coding)
    try:
        while part := stream.read(_STEP):
            parts.append(part)
            size += len(part)
            if size > most:
                raise TooLarge(f"body without its {coding}", size, most)
    except OSError as error:
        raise Malformed(f"the body is no whole {coding} stream") from error
    return b"".join(parts)

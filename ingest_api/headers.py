"""Request headers: which are read here, and which stay with the event.

Stored: every header as it came, in its order and with duplicates, except

- what opens doors: `Authorization`, `Batch-Token`, `Streamdal-Token`, `X-Amz-Firehose-Access-Key`,
  `Cookie`, `Set-Cookie`, `Proxy-…`;
- what belongs to this one connection: `Connection` and every header it names, `Keep-Alive`,
  `Transfer-Encoding`, `TE`, `Trailer`, `Upgrade`, `Expect`, `Host`, `Content-Length`;
- what is told elsewhere: `Content-Type` is a column of its own, and `Content-Encoding` is undone
  (the metadata says so as ``content_encoding``; left among the headers, a replay would announce a
  coding that its body does not have).

`Idempotency-Key` and the headers of Penstock's own, ``penstock-…``, are stored like any other,
though some of them are read here too: replayed to another door they give the event the same key,
id and time there, and those of a replay say where the event came from. A replay that adds its own
five puts them in the place of these (see `replay.targets.http`), and no door takes their word for
anything but what the sender may decide anyway.

Names are lower case: HTTP/2 and ASGI know no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import unquote_to_bytes

Headers = Sequence[tuple[bytes, bytes]]

TOKEN_HEADERS = (b"batch-token", b"streamdal-token")
KEY = b"penstock-key"
EVENT_ID = b"penstock-event-id"
EVENT_TIME = b"penstock-event-time"
IDEMPOTENCY_KEY = b"idempotency-key"

_NOT_STORED = frozenset(
    {
        b"authorization",
        *TOKEN_HEADERS,
        b"x-amz-firehose-access-key",
        b"cookie",
        b"set-cookie",
        b"connection",
        b"keep-alive",
        b"transfer-encoding",
        b"te",
        b"trailer",
        b"upgrade",
        b"expect",
        b"host",
        b"content-length",
        b"content-type",
        b"content-encoding",
    }
)


def by_name(headers: Headers) -> dict[bytes, bytes]:
    """Answer the headers by name; one that came several times is the values joined by commas."""
    given = dict(headers)
    if len(given) < len(headers):
        given.clear()
        for name, value in headers:
            given[name] = given[name] + b", " + value if name in given else value
    return given


def token_of(given: Mapping[bytes, bytes]) -> str | None:
    """Answer the token of a request, from the headers only, or None."""
    scheme, _, rest = given.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return rest.strip().decode("latin-1")
    for name in TOKEN_HEADERS:
        if name in given:
            return given[name].strip().decode("latin-1")
    return None


def stored(headers: Headers, given: Mapping[bytes, bytes]) -> tuple[tuple[str, bytes], ...]:
    """Answer the headers that are kept with the event."""
    dropped = _NOT_STORED
    if b"connection" in given:
        named = given[b"connection"].lower().split(b",")
        dropped = dropped.union(name.strip() for name in named)
    return tuple(
        [
            (name.decode("latin-1"), value)
            for name, value in headers
            if name not in dropped and not name.startswith(b"proxy-")
        ]
    )


def text_of(value: bytes | None) -> str | None:
    """Answer a header's value as text, None for a missing or empty one."""
    if not value:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def key_of(given: Mapping[bytes, bytes]) -> bytes | None:
    """Answer the event's key: `penstock-key` with ``%XX`` read as bytes, None if it is empty."""
    return unquote_to_bytes(given.get(KEY, b"")) or None

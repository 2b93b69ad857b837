"""Every error Penstock raises on purpose, sorted by what the caller can do.

    PenstockError
    ├── Rejected              the sender has to change something; trying again cannot help
    │   ├── Unauthorized      no token, or one that is unknown, revoked or out of date
    │   ├── Forbidden         a good token, for something else
    │   ├── NotFound          no such collection, destination, replay, token …
    │   ├── AlreadyExists
    │   ├── TooLarge
    │   ├── TooMany           events in one batch
    │   ├── TooSlow           a request that did not arrive in time
    │   ├── Malformed         what frames the events (NDJSON, CloudEvents, gzip …) is broken
    │   ├── UnknownEncoding   a body in a coding that is not undone here
    │   ├── Loop              an event that came back to the collection it was replayed from
    │   ├── BadName
    │   ├── BadQuery          a search that cannot be read; points at the character
    │   ├── BadSql
    │   ├── BadRequest        any other value that cannot be used
    │   ├── CollectionPaused
    │   ├── WrongState        a replay cannot do that now
    │   └── AddressRefused    an outbound address that the guard does not let through
    ├── Unavailable           try again later, after `retry_after` seconds
    │   ├── Overloaded        too much at once
    │   │   └── TooFast       more than this token may send in a second
    │   ├── LogUnavailable    the log cannot make anything durable now
    │   └── EngineUnavailable a store or service does not answer
    ├── Stopped               going on could skip or double events; an operator has to look
    │   ├── LogChanged        the log has lost records that landed, or holds others
    │   │   └── LogReplaced   another log
    │   ├── LogTruncated      the log no longer holds what was not absorbed yet
    │   ├── LogDamaged        durable records cannot be read back
    │   └── TableChanged      what landed is not in the table, or not as it was
    │       ├── TableReplaced   another table has its name
    │       ├── TableRolledBack the table was set back to an older snapshot
    │       └── TableUnmarked   it has rows, and no marks that say up to where
    └── BadSetting            a setting that cannot be used; the process does not start

An error carries its facts as attributes. It becomes a status code at the edges only
(`penstock.problem` for HTTP, `ingest_api.grpc_server` for gRPC).
Payloads, tokens and credentials are never part of a message.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

_WHEN_STOPPED = "see 'When landing has stopped' in docs/howto/operate.md"


class PenstockError(Exception):
    """The root of everything below; `str(error)` is a sentence for the person who caused it."""


class Rejected(PenstockError):
    """The sender has to change something; trying again cannot help.

    `field` names what is at fault of what was asked, as ``options.rate``; it is ``''`` where that
    is no single field.
    """

    field: str = ""

    def at(self, field: str) -> Self:
        """Answer the error as one about this field, or about the part of it that it named."""
        self.field = f"{field}.{self.field}" if self.field else field
        return self


@contextmanager
def about(field: str) -> Iterator[None]:
    """Let what is refused meanwhile be about this field, or about a part of it."""
    try:
        yield
    except Rejected as error:
        error.at(field)
        raise


class Unauthorized(Rejected):
    """No token was given, or it is unknown, revoked or out of date."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"unauthorized: {reason}")
        self.reason = reason


class Forbidden(Rejected):
    """The token is good, but not for this."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"forbidden: {reason}")
        self.reason = reason


class NotFound(Rejected):
    """There is no such thing, or the caller may not know of it."""

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"there is no {what} {name!r}")
        self.what = what
        self.name = name


class AlreadyExists(Rejected):
    """The name is taken."""

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"the {what} {name!r} exists already")
        self.what = what
        self.name = name


class TooLarge(Rejected):
    """An event, a body or its decompressed form is over its limit."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(f"the {what} has {size:,} bytes or more, the limit is {limit:,}")
        self.what = what
        self.size = size
        self.limit = limit


class TooMany(Rejected):
    """A batch holds more events than one request may bring."""

    def __init__(self, what: str, count: int, limit: int) -> None:
        super().__init__(f"the {what} has {count:,} events or more, the limit is {limit:,}")
        self.what = what
        self.count = count
        self.limit = limit


class TooSlow(Rejected):
    """The request did not arrive in the time it was given."""


class Malformed(Rejected):
    """What frames the events is broken, so that they cannot be told apart."""


class UnknownEncoding(Rejected):
    """The body is in a content coding that is not undone here."""

    def __init__(self, coding: str, known: tuple[str, ...]) -> None:
        super().__init__(f"the content coding {coding!r} is none of {', '.join(known)}")
        self.coding = coding
        self.known = known


class Loop(Rejected):
    """A replay brought the event back to the collection it was taken from."""

    def __init__(self, collection: str) -> None:
        super().__init__(f"the event was replayed from {collection}, where it is already")
        self.collection = collection


class BadName(Rejected):
    """A name that could not be a topic, a table and a part of a URL at once."""

    def __init__(self, name: str, *, what: str) -> None:
        super().__init__(
            f"{name!r} cannot be the name of a {what}: use up to 63 of a-z, 0-9 and single _, "
            "begin with a letter, and not with 'penstock'"
        )
        self.name = name
        self.what = what


class BadQuery(Rejected):
    """A search text that cannot be read. `position` is the 0-based character it stopped at."""

    def __init__(self, text: str, position: int, expected: str) -> None:
        super().__init__(f"{expected}, at character {position + 1}")
        self.text = text
        self.position = position
        self.expected = expected
        self.field = "query"

    def pointer(self) -> str:
        """Two lines for a terminal: the query, and a caret below the character.

        Of a query of several lines it is the line with the character, and of a long one the part
        around it, so that no terminal breaks it.
        """
        start = self.text.rfind("\n", 0, self.position) + 1
        end = self.text.find("\n", self.position)
        line = self.text[start : len(self.text) if end < 0 else end]
        column = self.position - start
        if column > _AROUND:
            cut = column - _AROUND
            line, column = f"…{line[cut:]}", column - cut + 1
        if len(line) > column + _AROUND:
            line = f"{line[: column + _AROUND]}…"
        shown = "".join(c if c.isprintable() else " " for c in line)
        return f"{shown}\n{' ' * sum(_width(c) for c in shown[:column])}^"


_AROUND = 60
"""Characters of a query that are shown on either side of the one that is pointed at."""


def _width(character: str) -> int:
    """Answer how many columns of a terminal a character takes."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


class BadSql(Rejected):
    """A statement that is no single SELECT or EXPLAIN, or that the engine refuses."""


class BadRequest(Rejected):
    """A value that cannot be used; the message says which and why."""


class CollectionPaused(Rejected):
    """The collection does not take events now."""

    def __init__(self, collection: str) -> None:
        # Existing gRPC clients look for the words "collection is paused" and stop retrying.
        super().__init__(f"collection is paused: {collection}")
        self.collection = collection


class WrongState(Rejected):
    """The thing is in a state in which this cannot be done."""


class AddressRefused(Rejected):
    """An outbound address that the guard does not let through."""


class Unavailable(PenstockError):
    """Trying again later can help; `retry_after` says in how many seconds."""

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Overloaded(Unavailable):
    """More arrived at once than the limits allow."""


class TooFast(Overloaded):
    """More than one token may send in a second."""


class LogUnavailable(Unavailable):
    """The log cannot make anything durable now; nothing of the call is acknowledged."""


class EngineUnavailable(Unavailable):
    """A store or service that is needed for this does not answer."""


class Stopped(PenstockError):
    """Going on could skip or double events: nothing is done until an operator has looked."""


class LogChanged(Stopped):
    """The log has lost records that were absorbed, or holds others in their place."""


class LogReplaced(LogChanged):
    """The log is another one than the table was landed from."""


class LogTruncated(Stopped):
    """The log no longer holds records that were not absorbed yet."""


class LogDamaged(Stopped):
    """Records that were made durable cannot be read back."""


class TableChanged(Stopped):
    """The table is not the one landed into, or not as landing left it.

    Where nothing more is known it is a plan, or a rewriting, that has to begin again: that has no
    command, so the message says where to read on.
    """

    def __init__(self, message: str) -> None:
        # The client makes it of a message that says so already.
        known = type(self) is not TableChanged or message.endswith(_WHEN_STOPPED)
        super().__init__(message if known else f"{message}; {_WHEN_STOPPED}")


class TableReplaced(TableChanged):
    """Another table has taken the name of the one landed into."""


class TableRolledBack(TableChanged):
    """The table was set back: its marks promise events that it no longer has.

    `quarantine` says which of the two tables of a collection it is.
    """

    def __init__(self, message: str, *, quarantine: bool = False) -> None:
        super().__init__(message)
        self.quarantine = quarantine


class TableUnmarked(TableChanged):
    """The table has rows and no marks: nobody knows up to where it was landed."""


class KeyMissing(Stopped):
    """The key that a credential needs is not there, or does not fit it."""


class BadSetting(PenstockError):
    """A setting that cannot be used; the process does not start."""

"""Schemas of Avro that a registry knows by an id, asked for once.

What it answered is kept in the metadata, so that a collection can be read again without it.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Protocol, TypeVar

import msgspec
import structlog

from penstock.envelope import CollectionId
from penstock.errors import EngineUnavailable, NotFound
from penstock.schema.formats.avro import RegisteredSchema
from penstock.schema.gate import Refused

log = structlog.get_logger()

_SHORTEST_REST, _LONGEST_REST = 1.0, 30.0
_UNKNOWN_SECONDS = 60.0
_MOST_NOTED = 10_000
_HIGHEST = 2**31 - 1


_Note = TypeVar("_Note")


class Away(Exception):
    """The registry did not answer, or not as one; the text says how, without any secret.

    Unless it is `whole` that may be so for this schema only.
    """

    def __init__(self, why: str, *, whole: bool = True) -> None:
        super().__init__(why)
        self.whole = whole


class Unusable(Exception):
    """The registry answered, and nobody can use what it said; the text says why."""


class Fetch(Protocol):
    """Asks a registry."""

    def __call__(self, number: int) -> RegisteredSchema | None:
        """Answer the schema with this id, None where there is none.

        Raises `Away`, or `Unusable`.
        """
        ...


class Registry:
    """A registry that is left alone for a while after it did not answer. Threads may share it."""

    def __init__(self, fetch: Fetch, steady: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._steady = steady
        self._guard = threading.Lock()
        self._useless: OrderedDict[int, tuple[float, str | None]] = OrderedDict()
        """Until when ids are not asked for again, and why; None where there is no schema."""
        self._failing: OrderedDict[int, float] = OrderedDict()
        """Since when there was no answer for ids, where there may be for others."""
        self._why = ""
        self._since: float | None = None
        self._rest = _SHORTEST_REST
        self._ask_at = steady()

    def schema(self, number: int) -> RegisteredSchema | None:
        """Answer the schema, None where there is none; raise `Away`, `Unusable`.

        An id that was of no use is not asked for again for a minute.
        """
        if number > _HIGHEST:
            return None
        now = self._steady()
        with self._guard:
            until, why = self._useless.get(number, (now, None))
            if until > now:
                if why is not None:
                    raise Unusable(why)
                return None
            if self._since is not None and now < self._ask_at:
                raise Away(self._why)
        try:
            found = self._fetch(number)
        except Away as away:
            self._note_away(number, away)
            raise
        except Unusable as unusable:
            self._note_answer(number, useless=True, why=str(unusable))
            raise
        self._note_answer(number, useless=found is None)
        return found

    def away_for(self, number: int) -> float:
        """Answer for how many seconds there has been no answer for this id; 0 if there was one."""
        with self._guard:
            now = self._steady()
            since = (self._since, self._failing.get(number))
            return max((now - moment for moment in since if moment is not None), default=0.0)

    def _note_away(self, number: int, away: Away) -> None:
        with self._guard:
            now = self._steady()
            if not away.whole:
                self._failing.setdefault(number, now)
                _shorten(self._failing)
                return
            if self._since is None:
                self._since = now
                log.warning("schema registry is away", reason=str(away))
            self._why = str(away)
            self._ask_at = now + self._rest
            self._rest = min(2 * self._rest, _LONGEST_REST)

    def _note_answer(self, number: int, *, useless: bool, why: str | None = None) -> None:
        with self._guard:
            if self._since is not None:
                log.info("schema registry answers again")
            self._since, self._rest = None, _SHORTEST_REST
            self._failing.pop(number, None)
            if useless:
                self._useless[number] = (self._steady() + _UNKNOWN_SECONDS, why)
                self._useless.move_to_end(number)
                _shorten(self._useless)


def _shorten(notes: OrderedDict[int, _Note]) -> None:
    while len(notes) > _MOST_NOTED:
        notes.popitem(last=False)


class Kept(Protocol):
    """Where schemas are kept for good."""

    def format_schema(self, id: CollectionId, digest: str) -> bytes:  # noqa: A002
        """Answer what is kept by a key; raise `NotFound`, `Unavailable`."""
        ...

    def keep_format_schema(self, id: CollectionId, key: str, body: bytes) -> None:  # noqa: A002
        """Keep it; raise `Unavailable`."""
        ...

    def registry_secret(self, id: CollectionId, secret_id: str) -> str:  # noqa: A002
        """Answer what a registry asks for; raise `NotFound`, `Unavailable`, `KeyMissing`."""
        ...


def key_of(address: str, number: int) -> str:
    """Answer by which key the metadata has a schema of the registry at an address."""
    return f"registry {sha256(address.encode()).hexdigest()[:16]} {number}"


class RegisteredSchemas:
    """The schemas that a collection's payloads name by the ids of a registry."""

    def __init__(
        self,
        collection: CollectionId,
        address: str,
        registry: Registry,
        kept: Kept,
        *,
        patience: float | None,
    ) -> None:
        """Give up after the registry was away for `patience` seconds; never if that is None."""
        self._collection = collection
        self._address = address
        self._registry = registry
        self._kept = kept
        self._patience = patience

    def schema(self, number: int) -> RegisteredSchema | None:
        """Answer the schema with this id; see `Registered`. What is answered is kept."""
        key = key_of(self._address, number)
        try:
            return msgspec.json.decode(
                self._kept.format_schema(self._collection, key), type=RegisteredSchema
            )
        except NotFound:
            pass
        try:
            found = self._registry.schema(number)
        except Unusable as why:
            raise Refused(
                "unknown_schema", f"the schema {number} cannot be used: {why} (byte 1)"
            ) from None
        except Away as why:
            away = self._registry.away_for(number)
            if self._patience is not None and away >= self._patience:
                raise Refused(
                    "schema_unavailable",
                    f"the schema {number} was not to be had, for the registry was away (byte 1)",
                ) from None
            raise EngineUnavailable(
                f"the schema registry of {self._collection} is away: {why}"
            ) from None
        if found is not None:
            self._kept.keep_format_schema(self._collection, key, msgspec.json.encode(found))
        return found

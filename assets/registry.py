"""Asks a schema registry over HTTP, with the two routes of Confluent's API that readers need.

What it says about a schema is told from what it says about itself: a schema that cannot be had
must not make the others wait.
"""

from __future__ import annotations

import asyncio
import base64
from collections import OrderedDict
from http import HTTPStatus
from typing import cast
from urllib.parse import quote

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver
from yarl import URL

from assets.registered import Away, Unusable
from penstock.errors import AddressRefused
from penstock.guard import Guard, GuardedResolver, Lookup, system_lookup
from penstock.schema.formats.avro import RegisteredSchema

SECONDS = 5.0
"""How long all answers for one schema may take together: a lane waits for them."""

_LONGEST_ANSWER = 2 << 20
_MOST_REFERENCES = 100
_ACCEPTED = "application/vnd.schemaregistry.v1+json, application/json"
# No such subject, version, schema.
_NOT_THERE = frozenset({40401, 40402, 40403})

# These are about whoever asks, or about all schemas; others are about the one that was asked for.
_REDIRECTS = 3
_OF_THE_REGISTRY = frozenset({200, 401, 403, 404, 407, 408, 429, 502, 503, 504})


class _Reference(msgspec.Struct):
    subject: str
    version: int


class _Answer(msgspec.Struct):
    schema: str
    kind: str = msgspec.field(default="AVRO", name="schemaType")
    references: list[_Reference] = []


class _Problem(msgspec.Struct):
    error_code: int = 0


_answer = msgspec.json.Decoder(_Answer)
_problem = msgspec.json.Decoder(_Problem)


class Http:
    """Asks the registry at an address, through the guard."""

    def __init__(
        self,
        address: str,
        secret: str | None,
        *,
        guard: Guard,
        seconds: float = SECONDS,
        lookup: Lookup = system_lookup,
    ) -> None:
        """Take the address without a path of the API, and ``user:password`` or a token."""
        self._address = address
        self._guard = guard
        self._seconds = seconds
        self._lookup = lookup
        self._headers = {"Accept": _ACCEPTED}
        if secret is not None:
            kind = "Basic" if ":" in secret else "Bearer"
            shown = base64.b64encode(secret.encode()).decode() if kind == "Basic" else secret
            self._headers["Authorization"] = f"{kind} {shown}"

    def __call__(self, number: int) -> RegisteredSchema | None:
        """Answer the schema; see `Fetch`. Blocks, on a thread without an event loop."""
        try:
            return asyncio.run(self._fetch(number))
        except TimeoutError:
            raise Away(f"there was no answer within {self._seconds:g} s") from None
        except AddressRefused as refused:
            raise Away(str(refused)) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(error, aiohttp.ClientConnectorError) and isinstance(
                error.os_error, AddressRefused
            ):
                raise Away(str(error.os_error)) from None
            # Without the error's own words: they repeat addresses and headers.
            raise Away(f"there was no answer ({type(error).__name__})") from None

    async def _fetch(self, number: int) -> RegisteredSchema | None:
        # The settings of the operator may have changed since the address was taken.
        self._guard.endpoint(self._address)
        connector = aiohttp.TCPConnector(
            resolver=cast("AbstractResolver", GuardedResolver(self._guard, self._lookup)),
            socket_factory=self._guard.open_socket,
        )
        async with (
            asyncio.timeout(self._seconds),
            aiohttp.ClientSession(connector=connector, headers=self._headers) as session,
        ):
            found = await self._get(session, f"/schemas/ids/{number}")
            if found is None:
                return None
            references: OrderedDict[tuple[str, int], str] = OrderedDict()
            if found.kind == "AVRO":
                for reference in found.references:
                    await self._add(session, reference, references)
            return RegisteredSchema(
                schema=found.schema, kind=found.kind, references=tuple(references.values())
            )

    async def _add(
        self,
        session: aiohttp.ClientSession,
        reference: _Reference,
        found: OrderedDict[tuple[str, int], str],
        above: frozenset[tuple[str, int]] = frozenset(),
    ) -> None:
        """Add what the reference names, behind all that this needs itself."""
        key = (reference.subject, reference.version)
        if key in found:
            return
        if key in above or len(above) + len(found) >= _MOST_REFERENCES:
            raise Unusable(
                "the schemas of the registry refer to each other in a circle, or to too many"
            )
        path = f"/subjects/{quote(reference.subject, safe='')}/versions/{reference.version}"
        answer = await self._get(session, path)
        if answer is None:
            raise Unusable("the registry lacks a schema that it refers to")
        for below in answer.references:
            await self._add(session, below, found, above | {key})
        found[key] = answer.schema

    async def _get(self, session: aiohttp.ClientSession, path: str) -> _Answer | None:
        url = URL(f"{self._address}{path}", encoded=True)
        async with session.get(url, allow_redirects=False) as answer:
            body = bytearray()
            async for part in answer.content.iter_any():
                body += part
                if len(body) > _LONGEST_ANSWER:
                    raise Unusable("the answer of the registry is too long")
        return _read(answer.status, bytes(body))


def _read(status: int, body: bytes) -> _Answer | None:
    """Answer what the registry says of a schema, None where it says that there is none."""
    try:
        if status == HTTPStatus.OK:
            return _answer.decode(body)
        # Whatever serves the wrong address says 404, too.
        if status == HTTPStatus.NOT_FOUND and _problem.decode(body).error_code in _NOT_THERE:
            return None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Away(f"it answered {status}, but not as a registry does") from None
    whole = status in _OF_THE_REGISTRY or status // 100 == _REDIRECTS
    raise Away(f"it answered {status}", whole=whole)

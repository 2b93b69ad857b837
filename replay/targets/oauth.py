"""Access tokens of a destination, by OAuth2 client credentials (RFC 6749, section 4.4).

A token is kept in memory only, until shortly before it expires, and is asked for through the
address guard as everything that goes out is. Sends that need one at the same time wait for the
same answer.
"""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote_plus, urlencode

import aiohttp
import msgspec
from yarl import URL

from penstock.envelope import Clock, Micros
from penstock.errors import AddressRefused
from penstock.guard import Guard, Lookup
from replay.targets import REFUSED, Retry
from replay.targets.places import HttpOptions
from replay.targets.wire import Wire

ASK_SECONDS = 10.0
MOST_ANSWER_BYTES = 64 << 10
WITHOUT_END_SECONDS = 300.0
"""How long a token is used whose end is not said."""
EARLY_SECONDS = 60.0
"""How long before its end a token is used no more; a tenth of its life at the most."""
AGAIN_SECONDS = 10.0
"""How long no other token is asked for after the destination refused one that was just made."""

NOT_LET_IN = Retry("the token endpoint did not let us in")
NO_TOKEN = Retry("the token endpoint gave no token that can be used")
NO_ANSWER = Retry("the token endpoint did not answer")

_MICROS = 1_000_000
# What RFC 6750 lets a bearer token be: nothing that could end a line.
_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class NoToken(Exception):
    """There is no token now; `outcome` says why."""

    def __init__(self, outcome: Retry) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


class _Answer(msgspec.Struct):
    access_token: str
    token_type: str
    expires_in: float | str | None = None


class _Token(NamedTuple):
    text: str
    ends: Micros


class Tokens:
    """The tokens of one destination; used by one event loop, and opens nothing before `token`."""

    def __init__(
        self,
        url: URL,
        options: HttpOptions,
        secret: str,
        *,
        guard: Guard,
        clock: Clock,
        lookup: Lookup,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._url = url
        self._guard = guard
        self._clock = clock
        self._lookup = lookup
        self._tls = tls
        self._request = token_request(options, secret)
        self._token: _Token | None = None
        self._futile_until: Micros = 0
        self._asking: asyncio.Task[_Token] | None = None

    async def token(self) -> str:
        """Answer a token that has not expired. Raises `NoToken`."""
        if self._token is None or self._token.ends <= self._clock():
            if self._asking is None or self._asking.done():
                self._asking = asyncio.create_task(self._ask())
            # One that gives up does not end it for the others.
            self._token = await asyncio.shield(self._asking)
        return self._token.text

    async def other_than(self, refused: str) -> str | None:
        """Answer another token in the place of one that the destination refused; raise `NoToken`.

        None where the last one that came of a refusal was refused as well: then it is not for the
        token's age.
        """
        if self._token is None or self._token.text == refused:
            if self._clock() < self._futile_until:
                return None
            self._token = None
        return await self.token()

    def refused_again(self) -> None:
        """Hear that a token made after a refusal was refused, too."""
        self._futile_until = self._clock() + round(AGAIN_SECONDS * _MICROS)

    async def close(self) -> None:
        """Give up what is asked for."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask(self) -> _Token:
        headers, body = self._request
        wire = Wire(self._url, self._guard, self._lookup, tls=self._tls)
        asked_at = self._clock()
        try:
            async with asyncio.timeout(ASK_SECONDS):
                connection = await wire.connect()
                try:
                    wire.check(connection)
                    answer, rest = await wire.exchange(connection, headers, body)
                    return read_token(answer.code, await _read(rest), now=asked_at)
                finally:
                    connection.close()
        except AddressRefused:
            raise NoToken(REFUSED) from None
        except aiohttp.ClientConnectorError as error:
            refused = isinstance(error.os_error, AddressRefused)
            raise NoToken(REFUSED if refused else NO_ANSWER) from None
        except (aiohttp.ClientError, aiohttp.http.HttpProcessingError, OSError, ValueError):
            raise NoToken(NO_ANSWER) from None
        finally:
            await wire.close()


def token_request(options: HttpOptions, secret: str) -> tuple[Sequence[tuple[str, str]], bytes]:
    """Answer headers and body of what asks for a token. Pure."""
    client_id = options.client_id or ""
    form = {"grant_type": "client_credentials"}
    if options.scope:
        form["scope"] = options.scope
    headers = [
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Accept", "application/json"),
    ]
    if options.client_auth == "body":
        form |= {"client_id": client_id, "client_secret": secret}
    else:
        pair = f"{quote_plus(client_id)}:{quote_plus(secret)}".encode()
        headers.append(("Authorization", f"Basic {base64.b64encode(pair).decode()}"))
    return headers, urlencode(form).encode()


def read_token(status: int, body: bytes, *, now: Micros) -> _Token:
    """Answer the token in an answer of the endpoint; raise `NoToken`. Pure."""
    if status in (400, 401, 403):
        raise NoToken(NOT_LET_IN)
    if status // 100 != 2:  # noqa: PLR2004
        raise NoToken(Retry(f"the token endpoint answered {status}"))
    try:
        answer = msgspec.json.decode(body, type=_Answer)
        seconds = WITHOUT_END_SECONDS if answer.expires_in is None else float(answer.expires_in)
    except (msgspec.DecodeError, ValueError):
        raise NoToken(NO_TOKEN) from None
    bearer = answer.token_type.lower() == "bearer"
    if not bearer or not _BEARER.fullmatch(answer.access_token) or not 0 < seconds < 1e9:  # noqa: PLR2004
        raise NoToken(NO_TOKEN)
    used = seconds - min(EARLY_SECONDS, seconds / 10)
    return _Token(answer.access_token, now + round(used * _MICROS))


async def _read(body: aiohttp.StreamReader) -> bytes:
    """Answer the body, or nothing if it is too long."""
    parts, size = [], 0
    while not body.at_eof():
        parts.append(await body.readany())
        size += len(parts[-1])
        if size > MOST_ANSWER_BYTES:
            return b""
    return b"".join(parts)

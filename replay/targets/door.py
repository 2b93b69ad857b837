"""Requests to a door of this installation, with a token that is made when it is needed."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Mapping
from typing import NamedTuple

import aiohttp

from penstock.errors import PenstockError
from replay.targets import BROKEN, NO_CONNECTION, NOT_CONFIRMED, NOT_LET_IN, Retry


class Answered(NamedTuple):
    """What the door said to one request."""

    status: int
    body: bytes
    after: str | None
    """Its Retry-After."""


class Door:
    """The requests of one target to one URL. Opens nothing before the first.

    `token` answers the token that lets in, and is asked again once the door does not take it.
    """

    def __init__(self, url: str, token: Callable[[], str]) -> None:
        self._url = url
        self._make_token = token
        self._token: str | None = None
        self._session: aiohttp.ClientSession | None = None

    async def ask(
        self,
        method: str,
        body: bytes | None,
        seconds: float,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Answered | Retry:
        """Ask the door; answer what it said, or what to do about that it did not."""
        try:
            async with asyncio.timeout(seconds):
                session = self._session or self._open()
                if self._token is None:
                    self._token = await asyncio.to_thread(self._make_token)
                async with session.request(
                    method,
                    self._url,
                    data=None if body is None else io.BytesIO(body),
                    headers={"Authorization": f"Bearer {self._token}", **(headers or {})},
                    allow_redirects=False,
                ) as answer:
                    told = await answer.read()
        except TimeoutError:
            return NOT_CONFIRMED
        except aiohttp.ClientConnectorError:
            return NO_CONNECTION
        except (aiohttp.ClientError, OSError):
            return BROKEN
        except PenstockError:
            # The store that tokens are kept in does not answer.
            return NOT_LET_IN
        if answer.status in (401, 403):
            # It was revoked, or the door does not know it yet.
            self._token = None
            return Retry(NOT_LET_IN.reason, answer.status)
        return Answered(answer.status, told, answer.headers.get("Retry-After"))

    def _open(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # the sender bounds what is in flight
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            trust_env=False,
        )
        return self._session

    async def close(self) -> None:
        """Let go of every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

"""Statements sent to Trino: where it is, who asks, and how long one may take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import structlog
from trino.auth import Authentication, BasicAuthentication, JWTAuthentication
from trino.client import ClientSession, TrinoQuery, TrinoRequest
from trino.exceptions import Error, HttpError

from penstock.errors import BadSetting, EngineUnavailable

log = structlog.get_logger()

# Whoever is away is told of after some seconds: two attempts to connect. While a statement runs,
# Trino answers at least once a second.
_CONNECT_SECONDS = 3.0
_ANSWER_SECONDS = 10.0
_ATTEMPTS = 2

GRACE_SECONDS = 2.0
"""Trino ends a statement itself; this is for one that does not come to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where Trino is, who asks, and which catalog has the tables."""

    scheme: str
    host: str
    port: int
    user: str
    catalog: str

    @classmethod
    def of(cls, url: str, setting: str = "sql_url") -> Self:
        """Read ``trino://user@host:port/catalog``. Raises `BadSetting`, without the URL in it."""
        parts = urlsplit(url)
        if parts.password is not None:
            secret = setting.replace("_url", "_password")
            raise BadSetting(f"{setting} holds a password; it belongs into {secret}")
        catalog = parts.path.strip("/")
        if not (parts.username and parts.hostname and catalog) or "/" in catalog:
            raise BadSetting(f"{setting} has to be trino://user@host:port/catalog")
        secure = parts.scheme == "trino+https"
        try:
            port = parts.port or (443 if secure else 8080)
        except ValueError as error:
            raise BadSetting(f"the port in {setting} is none") from error
        return cls(
            scheme="https" if secure else "http",
            host=parts.hostname,
            port=port,
            user=unquote(parts.username),
            catalog=unquote(catalog).lower(),
        )


class LateError(Exception):
    """The time is over."""


class TrinoSession:
    """One user's way to Trino. Threads may share it; it holds no connection."""

    def __init__(
        self, url: str, *, password: str = "", token: str = "", setting: str = "sql_url"
    ) -> None:
        """Sign in with a password or a token where there is one; both only over HTTPS.

        `setting` is the name that `url` has in the settings. Raises `BadSetting`.
        """
        self.at = Address.of(url, setting)
        prefix = setting.removesuffix("url")
        if password and token:
            raise BadSetting(f"{prefix}password and {prefix}token exclude each other")
        if (password or token) and self.at.scheme != "https":
            raise BadSetting(
                f"{setting} has to begin with trino+https:// to send a password or token"
            )
        self._auth: Authentication | None = None
        if password:
            self._auth = BasicAuthentication(self.at.user, password)
        elif token:
            self._auth = JWTAuthentication(token)

    def prepared(
        self,
        text: str,
        *,
        schema: str,
        seconds: float,
        until: float,
        properties: Mapping[str, str] | None = None,
        watch: Callable[[Mapping[str, Any]], None] = lambda _stats: None,
    ) -> TrinoQuery:
        """Answer a statement that is not sent yet, see `begin`.

        Trino ends it after `seconds`; `until` is when that is, by `time.monotonic`. `properties`
        are those of Trino's session. `watch` is told at least once a second how far it is.
        """
        session = ClientSession(
            user=self.at.user,
            catalog=self.at.catalog,
            schema=schema,
            source="penstock",
            timezone="UTC",
            properties={
                "query_max_run_time": f"{max(int(seconds * 1000), 1)}ms",
                **(properties or {}),
            },
        )
        request = TrinoRequest(
            self.at.host,
            self.at.port,
            session,
            http_scheme=self.at.scheme,
            auth=self._auth,
            max_attempts=_ATTEMPTS,
            request_timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS),
        )

        def in_time(stats: Mapping[str, Any]) -> None:
            if time.monotonic() > until + GRACE_SECONDS:
                raise LateError
            watch(stats)

        return TrinoQuery(request, text, legacy_primitive_types=True, stats_callback=in_time)


def begin(query: TrinoQuery) -> None:
    """Send a statement, and wait for its first rows; one that fails is cancelled."""
    try:
        query.execute()
    except BaseException:
        with suppress(Error, HttpError, OSError):
            query.cancel()
        raise


def away(error: Exception) -> EngineUnavailable:
    """Answer what is said where the way to Trino fails."""
    if isinstance(error, HttpError):
        # "error 401: …", and then whatever somebody on the way says.
        log.error("trino refused to answer", status=str(error).partition(":")[0])
        return EngineUnavailable("Trino does not answer Penstock now")
    log.error("trino is away", error=type(error).__name__)
    return EngineUnavailable("Trino cannot be reached now")

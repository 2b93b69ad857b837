"""Replay to HTTP: one request per event, with the bytes and headers that were received.

Of the original headers everything is sent again except

- what belongs to one connection or one body: ``Connection`` and what it names, ``Host``,
  ``Content-Length``, ``Content-Encoding`` (payloads are kept decoded), ``Transfer-Encoding``,
  ``Expect``, ``Keep-Alive``, ``TE``, ``Trailer``, ``Upgrade``, ``Proxy-…``;
- credentials that were meant for somebody else: ``Authorization``, ``Cookie``;
- what HTTP cannot carry: a name that is no token, a value with control characters or bytes that
  are not UTF-8;
- what the destination sets itself or signs with, and, unless the replay is verbatim, the five
  ``penstock-…`` headers below.

``Content-Type`` is the event's own. An event without one is sent without one.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Literal, NamedTuple

import aiohttp
from yarl import URL

from penstock.envelope import Clock, CollectionId, Micros
from penstock.errors import AddressRefused, BadRequest, about
from penstock.guard import Guard, Lookup, system_lookup
from penstock.vocabulary import Credential
from replay.request import moment_of, rfc3339
from replay.targets import (
    ADDED,
    BROKEN,
    NO_CONNECTION,
    REFUSED,
    Delivered,
    Failed,
    Message,
    Outcome,
    Retry,
)
from replay.targets.oauth import NoToken, Tokens
from replay.targets.places import HttpOptions
from replay.targets.signing import HEADERS, signer
from replay.targets.templates import template
from replay.targets.tls import client_tls
from replay.targets.wire import CONNECT_SECONDS, Wire
from replay.transform import ADDED_HEADER

TOTAL_SECONDS = 30.0
MOST_ANSWER_BYTES = 64 << 10
LONGEST_RETRY_AFTER = 3600.0

NOT_FORWARDED = frozenset(
    {
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# What a destination may not set: the first four frame the message, the others are the replay's.
_NOT_SETTABLE = frozenset({"connection", "content-length", "host", "transfer-encoding", *ADDED})

_RETRIED_STATUS = frozenset({408, 425, 429})
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_KNOWN_NAMES = 1_000
_NOT_IN_VALUES = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")


_DEFAULTS = HttpOptions()


class Answer(NamedTuple):
    """What became of one attempt, and the SHA-256 of what was read of the body, if there was one.

    No more than `MOST_ANSWER_BYTES` are read, and a little.
    """

    outcome: Outcome
    digest: bytes = b""

    @property
    def status(self) -> int | None:
        """The status of the answer, None where there was none."""
        return self.outcome.status

    @property
    def reason(self) -> str:
        """Why there was none."""
        return self.outcome.reason if isinstance(self.outcome, Retry | Failed) else ""


class HttpTarget:
    """Sends events to one URL. Opens nothing before the first `send`; used by one event loop."""

    most = 1
    ordered = False

    def __init__(
        self,
        url: str,
        options: HttpOptions = _DEFAULTS,
        *,
        guard: Guard,
        replay_id: str,
        collection: CollectionId,
        clock: Clock,
        own_headers: Sequence[tuple[str, str]] = (),
        secret: str | None = None,
        credentials: Mapping[Credential, str] | None = None,
        headers: Literal["add", "verbatim"] = "add",
        marked: bool = True,
        timeout: float = TOTAL_SECONDS,
        lookup: Lookup = system_lookup,
    ) -> None:
        """Check URL, headers and secrets; raise `AddressRefused` or `BadRequest`."""
        with about("url"):
            self._url = agreed_url(guard, url)
        self._guard = guard
        self._lookup = lookup
        self._clock = clock
        credentials = credentials or {}
        self._tls = client_tls(
            options.ca, credentials.get("client_certificate"), credentials.get("client_key")
        )
        self._tokens: Tokens | None = None
        if options.token_url is not None:
            with about("options.token_url"):
                endpoint = token_endpoint(guard, options.token_url)
            self._tokens = Tokens(
                endpoint,
                options,
                credentials.get("client_secret", ""),
                guard=guard,
                clock=clock,
                lookup=lookup,
                tls=client_tls(options.ca),
            )
        authorized = () if self._tokens is None else ("Authorization",)
        self.added = (*authorized, *HEADERS[options.signing])
        """The headers behind `headers`: those of a token and of the signature."""
        self._sign = signer(options.signing, secret)
        with about("headers"):
            checked = check_own_headers(own_headers, not_settable=self.added)
            self._own = [(name, value, template(value, collection)) for name, value in checked]
        self._method = options.method
        self._add = headers == "add"
        self._forwarding = Forwarding(
            [name for name, _ in own_headers]
            + [*self.added]
            + (list(ADDED) if self._add else [])
            + ([ADDED_HEADER] if self._add and not marked else [])
        )
        self._own_type = any(name.lower() == "content-type" for name, _ in own_headers)
        self._replay_id = replay_id
        self._collection = str(collection)
        self._seconds = timeout
        self._wire: Wire | None = None

    def headers(self, message: Message) -> list[tuple[str, str]]:
        """Answer the headers of one attempt, without those that frame, authorize or sign it."""
        return [*self.passed_on(message), *self.own(message)]

    def own(self, message: Message) -> list[tuple[str, str]]:
        """Answer the headers that the destination has of its own; they may hold credentials.

        One that is made of what the event lacks, or of what HTTP cannot carry, is left out.
        """
        pairs = []
        for name, value, fill in self._own:
            made = value if fill is None else fill(message)
            if made is not None and (fill is None or _sendable(made)):
                pairs.append((name, made))
        return pairs

    def passed_on(self, message: Message) -> list[tuple[str, str]]:
        """Answer the headers that come of the event, and those that the replay adds."""
        event = message.event
        pairs = self._forwarding.of(event.headers) if event.headers else []
        kind = event.content_type
        if kind is not None and not self._own_type and _sendable(kind):
            pairs.append(("Content-Type", kind))
        if self._add:
            pairs += (
                ("penstock-replay-id", self._replay_id),
                ("penstock-collection", self._collection),
                ("penstock-attempt", str(message.attempt)),
                ("penstock-received-at", rfc3339(event.received_at)),
            )
            if _sendable(event.id):
                pairs.append(("penstock-event-id", event.id))
        return pairs

    def check(self, message: Message) -> Failed | None:
        """Make the headers; whatever HTTP cannot carry is left out of them."""
        self.headers(message)
        return None

    async def examine(self) -> str | None:
        """Answer that nothing is known to be wrong: HTTP can be asked by sending an event only."""
        return None

    async def send(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        """Send each message; answer what became of it."""
        return [(await self.answer(message)).outcome for message in messages]

    async def answer(self, message: Message) -> Answer:
        """Send the message; a second time, with another token, if the first was refused."""
        deadline = asyncio.get_running_loop().time() + self._seconds
        if self._tokens is None:
            return await self._post(message, deadline)
        try:
            async with asyncio.timeout_at(deadline):
                token = await self._tokens.token()
            answer = await self._post(message, deadline, token)
            if answer.status != HTTPStatus.UNAUTHORIZED:
                return answer
            async with asyncio.timeout_at(deadline):
                other = await self._tokens.other_than(token)
        except NoToken as error:
            return Answer(error.outcome)
        except TimeoutError as error:
            return Answer(outcome_of_error(error))
        if other is None:
            return answer
        answer = await self._post(message, deadline, other)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            self._tokens.refused_again()
        return answer

    async def _post(self, message: Message, deadline: float, token: str | None = None) -> Answer:
        wire = self._wire or self._open()
        outcome: Outcome | None = None
        digest = b""
        try:
            async with asyncio.timeout_at(deadline):
                connection = await wire.connect()
                try:
                    wire.check(connection)
                    event = message.event
                    signed = self._sign(event.id, self._clock(), event.payload)
                    bearer = [] if token is None else [("Authorization", f"Bearer {token}")]
                    headers = [*self.headers(message), *bearer, *signed]
                    answer, body = await wire.exchange(connection, headers, event.payload)
                    outcome = outcome_of_status(answer.code, answer.headers, now=self._clock())
                    digest = await _read_away(body)
                except BaseException:
                    # Its answer may still come, and is not that of the next request.
                    connection.close()
                    raise
                wire.let_go(connection)
        except (
            aiohttp.ClientError,
            aiohttp.http.HttpProcessingError,
            OSError,
            AddressRefused,
            ValueError,
        ) as error:
            # Once there is a status it has decided.
            outcome = outcome or outcome_of_error(error)
        return Answer(outcome, digest)

    def _open(self) -> Wire:
        self._wire = Wire(self._url, self._guard, self._lookup, method=self._method, tls=self._tls)
        return self._wire

    async def close(self) -> None:
        """Close every connection."""
        if self._tokens is not None:
            await self._tokens.close()
        if self._wire is not None:
            await self._wire.close()
            self._wire = None


def agreed_url(guard: Guard, url: str) -> URL:
    """Answer the checked URL; refuse one that aiohttp's parser would take to another host."""
    endpoint = guard.endpoint(url)
    parsed = URL(endpoint.url, encoded=True)
    if (parsed.raw_host, parsed.port, parsed.user) != (endpoint.host, endpoint.port, None):
        raise AddressRefused("the URL can be read in two ways")
    return parsed


def token_endpoint(guard: Guard, url: str) -> URL:
    """Answer the checked URL of a token endpoint; a secret is told to none that speaks no TLS.

    On this machine itself nobody listens in.
    """
    endpoint = guard.endpoint(url)
    alone = endpoint.literal is not None and endpoint.literal.is_loopback
    if endpoint.scheme != "https" and not alone:
        raise BadRequest("the option token_url begins with https://")
    return agreed_url(guard, url)


def check_own_headers(
    headers: Sequence[tuple[str, str]], *, not_settable: Iterable[str] = ()
) -> list[tuple[str, str]]:
    """Answer a destination's headers; raise `BadRequest` for one that it may not set."""
    taken = _NOT_SETTABLE.union(name.lower() for name in not_settable)
    for name, value in headers:
        if not _TOKEN.fullmatch(name) or name.lower() in taken:
            raise BadRequest(f"a destination cannot set the header {name!r}")
        if not _sendable(value):
            raise BadRequest(f"the value of the header {name!r} cannot be sent")
    return list(headers)


class Forwarding:
    """Says which of an event's headers are sent again.

    What was decided about a name is kept: a million events have some twenty names between them.
    """

    def __init__(self, left_out: Iterable[str]) -> None:
        self._left_out = NOT_FORWARDED.union(name.lower() for name in left_out)
        self._known: dict[str, str] = {}

    def of(self, headers: Iterable[tuple[str, bytes]]) -> list[tuple[str, str]]:
        """Answer the headers that are sent again, in their order and spelling, duplicates kept."""
        sent = []
        for name, value in headers:
            lower = self._known.get(name)
            if lower is None:
                lower = self._decide(name)
            if lower == "connection":
                return self._without_named([*headers])
            if not lower:
                continue
            try:
                text = value.decode()
            except UnicodeDecodeError:
                continue
            if text.isprintable() or _sendable(text):
                sent.append((name, text))
        return sent

    def _decide(self, name: str) -> str:
        """Answer the name in lower case, or nothing if it is not sent again."""
        lower = name.lower()
        if lower != "connection" and (lower in self._left_out or not _TOKEN.fullmatch(name)):
            lower = ""
        if len(self._known) < _KNOWN_NAMES:
            self._known[name] = lower
        return lower

    def _without_named(self, headers: Sequence[tuple[str, bytes]]) -> list[tuple[str, str]]:
        """Leave out what the header ``Connection`` names: that was for the hop before us, too."""
        named = b",".join(v for name, v in headers if name.lower() == "connection")
        gone = {each.strip() for each in named.decode("latin-1").lower().split(",")}
        gone.add("connection")
        return self.of([(name, v) for name, v in headers if name.lower() not in gone])


def _sendable(value: str) -> bool:
    """Tell whether HTTP can carry this value: as UTF-8, and without ending the line."""
    return not _NOT_IN_VALUES.search(value)


def outcome_of_status(status: int, headers: Mapping[str, str], *, now: Micros) -> Outcome:
    """Say what an answer means. Redirects are not followed: they could lead anywhere."""
    match status // 100:
        case 2:
            return Delivered(status)
        case 3:
            return Failed(f"answered {status}; redirects are not followed", status)
        case 4 if status not in _RETRIED_STATUS:
            return Failed(f"answered {status}", status)
        case _:
            after = retry_after(headers.get("Retry-After"), now=now)
            return Retry(f"answered {status}", status, after)


def retry_after(text: str | None, *, now: Micros) -> float | None:
    """Answer the seconds that a ``Retry-After`` asks for, at most an hour; None if it is none."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:10])
    else:
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - moment_of(now)).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


def outcome_of_error(error: Exception) -> Outcome:
    """Say what went wrong before there was an answer, without an address in it."""
    match error:
        case AddressRefused() | aiohttp.ClientConnectorError(os_error=AddressRefused()):
            return REFUSED
        case aiohttp.ConnectionTimeoutError():
            return Retry(f"no connection within {CONNECT_SECONDS:g} s")
        case TimeoutError():
            return Retry("no answer in time")
        case aiohttp.ClientConnectorDNSError():
            return Retry("the host was not found")
        case aiohttp.ClientSSLError():
            return Retry("TLS failed")
        case aiohttp.ClientConnectorError():
            return NO_CONNECTION
        case aiohttp.http.HttpProcessingError():
            return Retry("the answer is not HTTP")
        case ValueError():
            return Failed("HTTP cannot carry this event's headers")
        case _:
            return BROKEN


async def _read_away(body: aiohttp.StreamReader) -> bytes:
    """Read what is left of an answer, so that its connection can be used again.

    Answers the SHA-256 of it. An answer that is too long is not read to its end.
    """
    left, found = MOST_ANSWER_BYTES, hashlib.sha256()
    while left >= 0 and not body.at_eof():
        some = await body.readany()
        found.update(some)
        left -= len(some)
    return found.digest()

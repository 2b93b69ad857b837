"""Replay to RabbitMQ: one persistent message per event, confirmed by the server.

What carries what:

- the body is the payload; ``content_type`` is the event's; ``message_id`` is its id (where an id
  has more than 255 bytes, the SHA-256 of it); ``timestamp`` its time in whole seconds;
- a header is a table entry: text where the value is UTF-8, else a byte array. Values of one name
  make a list, in their order. A table has no order between names;
- a name of more than 128 bytes, or none, cannot be one, nor can ``penstock-headers``: such
  headers stand in that one, JSON, as a list of ``[name, base64 of the value]``;
- the key, which AMQP does not know, is the header ``penstock-key`` (bytes), unless verbatim.

Confirms are awaited for each message, and ``mandatory`` is set: what no queue takes comes back.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from yarl import URL

from penstock.envelope import CollectionId, Event
from penstock.errors import AddressRefused
from penstock.guard import Guard, Lookup, connected_socket, system_lookup
from replay.targets import (
    BROKEN,
    GONE,
    NO_CONNECTION,
    NO_TLS,
    NOT_CONFIRMED,
    NOT_LET_IN,
    NOT_TRUSTED,
    REFUSED,
    TOO_LARGE,
    Delivered,
    Failed,
    Message,
    Outcome,
    Retry,
    needs,
)
from replay.targets.added import Added
from replay.targets.places import AMQP_PORTS, RabbitOptions, RabbitPlace

try:
    import aiormq
    from aiormq import exceptions as amqp
    from aiormq.channel import Channel
    from aiormq.connection import TransportFactory
    from pamqp.commands import Basic
except ImportError as error:
    raise needs("aiormq", "rabbitmq") from error

BATCH = 100
CONNECT_SECONDS = 5.0
_CLOSE_SECONDS = 1.0
_HEARTBEAT = 10

_LONGEST_TEXT = 255
_LONGEST_NAME = 128
# Headers travel in one frame, whose size a server sets; 128 KiB unless it was changed.
_MOST_HEADER_BYTES = 120_000

_DELIVERED = Delivered(None)
_UNROUTABLE = Failed("no queue takes events with this routing key")
_REFUSED_EVENT = Retry("the destination did not take the event")
_HEADERS_TOO_LARGE = Failed("the event's headers are too large for AMQP")
_NOT_CARRIED = Failed("AMQP cannot carry this event's routing key")
_KEY = "penstock-key"
_OTHERS = "penstock-headers"


class RabbitTarget:
    """Publishes events to one exchange. Opens nothing before the first `send`."""

    most = BATCH
    ordered = False

    def __init__(
        self,
        place: RabbitPlace,
        options: RabbitOptions,
        login: tuple[str, str] | None,
        *,
        guard: Guard,
        replay_id: str,
        collection: CollectionId,
        headers: Literal["add", "verbatim"] = "add",
        marked: bool = True,
        timeout: float = 30.0,
        lookup: Lookup = system_lookup,
    ) -> None:
        self._place = place
        self._options = options
        self._login = login or ("guest", "guest")
        self._guard = guard.with_ports(AMQP_PORTS.values())
        self._lookup = lookup
        self._added = Added(replay_id, collection, headers, extra=(_KEY,), marked=marked)
        self._seconds = timeout
        self._connect_seconds = min(timeout, CONNECT_SECONDS)
        self._turn = asyncio.Lock()
        self._connection: aiormq.Connection | None = None
        self._channel: Channel | None = None
        self._flying: dict[str | None, asyncio.Future[None]] = {}
        """The ids of what is not answered, and when that is over."""

    def properties(self, message: Message) -> Basic.Properties | Failed:
        """Answer headers and properties of one attempt."""
        event = message.event
        headers = table_of(self._added.kept(event.headers))
        headers.update(self._added.pairs(message))
        if self._added.adds and event.key is not None:
            headers[_KEY] = bytearray(event.key)
        if _size(headers) > _MOST_HEADER_BYTES:
            return _HEADERS_TOO_LARGE
        at = event.received_at if event.event_time is None else event.event_time
        return Basic.Properties(
            content_type=_short(event.content_type),
            message_id=message_id(event.id),
            headers=headers,
            delivery_mode=2,
            timestamp=datetime.fromtimestamp(max(at, 0) // 1_000_000, UTC),
        )

    def routing_key(self, event: Event) -> str:
        """Answer the destination's own, or the one the event came with; empty if there is none."""
        fixed = self._options.routing_key
        return event.metadata.get("routing_key", "") if fixed is None else fixed

    def check(self, message: Message) -> Failed | None:
        """Make properties and routing key."""
        made = self._ready(message)
        return made if isinstance(made, Failed) else None

    async def examine(self) -> str | None:
        """Look for the exchange; for the queue, where the default exchange leads to a fixed one."""
        options = self._options
        channel = await self._opened()
        if isinstance(channel, Retry | Failed):
            return channel.reason
        try:
            async with asyncio.timeout(self._connect_seconds):
                if options.exchange:
                    await channel.exchange_declare(options.exchange, passive=True)
                elif options.routing_key:
                    await channel.queue_declare(options.routing_key, passive=True)
        except amqp.ChannelNotFoundEntity:
            what = "exchange" if options.exchange else "queue"
            return f"there is no such {what}"
        except TimeoutError:
            return NO_CONNECTION.reason
        except (amqp.AMQPError, OSError) as error:
            return outcome_of_error(error).reason
        return None

    async def send(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        """Publish all of them; wait for the server's word on each."""
        outcomes: dict[int, Outcome] = {}
        ready: dict[int, tuple[str, Basic.Properties]] = {}
        for number, message in enumerate(messages):
            made = self._ready(message)
            if isinstance(made, Failed):
                outcomes[number] = made
            else:
                ready[number] = made
        for numbers in _distinct(ready):
            async with self._alone({ready[number][1].message_id for number in numbers}):
                channel = await self._opened()
                if isinstance(channel, Retry | Failed):
                    outcomes.update(dict.fromkeys(numbers, channel))
                    continue
                waiting = {
                    number: self._publish(channel, messages[number].event.payload, *ready[number])
                    for number in numbers
                }
                outcomes.update(await self._confirmed(waiting))
        if len(messages) > 1 and TOO_LARGE in outcomes.values():
            return await self._one_by_one(messages, outcomes)
        return [outcomes[number] for number in range(len(messages))]

    @asynccontextmanager
    async def _alone(self, ids: Collection[str | None]) -> AsyncIterator[None]:
        """Let no other send have one of these under way: a return tells only the id."""
        while others := {self._flying[one] for one in ids if one in self._flying}:
            await asyncio.wait(others)
        over = asyncio.get_running_loop().create_future()
        self._flying.update(dict.fromkeys(ids, over))
        try:
            yield
        finally:
            for one in ids:
                del self._flying[one]
            over.set_result(None)

    async def _opened(self) -> Channel | Retry | Failed:
        try:
            async with asyncio.timeout(self._connect_seconds):
                return await self._open()
        except TimeoutError:
            return NO_CONNECTION
        except (amqp.AMQPError, AddressRefused, OSError) as error:
            return outcome_of_error(error)

    async def _confirmed(
        self, waiting: Mapping[int, Coroutine[Any, Any, Outcome]]
    ) -> dict[int, Outcome]:
        """Wait for the server's word on each of them, all begun in their order."""
        tasks = {number: asyncio.ensure_future(each) for number, each in waiting.items()}
        try:
            await asyncio.wait(tasks.values(), timeout=self._seconds)
        finally:
            late = [task for task in tasks.values() if not task.done()]
            for task in late:
                task.cancel()
        if late:
            await asyncio.wait(late)
            # What is still to be said about these must not be taken for an answer on others.
            await self._drop()
        return {
            number: NOT_CONFIRMED if task.cancelled() else task.result()
            for number, task in tasks.items()
        }

    async def _one_by_one(
        self, messages: Sequence[Message], outcomes: dict[int, Outcome]
    ) -> list[Outcome]:
        """Find the message that is too large; the server has closed the channel for all of them."""
        return [
            (await self.send([message]))[0] if outcomes[number] == TOO_LARGE else outcomes[number]
            for number, message in enumerate(messages)
        ]

    def _ready(self, message: Message) -> tuple[str, Basic.Properties] | Failed:
        key = self.routing_key(message.event)
        if len(key.encode("utf-8", "surrogatepass")) > _LONGEST_TEXT:
            return _NOT_CARRIED
        properties = self.properties(message)
        return properties if isinstance(properties, Failed) else (key, properties)

    async def _publish(
        self, channel: Channel, body: bytes, key: str, properties: Basic.Properties
    ) -> Outcome:
        try:
            await channel.basic_publish(
                body,
                exchange=self._options.exchange,
                routing_key=key,
                properties=properties,
                mandatory=True,
                wait=False,
            )
        except (amqp.AMQPError, OSError, RuntimeError) as error:
            return outcome_of_error(error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return BROKEN  # the channel ended, and cancelled what waited for it
        return _DELIVERED

    async def _open(self) -> Channel:
        """Answer the channel, or a new one on a connection whose address passed."""
        async with self._turn:
            channel = self._channel
            if channel is not None and not channel.is_closed:
                return channel
            connection = self._connection
            if connection is None or connection.is_closed:
                connection = self._connection = aiormq.Connection(
                    self._url(), transport_factory=_GuardedTransport(self)
                )
                await connection.connect()
            made = await connection.channel(publisher_confirms=True)
            assert isinstance(made, Channel)  # noqa: S101 - its own type says less
            self._channel = made
            return made

    def _url(self) -> URL:
        endpoint, (user, password) = self._place.endpoint, self._login
        return URL.build(
            scheme="amqps" if self._place.tls else "amqp",
            user=user,
            password=password,
            host=endpoint.host,
            port=endpoint.port,
            path="/" + self._place.vhost.replace("/", "%2F"),
            encoded=False,
        ).with_query(heartbeat=str(_HEARTBEAT))

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection to an address that passed; TLS is for the name, not the address."""
        endpoint = self._place.endpoint
        context = None
        if self._place.tls:
            context = ssl.create_default_context(cadata=self._options.ca)
        sock = await connected_socket(self._guard, endpoint.host, endpoint.port, self._lookup)
        try:
            return await asyncio.open_connection(
                sock=sock, ssl=context, server_hostname=endpoint.host if context else None
            )
        except BaseException:
            sock.close()
            raise

    async def _drop(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with suppress(amqp.AMQPError, OSError, TimeoutError, RuntimeError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await connection.close()

    async def close(self) -> None:
        """Close the connection; do not wait for a server that does not answer."""
        await self._drop()


class _GuardedTransport(TransportFactory):
    def __init__(self, target: RabbitTarget) -> None:
        self._target = target

    async def create(
        self,
        url: URL,  # noqa: ARG002 - where it leads is decided
        **_: Any,
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open what the guard lets through."""
        return await self._target.connect()


def table_of(headers: Sequence[tuple[str, bytes]]) -> dict[str, Any]:
    """Answer an event's headers as an AMQP table; `headers_of` reads it back."""
    table: dict[str, Any] = {}
    others = []
    for name, value in headers:
        if name in ("", _OTHERS) or len(name.encode("utf-8", "surrogatepass")) > _LONGEST_NAME:
            others.append((name, base64.b64encode(value).decode()))
        else:
            table.setdefault(name, []).append(_value(value))
    for name, values in table.items():
        if len(values) == 1:
            table[name] = values[0]
    if others:
        table[_OTHERS] = msgspec.json.encode(others).decode()
    return table


def headers_of(table: dict[str, Any]) -> list[tuple[str, bytes]]:
    """Answer the headers that a table stands for, in the order of the table."""
    found = []
    for name, value in table.items():
        if name == _OTHERS:
            pairs = msgspec.json.decode(value, type=list[tuple[str, str]])
            found += [(other, base64.b64decode(text)) for other, text in pairs]
        else:
            values = value if isinstance(value, list) else [value]
            found += [(name, v.encode() if isinstance(v, str) else bytes(v)) for v in values]
    return found


def message_id(event_id: str) -> str:
    """Answer an event's id, or its digest where AMQP has no room for it."""
    data = event_id.encode("utf-8", "surrogatepass")
    if 0 < len(data) <= _LONGEST_TEXT and _short(event_id) is not None:
        return event_id
    return hashlib.sha256(data).hexdigest()


def outcome_of_error(error: Exception) -> Retry | Failed:
    """Say what went wrong, without what the server wrote about it."""
    match error:
        case AddressRefused():
            return REFUSED
        case amqp.PublishError():
            return _UNROUTABLE
        case amqp.DeliveryError():
            return _REFUSED_EVENT
        case amqp.ChannelPreconditionFailed():
            return TOO_LARGE
        case amqp.ChannelNotFoundEntity() | amqp.ConnectionNotAllowed():
            return GONE
        case (
            amqp.AuthenticationError()
            | amqp.ProbableAuthenticationError()
            | amqp.ChannelAccessRefused()
        ):
            return NOT_LET_IN
        case ssl.SSLCertVerificationError():
            return NOT_TRUSTED
        case ssl.SSLError():
            return NO_TLS
        case ConnectionRefusedError():
            return NO_CONNECTION
        case _:
            return BROKEN


def _distinct(ready: dict[int, tuple[str, Basic.Properties]]) -> list[list[int]]:
    """Answer the numbers in groups in which no id stands twice: a return tells only the id."""
    groups: list[list[int]] = []
    seen: dict[str | None, int] = {}
    for number, (_, properties) in ready.items():
        place = seen.get(properties.message_id, 0)
        seen[properties.message_id] = place + 1
        if place == len(groups):
            groups.append([])
        groups[place].append(number)
    return groups


def _value(data: bytes) -> str | bytearray:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return bytearray(data)


def _short(text: str | None) -> str | None:
    """Answer a text that fits a short string; None for one that does not."""
    if text is None:
        return None
    try:
        return text if len(text.encode()) <= _LONGEST_TEXT else None
    except UnicodeEncodeError:
        return None


def _size(table: dict[str, Any]) -> int:
    # No character takes more than four bytes; what is near the limit is too large to be useful.
    return sum(
        len(name.encode("utf-8", "surrogatepass")) + _value_size(value) + 8
        for name, value in table.items()
    )


def _value_size(value: Any) -> int:
    if isinstance(value, list):
        return sum(_value_size(each) + 8 for each in value)
    return len(value.encode() if isinstance(value, str) else value)

"""The bus on RabbitMQ: one direct exchange, and a queue for each subscription.

One thread has a loop with one connection. Queues belong to the connection and go with it; after
the connection was lost they are made anew, and what was published meanwhile is not heard.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import parse_qsl, urlencode, urlsplit

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage
from aio_pika.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelInvalidStateError,
    ProbableAuthenticationError,
)
from yarl import URL

from penstock.bus import MOST_WAITING, Subscription, fit
from penstock.bus.inbox import Inbox
from penstock.errors import BadSetting, EngineUnavailable

log = structlog.get_logger()

_CONNECT_SECONDS = 3.0
_HEARTBEAT_SECONDS = 10
_CONFIRM_SECONDS = 5.0
_SUBSCRIBE_SECONDS = 3.0
_CLOSE_SECONDS = 1.0
_PING_SECONDS = 5.0
_SHORTEST_REST, _LONGEST_REST = 0.1, 5.0

# Confirmed together: one at a time took 0.5 ms each, a batch of these 0.1 ms.
_AT_ONCE = 256

# Older ones say nothing that the listeners have not looked up themselves.
_LASTS_SECONDS = 30.0

# What was under way when a connection ends is cancelled by the client.
_TROUBLE = (OSError, AMQPError, ChannelInvalidStateError, asyncio.CancelledError)


def open_rabbitmq(url: str) -> RabbitBus:
    """Open the bus at ``amqp://user:password@host/vhost?exchange=name``; raise `BadSetting`."""
    parts = urlsplit(url)
    try:
        known = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        port = parts.port
    except ValueError as error:
        raise BadSetting("bus_url cannot be read; use amqp://user:password@host/vhost") from error
    if not parts.hostname:
        raise BadSetting("bus_url names no host; use amqp://user:password@host/vhost")
    exchange = known.pop("exchange", "penstock")
    known.setdefault("heartbeat", str(_HEARTBEAT_SECONDS))
    # What the client logs by itself at every try is said here once.
    for name in ("aiormq", "aio_pika"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    where = f"{parts.hostname}:{port or (5671 if parts.scheme == 'amqps' else 5672)}"
    return RabbitBus(parts._replace(query=urlencode(known)).geturl(), exchange, where)


class RabbitBus:
    """Keeps the promise of `Bus`. Connects in a thread, when it is first used."""

    def __init__(self, url: str, exchange: str, where: str) -> None:
        self._url = url
        self._name = exchange
        self._where = where
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._closing = False
        self._inboxes: dict[Inbox, str] = {}
        """Each with the tag of its consumer, empty while it has none."""
        self._out: deque[tuple[float, str, str]] = deque(maxlen=MOST_WAITING)
        # Of the loop's thread alone, from here on.
        self._outgoing = asyncio.Event()
        self._lost = asyncio.Event()
        self._listening = asyncio.Lock()
        self._tried = asyncio.Event()
        """Set once it was tried to connect."""
        self._channel: AbstractChannel | None = None
        self._trouble = ""
        """Why messages are not carried, empty while they are."""

    def publish(self, topic: str, text: str) -> None:
        """Leave it to the thread."""
        self._out.append((self._loop.time(), topic, fit(text)))
        self._soon(self._outgoing.set)

    def subscribe(self, topic: str, told: Callable[[str], None]) -> Subscription:
        """Have a queue, within a moment if the broker answers, else as soon as it does."""
        inbox = Inbox(topic, told, self._leave)
        self._start()
        ready = asyncio.run_coroutine_threadsafe(self._enter(inbox), self._loop)
        with suppress(TimeoutError):
            ready.result(_SUBSCRIBE_SECONDS)
        return inbox

    def ping(self) -> None:
        """Wait for the first try to connect; a connection has heartbeats."""
        self._start()
        answer = asyncio.run_coroutine_threadsafe(self._tried.wait(), self._loop)
        with suppress(TimeoutError):
            answer.result(_PING_SECONDS)
        if self._channel is None:
            reason = self._trouble or "it does not answer"
            raise EngineUnavailable(f"RabbitMQ at {self._where} carries no messages: {reason}")

    def close(self) -> None:
        """Send what is left, and end the thread."""
        with self._starting:
            self._closing = True
            if self._thread is None:
                self._loop.close()
                return
        for inbox in list(self._inboxes):
            inbox.close()
        self._soon(self._outgoing.set)
        self._thread.join(2 * _CLOSE_SECONDS)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="bus", daemon=True)
                self._thread.start()

    def _soon(self, call: Callable[[], object]) -> None:
        self._start()
        with suppress(RuntimeError):  # the loop is closed: so is the bus
            self._loop.call_soon_threadsafe(call)

    def _leave(self, inbox: Inbox) -> None:
        if inbox in self._inboxes:
            self._soon(lambda: self._loop.create_task(self._drop(inbox)))

    # In the thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._stay_connected())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.run_until_complete(_come_to_rest())
            self._loop.close()

    async def _stay_connected(self) -> None:
        rest = _SHORTEST_REST
        while not self._closing:
            connection = aio_pika.Connection(URL(self._url))
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    await connection.connect()
                rest = _SHORTEST_REST
                connection.close_callbacks.add(lambda *_: self._lost.set())
                await self._serve(connection)
            except _TROUBLE as error:
                self._complain(error)
            finally:
                self._channel = None
                for inbox in self._inboxes:
                    self._inboxes[inbox] = ""
                # Also one that never connected: thrown away open it would want to be closed later.
                with suppress(*_TROUBLE):
                    async with asyncio.timeout(_CLOSE_SECONDS):
                        await connection.close()
            if not self._closing:
                await asyncio.sleep(rest)
                rest = min(2 * rest, _LONGEST_REST)

    async def _serve(self, connection: aio_pika.abc.AbstractConnection) -> None:
        """Make queues and send messages, until the connection or the bus ends."""
        self._lost.clear()
        async with asyncio.timeout(_CONNECT_SECONDS):
            channel = await connection.channel(publisher_confirms=True)
            exchange = await channel.declare_exchange(
                self._name, aio_pika.ExchangeType.DIRECT, durable=True
            )
            self._channel = channel
            self._tried.set()
            for inbox in list(self._inboxes):
                await self._listen(inbox)
        channel.close_callbacks.add(lambda *_: self._lost.set())
        if self._trouble:
            log.info("messages are carried again", broker=self._where)
        self._trouble = ""
        lost = asyncio.ensure_future(self._lost.wait())
        try:
            while not self._lost.is_set():
                await self._send(exchange)
                if self._closing:
                    return
                news = asyncio.ensure_future(self._outgoing.wait())
                await asyncio.wait({news, lost}, return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
                self._outgoing.clear()
        finally:
            lost.cancel()
        raise ConnectionError("the connection ended")

    async def _send(self, exchange: AbstractExchange) -> None:
        """Send what waits and is not too old, in order; what is not confirmed stays."""
        while self._out:
            batch = [self._out[i] for i in range(min(_AT_ONCE, len(self._out)))]
            oldest = self._loop.time() - _LASTS_SECONDS
            sends = [
                exchange.publish(aio_pika.Message(text.encode()), topic, mandatory=False)
                for at, topic, text in batch
                if at >= oldest
            ]
            async with asyncio.timeout(_CONFIRM_SECONDS):
                await asyncio.gather(*sends)
            for sent in batch:
                # Publishers may have pushed the oldest out meanwhile.
                if self._out and self._out[0] is sent:
                    self._out.popleft()

    async def _enter(self, inbox: Inbox) -> None:
        self._inboxes[inbox] = ""
        await self._tried.wait()
        with suppress(*_TROUBLE):
            await self._listen(inbox)

    async def _listen(self, inbox: Inbox) -> None:
        """Have a queue for the inbox on the present connection."""
        async with self._listening:
            channel = self._channel
            if channel is None or self._inboxes.get(inbox) != "":
                return
            queue = await channel.declare_queue(
                exclusive=True,
                auto_delete=True,
                arguments={"x-max-length": MOST_WAITING, "x-overflow": "drop-head"},
            )
            await queue.bind(self._name, inbox.topic)

            async def hear(message: AbstractIncomingMessage) -> None:
                inbox.put(message.body.decode(errors="replace"))

            tag = await queue.consume(hear, no_ack=True)
            if inbox in self._inboxes:
                self._inboxes[inbox] = tag

    async def _drop(self, inbox: Inbox) -> None:
        """Forget the inbox; its queue goes with its last consumer."""
        async with self._listening:
            tag = self._inboxes.pop(inbox, "")
        if tag and self._channel is not None:
            with suppress(*_TROUBLE):
                channel = await self._channel.get_underlay_channel()
                await channel.basic_cancel(tag)

    def _complain(self, error: BaseException) -> None:
        self._tried.set()
        reason = reason_of(error)
        if not self._trouble:
            log.warning("messages are not carried", broker=self._where, reason=reason)
        self._trouble = reason


def reason_of(error: BaseException) -> str:
    """Say what is wrong, where it can be told by the settings with which part of `bus_url`."""
    # The client puts its own error around what TLS said.
    match error.__cause__ if isinstance(error.__cause__, ssl.SSLError) else error:
        case ssl.SSLCertVerificationError():
            return "the certificate of the broker does not pass; see cafile in bus_url"
        case ssl.SSLError():
            return "TLS with the broker fails; without it bus_url begins with amqp://"
        case AuthenticationError() | ProbableAuthenticationError():
            return "the broker refuses the sign-in; see user and password in bus_url"
        case FileNotFoundError():
            return "a file that bus_url names is not there; see cafile, certfile and keyfile"
        case other if "connection reset" in str(other):
            return "the broker hangs up, as one that expects TLS; bus_url begins with amqps:// then"
        case other:
            # The class and not its text, which may repeat the address with its password.
            return type(other).__name__


async def _come_to_rest() -> None:
    """Let what the client has begun come to its end, or end it: its tasks close sockets."""
    if left := asyncio.all_tasks() - {asyncio.current_task()}:
        _, hanging = await asyncio.wait(left, timeout=_CLOSE_SECONDS)
        for task in hanging:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

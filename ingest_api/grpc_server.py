"""The door's gRPC side: `services.GRPCCollector` as relays in the field expect it, and tunnels.

A call is answered with OK only when every record of it is durable, because clients look at nothing
but the call's status. After any other answer they send the whole call again: records that had been
stored by then are on the log twice, with the same broker coordinates in their metadata.

The methods are unary on the wire. They are served as streaming ones because grpcio then leaves it
to the handler when to read the message: a call with a wrong token is refused before its 100 MiB
have been received.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import aclosing, contextmanager
from time import monotonic
from typing import Any, TypeVar

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2
from msgspec.structs import replace

from ingest_api.accept import ORIGIN, Door, Outcomes, all_stored
from ingest_api.auth import Grant
from ingest_api.grpc_tunnels import SERVICE as TUNNELS
from ingest_api.grpc_tunnels import tunnel_handler
from ingest_api.http import forget_frames, log_unexpected
from ingest_api.proto import events_pb2, records_pb2, services_pb2
from ingest_api.records import MAPPINGS, RecordMapping, events_of, pieces
from ingest_api.tunnels import Tunnels
from ingest_api.waiting import Completions
from penstock import errors
from penstock.envelope import Event
from penstock.faults import fault
from penstock.metadata.records import CollectionRecord

SERVICE = services_pb2.DESCRIPTOR.services_by_name["GRPCCollector"]

TOKEN_KEYS = ("streamdal-token", "batch-token", "batch.token")
"""Metadata keys of the token, from the newest relays to the oldest."""

COLLECTION_KEY = ORIGIN
"""Metadata key of the collection, for a token that is not bound to one."""

MAX_MESSAGE_BYTES = 100 << 20  # what relays cap their own calls at
MAX_CALLS = 1_000
MAX_CALLS_OF_A_TOKEN = 250  # a relay keeps ten connections with one call each
MAX_CALLS_OF_A_CONNECTION = 100

# What is done before other calls get their turn: converting 2,500 records takes about 10 ms;
# parsing 1 MiB takes 1 ms, or 30 if all of it is empty records.
PIECE_BYTES = 1 << 20
PIECE_RECORDS = 2_500
# One append is there or not as a whole, so a message is one append unless it is very large. Then a
# few are under way at a time: all of it may be more than the log is willing to hold in memory.
APPEND_BYTES = 8 << 20
APPEND_RECORDS = 20_000
APPENDS_UNDER_WAY = 3

# Relays wait without a deadline of their own, so the door has to have one.
PATIENCE_SECONDS = 20.0

_CODES: tuple[tuple[type[errors.PenstockError], grpc.StatusCode], ...] = (
    (errors.Unauthorized, grpc.StatusCode.UNAUTHENTICATED),
    (errors.Forbidden, grpc.StatusCode.PERMISSION_DENIED),
    (errors.NotFound, grpc.StatusCode.NOT_FOUND),
    (errors.CollectionPaused, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.TooSlow, grpc.StatusCode.DEADLINE_EXCEEDED),
    (errors.Rejected, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.Unavailable, grpc.StatusCode.UNAVAILABLE),
    (errors.Stopped, grpc.StatusCode.UNAVAILABLE),
)

_Context = grpc.aio.ServicerContext[Any, Message]
_Answer = TypeVar("_Answer")
_Handler = Callable[[Any, _Context], Coroutine[Any, Any, Message]]


async def start_grpc(
    door: Door,
    host: str,
    port: int,
    *,
    tunnels: Tunnels | None = None,
    max_held_bytes: int = 512 << 20,
    reading_seconds: float = 120.0,
    log_seconds: float = 10.0,
) -> grpc.aio.Server:
    """Serve the contract, tunnels, health and reflection at the address, without TLS.

    Without `tunnels` there are those that nothing can be handed to. `max_held_bytes` bounds the
    messages that are being stored, of all calls together; one that would go over it is refused.
    `reading_seconds` is how long a message may take to arrive, of a caller whose token is good;
    `log_seconds`, how long the log may take to make it durable.

    Must be called in the event loop that will serve, and the answer be kept: a server that nobody
    refers to is gone. Raises `BadSetting` if the address cannot be opened, most often because
    something else listens there.
    """
    server = grpc.aio.server(
        maximum_concurrent_rpcs=MAX_CALLS,
        options=(
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_concurrent_streams", MAX_CALLS_OF_A_CONNECTION),
            # Otherwise two doors may open one port, and each gets some of the connections.
            ("grpc.so_reuseport", 0),
            ("grpc.server_handshake_timeout_ms", 10_000),
            # A peer that vanished without a word is noticed and its connection closed.
            ("grpc.keepalive_time_ms", 120_000),
            ("grpc.keepalive_timeout_ms", 20_000),
        ),
    )
    collector = _Collector(
        door,
        max_held_bytes=max_held_bytes,
        reading_seconds=reading_seconds,
        log_seconds=log_seconds,
    )
    tunnelling = tunnel_handler(tunnels or Tunnels(door), _answering)
    server.add_generic_rpc_handlers([collector.handler(), tunnelling])

    alive = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(alive, server)
    await alive.set(SERVICE.full_name, health_pb2.HealthCheckResponse.SERVING)
    services = (SERVICE.full_name, TUNNELS.full_name)
    names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server, _pool_of_everything())

    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise errors.BadSetting(
            f"gRPC cannot listen on {address}: the port is taken, or the address is not this "
            "machine's"
        ) from error
    await server.start()
    return server


def status_of(error: Exception) -> tuple[grpc.StatusCode, str, tuple[tuple[str, str], ...]]:
    """Answer code, sentence and trailing metadata for an error.

    The trailing metadata tells a client with a retry policy how long to wait. An error that was
    not raised on purpose shows no detail.
    """
    code = next((code for kind, code in _CODES if isinstance(error, kind)), None)
    if code is None:
        return grpc.StatusCode.INTERNAL, "something went wrong; the log says what", ()
    if isinstance(error, errors.Unavailable):
        return code, str(error), (("grpc-retry-pushback-ms", str(error.retry_after * 1_000)),)
    return code, str(error), ()


class _Collector:
    """The methods of the service, made from its descriptor and the mappings of the records."""

    def __init__(
        self, door: Door, *, max_held_bytes: int, reading_seconds: float, log_seconds: float
    ) -> None:
        self._door = door
        self._max_held_bytes = max_held_bytes
        self._reading_seconds = reading_seconds
        self._calls: Counter[str] = Counter()
        self._held_bytes = 0
        self._completions = Completions(asyncio.get_running_loop(), seconds=log_seconds)

    def handler(self) -> grpc.GenericRpcHandler:
        """Answer what serves every method of the service."""
        methods = {method.name: self._method(method) for method in SERVICE.methods}
        return grpc.method_handlers_generic_handler(SERVICE.full_name, methods)

    def _method(self, method: MethodDescriptor) -> grpc.RpcMethodHandler[Any, Any]:
        answer = GetMessageClass(method.output_type)
        records = method.input_type.fields_by_name.get("records")
        if records and records.message_type:
            request = GetMessageClass(method.input_type)
            handle = self._add(request, answer, MAPPINGS[records.message_type.name])
        else:
            handle = self._test(answer)
        # No deserializer: the bytes arrive as they are, to be parsed piece by piece.
        return grpc.stream_unary_rpc_method_handler(
            _answering(handle), response_serializer=answer.SerializeToString
        )

    def _add(
        self, request: type[Message], answer: type[Message], mapping: RecordMapping
    ) -> _Handler:
        async def add(_: Any, context: _Context) -> Message:
            with self._let_in(context) as (grant, record):
                message = await self._read(context)
                fault("recv")
                with self._held(message):
                    count = await self._store(grant, record, message, request, mapping)
            fault("before_ack")
            return answer(num_records_processed=count, status=_ok())

        return add

    def _test(self, answer: type[Message]) -> _Handler:
        async def test(_: Any, context: _Context) -> Message:
            with self._let_in(context):
                return answer(status=_ok())

        return test

    @contextmanager
    def _let_in(self, context: _Context) -> Iterator[tuple[Grant, CollectionRecord]]:
        """Answer who calls and where the records go; refuse, and count the call while it lasts."""
        given = dict(context.invocation_metadata() or ())
        try:
            grant, record = self._door.may_ingest(_token(given), _text(given, COLLECTION_KEY))
        except errors.PenstockError as error:
            raise self._refused(error) from None
        if self._calls[grant.token_id] >= MAX_CALLS_OF_A_TOKEN:
            raise self._refused(
                errors.Overloaded(f"this token has {MAX_CALLS_OF_A_TOKEN} calls open")
            )
        self._calls[grant.token_id] += 1
        try:
            yield grant, record
        finally:
            self._calls[grant.token_id] -= 1

    async def _read(self, context: _Context) -> bytes:
        try:
            async with asyncio.timeout(self._reading_seconds):
                message = await context.read()
        except TimeoutError:
            raise self._refused(
                errors.TooSlow(f"no message arrived within {self._reading_seconds:g} seconds")
            ) from None
        if not isinstance(message, bytes):
            raise self._refused(errors.Malformed("the call ended without a message"))
        return message

    @contextmanager
    def _held(self, message: bytes) -> Iterator[None]:
        """Count a message's bytes while it is being stored; refuse it if there are too many."""
        size = len(message)
        if self._held_bytes + size > self._max_held_bytes:
            raise self._refused(errors.Overloaded("too many messages are being stored at once"))
        self._held_bytes += size
        try:
            yield
        finally:
            self._held_bytes -= size

    async def _store(
        self,
        grant: Grant,
        collection: CollectionRecord,
        message: bytes,
        request: type[Message],
        mapping: RecordMapping,
    ) -> int:
        """Answer how many records the message has, once all of them are durable."""
        patient_until = monotonic() + PATIENCE_SECONDS
        under_way: deque[Future[Outcomes]] = deque()
        count = 0
        async with aclosing(self._appends(message, request, mapping, collection)) as appends:
            async for events in appends:
                if len(under_way) == APPENDS_UNDER_WAY:
                    await self._durable(under_way.popleft())
                stored = self._door.accept(grant, collection.id, events)
                # What comes after a first append waits where others are told to come back later: a
                # message larger than its token's rate would be refused and sent again for ever.
                while count and (wait := _turned_away(stored)):
                    if monotonic() + wait > patient_until:
                        break
                    await asyncio.sleep(wait)
                    now = self._door.received()
                    late = [replace(event, received_at=now) for event in events]
                    stored = self._door.accept(grant, collection.id, late)
                under_way.append(stored)
                count += len(events)
        for stored in under_way:
            await self._durable(stored)
        return count

    async def _appends(
        self,
        message: bytes,
        request: type[Message],
        mapping: RecordMapping,
        collection: CollectionRecord,
    ) -> AsyncGenerator[list[Event]]:
        """Answer the events of a message in order, as many at a time as go to the log at once."""
        events: list[Event] = []
        size = 0
        received_at = self._door.received()
        for turn, (records, piece_size) in enumerate(self._parts(message, request)):
            if turn:
                await asyncio.sleep(0)
            events += events_of(
                records,
                mapping,
                ids=self._door.new_ids(len(records)),
                received_at=received_at,
                limit=self._door.limits.max_event_bytes,
                not_from=None if collection.allow_loops else str(collection.id),
            )
            fault("parsed")
            size += piece_size
            if size >= APPEND_BYTES or len(events) >= APPEND_RECORDS:
                yield events
                events, size = [], 0
                received_at = self._door.received()
        if events:
            yield events

    def _parts(self, message: bytes, request: type[Message]) -> Iterator[tuple[list[Any], int]]:
        """Answer the records, as many at a time as are converted at once, and their piece's size.

        Raises `Malformed`.
        """
        for piece in pieces(message, PIECE_BYTES, PIECE_RECORDS):
            try:
                parsed: Any = request.FromString(piece)
            except DecodeError:
                raise self._refused(
                    errors.Malformed(f"the message is no {request.DESCRIPTOR.name}")
                ) from None
            records = parsed.records
            for start in range(0, len(records), PIECE_RECORDS):
                yield records[start : start + PIECE_RECORDS], len(piece)

    async def _durable(self, stored: Future[Outcomes]) -> None:
        """Return when every event of an append is durable; raise the first failure."""
        outcomes = await self._completions.of(stored)
        if not all_stored(outcomes):
            raise next(outcome for outcome in outcomes if isinstance(outcome, Exception))

    def _refused(self, error: errors.PenstockError) -> errors.PenstockError:
        """Count a call that got no further than this."""
        self._door.metrics.refused(error)
        return error


def _answering(
    handle: Callable[[Any, _Context], Coroutine[Any, Any, _Answer]],
) -> Callable[[Any, _Context], Coroutine[Any, Any, _Answer]]:
    """Turn what the handler raises into the status of the call."""

    async def answering(messages: Any, context: _Context) -> _Answer:
        try:
            return await handle(messages, context)
        except Exception as error:  # noqa: BLE001 - the last place before the library's own text
            if not isinstance(error, errors.PenstockError):
                log_unexpected(error)
            refusal = status_of(error)
            forget_frames(error)
        return await context.abort(*refusal)

    return answering


def _turned_away(stored: Future[Outcomes]) -> int | None:
    """Answer after how many seconds to try again, where too much arrived at once."""
    error = stored.exception() if stored.done() else None
    return error.retry_after if isinstance(error, errors.Overloaded) else None


def _token(given: dict[str, str | bytes]) -> str | None:
    """Answer the token, wherever the caller has put it."""
    scheme, _, rest = (_text(given, "authorization") or "").partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    return next((token for key in TOKEN_KEYS if (token := _text(given, key))), None)


def _text(given: dict[str, str | bytes], key: str) -> str | None:
    value = given.get(key)
    return value if isinstance(value, str) else None


def _ok() -> events_pb2.Status:
    return events_pb2.Status(code=grpc.StatusCode.OK.value[0], message="ok")


def _pool_of_everything() -> DescriptorPool:
    """Answer one pool with the messages of all three services, for reflection.

    The contract has a pool of its own (see `ingest_api.proto`), health and reflection share
    protobuf's default one.
    """
    pool = DescriptorPool()
    for module in (events_pb2, records_pb2, services_pb2, health_pb2, reflection_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    return pool

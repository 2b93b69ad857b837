from __future__ import annotations

import asyncio
import functools
import gc
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from itertools import count
from typing import Any

import grpc
import pytest
import uvloop
from builders import FLIGHTS, NOON, numbered
from door_builders import (
    BOUND,
    EXPIRED,
    OTHER_TEAM,
    READER,
    REVOKED,
    THEIRS,
    TOKEN,
    FailingLog,
    door_on,
    known,
)
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from hypothesis import given, settings
from hypothesis import strategies as st
from ports import free_port
from structlog.testing import capture_logs
from wire_records import METHOD_OF, RECORDS, messages, request

from ingest_api.accept import Door
from ingest_api.auth import Keyring
from ingest_api.grpc_server import (
    APPEND_RECORDS,
    APPENDS_UNDER_WAY,
    MAX_CALLS_OF_A_CONNECTION,
    MAX_CALLS_OF_A_TOKEN,
    MAX_MESSAGE_BYTES,
    start_grpc,
    status_of,
)
from ingest_api.limits import Limits
from ingest_api.proto import records_pb2 as r
from ingest_api.proto import services_pb2 as s
from ingest_api.proto.services_pb2_grpc import GRPCCollectorStub
from ingest_api.records import MAPPINGS, events_of
from penstock import errors
from penstock.buffer import start_of
from penstock.buffer.memory import MemoryLog

HERE = "127.0.0.1"
TO_FLIGHTS = (("streamdal-token", BOUND),)
LIMITS = Limits(max_event_bytes=1 << 20, max_body_bytes=1 << 24, max_ratio=200, events_per_second=0)


class Served:
    """A door that listens, and one channel to it."""

    def __init__(
        self, log: FailingLog, door: Door, address: str, channel: grpc.aio.Channel
    ) -> None:
        self.log = log
        self.door = door
        self.address = address
        self.channel = channel
        self.stub: Any = GRPCCollectorStub(channel)

    def open_call(self, method: str = "AddRecord") -> Any:
        """Begin a call without its message: on the wire a unary call is a stream of one."""
        call = self.channel.stream_unary(f"/services.GRPCCollector/{method}")
        return call(metadata=TO_FLIGHTS)

    def raw(self, method: str = "AddRecord") -> Any:
        return self.channel.unary_unary(f"/services.GRPCCollector/{method}")


@asynccontextmanager
async def serving(
    door: Door | None = None, log: FailingLog | None = None, **given: Any
) -> AsyncIterator[Served]:
    kept = log or FailingLog()
    behind = door or door_on(kept, limits=LIMITS)
    port = free_port()
    server = await start_grpc(behind, HERE, port, **given)
    try:
        async with channel_to(f"{HERE}:{port}") as channel:
            yield Served(kept, behind, f"{HERE}:{port}", channel)
    finally:
        await server.stop(None)


def channel_to(address: str) -> grpc.aio.Channel:
    # Without a pool of its own, channels to one address share a connection.
    return grpc.aio.insecure_channel(
        address,
        options=(("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)),
    )


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in an event loop of its own, of the kind the door has, for a minute at most."""

    @functools.wraps(test)
    def run(*args: Any, **named: Any) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(asyncio.wait_for(test(*args, **named), 60))

    return run


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while True:
            met = condition()
            if met is True or (met and await met):
                return
            await asyncio.sleep(0.005)


async def refusal(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def some(number: int, body: bytes = b"{}") -> s.GenericRecordRequest:
    return s.GenericRecordRequest(records=[r.GenericRecord(body=body) for _ in range(number)])


def counted(door: Door, name: str, **labels: str) -> float:
    return door.metrics.registry.get_sample_value(f"penstock_door_{name}_total", labels) or 0.0


def test_the_service_has_the_fifteen_methods_of_the_contract() -> None:
    service = s.DESCRIPTOR.services_by_name["GRPCCollector"]
    assert service.full_name == "services.GRPCCollector"
    assert [(m.name, m.input_type.name, m.output_type.name) for m in service.methods] == [
        ("AddRecord", "GenericRecordRequest", "GenericRecordResponse"),
        ("AddAMQPRecord", "AMQPRecordRequest", "AMQPRecordResponse"),
        ("AddKafkaRecord", "KafkaSinkRecordRequest", "KafkaSinkRecordResponse"),
        ("AddSQSRecord", "SQSRecordRequest", "SQSRecordResponse"),
        ("AddAzureRecord", "AzureRecordRequest", "AzureRecordResponse"),
        ("AddGCPRecord", "GCPRecordRequest", "GCPRecordResponse"),
        ("AddRedisRecord", "RedisRecordRequest", "RedisRecordResponse"),
        ("AddRedisStreamsRecord", "RedisStreamsRecordRequest", "RedisStreamsRecordResponse"),
        ("AddMQTTRecord", "MQTTRecordRequest", "MQTTRecordResponse"),
        ("AddNSQRecord", "NSQRecordRequest", "NSQRecordResponse"),
        ("AddKubeMQRecord", "KubeMQRecordRequest", "KubeMQRecordResponse"),
        ("AddNATSRecord", "NATSRecordRequest", "NATSRecordResponse"),
        ("AddNATSStreamingRecord", "NATSStreamingRecordRequest", "NATSStreamingRecordResponse"),
        ("AddNATSJetStreamRecord", "NATSJetStreamRecordRequest", "NATSJetStreamRecordResponse"),
        ("Test", "TestRequest", "TestResponse"),
    ]


@pytest.mark.parametrize("kind", RECORDS)
@given(data=st.data())
@settings(max_examples=3, deadline=None)
def test_each_method_stores_the_events_of_its_records(kind: str, data: st.DataObject) -> None:
    """Whatever a relay sends, in any field, is on the log when it is answered with OK."""
    sent = data.draw(st.lists(messages(RECORDS[kind].DESCRIPTOR), min_size=1, max_size=30))

    @in_loop
    async def trip() -> None:
        async with serving() as served:
            method = getattr(served.stub, METHOD_OF[kind])
            answer = await method(request(kind, sent), metadata=TO_FLIGHTS)

            assert (answer.num_records_processed, answer.status.code) == (len(sent), 0)
            assert answer.status.message == "ok"
            stored = served.log.events
            assert {to for to, _ in served.log.stored} == {FLIGHTS}
            assert stored == events_of(
                sent,
                MAPPINGS[kind],
                ids=[event.id for event in stored],
                received_at=stored[0].received_at,
                limit=LIMITS.max_event_bytes,
                not_from=str(FLIGHTS),
            )
            assert len({event.id for event in stored}) == len(sent)

    trip()


@pytest.mark.parametrize(
    "metadata",
    [
        ("batch.token", BOUND),
        ("batch-token", BOUND),
        ("streamdal-token", BOUND),
        ("authorization", f"Bearer {BOUND}"),
        ("authorization", f"bearer  {BOUND}"),
    ],
)
@in_loop
async def test_a_token_may_come_under_each_of_its_names(metadata: tuple[str, str]) -> None:
    """Each generation of relays has its own name for it."""
    async with serving() as served:
        tested = await served.stub.Test(s.TestRequest(), metadata=(metadata,))
        answer = await served.stub.AddRecord(some(2), metadata=(metadata,))

        assert (tested.status.code, tested.status.message) == (0, "ok")
        assert answer.num_records_processed == 2


@pytest.mark.parametrize("method", ["Test", "AddRecord"])
@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("streamdal-token", "wrong-token"),),
        (("batch-token", ""),),
        (("batch-token", REVOKED),),
        (("batch-token", EXPIRED),),
        (("authorization", f"Basic {BOUND}"),),
        (("authorization", BOUND),),
    ],
)
@in_loop
async def test_a_missing_or_wrong_token_is_unauthorized(method: str, metadata: Any) -> None:
    """Existing clients look for the word; the text must never repeat the token."""
    async with serving() as served:
        message = s.TestRequest() if method == "Test" else some(1)
        error = await refusal(getattr(served.stub, method)(message, metadata=metadata))

        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert "unauthorized" in str(error.details())
        assert "wrong-token" not in str(error.details())
        assert served.log.events == []
        assert counted(served.door, "refused", reason="Unauthorized") == 1


@pytest.mark.parametrize(
    ("given", "collection", "code"),
    [
        (READER, "flights", grpc.StatusCode.PERMISSION_DENIED),
        (BOUND, "paused", grpc.StatusCode.PERMISSION_DENIED),
        (TOKEN, None, grpc.StatusCode.INVALID_ARGUMENT),
        (TOKEN, "No Name", grpc.StatusCode.INVALID_ARGUMENT),
        (TOKEN, "nowhere", grpc.StatusCode.NOT_FOUND),
        (TOKEN, "other.theirs", grpc.StatusCode.NOT_FOUND),
        (TOKEN, "paused", grpc.StatusCode.FAILED_PRECONDITION),
    ],
)
@pytest.mark.parametrize("method", ["Test", "AddRecord"])
@in_loop
async def test_what_a_token_may_not_do_is_refused(
    method: str, given: str, collection: str | None, code: grpc.StatusCode
) -> None:
    async with serving() as served:
        metadata = [("batch-token", given)]
        if collection:
            metadata.append(("penstock-collection", collection))
        message = s.TestRequest() if method == "Test" else some(1)

        error = await refusal(getattr(served.stub, method)(message, metadata=metadata))

        assert error.code() is code
        assert served.log.events == []


@in_loop
async def test_a_paused_collection_says_so_in_the_words_relays_look_for() -> None:
    """Only these words make a relay stop trying."""
    async with serving() as served:
        metadata = (("batch-token", TOKEN), ("penstock-collection", "paused"))
        error = await refusal(served.stub.AddRecord(some(1), metadata=metadata))

        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "collection is paused" in str(error.details())


@in_loop
async def test_a_token_that_is_not_bound_names_its_collection() -> None:
    async with serving() as served:
        metadata = (("batch-token", TOKEN), ("penstock-collection", "flights"))
        await served.stub.AddRecord(some(1), metadata=metadata)

        assert [to for to, _ in served.log.stored] == [FLIGHTS]


@in_loop
async def test_each_token_sends_to_its_own_team() -> None:
    """The token alone says which team is meant by a name."""
    async with serving() as served:
        metadata = (("batch-token", OTHER_TEAM), ("penstock-collection", "theirs"))
        await served.stub.AddRecord(some(1), metadata=metadata)

        assert [to for to, _ in served.log.stored] == [THEIRS]


@in_loop
async def test_a_door_that_knows_nothing_yet_does_not_call_a_token_wrong() -> None:
    """A relay that starts before the door has read its cache would give up for good."""
    log = FailingLog()
    async with serving(door_on(log, keyring=Keyring()), log) as served:
        error = await refusal(served.stub.Test(s.TestRequest(), metadata=TO_FLIGHTS))

        assert error.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (errors.Overloaded("too much", retry_after=3), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.LogUnavailable("the log is away", retry_after=3), grpc.StatusCode.UNAVAILABLE),
    ],
)
@in_loop
async def test_trouble_of_the_log_says_when_to_come_back(
    failure: errors.Unavailable, code: grpc.StatusCode
) -> None:
    async with serving() as served:
        served.log.error = failure
        error = await refusal(served.stub.AddRecord(some(2), metadata=TO_FLIGHTS))

        assert (error.code(), error.details()) == (code, str(failure))
        assert dict(error.trailing_metadata())["grpc-retry-pushback-ms"] == "3000"


@in_loop
async def test_one_record_that_is_not_durable_fails_the_call() -> None:
    """Clients read nothing but the status: OK with an exception inside would lose the record."""
    async with serving() as served:
        served.log.broken = {b"broken": errors.LogUnavailable("not this one")}
        bodies = [b"good", b"broken", b"good"]
        message = s.GenericRecordRequest(records=[r.GenericRecord(body=body) for body in bodies])
        error = await refusal(served.stub.AddRecord(message, metadata=TO_FLIGHTS))

        assert error.code() is grpc.StatusCode.UNAVAILABLE


@in_loop
async def test_an_error_nobody_raised_on_purpose_shows_and_logs_no_text() -> None:
    """Its text may quote a payload."""
    async with serving() as served:
        served.log.error = ValueError("secret payload")
        with capture_logs() as logged:
            error = await refusal(served.stub.AddRecord(some(1), metadata=TO_FLIGHTS))

        assert error.code() is grpc.StatusCode.INTERNAL
        assert "secret" not in str(error.details())
        assert "ValueError" in [entry["kind"] for entry in logged]
        assert "secret" not in str(logged)


@in_loop
async def test_a_call_is_answered_only_when_the_log_has_made_it_durable() -> None:
    async with serving() as served:
        served.log.held = True
        call = served.stub.AddRecord(some(3), metadata=TO_FLIGHTS)
        await until(lambda: len(served.log.waiting) == 1)
        await served.stub.Test(s.TestRequest(), metadata=TO_FLIGHTS)
        assert not call.done()

        served.log.release()

        assert (await call).num_records_processed == 3


@in_loop
async def test_a_client_that_hangs_up_leaves_the_log_alone() -> None:
    """Cancelling what the log is about to settle would break the log for everybody."""
    async with serving() as served:
        served.log.held = True
        call = served.stub.AddRecord(some(1), metadata=TO_FLIGHTS)
        await until(lambda: len(served.log.waiting) == 1)
        call.cancel()
        await served.stub.Test(s.TestRequest(), metadata=TO_FLIGHTS)

        served.log.held = False
        served.log.release()

        assert len(served.log.events) == 1
        await served.stub.AddRecord(some(1), metadata=TO_FLIGHTS)
        assert len(served.log.events) == 2


@in_loop
async def test_a_log_that_never_answers_fails_the_call() -> None:
    """Relays have no deadline: they would wait for ever, and their bus with them."""
    async with serving(log_seconds=0.05) as served:
        served.log.held = True
        error = await refusal(served.stub.AddRecord(some(1), metadata=TO_FLIGHTS))

        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "0.05 seconds" in str(error.details())
        served.log.release()


@in_loop
async def test_force_dead_letter_is_accepted_with_the_wish_for_quarantine() -> None:
    async with serving() as served:
        records = [r.NATSRecord(value=b"a", force_dead_letter=True), r.NATSRecord(value=b"b")]
        answer = await served.stub.AddNATSRecord(
            s.NATSRecordRequest(records=records), metadata=TO_FLIGHTS
        )

        assert answer.num_records_processed == 2
        assert [event.quarantine for event in served.log.events] == [True, False]


@in_loop
async def test_an_oversized_record_is_accepted_for_quarantine() -> None:
    """An error would make the relay drop the whole batch, its good records included."""
    async with serving() as served:
        records = [r.NATSRecord(value=b"x" * ((1 << 20) + extra)) for extra in (0, 1)]
        answer = await served.stub.AddNATSRecord(
            s.NATSRecordRequest(records=records), metadata=TO_FLIGHTS
        )

        assert answer.num_records_processed == 2
        assert [(e.quarantine, e.metadata) for e in served.log.events] == [
            (False, {}),
            (True, {"penstock_reason": "too_large"}),
        ]


@in_loop
async def test_a_record_that_a_replay_brings_back_is_accepted_for_quarantine() -> None:
    """An error would make the relay drop the whole batch, its good records included."""
    async with serving() as served:
        header = r.KafkaHeader(key="penstock-collection", value=str(FLIGHTS))
        records = [r.KafkaSinkRecord(topic="t", headers=[header]), r.KafkaSinkRecord(topic="t")]
        answer = await served.stub.AddKafkaRecord(
            s.KafkaSinkRecordRequest(records=records), metadata=TO_FLIGHTS
        )

        assert answer.num_records_processed == 2
        assert [(e.quarantine, e.metadata.get("penstock_reason")) for e in served.log.events] == [
            (True, "loop"),
            (False, None),
        ]


@in_loop
async def test_a_collection_that_allows_loops_takes_its_own_records_back() -> None:
    """Its owner decided so."""
    async with serving() as served:
        header = r.KafkaHeader(key="penstock-collection", value="main.echo")
        await served.stub.AddKafkaRecord(
            s.KafkaSinkRecordRequest(records=[r.KafkaSinkRecord(headers=[header])]),
            metadata=(("streamdal-token", TOKEN), ("penstock-collection", "echo")),
        )

        assert [event.quarantine for event in served.log.events] == [False]


@in_loop
async def test_a_call_without_records_is_fine_and_stores_nothing() -> None:
    async with serving() as served:
        answer = await served.stub.AddRecord(some(0), metadata=TO_FLIGHTS)

        assert (answer.num_records_processed, served.log.events) == (0, [])


@in_loop
async def test_unknown_fields_are_ignored_and_unknown_methods_unimplemented() -> None:
    """Newer clients must be able to talk to this door."""
    async with serving() as served:
        unknown = b"\x7a\x02hi"
        record = r.GenericRecord(body=b"kept").SerializeToString() + unknown
        message = b"\x0a" + bytes([len(record)]) + record + unknown
        answer = await served.raw()(message, metadata=TO_FLIGHTS)

        assert s.GenericRecordResponse.FromString(answer).num_records_processed == 1
        assert served.log.payloads == [b"kept"]
        error = await refusal(served.raw("AddPulsarRecord")(b"", metadata=TO_FLIGHTS))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("message", [b"\x0a\x05ab", b"\x0a\x03\x12\x01\xff", b"\xff" * 30])
@in_loop
async def test_bytes_that_are_no_request_are_refused_by_name(message: bytes) -> None:
    """Cut short; a string that is not UTF-8; noise."""
    async with serving() as served:
        error = await refusal(served.raw()(message, metadata=TO_FLIGHTS))

        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error.details() == "the message is no GenericRecordRequest"
        assert counted(served.door, "refused", reason="Malformed") == 1


@in_loop
async def test_a_wrong_token_is_refused_before_its_message_is_read() -> None:
    """Otherwise anybody could fill the door's memory with messages of 100 MiB."""
    async with serving() as served:
        call = served.channel.stream_unary("/services.GRPCCollector/AddRecord")
        error = await refusal(call(metadata=(("batch-token", "wrong"),)))

        assert error.code() is grpc.StatusCode.UNAUTHENTICATED


@in_loop
async def test_a_message_that_does_not_arrive_is_not_waited_for_without_end() -> None:
    async with serving(reading_seconds=0.05) as served:
        error = await refusal(served.open_call())

        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await served.stub.AddRecord(some(1), metadata=TO_FLIGHTS)


@in_loop
async def test_a_call_that_ends_without_a_message_is_refused() -> None:
    async with serving() as served:
        call = served.open_call()
        await call.done_writing()
        error = await refusal(call)

        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


@in_loop
async def test_sixty_mebibytes_are_one_call_and_a_hundred_are_the_limit() -> None:
    """Relays send up to 100 MiB at once; the library's own limit is 4."""
    async with serving() as served:
        body = bytes(60 << 20)
        await served.stub.AddRecord(some(1, body), metadata=TO_FLIGHTS)
        assert served.log.payloads == [body]

        error = await refusal(
            served.stub.AddRecord(some(1, bytes(MAX_MESSAGE_BYTES)), metadata=TO_FLIGHTS)
        )
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(served.log.events) == 1


@in_loop
async def test_a_compressed_call_is_read_and_one_that_grows_too_large_refused() -> None:
    """A hundred mebibytes of zeros are a hundred kilobytes on the wire."""
    async with serving() as served:
        gzip = {"metadata": TO_FLIGHTS, "compression": grpc.Compression.Gzip}
        await served.stub.AddRecord(some(1, bytes(1 << 20)), **gzip)
        error = await refusal(served.stub.AddRecord(some(1, bytes(MAX_MESSAGE_BYTES)), **gzip))

        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(served.log.events) == 1


@in_loop
async def test_ten_thousand_records_keep_their_order_and_are_one_append() -> None:
    """One append is there or not as a whole: a failed call then leaves nothing to be doubled."""
    async with serving() as served:
        bodies = [b"%d" % n for n in range(10_000)]
        message = s.GenericRecordRequest(records=[r.GenericRecord(body=body) for body in bodies])
        served.log.held = True
        call = served.stub.AddRecord(message, metadata=TO_FLIGHTS)
        await until(lambda: len(served.log.waiting) == 1)

        served.log.release()

        assert (await call).num_records_processed == 10_000
        assert served.log.payloads == bodies
        assert counted(served.door, "events", source="grpc") == 10_000


@in_loop
async def test_what_was_answered_with_ok_can_be_read_from_the_log() -> None:
    """Text of any kind, headers and times have to survive the way to the bytes of the log."""
    log = MemoryLog()
    async with serving(door_on(log, limits=LIMITS)) as served:
        records = [
            r.KafkaSinkRecord(
                topic="ü\0\U0001f6eb",
                key=b"\xff",
                value=b"%d" % n,
                offset=n,
                timestamp=2**63 - 1 - n,
                headers=[r.KafkaHeader(key="ü", value="\0")] * (n % 3),
            )
            for n in range(1_000)
        ]
        await served.stub.AddKafkaRecord(
            s.KafkaSinkRecordRequest(records=records), metadata=TO_FLIGHTS
        )

    portion = log.read(FLIGHTS, start_of(log.log_id(FLIGHTS), 0), end=1_000, max_bytes=1 << 20)
    rows = portion.rows.to_pylist()
    assert [row["payload"] for row in rows] == [b"%d" % n for n in range(1_000)]
    assert dict(rows[2]["metadata"]) == {
        "topic": "ü\0\U0001f6eb",
        "partition": "0",
        "offset": "2",
        "timestamp": str(2**63 - 3),
    }
    assert rows[2]["headers"] == [{"key": "ü", "value": b"\0"}] * 2
    assert {row["key"] for row in rows} == {b"\xff"}


@in_loop
async def test_a_very_large_message_is_a_few_appends_at_a_time_in_order() -> None:
    """All at once it may be more than the log is willing to hold in memory."""
    async with serving() as served:
        bodies = [b"%d" % n for n in range(APPEND_RECORDS * (APPENDS_UNDER_WAY + 2) + 1)]
        message = s.GenericRecordRequest(records=[r.GenericRecord(body=body) for body in bodies])
        served.log.held = True
        call = served.stub.AddRecord(message, metadata=TO_FLIGHTS)
        await until(lambda: len(served.log.waiting) == APPENDS_UNDER_WAY)
        await served.stub.Test(s.TestRequest(), metadata=TO_FLIGHTS)
        assert (len(served.log.waiting), call.done()) == (APPENDS_UNDER_WAY, False)

        served.log.held = False
        served.log.release()

        assert (await call).num_records_processed == len(bodies)
        assert served.log.payloads == bodies


def a_door_with_a_rate(log: FailingLog, events_per_second: int) -> Door:
    """Answer a door whose clock stands still until it has refused somebody who was too fast."""

    def clock() -> int:
        return NOON + 1_000_000 * int(counted(door, "refused", reason="TooFast"))

    limits = replace(LIMITS, events_per_second=events_per_second)
    door = Door(log, Keyring(known()), limits, clock=clock, new_ids=numbered())
    return door


@in_loop
async def test_a_token_that_sends_too_much_is_told_when_to_come_back() -> None:
    log = FailingLog()
    async with serving(a_door_with_a_rate(log, 10), log) as served:
        await served.stub.AddRecord(some(10), metadata=TO_FLIGHTS)
        error = await refusal(served.stub.AddRecord(some(1), metadata=TO_FLIGHTS))

        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(error.trailing_metadata())["grpc-retry-pushback-ms"] == "1000"


@in_loop
async def test_a_message_larger_than_the_rate_of_its_token_waits_instead_of_failing() -> None:
    """Refused after its first append it would be sent, and stored, again and again."""
    log = FailingLog()
    async with serving(a_door_with_a_rate(log, APPEND_RECORDS), log) as served:
        number = APPEND_RECORDS + 1
        answer = await served.stub.AddRecord(some(number), metadata=TO_FLIGHTS)

        assert answer.num_records_processed == number
        assert counted(served.door, "refused", reason="TooFast") == 1


@in_loop
async def test_messages_that_are_being_stored_have_a_bound_together() -> None:
    """A log that is slow must not fill the memory with what waits for it."""
    async with serving(max_held_bytes=1_000_000) as served:
        served.log.held = True
        first = served.stub.AddRecord(some(1, bytes(600_000)), metadata=TO_FLIGHTS)
        await until(lambda: len(served.log.waiting) == 1)
        error = await refusal(served.stub.AddRecord(some(1, bytes(600_000)), metadata=TO_FLIGHTS))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

        served.log.held = False
        served.log.release()
        await first
        await served.stub.AddRecord(some(1, bytes(600_000)), metadata=TO_FLIGHTS)


@in_loop
async def test_messages_that_were_refused_are_gone_at_once() -> None:
    """They are refused because there is too much; the collector may come a minute later."""
    message = some(1, bytes(1_000_000)).SerializeToString()
    async with serving(log=FailingLog(error=errors.Overloaded("too much is waiting"))) as served:

        async def refused() -> None:
            try:
                await served.raw()(message, metadata=TO_FLIGHTS)
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # noqa: PT017
            else:
                pytest.fail("the call was not refused")

        await refused()
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            for _ in range(5):
                await refused()
            left, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            gc.enable()

    assert left < 1_500_000


@in_loop
async def test_a_token_may_have_so_many_calls_open_and_others_go_on() -> None:
    """One sender that opens calls and says nothing must not use up the door."""
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(serving())
        calls = []
        for first in range(0, MAX_CALLS_OF_A_TOKEN, MAX_CALLS_OF_A_CONNECTION):
            channel = await stack.enter_async_context(channel_to(served.address))
            call = channel.stream_unary("/services.GRPCCollector/AddRecord")
            last = min(MAX_CALLS_OF_A_TOKEN, first + MAX_CALLS_OF_A_CONNECTION)
            calls += [call(metadata=TO_FLIGHTS) for _ in range(first, last)]

        async def one_too_many() -> bool:
            try:
                await served.stub.Test(s.TestRequest(), metadata=TO_FLIGHTS)
            except grpc.aio.AioRpcError as error:
                return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            return False

        async def room_again() -> bool:
            return not await one_too_many()

        await until(one_too_many)
        others = (("batch-token", OTHER_TEAM), ("penstock-collection", "theirs"))
        await served.stub.AddRecord(some(1), metadata=others)

        for call in calls:
            call.cancel()
        await until(room_again)


@in_loop
async def test_thirty_two_clients_with_many_calls_each_all_get_their_answers() -> None:
    """A server with a thread for each call stands still when all threads wait."""
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(serving())
        numbers = count()

        async def client() -> int:
            async with channel_to(served.address) as channel:
                stub: Any = GRPCCollectorStub(channel)
                answers = await asyncio.gather(
                    *(
                        stub.AddRecord(some(5, b"%d" % next(numbers)), metadata=TO_FLIGHTS)
                        for _ in range(10)
                    )
                )
                return sum(answer.num_records_processed for answer in answers)

        assert await asyncio.gather(*(client() for _ in range(32))) == [50] * 32
        assert sorted(served.log.payloads) == sorted(b"%d" % n for n in range(320) for _ in "5xxxx")


@in_loop
async def test_health_is_served_without_a_token() -> None:
    async with serving() as served:
        stub: Any = health_pb2_grpc.HealthStub(served.channel)
        for name in ("", "services.GRPCCollector"):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


@in_loop
async def test_reflection_shows_every_service_with_its_messages() -> None:
    """Grpcurl and the like ask it what to send."""
    async with serving() as served:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(served.channel)

        async def ask(**question: str) -> Any:
            message = reflection_pb2.ServerReflectionRequest(**question)
            [answer] = [got async for got in stub.ServerReflectionInfo(iter([message]))]
            return answer

        listed = await ask(list_services="")
        names = [service.name for service in listed.list_services_response.service]
        assert names == [
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
            "services.DProxy",
            "services.GRPCCollector",
        ]
        for name in names:
            found = await ask(file_containing_symbol=name)
            assert found.file_descriptor_response.file_descriptor_proto
        files = (
            await ask(file_containing_symbol="services.GRPCCollector")
        ).file_descriptor_response.file_descriptor_proto
        assert any(b"KafkaSinkRecord" in file for file in files)


@in_loop
async def test_a_taken_port_is_an_error_that_says_so() -> None:
    """Two doors on one port would each get some of the connections."""
    async with serving() as served:
        port = int(served.address.rpartition(":")[2])
        with pytest.raises(errors.BadSetting, match=f"{HERE}:{port}: the port is taken"):
            await start_grpc(served.door, HERE, port)


def every_error() -> list[type[errors.PenstockError]]:
    def below(kind: type[errors.PenstockError]) -> list[type[errors.PenstockError]]:
        return [kind, *(leaf for sub in kind.__subclasses__() for leaf in below(sub))]

    return [
        kind
        for root in (errors.Rejected, errors.Unavailable, errors.Stopped)
        for kind in below(root)
    ]


@pytest.mark.parametrize("kind", every_error())
def test_every_error_raised_on_purpose_has_a_code_and_keeps_its_sentence(
    kind: type[errors.PenstockError],
) -> None:
    """INTERNAL means that somebody has to look into the log; no refusal may look like it."""
    error = kind.__new__(kind)
    Exception.__init__(error, "the sentence")
    if isinstance(error, errors.Unavailable):
        error.retry_after = 2

    code, text, trailing = status_of(error)

    assert code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN)
    assert text == "the sentence"
    hint = (("grpc-retry-pushback-ms", "2000"),) if isinstance(error, errors.Unavailable) else ()
    assert trailing == hint

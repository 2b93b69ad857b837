"""What a door answers, over HTTP and over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
from builders import NOON
from door_builders import BOUND, READER, FailingLog, Reply, client_on, door_on
from ports import free_port

from golden.formats.given import Format
from ingest_api.grpc_server import start_grpc
from ingest_api.proto import records_pb2, services_pb2
from penstock.cli.send import Sent
from penstock.client.problems import told
from penstock.envelope import Event
from penstock.errors import LogDamaged, LogUnavailable
from replay.ledger import accepted_of

NDJSON = "application/x-ndjson"
LOST = b'{"n": 3}'
METHOD = "/services.GRPCCollector/AddKafkaRecord"


def _replies() -> Iterator[Reply]:
    """Answer what is told of one event, of batches, and of what is refused as a whole."""
    client = client_on(door_on(FailingLog(broken={LOST: LogUnavailable(AWAY)})))
    lines: dict[str, Any] = {"content_type": NDJSON}
    large = b'"%b"' % (b"x" * 1_000)
    yield client.post(b'{"n": 1}', content_type="application/json", penstock_event_id="my-1")
    yield client.post(b'{"n": 1}\n{"n": 2}\n', **lines)
    yield client.post(b'{"n": 1}\n\n' + LOST + b"\n" + large + b"\n", **lines)
    yield client.post(b'{"n": 1}', "/v1/collection", token=BOUND)
    yield client.post(large + b"\n" + LOST, **lines)
    yield client.post(large)
    yield client.post(b"{}", token=None)
    yield client.post(b"{}", token=READER)
    yield client.post(b"{}", "/v1/events/unknown")
    yield client.post(b"{}", "/v1/events/paused")
    yield client.post(b"{}", penstock_collection="main.flights")
    yield client.post(b"{}", content_encoding="br")
    yield client.post(b"[]", content_type="application/cloudevents+json")
    yield client.post(method="GET")
    yield client_on(door_on(FailingLog(LogUnavailable(AWAY, retry_after=7)))).post()
    yield client_on(door_on(FailingLog(LogDamaged("a record cannot be decoded")))).post()
    yield client.post(b"{}", "/v1/elsewhere")


def _write_answers() -> bytes:
    answers = []
    for reply in _replies():
        head = [str(reply.status), *(f"{name}: {text}" for name, text in reply.headers.items())]
        answers.append("\n".join(head).encode() + b"\n\n" + reply.body + b"\n")
    return b"\n".join(answers)


def _read_answers(data: bytes) -> object:
    """Answer what `penstock send`, the client and the ledger make of each answer."""
    pieces = data.decode().rstrip("\n").split("\n\n")
    return [_understood(*pair) for pair in zip(pieces[::2], pieces[1::2], strict=True)]


def _understood(head: str, body: str) -> object:
    status, *lines = head.splitlines()
    headers = [tuple(line.split(": ", 1)) for line in lines]
    answer = httpx.Response(int(status), headers=headers, content=body.encode())
    if answer.is_success and "accepted" not in answer.json():
        return answer.json()
    problem = None if answer.is_success else told(answer)
    seconds = getattr(problem, "retry_after", None)
    said = None if problem is None else f"{type(problem).__name__}: {problem}"
    if problem is not None and "outcomes" not in answer.json():
        return said, seconds
    sent = Sent()
    sent.add({"accepted": 0, **answer.json()}, lines=3)
    assert sent.accepted == accepted_of(answer.content)
    return said, seconds, sent.accepted, sent.reasons


TOO_LARGE = "the event has 1,002 bytes or more, the limit is 1,000"
AWAY = "the log is away"
UNDERSTOOD = [
    (None, None, 1, {}),
    (None, None, 2, {}),
    (None, None, 1, {AWAY: "line 3: ", TOO_LARGE: "line 4: "}),
    {"message": "event has been successfully collected"},
    (f"LogUnavailable: {AWAY}", 1, 0, {TOO_LARGE: "line 1: ", AWAY: "line 2: "}),
    (f"TooLarge: {TOO_LARGE}", None),
    ("Unauthorized: unauthorized: the token is missing, unknown, revoked or out of date", None),
    ("Forbidden: forbidden: this token may not send events", None),
    ("NotFound: there is no collection 'main.unknown'", None),
    ("CollectionPaused: collection is paused: main.paused", None),
    ("Loop: the event was replayed from main.flights, where it is already", None),
    ("UnknownEncoding: the content coding 'br' is none of gzip, zstd", None),
    ("Malformed: the CloudEvents document is no JSON object that can be read", None),
    ("BadRequest: this address takes POST only", None),
    (f"LogUnavailable: {AWAY}", 7),
    ("LogDamaged: a record cannot be decoded", None),
    ("NotFound: there is no address '/v1/elsewhere'", None),
]
"""Of each answer the error and when to come back, and of a batch how many were accepted, and why
others were not."""

REQUEST = services_pb2.KafkaSinkRecordRequest(
    records=[
        records_pb2.KafkaSinkRecord(
            topic="orders",
            key=b"k1",
            value=b'{"n": 1}',
            timestamp=NOON // 1_000,
            offset=17,
            partition=3,
            headers=[records_pb2.KafkaHeader(key="X-Shop", value="north")],
        ),
        records_pb2.KafkaSinkRecord(topic="orders", value=b"\x00", force_dead_letter=True),
    ]
)
STORED = [
    Event(
        id=f"kafka/orders/3/17/{NOON // 1_000}",
        received_at=NOON + 1_000,
        payload=b'{"n": 1}',
        source="kafka",
        key=b"k1",
        headers=(("X-Shop", b"north"),),
        metadata={"topic": "orders", "partition": "3", "offset": "17"},
        event_time=NOON,
        named=True,
    ),
    Event(
        id="id-2",
        received_at=NOON + 1_000,
        payload=b"\x00",
        source="kafka",
        metadata={"topic": "orders", "partition": "0", "offset": "0"},
        quarantine=True,
    ),
]
"""What a door stores of that request."""


def _called(message: bytes) -> tuple[bytes, list[Event]]:
    """Send a call's message to a door as a relay does; answer its answer, and what was stored."""
    log = FailingLog()

    async def main() -> bytes:
        address = f"127.0.0.1:{free_port()}"
        server = await start_grpc(door_on(log), *_host_and_port(address))
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                call = channel.unary_unary(METHOD)
                answer: bytes = await call(message, metadata=(("batch.token", BOUND),))
                return answer
        finally:
            await server.stop(None)

    return asyncio.run(main()), log.events


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.partition(":")
    return host, int(port)


def _write_request() -> bytes:
    data: bytes = REQUEST.SerializeToString(deterministic=True)
    return data


def _read_answer(data: bytes) -> object:
    answer = services_pb2.KafkaSinkRecordResponse.FromString(data)
    return answer.num_records_processed, answer.status.code, answer.status.message


FORMATS = (
    Format("door-answers.txt", _write_answers, _read_answers, UNDERSTOOD),
    Format("grpc-request.hex", _write_request, lambda data: _called(data)[1], STORED),
    Format("grpc-answer.hex", lambda: _called(_write_request())[0], _read_answer, (2, 0, "ok")),
)

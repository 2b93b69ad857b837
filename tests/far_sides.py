"""Far sides of replays: places that take events, and what they took, read by other clients."""

from __future__ import annotations

import asyncio
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from builders import FLIGHTS, NOON, numbered, ticking
from door_builders import TOKEN, FailingLog, known
from engines import places
from engines.fresh import fresh_name
from receiving import Request, receiving
from served import served
from tunnelling import headers_of, plumber, tunnel_door

from ingest_api.accept import Door
from ingest_api.auth import Keyring
from ingest_api.http import HttpDoor
from ingest_api.limits import Limits
from penstock.buffer import Appender
from penstock.envelope import Event, Position
from penstock.guard import Guard
from penstock.lines import bytes_of, payload_of, read_line
from penstock.metadata.records import Destination
from penstock.vocabulary import Kind
from replay.doorway import Doorway
from replay.files import lines_of
from replay.targets import Message, Outcome, Target
from replay.targets.opening import open_target

MIB = 1 << 20
LIMITS = Limits(max_event_bytes=MIB, max_body_bytes=16 * MIB, max_ratio=20, events_per_second=0)
HERE = ip_network("127.0.0.1/32")
PORTS = (places.KAFKA_PORT, places.RABBITMQ_PORT, places.SQS_PORT)
SECRETS = {
    "kafka": None,
    "rabbitmq": f"{places.USER}:{places.PASSWORD}",
    "sqs": "key:secret",
    "http": None,
    "collection": None,
    "file": None,
    "tunnel": None,
}
ADDRESSES = {
    "http": "http://127.0.0.1:{}/in",
    "kafka": "kafka://127.0.0.1:{}/topic",
    "rabbitmq": "amqp://127.0.0.1:{}/",
    "sqs": "sqs+http://127.0.0.1:{}/000000000000/queue",
}
OPTIONS = {"sqs": {"region": "here"}}
COLLECTION = "collection://ships"
TUNNEL = "tunnel://ships"


@dataclass
class Took:
    """One event as the far side has it."""

    payload: bytes
    key: bytes | None
    headers: list[tuple[str, Any]]
    more: dict[str, Any] = field(default_factory=dict)


@dataclass
class FarSide:
    """A place and how to read what arrived there."""

    kind: Kind
    url: str
    took: Callable[..., list[Took]]
    """Wait until so many arrived, or for `patience` seconds; answer all that did."""
    guard: Guard = field(default_factory=lambda: Guard((HERE,), PORTS))
    options: dict[str, object] = field(default_factory=dict)
    doorway: Doorway | None = None
    files: Path | None = None

    def destination(self, **more: Any) -> Destination:
        options = {**self.options, **more}
        secret = SECRETS[self.kind]
        return Destination(
            team="main",
            name="d1",
            kind=self.kind,
            url=self.url,
            options=options,
            secret=secret,
            created_at=0,
        )

    def open(
        self,
        *,
        headers: Literal["add", "verbatim"] = "add",
        marked: bool = True,
        timeout: float = 20.0,
        replay_id: str = "r1",
        **options: Any,
    ) -> Target:
        return open_target(
            self.destination(**options),
            guard=self.guard,
            replay_id=replay_id,
            collection=FLIGHTS,
            clock=lambda: NOON,
            headers=headers,
            marked=marked,
            timeout=timeout,
            doorway=self.doorway,
            files=self.files,
        )


def sent(target: Target, events: Sequence[Event], *, attempt: int = 1) -> list[Outcome]:
    """Send the events in batches, one after the other; answer their outcomes."""

    async def main() -> list[Outcome]:
        outcomes: list[Outcome] = []
        messages = [Message(each, Position(0, n), attempt) for n, each in enumerate(events)]
        try:
            for start in range(0, len(messages), target.most):
                outcomes += await target.send(messages[start : start + target.most])
        finally:
            await target.close()
        return outcomes

    return asyncio.run(main())


@contextmanager
def far_side(kind: Kind, **more: Any) -> Iterator[FarSide]:
    """Make a place of the kind that nobody else uses."""
    sides = {
        "http": _http,
        "kafka": _kafka,
        "rabbitmq": _rabbit,
        "sqs": _sqs,
        "collection": _collection,
        "file": _file,
        "tunnel": _tunnel,
    }
    with sides[kind](**more) as made:
        yield made


@contextmanager
def _http() -> Iterator[FarSide]:
    with receiving() as receiver:

        def took(count: int, patience: float = 120) -> list[Took]:
            _until(lambda: len(receiver.requests) >= count, patience)
            return [_request(each) for each in receiver.requests]

        guard = Guard((HERE,), (receiver.port,))
        yield FarSide("http", receiver.url, took, guard)


@contextmanager
def _collection(
    *, log: Appender | None = None, limits: Limits = LIMITS, whole: bool = True
) -> Iterator[FarSide]:
    kept = FailingLog()
    door = Door(
        log or kept, Keyring(known()), limits, clock=ticking(), new_ids=numbered(), learn=bool
    )
    with served(HttpDoor(door, max_held_bytes=256 * MIB), lifespan="off") as url:

        def took(count: int, patience: float = 30) -> list[Took]:
            _until(lambda: len(kept.events) >= count, patience)
            return [
                Took(
                    each.payload,
                    each.key,
                    list(each.headers),
                    {
                        "id": each.id,
                        "content_type": each.content_type,
                        "event_time": each.event_time,
                        "metadata": each.metadata,
                    },
                )
                for each in kept.events
            ]

        doorway = Doorway(url, lambda _: TOKEN, whole)
        yield FarSide("collection", COLLECTION, took, Guard(), doorway=doorway)


@contextmanager
def _file() -> Iterator[FarSide]:
    with TemporaryDirectory() as folder:
        files = Path(folder) / "replay-files"

        def took(_: int, patience: float = 0) -> list[Took]:
            told = [read_line(line) for line in lines_of(files / "r1")]
            return [
                Took(
                    payload_of(line),
                    None if line.key is None else bytes_of(line.key),
                    [(name, bytes_of(value)) for name, value in line.headers],
                    {"id": line.id, "place": Position(line.partition or 0, line.offset or 0)},
                )
                for line in told
            ]

        yield FarSide("file", "file://orders", took, Guard(), files=files)


@contextmanager
def _tunnel() -> Iterator[FarSide]:
    with tunnel_door() as door, plumber(door) as client:

        def took(count: int, patience: float = 60) -> list[Took]:
            _until(lambda: len(client.written) >= count, patience)
            return [
                Took(each.blob, dict(found).get("penstock-key"), found)
                for each in client.written
                for found in [headers_of(each)]
            ]

        yield FarSide("tunnel", TUNNEL, took, Guard(), doorway=door.doorway)


def _request(request: Request) -> Took:
    headers = [(name.decode(), value) for name, value in request.headers]
    return Took(request.body, None, headers)


@contextmanager
def _kafka(*, partitions: int = 4, **config: str) -> Iterator[FarSide]:
    from confluent_kafka.admin import AdminClient, NewTopic
    from kafka import KafkaConsumer, TopicPartition

    topic = fresh_name()
    admin = AdminClient({"bootstrap.servers": places.KAFKA})
    admin.create_topics([NewTopic(topic, partitions, 1, config=config)])[topic].result(30)
    # Made, but not yet known to whoever asks the broker for it.
    _until(lambda: _has_leaders(admin, topic, partitions))

    def took(count: int, patience: float = 120) -> list[Took]:
        consumer = KafkaConsumer(
            bootstrap_servers=places.KAFKA, auto_offset_reset="earliest", max_poll_records=2000
        )
        consumer.assign([TopicPartition(topic, n) for n in range(partitions)])
        found: list[Took] = []
        deadline = time.monotonic() + patience
        while len(found) < count and time.monotonic() < deadline:
            for records in consumer.poll(500).values():
                found += [
                    Took(
                        r.value,
                        r.key,
                        list(r.headers),
                        {"partition": r.partition, "offset": r.offset, "timestamp": r.timestamp},
                    )
                    for r in records
                ]
        consumer.close()
        return found

    try:
        yield FarSide("kafka", f"kafka://{places.KAFKA}/{topic}", took)
    finally:
        admin.delete_topics([topic])[topic].result(30)


def _has_leaders(admin: Any, topic: str, partitions: int) -> bool:
    found = admin.list_topics(topic, timeout=10).topics[topic]
    leaders = [each.leader for each in found.partitions.values()]
    return found.error is None and len(leaders) == partitions and min(leaders) >= 0


@contextmanager
def _rabbit(**arguments: Any) -> Iterator[FarSide]:
    import aio_pika

    queue = fresh_name()

    async def make() -> None:
        async with await aio_pika.connect(places.RABBITMQ) as connection:
            channel = await connection.channel()
            await channel.declare_queue(queue, durable=True, arguments=arguments or None)

    async def read(count: int, patience: float = 120) -> list[Took]:
        found: list[Took] = []
        async with await aio_pika.connect(places.RABBITMQ) as connection:
            channel = await connection.channel()
            await channel.set_qos(1000)
            source = await channel.get_queue(queue)
            end = time.monotonic() + patience
            while len(found) < count and time.monotonic() < end:
                message = await source.get(no_ack=True, fail=False)
                if message is None:
                    await asyncio.sleep(0.05)
                else:
                    found.append(
                        Took(
                            message.body,
                            None,
                            list(message.headers.items()),
                            {
                                "message_id": message.message_id,
                                "content_type": message.content_type,
                                "timestamp": message.timestamp,
                                "routing_key": message.routing_key,
                            },
                        )
                    )
        return found

    async def drop() -> None:
        async with await aio_pika.connect(places.RABBITMQ) as connection:
            channel = await connection.channel()
            await channel.queue_delete(queue)

    asyncio.run(make())
    try:
        url = f"amqp://{places.HOST}:{places.RABBITMQ_PORT}/%2F"
        yield FarSide(
            "rabbitmq",
            url,
            lambda count, patience=60: asyncio.run(read(count, patience)),
            options={"routing_key": queue},
        )
    finally:
        asyncio.run(drop())


@contextmanager
def _sqs(*, fifo: bool = False) -> Iterator[FarSide]:
    import boto3

    client = boto3.client(
        "sqs",
        endpoint_url=places.SQS,
        region_name="elasticmq",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    name = f"t-{secrets.token_hex(6)}" + (".fifo" if fifo else "")
    attributes = {"FifoQueue": "true"} if fifo else {}
    url = client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]

    def took(count: int, patience: float = 120) -> list[Took]:
        found: list[Took] = []
        deadline = time.monotonic() + patience
        while len(found) < count and time.monotonic() < deadline:
            told = client.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=10,
                MessageAttributeNames=["All"],
                AttributeNames=["All"],
                WaitTimeSeconds=1,
            )
            messages = told.get("Messages", [])
            for message in messages:
                values = {
                    n: a.get("BinaryValue", a.get("StringValue"))
                    for n, a in message.get("MessageAttributes", {}).items()
                }
                found.append(
                    Took(
                        message["Body"].encode(), None, list(values.items()), message["Attributes"]
                    )
                )
            if messages:
                client.delete_message_batch(
                    QueueUrl=url,
                    Entries=[
                        {"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]}
                        for n, m in enumerate(messages)
                    ],
                )
        return found

    try:
        yield FarSide(
            "sqs", f"sqs+http://{url.partition('://')[2]}", took, options={"region": "elasticmq"}
        )
    finally:
        client.delete_queue(QueueUrl=url)
        client.close()


def _until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.005)


@contextmanager
def silence() -> Iterator[int]:
    """Take every connection and say nothing, ever; answer the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held = []
        stop = threading.Event()

        def take() -> None:
            listener.settimeout(0.05)
            while not stop.is_set():
                with suppress(TimeoutError):
                    held.append(listener.accept()[0])

        thread = threading.Thread(target=take)
        thread.start()
        yield listener.getsockname()[1]
        stop.set()
        thread.join()
        for each in held:
            each.close()


def far_at(kind: str, port: int, guard: Guard | None = None, host: str = "127.0.0.1") -> FarSide:
    """Answer a place of which nobody reads, where something else may listen."""
    if kind in ("collection", "tunnel"):
        doorway = Doorway(f"http://{host}:{port}", lambda _: TOKEN, tunnels=lambda _: TOKEN)
        url = COLLECTION if kind == "collection" else TUNNEL
        return FarSide(kind, url, lambda _: [], Guard(), doorway=doorway)  # type: ignore[arg-type]
    url = ADDRESSES[kind].format(port).replace("127.0.0.1", host)
    guard = guard or Guard((HERE,), (port,))
    return FarSide(kind, url, lambda _: [], guard, OPTIONS.get(kind, {}))  # type: ignore[arg-type]

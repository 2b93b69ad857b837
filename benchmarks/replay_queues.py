"""Replay to RabbitMQ and to SQS, beside loops of the clients that people know.

The replay is measured from its plan to its end, the loop sends the same records with as many under
way. The CPU is that of the process that sends. The queues are those of `make engines`, or what
``BENCH_RABBITMQ`` and ``BENCH_SQS`` name.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import boto3

from benchmarks.data import nested
from benchmarks.measure import Figure, Result, median
from benchmarks.replay import CONCURRENCY, ready, replayed
from penstock.vocabulary import Kind
from replay.job import frozen

RABBITMQ = os.environ.get("BENCH_RABBITMQ", "amqp://penstock:penstock@127.0.0.1:6570/%2F")
SQS = os.environ.get("BENCH_SQS", "http://127.0.0.1:6580")
MESSAGES = 20_000
"""To RabbitMQ."""
QUEUED = 10_000
"""To SQS, where ten go in one request."""
RUNS = 3
FLOOR = 0.6
_HEADERS: dict[str, Any] = {
    "penstock-replay-id": "bench-add-0",
    "penstock-event-id": "01990a2e-7b1c-7c3e-8d53-2f0c1a7d9e11",
    "penstock-collection": "main.bench",
    "penstock-attempt": "1",
    "penstock-received-at": "2025-11-24T16:00:00.000001Z",
}


def there() -> bool:
    """Say whether both listen."""
    return all(map(listens, (RABBITMQ, SQS)))


def listens(url: str) -> bool:
    """Say whether somebody listens there."""
    parts = urlsplit(url)
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((parts.hostname, parts.port)) == 0


def results(folder: Path) -> Iterator[Result]:
    """Measure both, each in turns with its loop."""
    with rabbitmq_queue() as queue:
        parts = urlsplit(RABBITMQ)
        yield _beside(
            folder / "rabbitmq",
            "replay to RabbitMQ",
            "aio-pika loop with confirms, the same records",
            lambda payloads: asyncio.run(_published(queue, payloads)),
            events=MESSAGES,
            kind="rabbitmq",
            url=f"amqp://{parts.hostname}:{parts.port}/%2F",
            options={"routing_key": queue},
            secret=f"{parts.username}:{parts.password}",
        )
    with _sqs_queue() as queue:
        yield _beside(
            folder / "sqs",
            "replay to SQS",
            "boto3 loop, batches of ten, the same records",
            lambda payloads: _sent(queue, payloads),
            events=QUEUED,
            kind="sqs",
            url=f"sqs+{queue}",
            options={"region": "elasticmq"},
            secret="key:secret",
        )


def _beside(
    home: Path,
    name: str,
    limit_name: str,
    bare: Callable[[Sequence[bytes]], None],
    *,
    events: int,
    kind: Kind,
    url: str,
    options: dict[str, object],
    secret: str,
) -> Result:
    payloads = nested(events)
    destination: dict[str, Any] = {"url": url, "kind": kind, "options": options, "secret": secret}
    with ready(home, payloads, **destination) as tools, frozen():
        # Side by side, so that a machine that changes its mind does so for both.
        pairs = [
            (_measured(bare, payloads), replayed(tools, number, events=events))
            for number in range(RUNS)
        ]
    limit, figure = (median(list(column)) for column in zip(*pairs, strict=True))
    by_clock = figure.per_second / limit.per_second * 100
    return Result(
        name,
        figure,
        limit_name,
        limit,
        floor_ratio=FLOOR,
        detail={"% of the limit by the clock": by_clock},
    )


def _measured(bare: Callable[[Sequence[bytes]], None], payloads: Sequence[bytes]) -> Figure:
    wall, cpu = time.perf_counter(), time.process_time()
    bare(payloads)
    return Figure(len(payloads), time.perf_counter() - wall, time.process_time() - cpu)


@contextmanager
def rabbitmq_queue() -> Iterator[str]:
    """Answer the name of a queue that is there for the block."""
    name = f"bench_{secrets.token_hex(4)}"

    async def make() -> None:
        async with await aio_pika.connect(RABBITMQ) as connection:
            channel = await connection.channel()
            await channel.declare_queue(name, durable=True)

    async def drop() -> None:
        async with await aio_pika.connect(RABBITMQ) as connection:
            channel = await connection.channel()
            await channel.queue_delete(name)

    asyncio.run(make())
    try:
        yield name
    finally:
        asyncio.run(drop())


async def _published(queue: str, payloads: Sequence[bytes]) -> None:
    """Publish the records with as many unconfirmed as a replay has, and do nothing else."""
    left = iter(payloads)

    async def worker(exchange: aio_pika.abc.AbstractExchange) -> None:
        for payload in left:
            message = aio_pika.Message(
                payload,
                headers=_HEADERS,
                content_type="application/json",
                message_id=_HEADERS["penstock-event-id"],
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            )
            await exchange.publish(message, routing_key=queue, mandatory=True)

    async with await aio_pika.connect(RABBITMQ) as connection:
        channel = await connection.channel(publisher_confirms=True)
        await asyncio.gather(*(worker(channel.default_exchange) for _ in range(CONCURRENCY)))


@contextmanager
def _sqs_queue() -> Iterator[str]:
    client = _client()
    url = client.create_queue(QueueName=f"bench-{secrets.token_hex(4)}")["QueueUrl"]
    try:
        yield url
    finally:
        client.delete_queue(QueueUrl=url)


def _client() -> Any:
    return boto3.client(
        "sqs",
        endpoint_url=SQS,
        region_name="elasticmq",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )


def _sent(queue: str, payloads: Sequence[bytes]) -> None:
    """Send the records from a few threads, as boto3 does no more than one request at once."""
    attributes = {
        name: {"DataType": "String", "StringValue": value}
        for name, value in {"content-type": "application/json", **_HEADERS}.items()
    }
    client = _client()

    def send(some: Sequence[bytes]) -> None:
        entries = [
            {"Id": str(n), "MessageBody": body.decode(), "MessageAttributes": attributes}
            for n, body in enumerate(some)
        ]
        if client.send_message_batch(QueueUrl=queue, Entries=entries).get("Failed"):
            raise RuntimeError("the bare loop did not deliver everything")

    with ThreadPoolExecutor(8) as pool:
        tens = (payloads[start : start + 10] for start in range(0, len(payloads), 10))
        for done in pool.map(send, tens):
            assert done is None

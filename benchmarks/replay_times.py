"""Replays that keep the time between events: by how much it is another one at the destination.

Events come to a door as from many senders, 200 a second, and are replayed at 1x and at 10x: to a
receiver that answers after 50 ms and notes when each came, and, where they listen, to Kafka, whose
broker notes the millisecond in which it took each, and to RabbitMQ, with a consumer in a process of
its own. The engines are those of `make engines`, or what ``BENCH_KAFKA`` and ``BENCH_RABBITMQ``
name.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import datetime
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from assets.stores import opened
from benchmarks import kafka, processes, replay_queues
from benchmarks.data import nested
from benchmarks.measure import Facts, percentile
from lakehouse.sql import open_engine
from penstock.clock import machine_clock
from penstock.metadata.records import Destination
from penstock.metadata.rotation import rotate
from replay.job import frozen, tools_of
from replay.request import read_request, record_of
from replay.run import Tools, run_replay

PER_SECOND = 200.0
SECONDS = 20.0
EVENTS = round(PER_SECOND * SECONDS)
SPEEDS = (1.0, 10.0)
MOST_MILLISECONDS = 20.0
"""By no more than this may 95 of 100 times between two events differ from what they were."""
MOST_DRIFT_MILLISECONDS = 100.0
"""So far behind its time may the last event be."""
_PATIENCE = 60.0

Came = list[tuple[str, float]]
"""When the door received an event, and the seconds at which it came to the destination."""


class Far(NamedTuple):
    """A destination, and how to hear what came to it since the last time."""

    to: Destination
    came: Callable[[], Came]


def results(folder: Path) -> Iterator[Facts]:
    """Measure both speeds on the same events, to each destination."""
    port = processes.free_port()
    ports = [port, *(_port_of(each) for each in (kafka.BROKER, replay_queues.RABBITMQ))]
    with processes.door(
        folder / "home", allow_networks=[ip_network("127.0.0.1/32")], allow_ports=ports
    ) as door:
        _post_in_time(door)
        settings = door.settings
        rotate(settings, chance=os.urandom)
        with (
            opened(settings) as stores,
            closing(open_engine(settings.home / "sql", memory=settings.sql_memory)) as engine,
            frozen(),
        ):
            tools = tools_of(stores, engine)
            for place in _places(folder, port):
                with place as far:
                    stores.store.add_destination(far.to)
                    for speed in SPEEDS:
                        late = _replayed(tools, far.to.name, speed)
                        yield _facts(far.to.name, speed, far.came(), late)


def _replayed(tools: Tools, to: str, speed: float) -> int:
    """Run a replay; answer how many of its events were sent late."""
    asked = {
        "collection": processes.COLLECTION.name,
        "destination": to,
        "speed": speed,
        "concurrency": 300,
    }
    request = read_request(asked, team=processes.COLLECTION.team)
    name = f"times-{to.lower()}-{speed:g}"
    tools.store.create_replay(record_of(request, id=name, now=machine_clock()))
    record = run_replay(name, tools, holder="bench")
    if record is None or record.state != "finished" or record.progress["delivered"] != EVENTS:
        raise RuntimeError(f"the replay did not deliver everything: {record}")
    return int(str(record.progress["late"]))


def _places(folder: Path, port: int) -> Iterator[AbstractContextManager[Far]]:
    """Answer the destinations that are there."""
    yield _receiver(folder, port)
    if kafka.there():
        yield _topic()
    if replay_queues.listens(replay_queues.RABBITMQ):
        yield _queue()


@contextmanager
def _receiver(folder: Path, port: int) -> Iterator[Far]:
    url = f"http://127.0.0.1:{port}/in"
    argv = ("-m", "benchmarks.timed_receiver", str(port))
    with processes.server(argv, port, folder / "receiver.log"):
        to = _destination("HTTP", kind="http", url=url)
        yield Far(to, lambda: [tuple(pair) for pair in httpx.get(url, timeout=60).json()])


@contextmanager
def _topic() -> Iterator[Far]:
    """Answer a topic of one partition, whose broker says when it took a record."""
    topic = f"bench_{secrets.token_hex(4)}"
    admin = AdminClient({"bootstrap.servers": kafka.BROKER})
    config = {"message.timestamp.type": "LogAppendTime"}
    admin.create_topics([NewTopic(topic, 1, 1, config=config)])[topic].result()
    consumer = Consumer({"bootstrap.servers": kafka.BROKER, "group.id": topic})
    consumer.assign([TopicPartition(topic, 0, 0)])

    def came() -> Came:
        found: Came = []
        end = time.monotonic() + _PATIENCE
        while len(found) < EVENTS and time.monotonic() < end:
            for message in consumer.consume(EVENTS - len(found), 1.0):
                headers = dict(message.headers() or ())
                received = headers["penstock-received-at"]
                assert isinstance(received, bytes)
                found.append((received.decode(), message.timestamp()[1] / 1_000))
        return found

    try:
        yield Far(_destination("Kafka", kind="kafka", url=f"kafka://{kafka.BROKER}/{topic}"), came)
    finally:
        consumer.close()
        admin.delete_topics([topic])[topic].result()


@contextmanager
def _queue() -> Iterator[Far]:
    """Answer a queue, with somebody who takes from it at once."""
    parts = urlsplit(replay_queues.RABBITMQ)
    with replay_queues.rabbitmq_queue() as queue:
        argv = ("-m", "benchmarks.timed_consumer", replay_queues.RABBITMQ, queue, str(EVENTS))
        with subprocess.Popen(
            [sys.executable, *argv], stdout=subprocess.PIPE, text=True
        ) as consumer:
            assert consumer.stdout is not None
            told = consumer.stdout
            try:
                if told.readline() != "begun\n":
                    raise RuntimeError("nobody takes from the queue")
                to = _destination(
                    "RabbitMQ",
                    kind="rabbitmq",
                    url=f"amqp://{parts.hostname}:{parts.port}/%2F",
                    options={"routing_key": queue},
                    secret=f"{parts.username}:{parts.password}",
                )
                yield Far(to, lambda: [tuple(pair) for pair in json.loads(told.readline())])
            finally:
                consumer.kill()


def _destination(name: str, **more: Any) -> Destination:
    return Destination(
        team=processes.COLLECTION.team, name=name, created_at=machine_clock(), **more
    )


def _port_of(address: str) -> int:
    return urlsplit(address if "://" in address else f"kafka://{address}").port or 0


def _post_in_time(door: processes.Door) -> None:
    """Send events one by one, at times as they come from many senders."""
    chance = random.Random(7)
    url = f"http://127.0.0.1:{door.http_port}/v1/events/{processes.COLLECTION.name}"
    headers = {"Authorization": f"Bearer {door.token}", "Content-Type": "application/json"}
    with httpx.Client(headers=headers) as client:
        due = time.monotonic()
        for payload in nested(EVENTS):
            due += chance.expovariate(PER_SECOND)
            time.sleep(max(0.0, due - time.monotonic()))
            client.post(url, content=payload).raise_for_status()


def _facts(to: str, speed: float, notes: Came, late: int) -> Facts:
    came = sorted((datetime.fromisoformat(received).timestamp(), at) for received, at in notes)
    if len(came) != EVENTS:
        raise RuntimeError(f"{len(came):,} events came to {to}, and not {EVENTS:,}")
    errors = [
        abs((b - a) - (then_b - then_a) / speed) * 1_000
        for (then_a, a), (then_b, b) in pairwise(came)
    ]
    lasted, meant = came[-1][1] - came[0][1], (came[-1][0] - came[0][0]) / speed
    worst, drift = percentile(errors, 0.95), (lasted - meant) * 1_000
    short = [f"{worst:.1f} ms > {MOST_MILLISECONDS:g} ms"] if worst > MOST_MILLISECONDS else []
    if drift > MOST_DRIFT_MILLISECONDS:
        short.append(f"{drift:,.0f} ms behind at the end")
    return Facts(
        f"replay to {to} at {speed:g}x, {len(came) / meant:,.0f} events a second",
        {
            "events": len(came),
            "error between two, ms: median": percentile(errors, 0.5),
            "95 of 100": worst,
            "99 of 100": percentile(errors, 0.99),
            "drift over all, ms": drift,
            "late": late,
        },
        short=short,
    )

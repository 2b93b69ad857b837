"""Replay to Kafka, beside a loop that only produces: ``python -m benchmarks.replay_kafka``.

Apart from the other measurements, because it needs a broker: the one of ``make engines`` unless
another is named. Both sides send the same records, headers included; what the replay does beside
is reading the events from the lake, the window, two rows of the ledger for each, and checkpoints.
"""

from __future__ import annotations

import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from ipaddress import ip_network
from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from assets.stores import opened
from benchmarks import processes
from benchmarks.data import nested
from benchmarks.measure import Figure, Result, median, pinned
from benchmarks.replay import DESTINATION, EVENTS, post, replayed
from lakehouse.sql import open_engine
from penstock.clock import machine_clock
from penstock.metadata.records import Destination
from replay.job import frozen, tools_of
from replay.targets.kafka import BATCH

RUNS = 3
BROKER = "127.0.0.1:6510"
_HEADERS: list[tuple[str, str | bytes | None]] = [
    ("content-type", "application/json"),
    ("penstock-replay-id", "bench-0"),
    ("penstock-event-id", "01990a2e-7b1c-7c3e-8d53-2f0c1a7d9e11"),
    ("penstock-collection", "main.bench"),
    ("penstock-attempt", "1"),
    ("penstock-received-at", "2025-11-24T16:00:00.000001Z"),
]


def measured(folder: Path, broker: str) -> Result:
    """Measure the sending of one replay, from its plan to its end."""
    payloads = nested(EVENTS)
    topic = f"bench_{secrets.token_hex(4)}"
    admin = AdminClient({"bootstrap.servers": broker})
    admin.create_topics([NewTopic(topic, 4, 1)])[topic].result()
    port = int(broker.rpartition(":")[2])
    try:
        with (
            processes.door(
                folder / "home", allow_networks=[ip_network("127.0.0.1/32")], allow_ports=[port]
            ) as door,
            pinned(processes.LOAD_CORES),
        ):
            post(door, payloads)
            settings = door.settings
            with (
                opened(settings) as stores,
                closing(open_engine(settings.home / "sql", memory=settings.sql_memory)) as engine,
            ):
                landing = stores.landing()
                while landing.land_once(processes.COLLECTION) is not None:
                    pass
                stores.store.add_destination(
                    Destination(
                        team=processes.COLLECTION.team,
                        name=DESTINATION,
                        kind="kafka",
                        url=f"kafka://{broker}/{topic}",
                        created_at=machine_clock(),
                    )
                )
                tools = tools_of(stores, engine)
                with frozen():
                    pairs = [
                        (_bare(broker, topic, payloads), replayed(tools, number))
                        for number in range(RUNS)
                    ]
    finally:
        admin.delete_topics([topic])[topic].result()
    return Result(
        "replay to Kafka",
        median([sent for _, sent in pairs]),
        f"bare confluent-kafka loop, flushed every {BATCH}",
        median([bare for bare, _ in pairs]),
    )


def _bare(broker: str, topic: str, payloads: Sequence[bytes]) -> Figure:
    """Produce the same records, have each reported, and do nothing else."""
    reports = 0

    def reported(error: object, _: object) -> None:
        nonlocal reports
        reports += error is None

    wall, cpu = time.perf_counter(), time.process_time()
    producer = Producer({"bootstrap.servers": broker, "enable.idempotence": True, "linger.ms": 20})
    for number, payload in enumerate(payloads, 1):
        producer.produce(topic, payload, headers=list(_HEADERS), on_delivery=reported)
        if number % BATCH == 0:
            producer.flush()
    producer.flush()
    figure = Figure(len(payloads), time.perf_counter() - wall, time.process_time() - cpu)
    if reports != len(payloads):
        raise RuntimeError("the bare loop did not deliver everything")
    return figure


def main() -> None:
    """Print both sides and their ratio."""
    broker = sys.argv[1] if len(sys.argv) > 1 else BROKER
    with tempfile.TemporaryDirectory() as folder:
        result = measured(Path(folder), broker)
    for name, figure in ((result.name, result.figure), (result.limit_name, result.limit)):
        each = 1e6 / figure.events
        print(f"{name}: {figure.cpu * each:.1f} µs CPU, {figure.wall * each:.1f} µs an event")
    print(f"{result.limit.cpu / result.figure.cpu:.0%} of the bare loop, per core")


if __name__ == "__main__":
    main()

"""Replay to Kafka, beside a loop that only produces: its CPU, by the million events.

The replay is measured from its plan to its end: reading the events from the lake, the window, the
rows of the ledger, checkpoints, and producing. Beside it a loop produces the same
records, and one produces the payloads alone: the six headers of a replay take as much CPU again as
everything else about a record. The events have no key. The broker is the one of `make engines`, or
the one that ``BENCH_KAFKA`` names.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.data import nested
from benchmarks.kafka import BROKER
from benchmarks.measure import Figure, Result, median
from benchmarks.replay import ready, replayed
from replay.job import frozen

EVENTS = 400_000
RUNS = 5
FLOOR = 0.6
_Headers = list[tuple[str, str | bytes | None]]
_VERBATIM: _Headers = [("content-type", "application/json")]
_ADDED: _Headers = [
    *_VERBATIM,
    ("penstock-replay-id", "bench-0"),
    ("penstock-event-id", "01990a2e-7b1c-7c3e-8d53-2f0c1a7d9e11"),
    ("penstock-collection", "main.bench"),
    ("penstock-attempt", "1"),
    ("penstock-received-at", "2025-11-24T16:00:00.000001Z"),
]


def results(folder: Path) -> Iterator[Result]:
    """Measure replays as they are, and with the events' own headers only, beside the loops."""
    payloads = nested(EVENTS)
    topic = f"bench_{secrets.token_hex(4)}"
    admin = AdminClient({"bootstrap.servers": BROKER})
    admin.create_topics([NewTopic(topic, 4, 1)])[topic].result()
    try:
        url = f"kafka://{BROKER}/{topic}"
        with ready(folder / "home", payloads, url=url, kind="kafka") as tools, frozen():
            # Side by side, so that a machine that changes its mind does so for all.
            figures = [
                (
                    replayed(tools, number, events=EVENTS),
                    _bare(topic, payloads, _ADDED),
                    replayed(tools, number, events=EVENTS, headers="verbatim"),
                    _bare(topic, payloads, _VERBATIM),
                    _bare(topic, payloads, []),
                )
                for number in range(RUNS)
            ]
    finally:
        admin.delete_topics([topic])[topic].result()
    added, same_added, verbatim, same_verbatim, payloads_alone = (
        median(list(column)) for column in zip(*figures, strict=True)
    )
    same, alone = "confluent-kafka loop, the same records", "confluent-kafka loop, payloads alone"
    yield _beside("replay to Kafka", added, same, same_added, floor=FLOOR)
    yield _beside("replay to Kafka", added, alone, payloads_alone)
    yield _beside("replay to Kafka, verbatim", verbatim, same, same_verbatim, floor=FLOOR)
    yield _beside("replay to Kafka, verbatim", verbatim, alone, payloads_alone)


def _beside(
    name: str, figure: Figure, limit_name: str, limit: Figure, *, floor: float | None = None
) -> Result:
    by_clock = figure.per_second / limit.per_second * 100
    return Result(
        name,
        figure,
        limit_name,
        limit,
        floor_ratio=floor,
        detail={"% of the limit by the clock": by_clock},
    )


def _bare(topic: str, payloads: Sequence[bytes], headers: _Headers) -> Figure:
    """Produce the records, have each reported, and do nothing else."""
    reports = 0

    def reported(error: object, _: object) -> None:
        nonlocal reports
        reports += error is None

    wall, cpu = time.perf_counter(), time.process_time()
    producer = Producer({"bootstrap.servers": BROKER, "enable.idempotence": True, "linger.ms": 5})
    for payload in payloads:
        while True:
            try:
                producer.produce(topic, payload, on_delivery=reported, headers=headers)
            except BufferError:  # the client holds 100,000 records
                producer.poll(0.1)
            else:
                break
        producer.poll(0)
    producer.flush()
    figure = Figure(len(payloads), time.perf_counter() - wall, time.process_time() - cpu)
    if reports != len(payloads):
        raise RuntimeError("the bare loop did not deliver everything")
    return figure

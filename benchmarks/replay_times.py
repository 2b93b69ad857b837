"""Replays that keep the time between events: by how much it is another one at the destination.

Events come to a door as from many senders, 200 a second, and are replayed at 1x and at 10x to a
receiver that answers after 50 ms and notes when each came.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path

import httpx

from assets.stores import opened
from benchmarks import processes
from benchmarks.data import nested
from benchmarks.measure import Facts, percentile
from lakehouse.sql import open_engine
from penstock.clock import machine_clock
from penstock.metadata.records import Destination
from replay.job import frozen, tools_of
from replay.request import read_request, record_of
from replay.run import run_replay

PER_SECOND = 200.0
SECONDS = 20.0
MOST_MILLISECONDS = 20.0
"""By no more than this may 95 of 100 times between two events differ from what they were."""
MOST_DRIFT_MILLISECONDS = 100.0
"""So far behind its time may the last event be."""


def results(folder: Path) -> Iterator[Facts]:
    """Measure both speeds on the same events."""
    port = processes.free_port()
    home = folder / "home"
    with (
        processes.server(
            ("-m", "benchmarks.timed_receiver", str(port)), port, folder / "receiver.log"
        ),
        processes.door(
            home, allow_networks=[ip_network("127.0.0.1/32")], allow_ports=[port]
        ) as door,
    ):
        _post_in_time(door)
        settings = door.settings
        with (
            opened(settings) as stores,
            closing(open_engine(settings.home / "sql", memory=settings.sql_memory)) as engine,
            frozen(),
        ):
            url = f"http://127.0.0.1:{port}/in"
            stores.store.add_destination(
                Destination(
                    team=processes.COLLECTION.team,
                    name="receiver",
                    url=url,
                    created_at=machine_clock(),
                )
            )
            for speed in (1.0, 10.0):
                asked = {"collection": processes.COLLECTION.name, "destination": "receiver"}
                request = read_request(
                    {**asked, "speed": speed, "concurrency": 300}, team=processes.COLLECTION.team
                )
                name = f"times-{speed:g}"
                stores.store.create_replay(record_of(request, id=name, now=machine_clock()))
                record = run_replay(name, tools_of(stores, engine), holder="bench")
                if record is None or record.state != "finished":
                    raise RuntimeError(f"the replay did not finish: {record}")
                yield _facts(speed, url, int(str(record.progress["late"])))


def _post_in_time(door: processes.Door) -> None:
    """Send events one by one, at times as they come from many senders."""
    chance = random.Random(7)
    url = f"http://127.0.0.1:{door.http_port}/v1/events/{processes.COLLECTION.name}"
    headers = {"Authorization": f"Bearer {door.token}", "Content-Type": "application/json"}
    with httpx.Client(headers=headers) as client:
        due = time.monotonic()
        for payload in nested(round(PER_SECOND * SECONDS)):
            due += chance.expovariate(PER_SECOND)
            time.sleep(max(0.0, due - time.monotonic()))
            client.post(url, content=payload).raise_for_status()


def _facts(speed: float, url: str, late: int) -> Facts:
    came = sorted(
        (datetime.fromisoformat(received).timestamp(), at)
        for received, at in httpx.get(url, timeout=60).json()
    )
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
        f"replay at {speed:g}x, {len(came) / meant:,.0f} events a second",
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

"""Replay to HTTP: plan, ledger, window and checkpoints, beside a loop that only posts.

And beside it what processes that send make of it.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing, contextmanager
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp
import httpx
import psutil
import uvloop

from assets.stores import opened
from benchmarks import processes
from benchmarks.data import nested
from benchmarks.measure import Facts, Figure, Result, median, pinned
from lakehouse.sql import open_engine
from penstock.clock import machine_clock
from penstock.metadata.records import Destination, ReplayRecord
from penstock.metadata.rotation import rotate
from penstock.vocabulary import Kind
from replay.job import frozen, tools_of
from replay.progress import read_progress
from replay.request import HeaderMode, read_request, record_of
from replay.run import Tools, run_replay
from replay.targets import sending

EVENTS = 20_000
RUNS = 3
CONCURRENCY = 32
BATCH = 1_000
DESTINATION = "receiver"
SENDERS = 2
SPREAD_EVENTS = 60_000
SETTLED = 20_000
"""So many of those are sent before it is measured: processes that send have started by then."""


def results(folder: Path) -> Iterator[Result | Facts]:
    """Measure the sending of one replay, from its plan to its end; then, of several processes."""
    payloads = nested(EVENTS)
    port = processes.free_port()
    url = f"http://127.0.0.1:{port}/in"
    receiver = ("-m", "benchmarks.receiver", str(port))
    with processes.server(receiver, port, folder / "receiver.log"):
        with ready(folder / "home", payloads, url=url, kind="http") as tools, frozen():
            # Side by side, so that a machine that changes its mind does so for both.
            pairs = [(_bare(url, payloads), replayed(tools, number)) for number in range(RUNS)]
        yield Result(
            "replay to HTTP",
            median([replayed for _, replayed in pairs]),
            f"bare aiohttp loop, {CONCURRENCY} at once",
            median([bare for bare, _ in pairs]),
            floor_ratio=0.6,
        )
        yield _spread(folder / "spread", url)


@contextmanager
def ready(
    home: Path,
    payloads: Sequence[bytes],
    *,
    url: str,
    kind: Kind,
    options: dict[str, object] | None = None,
    secret: str | None = None,
    cores: AbstractSet[int] = processes.LOAD_CORES,
) -> Iterator[Tools]:
    """Have the events landed and a destination on this machine, and be on these cores."""
    port = urlsplit(url).port
    assert port is not None
    with (
        processes.door(
            home, allow_networks=[ip_network("127.0.0.1/32")], allow_ports=[port]
        ) as door,
        pinned(cores),
    ):
        post(door, payloads)
        settings = door.settings
        if secret is not None:
            rotate(settings, chance=os.urandom)
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
                    kind=kind,
                    url=url,
                    options=options or {},
                    secret=secret,
                    created_at=machine_clock(),
                )
            )
            yield tools_of(stores, engine)


def post(door: processes.Door, payloads: Sequence[bytes]) -> None:
    """Send the events to the door, which holds the log."""
    headers = {"Authorization": f"Bearer {door.token}", "Content-Type": "application/x-ndjson"}
    url = f"http://127.0.0.1:{door.http_port}/v1/events/{processes.COLLECTION.name}"
    with httpx.Client(headers=headers) as client:
        for start in range(0, len(payloads), BATCH):
            body = b"\n".join(payloads[start : start + BATCH])
            client.post(url, content=body).raise_for_status()


def replayed(
    tools: Tools, number: int, *, events: int = EVENTS, headers: HeaderMode = "add"
) -> Figure:
    """Run one replay as the job does; what is measured begins when its plan is made."""
    replay_id = f"bench-{headers}-{number}"
    _ask(tools, replay_id, headers)
    begun: list[tuple[float, float]] = []

    def told(record: ReplayRecord) -> None:
        if record.plan is not None and not begun:
            begun.append((time.perf_counter(), time.process_time()))

    record = run_replay(replay_id, tools, holder="bench", told=told)
    wall, cpu = time.perf_counter(), time.process_time()
    _expect_all(record, events)
    return Figure(events, wall - begun[0][0], cpu - begun[0][1])


def _ask(tools: Tools, replay_id: str, headers: HeaderMode = "add") -> None:
    """Have the replay in the store."""
    asked = {
        "collection": processes.COLLECTION.name,
        "destination": DESTINATION,
        "concurrency": CONCURRENCY,
        "headers": headers,
    }
    request = read_request(asked, team=processes.COLLECTION.team)
    tools.store.create_replay(record_of(request, id=replay_id, now=machine_clock()))


def _expect_all(record: ReplayRecord | None, events: int) -> None:
    """Raise `RuntimeError` unless everything was delivered."""
    if record is None or record.state != "finished" or record.progress["delivered"] != events:
        raise RuntimeError(f"the replay did not deliver everything: {record}")


class _Pace(NamedTuple):
    """Events a second, and the CPU microseconds of one: in the replay's own process, and beside."""

    per_second: float
    own: float
    beside: float


def _spread(home: Path, url: str) -> Facts:
    """Measure a replay that several processes send in turns with one that its own sends."""
    payloads, cores = nested(SPREAD_EVENTS), os.sched_getaffinity(0)
    with ready(home, payloads, url=url, kind="http", cores=cores) as tools, frozen():
        pairs = [
            (_paced(tools, number, senders=1), _paced(tools, number, senders=SENDERS))
            for number in range(RUNS)
        ]
    alone, spread = (
        _Pace(*map(statistics.median, zip(*column, strict=True)))
        for column in zip(*pairs, strict=True)
    )
    return Facts(
        f"replay to HTTP, {SENDERS} processes that send beside its own alone",
        {
            "events/s alone": round(alone.per_second),
            f"with {SENDERS}": round(spread.per_second),
            "times as many": spread.per_second / alone.per_second,
            "CPU us an event alone": alone.own,
            f"with {SENDERS}: in its own": spread.own,
            "in those": spread.beside,
        },
    )


def _paced(tools: Tools, number: int, *, senders: int) -> _Pace:
    """Run one replay; what is measured begins when processes that send have started."""
    replay_id = f"bench-spread-{senders}-{number}"
    _ask(tools, replay_id)
    moments: list[tuple[int, float, float, float]] = []

    def told(record: ReplayRecord) -> None:
        delivered = read_progress(record.progress).delivered
        if delivered >= (SPREAD_EVENTS if moments else SETTLED) and len(moments) < 2:
            cpu = _cpu_beside(0 if senders == 1 else senders)
            moments.append((delivered, time.perf_counter(), time.process_time(), cpu))

    spread = replace(tools, senders=senders, senders_after=0)
    _expect_all(run_replay(replay_id, spread, holder="bench", told=told), SPREAD_EVENTS)
    events, wall, own, beside = (b - a for a, b in zip(*moments, strict=True))
    return _Pace(events / wall, own / events * 1e6, beside / events * 1e6)


def _cpu_beside(count: int) -> float:
    """Answer the CPU-seconds of the processes that send. Raises `RuntimeError` if some miss."""
    every = psutil.Process().children()
    found = [each.cpu_times() for each in every if sending.__name__ in each.cmdline()]
    if len(found) != count:
        raise RuntimeError(f"{len(found)} processes send, and not {count}")
    return float(sum(times.user + times.system for times in found))


def _bare(url: str, payloads: Sequence[bytes]) -> Figure:
    """Post the same bodies over as many connections, and do nothing else."""
    wall, cpu = time.perf_counter(), time.process_time()
    uvloop.run(_post_all(url, payloads))
    return Figure(len(payloads), time.perf_counter() - wall, time.process_time() - cpu)


async def _post_all(url: str, payloads: Sequence[bytes]) -> None:
    left = iter(payloads)
    headers = {"Content-Type": "application/json"}

    async def worker(session: aiohttp.ClientSession) -> None:
        for payload in left:
            async with session.post(url, data=payload, headers=headers) as answer:
                await answer.read()
                answer.raise_for_status()

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        await asyncio.gather(*(worker(session) for _ in range(CONCURRENCY)))

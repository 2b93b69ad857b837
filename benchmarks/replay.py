"""Replay to HTTP: plan, ledger, window and checkpoints, beside a loop that only posts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import httpx
import uvloop

from assets.stores import opened
from benchmarks import processes
from benchmarks.data import nested
from benchmarks.measure import Figure, Result, median, pinned
from lakehouse.sql import open_engine
from penstock.clock import machine_clock
from penstock.metadata.records import Destination, ReplayRecord
from penstock.vocabulary import Kind
from replay.job import frozen, tools_of
from replay.request import HeaderMode, read_request, record_of
from replay.run import Tools, run_replay

EVENTS = 20_000
RUNS = 3
CONCURRENCY = 32
BATCH = 1_000
DESTINATION = "receiver"


def results(folder: Path) -> Iterator[Result]:
    """Measure the sending of one replay, from its plan to its end."""
    payloads = nested(EVENTS)
    port = processes.free_port()
    url = f"http://127.0.0.1:{port}/in"
    with (
        processes.server(("-m", "benchmarks.receiver", str(port)), port, folder / "receiver.log"),
        ready(folder / "home", payloads, url=url, kind="http") as tools,
        frozen(),
    ):
        # Side by side, so that a machine that changes its mind does so for both.
        pairs = [(_bare(url, payloads), replayed(tools, number)) for number in range(RUNS)]
    yield Result(
        "replay to HTTP",
        median([replayed for _, replayed in pairs]),
        f"bare aiohttp loop, {CONCURRENCY} at once",
        median([bare for bare, _ in pairs]),
        floor_ratio=0.6,
    )


@contextmanager
def ready(home: Path, payloads: Sequence[bytes], *, url: str, kind: Kind) -> Iterator[Tools]:
    """Have the events landed and a destination on this machine, and be where the load is."""
    port = urlsplit(url).port
    assert port is not None
    with (
        processes.door(
            home, allow_networks=[ip_network("127.0.0.1/32")], allow_ports=[port]
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
                    kind=kind,
                    url=url,
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
    asked = {
        "collection": processes.COLLECTION.name,
        "destination": DESTINATION,
        "concurrency": CONCURRENCY,
        "headers": headers,
    }
    request = read_request(asked, team=processes.COLLECTION.team)
    replay_id = f"bench-{headers}-{number}"
    tools.store.create_replay(record_of(request, id=replay_id, now=machine_clock()))
    begun: list[tuple[float, float]] = []

    def told(record: ReplayRecord) -> None:
        if record.plan is not None and not begun:
            begun.append((time.perf_counter(), time.process_time()))

    record = run_replay(replay_id, tools, holder="bench", told=told)
    wall, cpu = time.perf_counter(), time.process_time()
    if record is None or record.state != "finished" or record.progress["delivered"] != events:
        raise RuntimeError(f"the replay did not deliver everything: {record}")
    return Figure(events, wall - begun[0][0], cpu - begun[0][1])


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

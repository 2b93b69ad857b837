"""The door: single events, NDJSON batches, gRPC batches; all durable when acknowledged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import grpc
import uvloop

from benchmarks import processes
from benchmarks.data import nested
from benchmarks.load import Load, drive, request
from benchmarks.measure import Figure, Result, cpu_of, percentile, pinned
from ingest_api.proto import records_pb2, services_pb2

BATCH = 1_000
SECONDS = 3.0
RUNS = 5


def results(folder: Path) -> Iterator[Result]:
    """Measure the door; limits in turns with it, because a machine drifts within minutes."""
    payloads = nested(BATCH)
    with (
        _limit("echo", folder) as echo,
        _limit("synced", folder) as synced,
        _limit("grpc", folder) as bare,
        processes.door(folder / "door") as door,
        pinned(processes.LOAD_CORES),
    ):
        ours = Server(door.pid, door.http_port, ("Authorization", f"Bearer {door.token}"))
        single = Posts(payloads[0], "application/json", events=1, connections=64)
        figure, limit, load = _in_turns(single, ours, echo, by="per_core")
        yield Result(
            "POST, one event, durable",
            figure,
            "bare ASGI echo",
            limit,
            floor=8_000,
            detail={"p99 ms": percentile(load.latencies, 0.99) * 1000},
        )
        lines = Posts(b"\n".join(payloads), "application/x-ndjson", events=BATCH, connections=8)
        figure, limit, load = _in_turns(lines, ours, synced, by="per_core")
        yield Result(
            f"POST, NDJSON of {BATCH:,}",
            figure,
            "bare ASGI + fsync",
            limit,
            floor=150_000,
            floor_ratio=0.3,
            detail={
                "p99 ms": percentile(load.latencies, 0.99) * 1000,
                # Waiting for the disk is no CPU.
                "% of the limit by the clock": 100 * figure.per_second / limit.per_second,
            },
        )
        for size, floor in ((100, None), (BATCH, 150_000)):
            figure, limit = _calls_in_turns(payloads[:size], door, bare)
            yield Result(
                f"gRPC AddRecord, batch of {size:,}",
                figure,
                "bare grpc.aio, nothing read or stored",
                limit,
                floor=floor,
            )


class Server(NamedTuple):
    """Something that takes POSTs."""

    pid: int
    port: int
    header: tuple[str, str] = ("X-Limit", "1")


@dataclass(frozen=True)
class Posts:
    """One request, sent again and again."""

    body: bytes
    content_type: str
    events: int
    connections: int

    def at(self, server: Server, seconds: float) -> tuple[Figure, Load]:
        """Send it to a server for so long."""
        path = f"/v1/events/{processes.COLLECTION.name}"
        headers = [server.header, ("Content-Type", self.content_type)]
        prepared = request(path, self.body, headers)
        before = cpu_of(server.pid)
        load = uvloop.run(
            drive(
                "127.0.0.1",
                server.port,
                prepared,
                connections=self.connections,
                seconds=seconds,
            )
        )
        cpu = cpu_of(server.pid) - before
        return Figure(load.requests * self.events, load.wall, cpu), load


def _in_turns(posts: Posts, ours: Server, limit: Server, *, by: str) -> tuple[Figure, Figure, Load]:
    """Measure both again and again; answer the round in the middle by their ratio."""
    for server in (ours, limit):
        posts.at(server, 1.0)
    rounds = []
    for _ in range(RUNS):
        figure, load = posts.at(ours, SECONDS)
        rounds.append((figure, posts.at(limit, SECONDS)[0], load))
    rounds.sort(key=lambda one: getattr(one[0], by) / getattr(one[1], by))
    return rounds[RUNS // 2]


@contextmanager
def _limit(kind: str, folder: Path) -> Iterator[Server]:
    port = processes.free_port()
    argv = ("-m", "benchmarks.limits", kind, str(port), str(folder))
    with processes.server(argv, port, folder / f"{kind}.log") as pid:
        yield Server(pid, port)


def _calls_in_turns(
    payloads: list[bytes], door: processes.Door, bare: Server
) -> tuple[Figure, Figure]:
    """Call both again and again; answer the round in the middle by their ratio."""
    message = services_pb2.GenericRecordRequest(
        records=[records_pb2.GenericRecord(body=one, source="bench") for one in payloads]
    ).SerializeToString()
    ours = Server(door.pid, door.grpc_port, ("batch-token", door.token))

    def measured(server: Server, seconds: float) -> Figure:
        before, begun = cpu_of(server.pid), time.perf_counter()
        calls = asyncio.run(_calls(server, message, seconds))
        wall = time.perf_counter() - begun
        return Figure(calls * len(payloads), wall, cpu_of(server.pid) - before)

    for server in (ours, bare):
        measured(server, 0.5)
    rounds = [(measured(ours, SECONDS), measured(bare, SECONDS)) for _ in range(RUNS)]
    rounds.sort(key=lambda one: one[0].per_core / one[1].per_core)
    return rounds[RUNS // 2]


async def _calls(server: Server, message: bytes, seconds: float) -> int:
    """Send the same bytes, already serialised, from a few callers; answer the number of calls."""
    end = time.perf_counter() + seconds
    name, value = server.header
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        add = channel.unary_unary(
            "/services.GRPCCollector/AddRecord",
            request_serializer=lambda raw: raw,
            response_deserializer=services_pb2.GenericRecordResponse.FromString,
        )

        async def caller() -> int:
            count = 0
            while time.perf_counter() < end:
                await add(message, metadata=((name.lower(), value),))
                count += 1
            return count

        return sum(await asyncio.gather(*(caller() for _ in range(8))))

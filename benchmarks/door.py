"""The door: single events, NDJSON batches, gRPC batches; all durable when acknowledged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import uvloop

from benchmarks import processes
from benchmarks.data import nested
from benchmarks.load import Load, drive, request
from benchmarks.measure import Figure, Result, cpu_of, median, percentile, pinned
from ingest_api.proto import records_pb2, services_pb2

BATCH = 1_000
SECONDS = 4.0
RUNS = 3


def results(folder: Path) -> Iterator[Result]:
    """Measure the door."""
    payloads = nested(BATCH)
    single, batch = payloads[0], b"\n".join(payloads)
    limits = {
        kind: {
            size: _limit(kind, body, events, folder)
            for size, (body, events) in {"single": (single, 1), "batch": (batch, BATCH)}.items()
        }
        for kind in ("echo", "synced")
    }
    with processes.door(folder / "door") as door, pinned(processes.LOAD_CORES):
        path = f"/v1/events/{processes.COLLECTION.name}"
        bearer = ("Authorization", f"Bearer {door.token}")
        prepared = request(path, single, [bearer, ("Content-Type", "application/json")])
        figure, load = _http(door.pid, door.http_port, prepared, 1, connections=64)
        yield Result(
            "POST, one event, durable",
            figure,
            "bare ASGI echo",
            limits["echo"]["single"],
            floor=8_000,
            detail={"p99 ms": percentile(load.latencies, 0.99) * 1000},
        )
        prepared = request(path, batch, [bearer, ("Content-Type", "application/x-ndjson")])
        figure, load = _http(door.pid, door.http_port, prepared, BATCH, connections=8)
        yield Result(
            f"POST, NDJSON of {BATCH:,}",
            figure,
            "bare ASGI + fsync",
            limits["synced"]["batch"],
            floor=150_000,
            floor_ratio=0.3,
            detail={"p99 ms": percentile(load.latencies, 0.99) * 1000},
        )
        for size, floor in ((100, None), (BATCH, 150_000)):
            yield Result(
                f"gRPC AddRecord, batch of {size:,}",
                _grpc(door, payloads[:size]),
                floor=floor,
            )


def _limit(kind: str, body: bytes, events: int, folder: Path) -> Figure:
    port = processes.free_port()
    with (
        processes.server(
            ("-m", "benchmarks.limits", kind, str(port), str(folder)), port, folder / "limit.log"
        ) as pid,
        pinned(processes.LOAD_CORES),
    ):
        prepared = request("/v1/events/bench", body, [("Content-Type", "application/json")])
        return _http(pid, port, prepared, events, connections=64 if events == 1 else 8)[0]


def _http(
    pid: int, port: int, prepared: bytes, events: int, *, connections: int
) -> tuple[Figure, Load]:
    figures, load = [], None
    uvloop.run(drive("127.0.0.1", port, prepared, connections=connections, seconds=1.0))
    for _ in range(RUNS):
        before = cpu_of(pid)
        load = uvloop.run(
            drive("127.0.0.1", port, prepared, connections=connections, seconds=SECONDS)
        )
        figures.append(Figure(load.requests * events, load.wall, cpu_of(pid) - before))
    assert load is not None
    return median(figures), load


def _grpc(door: processes.Door, payloads: list[bytes]) -> Figure:
    message = services_pb2.GenericRecordRequest(
        records=[records_pb2.GenericRecord(body=one, source="bench") for one in payloads]
    ).SerializeToString()
    figures = []
    asyncio.run(_calls(door, message, 0.5))
    for _ in range(RUNS):
        before, begun = cpu_of(door.pid), time.perf_counter()
        calls = asyncio.run(_calls(door, message, SECONDS))
        wall = time.perf_counter() - begun
        figures.append(Figure(calls * len(payloads), wall, cpu_of(door.pid) - before))
    return median(figures)


async def _calls(door: processes.Door, message: bytes, seconds: float) -> int:
    """Send the same bytes, already serialised, from a few callers; answer the number of calls."""
    end = time.perf_counter() + seconds
    async with grpc.aio.insecure_channel(f"127.0.0.1:{door.grpc_port}") as channel:
        add = channel.unary_unary(
            "/services.GRPCCollector/AddRecord",
            request_serializer=lambda raw: raw,
            response_deserializer=services_pb2.GenericRecordResponse.FromString,
        )

        async def caller() -> int:
            count = 0
            while time.perf_counter() < end:
                await add(message, metadata=(("batch-token", door.token),))
                count += 1
            return count

        return sum(await asyncio.gather(*(caller() for _ in range(8))))

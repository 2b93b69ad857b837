"""Kill the door at each of its points while a sender sends: what it acknowledged becomes a row.

The real process over real HTTP and gRPC, its log, and a landing that is killed as well.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path

import grpc
import httpx
import pytest
from balance import compare
from door_builders import TOKEN, known
from door_process import door
from evidence.sheet import found, happened
from lakes import MAIN, child, finished, land_in_process, new_lake
from ports import free_ports

from ingest_api.proto import records_pb2, services_pb2, services_pb2_grpc
from penstock.cache import open_cache
from penstock.settings import load_settings

pytestmark = [pytest.mark.crash, pytest.mark.timeout(240)]

DEATHS = (
    *("recv:1", "parsed:6", "before_log:2", "after_log:1", "after_log:7"),
    *("before_ack:1", "before_ack:8", "after_ack:3"),
)
"""The points of an event's way through the door, and at which visit it dies there."""


@dataclass
class Sender:
    """Sends numbered events over HTTP and gRPC in turn, and notes what was acknowledged."""

    http: str
    grpc: str
    numbers: Iterator[int] = field(default_factory=count)
    sent: set[int] = field(default_factory=set)
    acknowledged: dict[int, int | None] = field(default_factory=dict)
    """Where each number is on the log, as far as the answer said so."""

    def until_it_dies(self) -> None:
        """Send until a connection breaks."""
        with httpx.Client(base_url=self.http, trust_env=False) as http:
            try:
                for way in cycle((self.one, self.lines, self.records)):
                    way(http)
            except httpx.TransportError:
                return
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise

    def one(self, http: httpx.Client) -> None:
        self._posted(http, "application/json", self._take(1))

    def lines(self, http: httpx.Client) -> None:
        self._posted(http, "application/x-ndjson", self._take(3))

    def records(self, _http: httpx.Client) -> None:
        numbers = self._take(3)
        records = [records_pb2.GenericRecord(body=payload(number)) for number in numbers]
        with grpc.insecure_channel(self.grpc) as channel:
            door = services_pb2_grpc.GRPCCollectorStub(channel)
            answer = door.AddRecord(
                services_pb2.GenericRecordRequest(records=records),
                metadata=(("batch-token", TOKEN), ("penstock-collection", "flights")),
                timeout=20,
            )
        assert answer.num_records_processed == len(numbers)
        self.acknowledged.update(dict.fromkeys(numbers))

    def again(self) -> None:
        """Send once more what was not acknowledged, as senders do."""
        missing = sorted(self.sent - self.acknowledged.keys())
        with httpx.Client(base_url=self.http, trust_env=False) as http:
            self._posted(http, "application/x-ndjson", missing)

    def _take(self, many: int) -> list[int]:
        numbers = [next(self.numbers) for _ in range(many)]
        self.sent.update(numbers)
        return numbers

    def _posted(self, http: httpx.Client, content_type: str, numbers: list[int]) -> None:
        answer = http.post(
            "/v1/events/flights",
            content=b"\n".join(payload(number) for number in numbers),
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": content_type},
        )
        assert answer.status_code == 202
        [(partition, first, end)] = answer.json()["positions"]
        assert (partition, end - first) == (0, len(numbers))
        self.acknowledged.update(zip(numbers, range(first, end), strict=True))


def payload(number: int) -> bytes:
    return b'{"n": %d}' % number


@pytest.mark.breaks("the door, at each of its points, and the landing after it")
def test_a_door_that_is_killed_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    """F1 to F3: before, in and after each acknowledgement, then a landing killed on top."""
    open_cache(load_settings(tmp_path, {}).cache).publish(known)
    ports = free_ports(2)
    sender = Sender(f"http://127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}")

    for death in DEATHS:
        with door(tmp_path, ports, f"{death}:kill") as process:
            sender.until_it_dies()
            assert process.wait(30) == -signal.SIGKILL
            happened("kills")
    with door(tmp_path, ports, None):
        sender.again()
    for fault, code in (("after_parquet:1:kill", -signal.SIGKILL), (None, 0)):
        landing = child(land_in_process, tmp_path, fault, 1 << 20)
        landing.start()
        assert finished(landing) == code

    table = new_lake(tmp_path).table(MAIN)
    assert table is not None
    rows = table.scan(selected_fields=("payload", "log_offset")).to_arrow().to_pylist()
    places = [(row["log_offset"], row["payload"]) for row in rows]
    # Every position of the log is a row; of most the sender knows which event it is.
    told = dict.fromkeys(range(len(rows))) | {
        offset: payload(number)
        for number, offset in sender.acknowledged.items()
        if offset is not None
    }
    found(tables=compare(told, places))
    times = Counter(row["payload"] for row in rows)
    found(senders=compare(dict.fromkeys(map(payload, sender.sent)), dict.fromkeys(times).items()))
    # What was stored and not acknowledged was sent again: such deaths happened, or nothing was
    # tried here.
    assert max(times.values()) == 2
    assert len(rows) > len(sender.sent) > 2 * len(DEATHS)

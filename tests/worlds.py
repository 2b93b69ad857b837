"""An installation in one process whose ledger lands like everything else."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from builders import FLIGHTS, NOON, event
from lakes import landing, new_lake
from metadata_builders import collection
from ready_store import ready_store
from receiving import Receiver, Reply, Request

from lakehouse.sql import Engine
from penstock.buffer.memory import MemoryLog
from penstock.clock import machine_clock
from penstock.envelope import CollectionId
from penstock.guard import Guard
from penstock.metadata.records import Destination, ReplayRecord
from replay.again import retry_of
from replay.lease import Bounds
from replay.ledger import ATTEMPTS, add_lines
from replay.plan import Plan, Planner, read_plan
from replay.progress import Attempts, read_progress, report
from replay.request import ReplayRequest, read_request, record_of
from replay.run import Tools, run_replay

BOUNDS = Bounds(checkpoint_seconds=0.1, lease_seconds=4.0, lease_margin=1.0, linger_seconds=0.3)


class LogLedger:
    """Puts rows on the log of the ledger, as a door does."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    async def write(self, rows: Sequence[Attempts], *, key: str) -> None:
        body = bytearray()
        for each in rows:
            add_lines(body, each)
        self.put(body.splitlines(), key)

    def put(self, lines: Sequence[bytes], key: str) -> None:
        for number, line in enumerate(lines):
            self._log.append(ATTEMPTS, [event(line, id=f"{key}:{number}")])

    async def close(self) -> None:
        pass


class World:
    """One installation whose ledger lands like everything else."""

    def __init__(self, folder: Path, engine: Engine, receiver: Receiver) -> None:
        self.log = MemoryLog()
        self.lake = new_lake(folder)
        self.engine = engine
        self.store = ready_store(folder)
        self.receiver = receiver
        self.ledger = LogLedger(self.log)
        self.landing = landing(self.log, self.lake)
        self.tools = Tools(
            store=self.store,
            planner=Planner(self.lake, self.log, engine, clock=machine_clock),
            guard=Guard((ip_network("127.0.0.1/32"),), (receiver.port,)),
            open_ledger=lambda: self.ledger,
            wake=self.wake,
            doors=(),
            clock=machine_clock,
            bounds=BOUNDS,
        )
        self.store.create_collection(collection())
        for name in ("d1", "d2"):
            self.store.add_destination(
                Destination(team="main", name=name, url=receiver.url, created_at=NOON)
            )

    def wake(self, which: CollectionId) -> None:
        while self.landing.land_once(which):
            pass

    def append(self, count: int, first: int = 0) -> None:
        for n in range(first, first + count):
            self.log.append(FLIGHTS, [event(b'{"n": %d}' % n, id=f"e{n}", received_at=NOON + n)])

    def ask(self, query: str = "", **more: Any) -> str:
        asked = {"collection": "flights", "query": query, "destination": "d1"}
        return self.asked(read_request({**asked, **more}, team="main"))

    def asked(self, request: ReplayRequest) -> str:
        number = len(self.store.replays("main"))
        self.store.create_replay(record_of(request, id=f"r{number}", now=machine_clock()))
        return f"r{number}"

    def retry(self, replay_id: str, **changes: Any) -> str:
        to = changes.pop("destination", None)
        return self.asked(retry_of(self.record(replay_id), destination=to, changes=changes))

    def run(self, replay_id: str, **tools: Any) -> ReplayRecord:
        done = run_replay(
            replay_id, replace(self.tools, **tools), holder="run", stop=threading.Event()
        )
        assert done is not None
        return done

    def record(self, replay_id: str) -> ReplayRecord:
        return self.store.replay("main", replay_id)

    def received(self) -> Counter[str]:
        """Answer what came since the last time this was asked."""
        found = Counter(str(r.header("penstock-event-id")) for r in self.receiver.requests)
        self.receiver.requests.clear()
        return found

    def refuse(self, wanted: Any) -> None:
        """Let the destination refuse events, by their numbers."""
        self.receiver.answer = lambda request: Reply(422) if wanted(number_of(request)) else Reply()

    def plan(self, request: ReplayRequest) -> Plan:
        return self.tools.planner.plan(request, wake=self.wake)


def number_of(request: Request) -> int:
    return int(str(request.header("penstock-event-id"))[1:])


def books(record: ReplayRecord) -> tuple[int, int, int]:
    assert record.plan is not None
    account = report(
        read_progress(record.progress), matched=read_plan(record.plan).count, ended=True
    )
    return account.matched, account.delivered, account.failed


def names(numbers: Any) -> Counter[str]:
    return Counter(f"e{n}" for n in numbers)

"""A replay's sender as a process of its own, to be killed."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable
from ipaddress import ip_network
from multiprocessing.process import BaseProcess
from pathlib import Path

import structlog
from door_builders import READER, TOKEN
from metadata_builders import KEYS

from lakehouse import open_lake
from lakehouse.sql import open_engine
from penstock import faults
from penstock.buffer import open_buffer
from penstock.clock import machine_clock
from penstock.guard import Guard
from penstock.metadata.store import open_store
from replay.doorway import Doorway
from replay.lease import Bounds
from replay.ledger import DoorLedger
from replay.plan import Planner
from replay.run import Tools, run_replay

MINUTE = 60_000_000

# Importing these takes a second and more; the server that processes are forked from does it once.
PRELOADED = [
    "pytest",
    "assets.landing",
    "lakehouse.upkeep",
    "lakehouse.sql.embedded",
    "penstock.buffer.embedded",
    "replay.run",
]


def send_in_process(
    folder: Path,
    receiver: int,
    door: int,
    bounds: Bounds,
    fault: str | None,
    minutes: int,
    replay_id: str,
    senders: int,
    bug: Callable[[], None] | None,
) -> None:
    """Run the replay as a process of its own would, so many minutes later; `fault` may break it.

    In its time the lease of a sender that was killed has ended. `bug` puts one into the process.
    """
    if bug is not None:
        bug()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    faults.arm(fault)
    buffer = open_buffer(f"embedded://{folder / 'log'}")
    lake = open_lake(f"sqlite:///{folder / 'catalog.db'}", f"file://{folder / 'lake'}")
    store = open_store(f"sqlite:///{folder / 'metadata.db'}", KEYS)
    engine = open_engine(folder / "sql", memory="300MB", threads=1)

    def later() -> int:
        return machine_clock() + minutes * MINUTE

    tools = Tools(
        store=store,
        planner=Planner(lake, buffer, engine, clock=later),
        guard=Guard((ip_network("127.0.0.1/32"),), (receiver,)),
        open_ledger=lambda: DoorLedger(f"http://127.0.0.1:{door}", "pst_secret"),
        wake=lambda _: None,
        doors=(),
        files=folder / "replay-files",
        senders=senders,
        senders_after=0,
        doorway=Doorway(f"http://127.0.0.1:{receiver}", lambda _: TOKEN, tunnels=lambda _: READER),
        clock=later,
        chance=lambda: 0.99,
        bounds=bounds,
    )
    record = run_replay(replay_id, tools, holder=f"process {os.getpid()}")
    assert record is not None
    at_rest = record.state == "running" and bool(record.options.get("continuous"))
    assert at_rest or record.state == "finished", record.error
    engine.close()
    store.close()
    buffer.close()


def sending_process(
    folder: Path,
    receiver: int,
    door: int,
    bounds: Bounds,
    fault: str | None,
    minutes: int,
    replay_id: str = "r1",
    *,
    senders: int = 1,
    bug: Callable[[], None] | None = None,
) -> BaseProcess:
    """Answer a process, not yet started, that runs a replay of the folder."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    arguments = (folder, receiver, door, bounds, fault, minutes, replay_id, senders, bug)
    return context.Process(target=send_in_process, args=arguments)

"""Many clients send a door the worst at once, and one beside them behaves.

What each of them may send is tried by itself in `tests/unit/ingest_api/test_hostile.py`.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from balance import compare
from builders import FLIGHTS
from door_builders import TOKEN, known
from door_process import door
from evidence.sheet import found, happened, measured
from hostile import attack_in_process, read_told
from lakes import child, finished
from ports import free_ports

from penstock.buffer import open_buffer, start_of
from penstock.cache import open_cache
from penstock.settings import load_settings

pytestmark = [
    pytest.mark.crash,
    pytest.mark.timeout(3_600),
    pytest.mark.xdist_group("hostile"),
]

CLIENTS = int(os.environ.get("FAULT_CLIENTS", "16"))
SECONDS = float(os.environ.get("FAULT_SECONDS", "4"))

MIB = 1 << 20
MEMORY_CAP = (400 + CLIENTS) * MIB
"""Of the whole process: as in `test_hostile`, and what each connection has under way."""

PAUSE = 0.02
PATIENCE = 120.0
"""Generous: this machine may be busy. How long it took is in the page."""


class Honest(NamedTuple):
    """What somebody who behaves was told."""

    kept: dict[int, bytes]
    """Where each event is on the log."""
    seconds: list[float]
    """How long each waited for its acknowledgement, tries that were told to wait included."""


def payload(number: int) -> bytes:
    return b'{"honest": %d}' % number


def send_one(http: httpx.Client, number: int) -> int:
    """Send an event until it is acknowledged; answer where it is."""
    while True:
        answer = http.post("/v1/events/flights", content=payload(number))
        if answer.status_code == 202:
            [(partition, first, _)] = answer.json()["positions"]
            assert partition == 0
            return int(first)
        assert answer.status_code == 503, answer.text
        happened("times an honest client was told to wait")
        time.sleep(0.1)


def most_memory(pid: int) -> int:
    """Answer the most memory that the process ever had, in bytes."""
    [kib] = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(kib) * 1024


def on_log(folder: Path, wanted: Collection[int]) -> list[tuple[int, bytes | None]]:
    """Answer where the log has an event, and what those are that are wanted."""
    events: list[tuple[int, bytes | None]] = []
    with closing(open_buffer(f"embedded://{folder / 'log'}")) as log:
        mark, end = start_of(log.log_id(FLIGHTS), 0), log.extents(FLIGHTS)[0].end
        while mark.next < end:
            portion = log.read(FLIGHTS, mark, end=end, max_bytes=64 * MIB)
            offsets, payloads = map(portion.rows.column, ("log_offset", "payload"))
            events += (
                (offset, payloads[row].as_py() if offset in wanted else None)
                for row, offset in enumerate(offsets.to_pylist())
            )
            mark = portion.mark
    return events


@pytest.mark.breaks("nothing: the worst input of many clients at once, and an honest one beside")
def test_the_worst_of_many_at_once_keeps_nobody_from_being_stored(tmp_path: Path) -> None:
    """No 5xx but 503, memory under its cap, and whatever was acknowledged is on the log."""
    open_cache(load_settings(tmp_path, {}).cache).publish(known)
    ports, honest = free_ports(2), Honest({}, [])
    halves = (CLIENTS // 2, CLIENTS - CLIENTS // 2)
    crowd = [
        child(attack_in_process, tmp_path, tuple(ports), many, SECONDS, seed)
        for seed, many in enumerate(halves)
    ]
    with door(tmp_path, ports, None) as process:
        url, headers = f"http://127.0.0.1:{ports[0]}", {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=PATIENCE) as http:
            for one in crowd:
                one.start()
            while any(one.is_alive() for one in crowd):
                begun = time.monotonic()
                offset = send_one(http, len(honest.kept))
                honest.seconds.append(time.monotonic() - begun)
                honest.kept[offset] = payload(len(honest.kept))
                time.sleep(PAUSE)
            assert [finished(one, SECONDS + 300) for one in crowd] == [0, 0]
            send_one(http, len(honest.kept))
        assert process.poll() is None
        memory = most_memory(process.pid)
        process.terminate()
        assert process.wait(PATIENCE) == 0
    told, log = read_told(tmp_path), (tmp_path / "door.log").read_text()

    happened("requests of the worst kind", told.requests)
    honest.seconds.sort()
    slow = honest.seconds[int(len(honest.seconds) * 0.99)]
    measured("ms until 99 of 100 honest events were acknowledged", round(slow * 1_000))
    measured("MiB of memory of the door at the most", memory // MIB)
    failures = {"gRPC INTERNAL", "gRPC UNKNOWN"}
    failures |= {one for one in told.answers if one.startswith("HTTP 5") and one != "HTTP 503"}
    assert failures.isdisjoint(told.answers), told.answers
    assert told.answers, told
    assert memory < MEMORY_CAP
    assert slow < PATIENCE
    assert "unexpectedly" not in log, log
    assert "Traceback" not in log, log

    events = on_log(tmp_path, honest.kept)
    kept = {offset: None for _, first, end in told.kept for offset in range(first, end)}
    found(log=compare(kept | honest.kept, events, known={offset for offset, _ in events}))

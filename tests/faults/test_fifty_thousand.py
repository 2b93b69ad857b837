"""Fifty thousand documents of all kinds, from a log on disk through landing, in bounded memory."""

from __future__ import annotations

from collections import Counter
from itertools import cycle, islice
from pathlib import Path

import pytest
from builders import FLIGHTS, NOON, event
from lakes import begin_process, child, everywhere, finished, new_lake
from msgspec import structs
from ugly import FIXED
from ugly_events import UglyEvents

from assets.landing import Landing, Limits
from penstock.buffer import open_appender, open_buffer
from penstock.schema.convert import Rules
from penstock.vocabulary import Contract

pytestmark = pytest.mark.crash

EVENTS, AT_ONCE = 50_000, 1_000
MOST_MIB = 400
"""Memory that landing may take at most, its libraries included; it took 180."""

CONTRACTS: tuple[Contract, ...] = ("evolve", "freeze", "quarantine", "drop_value")


def accept(folder: Path) -> None:
    """Append the events as a door would; each is on the disk when this returns."""
    appender = open_appender(f"embedded://{folder / 'log'}")
    declared = cycle(["application/json", None])
    for number in range(EVENTS // AT_ONCE):
        made = UglyEvents(number).events(AT_ONCE)
        if number % 10 == 0:
            made[: len(FIXED)] = [event(payload) for payload in FIXED]
        events = [
            structs.replace(one, id=f"e{number}-{n}", content_type=kind)
            for n, (one, kind) in enumerate(zip(made, islice(declared, AT_ONCE), strict=True))
        ]
        appender.append(FLIGHTS, events).result(60)
    appender.close()


def land(folder: Path) -> None:
    """Land everything, each batch under the next contract; leave the most memory it took."""
    begin_process(None)
    buffer = open_buffer(f"embedded://{folder / 'log'}")
    contracts = cycle(CONTRACTS)
    work = Landing(
        buffer,
        new_lake(folder),
        rules=lambda _: Rules(contract=next(contracts)),
        clock=lambda: NOON,
        limits=Limits(batch_bytes=512 << 10),
    )
    batches = 0
    while work.land_once(FLIGHTS):
        batches += 1
    buffer.close()
    status = Path("/proc/self/status").read_text().split()
    peak = int(status[status.index("VmHWM:") + 1]) // 1024
    (folder / "took").write_text(f"{batches} {peak}")


def test_fifty_thousand_documents_of_all_kinds_are_each_in_one_table(tmp_path: Path) -> None:
    """No document stops its collection, none is lost or doubled, and memory stays bounded."""
    accept(tmp_path)
    process = child(land, tmp_path)
    process.start()

    assert finished(process, 240) == 0
    assert everywhere(new_lake(tmp_path)) == Counter(range(EVENTS))
    batches, peak = map(int, (tmp_path / "took").read_text().split())
    assert batches >= 2 * len(CONTRACTS)
    assert peak < MOST_MIB

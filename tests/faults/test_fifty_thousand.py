"""Fifty thousand documents of all kinds, from the log through landing, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path

import pytest
from builders import FLIGHTS, NOON, event
from lakes import PLACES, begin_process, child, finished, log_url, new_lake
from msgspec import structs
from sites import Site, site_at
from ugly import FIXED
from ugly_events import UglyEvents

from assets.landing import Landing, Limits
from penstock.buffer import open_appender, open_buffer
from penstock.envelope import Position
from penstock.schema.convert import Rules
from penstock.vocabulary import Contract

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600)]

EVENTS, AT_ONCE = 50_000, 1_000
MOST_MIB = 400
"""Memory that landing may take at most, its libraries included; it took 180."""

CONTRACTS: tuple[Contract, ...] = ("evolve", "freeze", "quarantine", "drop_value")


@pytest.fixture(params=PLACES)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with site_at(request.param, tmp_path, partitions=2) as site:
        yield site


def accept(folder: Path) -> None:
    """Append the events as a door would; each is durable when this returns."""
    declared = cycle(["application/json", None])
    with closing(open_appender(log_url(folder))) as appender:
        for number in range(EVENTS // AT_ONCE):
            made = UglyEvents(number).events(AT_ONCE)
            if number % 10 == 0:
                made[: len(FIXED)] = [event(payload) for payload in FIXED]
            events = [
                structs.replace(one, id=f"e{number}-{n}", content_type=kind)
                for n, (one, kind) in enumerate(zip(made, islice(declared, AT_ONCE), strict=True))
            ]
            outcomes = appender.append(FLIGHTS, events).result(60)
            assert all(isinstance(outcome, Position) for outcome in outcomes)


def land(folder: Path) -> None:
    """Land everything, each batch under the next contract; leave the most memory it took."""
    begin_process(None)
    buffer = open_buffer(log_url(folder))
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


def test_fifty_thousand_documents_of_all_kinds_are_each_in_one_table(site: Site) -> None:
    """No document stops its collection, none is lost or doubled, and memory stays bounded."""
    accept(site.folder)
    process = child(land, site.folder)
    process.start()

    assert finished(process, 300) == 0
    site.assert_each_once(EVENTS)
    batches, peak = map(int, (site.folder / "took").read_text().split())
    assert batches >= 2 * len(CONTRACTS)
    assert peak < MOST_MIB

"""Kill a release, or the landing of what it sent, at each point; release twice at once.

Each death is a SIGKILL of a process of its own, on this machine's log and lake and on the engines.
After any of them the same release again leaves each event as one row or one open quarantined event.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from builders import FLIGHTS, NOON, event
from lakes import PLACES, begin_process, child, finished, land_in_process, log_url, new_lake, urls
from releasing import AppendingDoor, Books, books, release_all, workplace
from releasing import closings as shut
from sites import Site, site_at

from assets.accounting import read_books
from assets.checks import check_conservation
from assets.landing import Landing, Limits
from lakehouse import Lake, closings
from lakehouse.sql import open_engine
from penstock.buffer import open_appender, open_buffer
from penstock.quarantine.repair import Repair, transform
from penstock.schema.convert import Rules

pytestmark = pytest.mark.crash

EVENTS = 8
BROKEN = {1, 3, 4, 6}
HOPELESS = {6}
IDS = [f"e{number}" for number in range(EVENTS)]
BATCH_BYTES = 40
"""Some four events, so that the log takes several batches."""

DROP_BOM = Repair(steps=(transform("bom"),))


def payload_of(number: int) -> bytes:
    """Answer a payload that is right, one that a repair makes right, or one that is hopeless."""
    if number in HOPELESS:
        return b'{"n": '
    return (b"\xef\xbb\xbf" if number in BROKEN else b"") + f'{{"n": {number}}}'.encode()


@contextmanager
def landed(place: str, folder: Path) -> Iterator[Site]:
    """Let events have landed at the place, some of them in quarantine."""
    with site_at(place, folder) as site:
        appender = open_appender(log_url(folder))
        events = [event(payload_of(n), id=IDS[n], received_at=NOON + n) for n in range(EVENTS)]
        appender.append(FLIGHTS, events).result(10)
        appender.close()
        run(land_in_process, folder, None, BATCH_BYTES)
        assert books(new_lake(folder)).open == Counter(IDS[n] for n in BROKEN)
        yield site


@pytest.fixture(params=PLACES)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with landed(request.param, tmp_path) as site:
        yield site


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """Answer where a bug may be seeded: for that one place is enough."""
    with landed("here", tmp_path) as site:
        yield site.folder


def release_in_process(folder: Path, fault: str | None, release: str) -> None:
    """Release everything that a repair helps, page by page, with a door of its own."""
    begin_process(fault)
    appender = open_appender(log_url(folder))
    buffer = open_buffer(log_url(folder))
    engine = open_engine(folder / f"spill-{os.getpid()}", memory="300MB", s3=urls(folder)[2])
    work = workplace(new_lake(folder), buffer, engine)
    release_all(work, AppendingDoor(appender.append), DROP_BOM, release=release, limit=2)
    engine.close()
    buffer.close()
    appender.close()


def run(target: Callable[..., None], *arguments: Any, ends: int = 0) -> None:
    process = child(target, *arguments)
    process.start()
    assert finished(process, 120) == ends


def assert_released_at(site: Site) -> None:
    """Assert that also the engine which callers ask has each event once, and no copy."""
    after = assert_released(site.folder)
    ids = Counter(event_id for (event_id,) in site.rows("select event_id from flights"))
    assert ids == after.rows
    assert site.landed() == Counter(site.accepted())


def assert_released(folder: Path) -> Books:
    """Each event is there once, all that the repair helps are rows, no position is lost."""
    lake = new_lake(folder)
    buffer = open_buffer(log_url(folder))
    after = books(lake)
    after.each_once(IDS)
    assert after.open == Counter(IDS[n] for n in HOPELESS)
    assert check_conservation(lake, FLIGHTS, buffer.log_id(FLIGHTS)).passed
    # The books of the decision: what is on the log once more than it was sent is closed or a row.
    sent_again = buffer.extents(FLIGHTS)[0].end - EVENTS
    closed = closings.count_closed(lake, FLIGHTS)
    assert after.rows.total() + after.open.total() == EVENTS
    assert (after.closed.total(), closed) == (sent_again, sent_again)
    parts = read_books(buffer, lake, FLIGHTS).parts
    assert (parts["quarantined"], parts["closed"]) == (after.open.total(), closed)
    buffer.close()
    return after


def assert_told(folder: Path) -> None:
    """Assert that what a killed landing left is told as it is, copies on their way included."""
    lake, buffer = new_lake(folder), open_buffer(log_url(folder))
    main = lake.view(FLIGHTS)
    assert main is not None
    told = read_books(buffer, lake, FLIGHTS)
    landed = [
        row
        for row in shut(lake)
        if row["log_offset"] < main.mark(row["log_id"], row["log_partition"]).next
    ]
    assert told.parts["closed"] == len(landed)
    assert told.difference == 0, told.sentence
    # Asked again it is answered from what was found out, and the marks have moved since.
    assert lake.closed_beside(FLIGHTS, main) == len(landed)
    buffer.close()


@pytest.mark.breaks("a release from quarantine, at each of its points")
@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("point", ["release_read", "release_before_send", "release_sent"])
def test_a_release_that_is_killed_is_repeated(site: Site, point: str, nth: int) -> None:
    """After `release_sent` the door has the events and nobody was told."""
    run(release_in_process, site.folder, f"{point}:{nth}:kill", "r1", ends=-signal.SIGKILL)
    run(release_in_process, site.folder, None, "r1")
    run(land_in_process, site.folder, None, BATCH_BYTES)

    assert_released_at(site)


@pytest.mark.breaks("the landing of released events, at each of its points")
@pytest.mark.parametrize(
    ("point", "nth"),
    [
        ("span_read", 1),
        ("release_before_close", 1),
        ("release_closed", 1),
        ("release_before_close", 2),
        ("release_closed", 2),
        ("mid_parquet", 1),
        ("mid_parquet", 2),
        ("before_commit", 1),
        ("after_commit", 1),
        ("before_commit", 2),
        ("after_commit", 2),
        ("after_parquet", 1),
    ],
)
def test_the_landing_of_a_release_that_is_killed_goes_on(site: Site, point: str, nth: int) -> None:
    """Two releases are on the log, so there are copies, and quarantine is written as well."""
    run(release_in_process, site.folder, None, "r1")
    run(release_in_process, site.folder, None, "r2")
    run(land_in_process, site.folder, f"{point}:{nth}:kill", BATCH_BYTES, ends=-signal.SIGKILL)
    assert_told(site.folder)
    run(release_in_process, site.folder, None, "r3")
    run(land_in_process, site.folder, None, BATCH_BYTES)

    assert_released_at(site)


@pytest.mark.breaks("a release and its landing, at one point after the other")
def test_a_release_that_is_killed_again_and_again_comes_to_its_end(site: Site) -> None:
    for point in ("release_sent", "release_before_send:2", "release_sent:2"):
        run(release_in_process, site.folder, f"{point}:kill", "r1", ends=-signal.SIGKILL)
    for point in ("release_closed", "before_commit", "after_commit"):
        process = child(land_in_process, site.folder, f"{point}:1:kill", BATCH_BYTES)
        process.start()
        finished(process, 120)
    run(release_in_process, site.folder, None, "r1")
    run(land_in_process, site.folder, None, BATCH_BYTES)

    assert_released_at(site)


def test_two_landings_of_two_releases_agree_on_one_of_them(site: Site) -> None:
    """Both processes land the same batches at once; each has its own idea of being first."""
    run(release_in_process, site.folder, None, "r1")
    run(release_in_process, site.folder, None, "r2")
    both = [child(land_in_process, site.folder, None, BATCH_BYTES) for _ in range(2)]
    for process in both:
        process.start()
    assert [finished(process, 120) for process in both] == [0, 0]

    assert_released_at(site)


def land_here(folder: Path) -> None:
    """Land in this process, where a test can seed a bug."""
    lake = new_lake(folder)
    buffer = open_buffer(log_url(folder))
    limits = Limits(batch_bytes=BATCH_BYTES)
    landing = Landing(buffer, lake, rules=lambda _: Rules(), clock=lambda: NOON, limits=limits)
    while landing.land_once(FLIGHTS):
        pass
    buffer.close()


def test_the_checker_finds_a_landing_that_folds_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mutant: copies become rows, and what was released stays open."""
    run(release_in_process, here, None, "r1")
    run(release_in_process, here, None, "r2")
    monkeypatch.setattr("assets.landing.settle_releases", lambda _lake, _id, made, **_: made)
    land_here(here)

    with pytest.raises(AssertionError, match=r"more than once: .*e1"):
        assert_released(here)


def test_the_checker_finds_a_closing_that_does_not_look_first(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mutant: whoever closes believes to be the first."""
    run(release_in_process, here, None, "r1")
    run(release_in_process, here, None, "r2")
    monkeypatch.setattr(closings, "_of", lambda _table, _origins: {})
    real = closings.close

    def once(lake: Lake, collection: Any, wanted: Any, **more: Any) -> Any:
        real(lake, collection, wanted, **more)
        return {closing.origin: closing for closing in wanted}

    monkeypatch.setattr(closings, "close", once)
    land_here(here)

    with pytest.raises(AssertionError):
        assert_released(here)


def test_the_checker_finds_an_event_that_was_closed_and_never_sent(here: Path) -> None:
    """A mutant: the quarantine row is closed before the log has the event, and then a crash."""
    lake = new_lake(here)
    buffer = open_buffer(log_url(here))
    origin = closings.Origin(buffer.log_id(FLIGHTS), 0, 1)
    buffer.close()
    closing = closings.Closing(
        origin=origin,
        event_id="e1",
        received_at=NOON + 1,
        state="released",
        closed_at=NOON,
        closed_by="ann",
        to=closings.Origin(origin.log_id, 0, EVENTS),
    )
    closings.close(lake, FLIGHTS, [closing])

    with pytest.raises(AssertionError, match=r"nowhere: \['e1'\]"):
        books(lake).each_once(IDS)

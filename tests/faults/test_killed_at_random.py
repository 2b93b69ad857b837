"""A writer and two landings, killed at moments nobody chose, again and again.

Each is a process of its own. The writer notes what it was told before the next thing it does, so
that what it knew when it was killed is known afterwards.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from balance import Place, Row, Sent, compare, look, totals
from builders import FLIGHTS, NOON, event
from evidence.sheet import found
from lakes import begin_process, child, finished, land_in_process, landing, new_lake, stored
from sending import payload, until

from assets.checks import check_conservation
from assets.landing import Limits
from assets.stats import count_from_lake
from penstock.buffer import open_appender, open_buffer
from penstock.errors import Unavailable
from penstock.stats import open_stats

pytestmark = [pytest.mark.crash, pytest.mark.timeout(3_600)]

ROUNDS = int(os.environ.get("FAULT_KILLS", "2"))
"""So often all three are killed."""

TOGETHER = 5
MOST_LIVED = 400
"""Events that a writer has acknowledged, at most, before somebody is killed."""


def write_in_process(folder: Path, first: int) -> None:
    """Append numbered events until killed; note what goes out, and what came back."""
    begin_process(None)
    notes = os.open(folder / "notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with closing(open_appender(f"embedded://{folder / 'log'}")) as appender:
        for start in count(first, TOGETHER):
            numbers = range(start, start + TOGETHER)
            events = [event(payload(n), id=f"e{n}", received_at=NOON + n) for n in numbers]
            os.write(notes, b"sent %d 0\n" % start)
            [place, *_] = appender.append(FLIGHTS, events).result(30)
            os.write(notes, b"kept %d %d\n" % (start, place.offset))


def land_on_in_process(folder: Path, batch_bytes: int) -> None:
    """Land what comes until killed."""
    begin_process(None)
    with closing(open_buffer(f"embedded://{folder / 'log'}")) as log:
        limits = Limits(batch_bytes=batch_bytes, patience=0)
        work = landing(log, new_lake(folder), limits=limits)
        while True:
            try:
                if work.land_once(FLIGHTS) is None:
                    time.sleep(0.01)
            except Unavailable:  # the other one was faster for too long
                continue


def noted(folder: Path, what: str) -> Iterator[tuple[int, int]]:
    """Answer what the writers noted, number and offset of the first of each batch."""
    file = folder / "notes"
    for line in file.read_text().splitlines() if file.exists() else ():
        said, number, offset = line.split()
        if said == what:
            yield int(number), int(offset)


def known(folder: Path) -> Sent:
    """Answer what senders know after all that."""
    sent = Sent()
    for number, _ in noted(folder, "sent"):
        sent.tries.update(range(number, number + TOGETHER))
    for number, offset in noted(folder, "kept"):
        sent.kept += [(number + n, (0, offset + n)) for n in range(TOGETHER)]
    return sent


@pytest.mark.breaks("the log's writer and two landings, again and again at random moments")
def test_whoever_is_killed_whenever_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    """The moments nobody thought of a name for, under load."""
    chance = random.Random(7)
    for number in range(ROUNDS):
        before = len(known(tmp_path).kept)
        enough = before + chance.randrange(MOST_LIVED)
        processes = [
            child(write_in_process, tmp_path, number * 1_000_000),
            child(land_on_in_process, tmp_path, 3_000),
            child(land_on_in_process, tmp_path, 5_000),
        ]
        for process in processes:
            process.start()
        until(lambda n=enough: len(known(tmp_path).kept) > n, "nobody writes", seconds=600.0)
        for process in chance.sample(processes, len(processes)):
            time.sleep(chance.random() * 0.05)
            process.kill()
            finished(process)
    last = child(land_in_process, tmp_path, None, 1 << 20)
    last.start()
    assert finished(last) == 0

    lake, sent = new_lake(tmp_path), known(tmp_path)
    with (
        closing(open_buffer(f"embedded://{tmp_path / 'log'}")) as log,
        closing(open_stats(f"sqlite:///{tmp_path / 'stats.db'}")) as stats,
    ):
        log_id, end = log.log_id(FLIGHTS), log.extents(FLIGHTS)[0].end
        assert check_conservation(lake, FLIGHTS, log_id).passed
        count_from_lake(stats, lake, FLIGHTS, clock=lambda: NOON)
        minutes = stats.steps(FLIGHTS, NOON - 60_000_000, NOON + 10**12, 60_000_000)
    held = stored(lake)
    told = {offset: payload(number) for number, (_, offset) in sent.kept}
    found(
        tables=compare(told, held, known=set(range(end))),
        positions=look(
            sent, log_id, {0: end}, [Row(Place(log_id, 0, o), n_of(p)) for o, p in held]
        ),
        statistics=totals(end, sum(minute.events for minute in minutes)),
    )
    assert end >= len(sent.kept) > 0


def n_of(stored_payload: bytes) -> int:
    """Answer the number of an event."""
    return int(stored_payload.removeprefix(b'{"n": ').removesuffix(b"}"))

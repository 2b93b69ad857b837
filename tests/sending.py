"""Numbered events: sent to a door while a test wants load on it, and counted afterwards."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count
from typing import NamedTuple

import httpx
from balance import Place, Row, Sent, look, totals
from evidence.sheet import found
from installing import Installation

from lakehouse.catalog import main_table, quarantine_table
from penstock.buffer import open_buffer
from penstock.envelope import CollectionId

PER_BATCH = 100

UNANSWERED = 0
"""Instead of a status, where the connection broke or there was none."""

_STORED = 202
_AGAIN_SECONDS = 0.1
_BEHIND_SECONDS = 5.0
_NUMBER = re.compile(rb"\d+")

# Every so many events one is no JSON, so that both tables have a part in the books.
_BROKEN_EVERY = 50


class Answer(NamedTuple):
    """How one request was answered."""

    status: int
    seconds: float
    says_when: bool
    """Whether it says after which time to try again."""


class Sender:
    """Sends numbered events to a collection, each again until it is acknowledged."""

    def __init__(
        self, door: str, token: str, collection: str, *, make: Callable[[int], bytes] | None = None
    ) -> None:
        """Send what `make` says for a number, `payload` where it is left out.

        The number is the first one in it.
        """
        self.collection = collection
        self._make = make or payload
        self.sent = Sent()
        self.answers: list[Answer] = []
        self.under_way = 0
        self._url = f"{door}/v1/events/{collection}"
        # A connection for each request: one that was kept open says little of a door that died.
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/x-ndjson"},
            limits=httpx.Limits(max_keepalive_connections=0),
            timeout=30,
            trust_env=False,
        )
        self._starts = count(step=PER_BATCH)
        self._guard = threading.Lock()

    @property
    def acknowledged(self) -> int:
        """How many events the door said to keep."""
        return len(self.sent.kept)

    @property
    def statuses(self) -> list[int]:
        """What was answered, in the order of the answers."""
        return [answer.status for answer in self.answers]

    def send(self, numbers: Sequence[int]) -> Sequence[int]:
        """Send these once, in one request; answer those that were not acknowledged."""
        with self._guard:
            self.sent.tries.update(numbers)
            self.under_way += 1
        begun = time.monotonic()
        try:
            got = self._client.post(self._url, content=b"\n".join(map(self._make, numbers)))
        except httpx.TransportError:
            got = None
        status = UNANSWERED if got is None else got.status_code
        says_when = got is not None and "retry-after" in got.headers
        kept = [] if got is None or status != _STORED else acknowledged(numbers, got.json())
        with self._guard:
            self.under_way -= 1
            self.answers.append(Answer(status, time.monotonic() - begun, says_when))
            self.sent.kept += kept
        there = {number for number, _ in kept}
        return [number for number in numbers if number not in there]

    @contextmanager
    def sending(
        self, *, threads: int, pause: float = 0.0, rate: float | None = None
    ) -> Iterator[None]:
        """Keep load on the door for the block: batch after batch, with a pause between them.

        With a `rate` it is so many events a second of all threads, as far as the door keeps up.
        """
        stop = threading.Event()
        apart = threads * PER_BATCH / rate if rate else 0.0

        def go_on() -> None:
            due = time.monotonic()
            while not stop.wait(max(0.0, due - time.monotonic()) if rate else pause):
                # What a door that was away for long has missed is not made up for all at once.
                due = max(due + apart, time.monotonic() - _BEHIND_SECONDS)
                start = next(self._starts)
                left: Sequence[int] = range(start, start + PER_BATCH)
                while (left := self.send(left)) and not stop.wait(_AGAIN_SECONDS):
                    pass

        working = [threading.Thread(target=go_on) for _ in range(threads)]
        for thread in working:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in working:
                thread.join()

    def wait_for(self, events: int, *, seconds: float = 60.0) -> None:
        """Wait until so many events more are acknowledged."""
        enough = self.acknowledged + events
        until(lambda: self.acknowledged >= enough, "the door does not acknowledge", seconds=seconds)


def payload(number: int) -> bytes:
    """Answer a numbered event; some are no JSON."""
    return b'{"n": %d' % number + b"}" * (number % _BROKEN_EVERY != 0)


def acknowledged(
    numbers: Sequence[int], said: dict[str, list]
) -> list[tuple[int, tuple[int, int]]]:
    """Answer which of a batch's events the door said to keep, and where."""
    stored: Sequence[int] = numbers
    if outcomes := said.get("outcomes"):
        told = zip(numbers, outcomes, strict=True)
        stored = [number for number, one in told if one["status"] == _STORED]
    places = [(at, n) for at, first, end in said["positions"] for n in range(first, end)]
    return list(zip(stored, places, strict=True))


def assert_balanced(here: Installation, sender: Sender) -> None:
    """Wait until everything has landed, and compare senders, log, tables, SQL and search."""
    status = here.landed(sender.collection)
    name = CollectionId("main", sender.collection)
    with closing(open_buffer(here.settings().log)) as buffer:
        ends = {partition: extent.end for partition, extent in buffer.extents(name).items()}
        log_id = buffer.log_id(name)
    main, quarantine = rows_of(here, main_table(name)), rows_of(here, quarantine_table(name))

    found(tables=look(sender.sent, log_id, ends, main + quarantine))
    assert (status.rows, status.quarantined) == (len(main), len(quarantine))
    assert sum(ends.values()) == status.rows + status.quarantined
    assert quarantine, "nothing was there to be quarantined"
    with here.client() as client:
        [[asked]] = client.sql(f"select count(*) from {sender.collection}").rows
        searched = client.count(sender.collection).count
    found(sql=totals(status.rows, asked), search=totals(status.rows, searched))


def rows_of(here: Installation, table: tuple[str, str]) -> list[Row]:
    """Answer where each row of a table was on the log, and its number."""
    columns = ("payload", "log_id", "log_partition", "log_offset")
    rows = here.lake().table(table).scan(selected_fields=columns).to_arrow().to_pylist()
    return [
        Row(
            Place(row["log_id"], row["log_partition"], row["log_offset"]),
            int(_NUMBER.search(row["payload"])[0]),
        )
        for row in rows
    ]


def until(true: Callable[[], bool], otherwise: str, *, seconds: float = 60.0) -> None:
    """Wait until it is so; fail with these words if it does not become so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)

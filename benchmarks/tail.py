"""Live tails of a whole installation: how late an event is shown, and what tails cost.

`penstock up` on a fresh home, a client that sends 1,000 events a second and notes when each was
acknowledged, and tails that note when each is shown. Landing goes on beside it.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.data import nested
from benchmarks.installation import cpu_of_programs, programs_of, up
from benchmarks.measure import Facts, percentile
from penstock.client import Client
from penstock.client.tail import Shown

PER_SECOND = 1_000
SECONDS = 20.0
LATE_SECONDS = 0.5
"""Within so long of its acknowledgement 95 of 100 events are to be shown."""

_BATCH = 20
_BODIES = 1_000
_COLLECTION = "tailed"
_IDLE_SECONDS = 10.0
_AWAY_SECONDS = 60.0
_PATIENCE_SECONDS = 30.0

_QUERIES = {
    "everything": "",
    "a field": "n:>=0",
    "a free word": "order",
}

_SOME = 50
"""Of a thousand events so many are shown to each of many tails: a client reads some thousands a
second, and it is the platform that is measured."""


def results(folder: Path) -> Iterator[Facts]:
    """Measure one tail of each kind, then many of one kind, then many at rest."""
    with up(folder) as (supervisor, what), Client(what["platform"], what["token"]) as client:
        client.create_collection(_COLLECTION)
        programs = programs_of(supervisor)
        sender = Sender(what)
        sender.send(2.0)
        for name, query in _QUERIES.items():
            yield _measured(f"one tail: {name}", what, programs, sender, [query])
        yield _away(what, sender)
        some = f"sequence:<{_SOME}"
        yield _measured("20 tails: one question", what, programs, sender, [some] * 20, _SOME)
        different = [f"{some} AND n:>={-number}" for number in range(10)]
        yield _measured("10 tails: ten questions", what, programs, sender, different, _SOME)
        with _tails(what, [some] * 20) as tails:
            before = cpu_of_programs(programs)["platform"]
            time.sleep(_IDLE_SECONDS)
            spent = cpu_of_programs(programs)["platform"] - before
            yield Facts(
                "20 tails at rest",
                {"platform: share of a core": spent / _IDLE_SECONDS, "tails": len(tails)},
            )


def _measured(
    title: str,
    what: Mapping[str, str],
    programs: dict[str, int],
    sender: Sender,
    queries: list[str],
    shown: int = _BODIES,
) -> Facts:
    """Send beside tails that show so many of each thousand events."""
    with _tails(what, queries) as tails:
        first = sender.next
        before = cpu_of_programs(programs)["platform"]
        took = sender.send(SECONDS)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        sent = range(first, sender.next)
        wanted = [n for n in sent if n % _BODIES < shown]
        while time.monotonic() < deadline and any(len(t.shown) < len(wanted) for t in tails):
            time.sleep(0.1)
        spent = cpu_of_programs(programs)["platform"] - before
    late = [
        tail.shown[n] - sender.acknowledged[n] for tail in tails for n in wanted if n in tail.shown
    ]
    missed = sum(n not in tail.shown for tail in tails for n in wanted)
    doubled = sum(count > 1 for tail in tails for count in tail.counts.values())
    short = []
    if missed or doubled:
        short.append(f"{missed} missed, {doubled} shown twice")
    p95 = percentile(late, 0.95) if late else float("inf")
    if p95 > LATE_SECONDS:
        short.append(f"{p95 * 1000:.0f} ms at p95, not {LATE_SECONDS * 1000:.0f}")
    return Facts(
        title,
        {
            "events a second": len(sent) / took,
            "of them shown": len(wanted) / took,
            "ms from acknowledged to shown p50": percentile(late, 0.5) * 1000 if late else p95,
            "p95": p95 * 1000,
            "p99": percentile(late, 0.99) * 1000 if late else p95,
            "platform: share of a core": spent / took,
        },
        short,
    )


def _away(what: Mapping[str, str], sender: Sender) -> Facts:
    """Let go of a tail, come back a minute later where it was, and see whether all is there."""
    first = sender.next
    with _tails(what, [""]) as [before]:
        sender.send(2.0)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while len(before.shown) < sender.next - first and time.monotonic() < deadline:
            time.sleep(0.05)
    sender.send(_AWAY_SECONDS)
    begun = time.monotonic()
    after = Tail(what, "", after=before.position)
    wanted = range(first, sender.next)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while len({*before.shown, *after.shown}) < len(wanted) and time.monotonic() < deadline:
        time.sleep(0.05)
    took = time.monotonic() - begun
    after.end()
    after.join()
    counts = before.counts + after.counts
    missed = sum(n not in counts for n in wanted)
    doubled = sum(counts[n] > 1 for n in wanted)
    wrong = [f"{missed} missed, {doubled} shown twice"] if missed or doubled else []
    return Facts(
        f"one tail: {_AWAY_SECONDS:.0f} s away",
        {
            "events meanwhile": len(after.shown),
            "seconds until all were shown": took,
            "missed": missed,
            "shown twice": doubled,
        },
        wrong,
    )


class Sender:
    """Sends batches at an even pace; remembers when each event was acknowledged."""

    def __init__(self, what: Mapping[str, str]) -> None:
        self._url = f"{what['door']}/v1/events/{_COLLECTION}"
        self._headers = {
            "Authorization": f"Bearer {what['token']}",
            "Content-Type": "application/x-ndjson",
        }
        self._bodies = nested(_BODIES)
        self.next = 0
        self.acknowledged: dict[int, float] = {}

    def send(self, seconds: float) -> float:
        """Send for so long; answer how long it took."""
        begun = time.monotonic()
        with httpx.Client(headers=self._headers, timeout=30) as client:
            for batch in range(int(seconds * PER_SECOND / _BATCH)):
                pause = begun + batch * _BATCH / PER_SECOND - time.monotonic()
                if pause > 0:
                    time.sleep(pause)
                numbers = range(self.next, self.next + _BATCH)
                body = b"\n".join(b'{"n":%d,' % n + self._bodies[n % _BODIES][1:] for n in numbers)
                client.post(self._url, content=body).raise_for_status()
                self.acknowledged.update(dict.fromkeys(numbers, time.monotonic()))
                self.next += _BATCH
        return time.monotonic() - begun


class Tail:
    """Notes when each event was shown."""

    def __init__(self, what: Mapping[str, str], query: str, *, after: str | None = None) -> None:
        self.position = after
        """Behind what was shown last."""
        self.shown: dict[int, float] = {}
        self.counts: Counter[int] = Counter()
        self.ready = threading.Event()
        self._what = what
        self._query = query
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Let go at the next message; the platform sends one every ten seconds."""
        self._ended.set()

    def join(self) -> None:
        """Wait until it has let go."""
        self._thread.join(_PATIENCE_SECONDS)

    def _follow(self) -> None:
        with Client(self._what["platform"], self._what["token"]) as client:
            for message in client.tail(_COLLECTION, self._query, after=self.position):
                now = time.monotonic()
                self.position = message.position or self.position
                self.ready.set()
                if isinstance(message, Shown):
                    n = json.loads(message.event.payload_bytes())["n"]
                    self.shown.setdefault(n, now)
                    self.counts[n] += 1
                if self._ended.is_set():
                    return


@contextmanager
def _tails(what: Mapping[str, str], queries: list[str]) -> Iterator[list[Tail]]:
    tails = [Tail(what, query) for query in queries]
    for tail in tails:
        tail.ready.wait(_PATIENCE_SECONDS)
    try:
        yield tails
    finally:
        for tail in tails:
            tail.end()
        for tail in tails:
            tail.join()

"""Hundreds of collections at once: `penstock up`, and ten events a second into each of them.

Rows become visible in SQL some time after their acknowledgement: a client asks for the count of
rows again and again, and knows when each event was acknowledged. What has not landed is found all
the same: another client searches for events right after their acknowledgement.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil

from assets.upkeep import Notes
from benchmarks.data import nested
from benchmarks.installation import cpu_of_programs, memory_of, programs_of, share_of, up
from benchmarks.load import request
from benchmarks.measure import Facts, percentile
from orchestration.memory import recall
from penstock.client import Client
from penstock.clock import machine_clock
from penstock.envelope import DEFAULT_TEAM, CollectionId

COLLECTIONS = 300
EVENTS = 10
"""Of each collection, each second, in one request."""
SECONDS = 360.0
SHORT_COLLECTIONS = 30
SHORT_SECONDS = 90.0

VISIBLE_SECONDS = 60.0
"""Within so long 99 of 100 rows are to be visible in SQL, from their acknowledgement."""

_CONNECTIONS = 16
_WATCHED = 20
_ASKED_AT_ONCE = 10
_ASK_EVERY = 3.0
"""Seconds from one statement to the next: asking must not be what the machine is busy with."""
_SEARCH_EVERY = 1.0
_LOOK_EVERY = 5.0
_PATIENCE_SECONDS = 600.0


def results(folder: Path) -> Iterator[Facts]:
    """Measure with hundreds of collections: some ten minutes."""
    yield from measured(folder, collections=COLLECTIONS, seconds=SECONDS)


def short(folder: Path) -> Iterator[Facts]:
    """Measure with a tenth of them, for a minute or two."""
    yield from measured(folder, collections=SHORT_COLLECTIONS, seconds=SHORT_SECONDS)


def measured(folder: Path, *, collections: int, seconds: float) -> Iterator[Facts]:
    """Start everything, make the collections, send, watch, and count in the end."""
    folder.mkdir(exist_ok=True)
    names = [f"c{number:04d}" for number in range(collections)]
    title = f"many: {collections} collections"
    with up(folder) as (supervisor, what), Client(what["platform"], what["token"]) as client:
        begun = time.monotonic()
        for name in names:
            client.create_collection(name)
        made = time.monotonic() - begun
        sender = Sender(what, names)
        asyncio.run(sender.send(seconds=1.0))
        _until(lambda: _landed(client, sender.acknowledged), "the first events did not land")
        yield Facts(
            f"{title}: the first second",
            {"seconds to make them": made, "seconds until all have landed": _since(begun) - made},
        )

        watch = Watch(what, sender, names)
        usage = Usage(programs_of(supervisor))
        upkeep = Upkeep(folder / "home", names)
        with upkeep.running(after=seconds / 3), watch.asking(), usage.measured():
            asyncio.run(sender.send(seconds=seconds))
        load, late = sender.latencies[1 * collections :], time.monotonic()
        yield Facts(
            f"{title}: events",
            {
                "sent a second": len(load) * EVENTS / sender.took,
                "ms to the acknowledgement p50": percentile(load, 0.5) * 1000,
                "p99": percentile(load, 0.99) * 1000,
            },
            [] if sender.took < seconds * 1.05 else [f"took {sender.took:.0f} s of {seconds:.0f}"],
        )
        yield watch.visible(title)
        yield watch.searched(title)
        yield usage.used(title)
        yield upkeep.told(title)
        yield _looked_at(title, folder / "home", client, usage)
        yield _counted(title, client, sender, late)


class Sender:
    """Sends a batch to each collection each second, and remembers when it was acknowledged."""

    def __init__(self, what: dict[str, str], names: Sequence[str]) -> None:
        address = urlsplit(what["door"])
        self._host, self._port = address.hostname or "", address.port or 0
        headers = [
            ("Authorization", f"Bearer {what['token']}"),
            ("Content-Type", "application/x-ndjson"),
        ]
        payloads = nested(EVENTS * 100)
        bodies = [b"\n".join(payloads[at : at + EVENTS]) for at in range(0, len(payloads), EVENTS)]
        self._requests = {
            name: request(f"/v1/events/{name}", bodies[number % len(bodies)], headers)
            for number, name in enumerate(names)
        }
        self.acknowledged: dict[str, list[tuple[int, float]]] = {name: [] for name in names}
        """For each collection the count of events so far, and when the last was acknowledged."""
        self.latencies: list[float] = []
        self.took = 0.0

    async def send(self, *, seconds: float) -> None:
        """Send for so long; each collection has its moment in every second."""
        begun = time.monotonic()
        names = list(self._requests)
        async with asyncio.TaskGroup() as group:
            for number in range(_CONNECTIONS):
                mine = names[number::_CONNECTIONS]
                group.create_task(self._send(mine, begun, number / _CONNECTIONS, round(seconds)))
        self.took = time.monotonic() - begun

    async def _send(self, names: Sequence[str], begun: float, offset: float, rounds: int) -> None:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        for number in range(rounds):
            for place, name in enumerate(names):
                due = begun + number + (place + offset) / max(1, len(names))
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                sent = time.monotonic()
                writer.write(self._requests[name])
                status = await _answer(reader)
                now = time.monotonic()
                if status != b"202":
                    raise RuntimeError(f"the door answered {status.decode()}")
                self.latencies.append(now - sent)
                self.note(name, EVENTS, now)
        writer.close()
        await writer.wait_closed()

    def note(self, name: str, events: int, at: float) -> None:
        """Remember that so many events more were acknowledged."""
        known = self.acknowledged[name]
        known.append(((known[-1][0] if known else 0) + events, at))


async def _answer(reader: asyncio.StreamReader) -> bytes:
    """Read an answer; answer its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            await reader.readexactly(int(line[15:]))
    return head[9:12]


class Watch:
    """What clients see while events are sent."""

    def __init__(self, what: dict[str, str], sender: Sender, names: Sequence[str]) -> None:
        self._what = what
        self._sender = sender
        # Searches send events of their own, elsewhere: whose order of events is then not known.
        self._watched = names[:: max(2, len(names) // _WATCHED)]
        self._searched = [name for name in names if name not in set(self._watched)]
        self._seen = {name: len(sender.acknowledged[name]) for name in self._watched}
        self._lags: list[float] = []
        self._questions: list[float] = []
        self._searches: list[float] = []
        self._missed: list[str] = []
        self._ended = threading.Event()
        self._errors: list[str] = []

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask in two threads while the block runs, and until what was watched is visible."""
        counting = threading.Thread(target=self._guarded, args=(self._count,))
        searching = threading.Thread(target=self._guarded, args=(self._search,))
        counting.start()
        searching.start()
        try:
            yield
        finally:
            self._ended.set()
            searching.join()
            counting.join()

    def visible(self, title: str) -> Facts:
        """Say how long rows took to be visible."""
        short = list(self._errors)
        p99 = percentile(self._lags, 0.99) if self._lags else float("inf")
        if p99 > VISIBLE_SECONDS:
            short.append(f"{p99:.0f} s at p99, not {VISIBLE_SECONDS:.0f}")
        return Facts(
            f"{title}: seconds until rows are visible in SQL",
            {
                "p50": percentile(self._lags, 0.5) if self._lags else p99,
                "p99": p99,
                "most": max(self._lags, default=p99),
                "rows": len(self._lags) * EVENTS,
                "collections watched": len(self._watched),
                f"ms of a statement over {_ASKED_AT_ONCE} of them": percentile(self._questions, 0.5)
                * 1000,
            },
            short,
        )

    def searched(self, title: str) -> Facts:
        """Say how long a search took that began right after the acknowledgement."""
        return Facts(
            f"{title}: ms of a search right after the acknowledgement",
            {
                "p50": percentile(self._searches, 0.5) * 1000,
                "p99": percentile(self._searches, 0.99) * 1000,
                "searches": len(self._searches),
                "that missed": len(self._missed),
            },
            self._missed[:3],
        )

    def _guarded(self, work: Callable[[Client], None]) -> None:
        try:
            with Client(self._what["platform"], self._what["token"]) as client:
                work(client)
        except Exception as error:  # noqa: BLE001 - the benchmark goes on, and says so
            self._errors.append(f"a client ended: {error!r}")

    def _count(self, client: Client) -> None:
        """Ask for counts of rows, some collections at a time."""
        end: float | None = None
        while end is None or (time.monotonic() < end and self._behind()):
            if self._ended.is_set() and end is None:
                end = time.monotonic() + _PATIENCE_SECONDS
            for at in range(0, len(self._watched), _ASKED_AT_ONCE):
                begun = time.monotonic()
                some = self._watched[at : at + _ASKED_AT_ONCE]
                statement = " UNION ALL ".join(
                    f"SELECT '{name}' AS name, count(*) AS events FROM {name}" for name in some
                )
                rows = client.sql(statement).rows
                now = time.monotonic()
                self._questions.append(now - begun)
                for name, count in rows:
                    self._note(str(name), int(count), now)
                time.sleep(max(0.0, _ASK_EVERY - (time.monotonic() - begun)))

    def _behind(self) -> bool:
        known = self._sender.acknowledged
        return any(self._seen[name] < len(known[name]) for name in self._watched)

    def _note(self, name: str, count: int, now: float) -> None:
        known = self._sender.acknowledged[name]
        place = self._seen[name]
        while place < len(known) and known[place][0] <= count:
            self._lags.append(now - known[place][1])
            place += 1
        self._seen[name] = place

    def _search(self, client: Client) -> None:
        """Send an event with a word that no other has, and search for it at once."""
        chance = random.Random(11)
        headers = {
            "Authorization": f"Bearer {self._what['token']}",
            "Content-Type": "application/json",
        }
        [payload] = nested(1)
        number = 0
        with httpx.Client(
            base_url=self._what["door"], headers=headers, timeout=60.0, trust_env=False
        ) as door:
            while not self._ended.wait(_SEARCH_EVERY):
                name, word = chance.choice(self._searched), f"needle{number:06d}"
                number += 1
                body = payload.replace(b"neighbour", word.encode())
                door.post(f"/v1/events/{name}", content=body).raise_for_status()
                now = time.monotonic()
                self._sender.note(name, 1, now)
                found = client.search(name, word).events
                self._searches.append(time.monotonic() - now)
                if len(found) != 1:
                    self._missed.append(f"{word} in {name} was found {len(found)} times")


@dataclass
class Usage:
    """CPU and memory of the programs, the code server's runs apart from itself."""

    programs: dict[str, int]
    seconds: float = 0.0
    busy: float = 0.0
    """CPU-seconds of the whole machine: clients and engines, too."""
    cpu: dict[str, float] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Measure while the block runs."""
        ended = threading.Event()
        thread = threading.Thread(target=self._looking, args=(ended,))
        before, busy, begun = self._cpu(), _busy(), time.monotonic()
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.seconds, self.busy = time.monotonic() - begun, _busy() - busy
            after = self._cpu()
            self.cpu = {name: after[name] - before[name] for name in after}

    def used(self, title: str) -> Facts:
        """Say what each used, CPU as a share of one core, memory in MB."""
        figures: dict[str, float] = {
            "all: CPU": sum(self.cpu.values()) / self.seconds,
            "MB": round(sum(self.memory.values()) / 1e6),
            "CPU of the machine, with clients and engines": self.busy / self.seconds,
        }
        for name, spent in self.cpu.items():
            figures[f"{name}: CPU"] = spent / self.seconds
            figures[f"{name}: MB"] = round(self.memory[name] / 1e6)
        return Facts(f"{title}: use", figures)

    def _looking(self, ended: threading.Event) -> None:
        while not ended.wait(_LOOK_EVERY):
            memory = memory_of(self.programs)
            memory["its runs"] = memory["code-server"]
            memory["code-server"] = share_of(psutil.Process(self.programs["code-server"]))
            memory["its runs"] -= memory["code-server"]
            self.memory = max(self.memory, memory, key=lambda held: sum(held.values()))

    def _cpu(self) -> dict[str, float]:
        cpu = cpu_of_programs(self.programs)
        own = sum(psutil.Process(self.programs["code-server"]).cpu_times()[:2])
        return {**cpu, "code-server": own, "its runs": cpu["code-server"] - own}


def _busy() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


class Upkeep:
    """One upkeep of everything while events are sent, beside that of the schedule."""

    def __init__(self, home: Path, names: Sequence[str]) -> None:
        self._home = home
        self._names = [CollectionId(DEFAULT_TEAM, name) for name in names]
        self._seconds = self._cpu = 0.0
        self._begun = 0

    @contextmanager
    def running(self, *, after: float) -> Iterator[None]:
        """Begin it after so many seconds of the block; the block ends when it has."""
        ended = threading.Event()
        thread = threading.Thread(target=self._run, args=(after, ended))
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _run(self, after: float, ended: threading.Event) -> None:
        ended.wait(after)
        self._begun = machine_clock()
        begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        # Where that of the schedule is at work this one says so, and that one is as good.
        subprocess.run(
            [sys.executable, "-m", "penstock", "upkeep", "--home", str(self._home), "--json"],
            capture_output=True,
            check=False,
        )
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
        while self._untended() and _since(begun) < _PATIENCE_SECONDS and not ended.is_set():
            time.sleep(1.0)
        self._seconds = _since(begun)

    def _untended(self) -> list[CollectionId]:
        notes = recall(self._home / "upkeep.json", Notes)
        earliest = self._begun - 600 * 1_000_000
        return [one for one in self._names if notes.get(one, Notes()).tended < earliest]

    def told(self, title: str) -> Facts:
        """Say how many collections it came to, and how long that took."""
        untended = self._untended()
        return Facts(
            f"{title}: upkeep",
            {
                "collections tended": len(self._names) - len(untended),
                "seconds": self._seconds,
                "CPU-s": self._cpu,
            },
            [f"{len(untended)} collections were not tended"] if untended else [],
        )


def _looked_at(title: str, home: Path, client: Client, usage: Usage) -> Facts:
    """Say what a look at everything costs: the command, and a scrape."""
    platform = {"platform": usage.programs["platform"]}
    figures: dict[str, float] = {}
    # The first scrape: what it found is remembered for a while.
    looks: dict[str, Callable[[], object]] = {
        "scrape": client.collection_metrics,
        "penstock status": lambda: _status(home),
    }
    for name, look in looks.items():
        before, begun = cpu_of_programs(platform)["platform"], time.monotonic()
        look()
        figures[f"{name}: seconds"] = _since(begun)
        figures[f"{name}: CPU-s of the platform"] = cpu_of_programs(platform)["platform"] - before
    return Facts(f"{title}: a look at all", figures)


def _status(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "penstock", "status", "--home", str(home), "--json"],
        capture_output=True,
        check=False,
    )
    json.loads(done.stdout)


def _counted(title: str, client: Client, sender: Sender, since: float) -> Facts:
    """Wait until everything has landed, then count each collection's rows."""
    sent = {name: known[-1][0] for name, known in sender.acknowledged.items()}
    _until(lambda: _landed(client, sender.acknowledged), "not everything has landed")
    seconds = _since(since)
    wrong = []
    for name, events in sent.items():
        [[rows, ids]] = client.sql(f"SELECT count(*), count(DISTINCT event_id) FROM {name}").rows
        if (rows, ids) != (events, events):
            wrong.append(f"{name}: {events} acknowledged, {rows} rows, {ids} ids")
    return Facts(
        f"{title}: in the end",
        {
            "events acknowledged": sum(sent.values()),
            "seconds until all had landed": seconds,
            "collections whose rows are not those": len(wrong),
        },
        wrong[:3],
    )


def _landed(client: Client, acknowledged: dict[str, list[tuple[int, float]]]) -> bool:
    rows = {one.name: one.rows for one in client.status().collections}
    return all(rows.get(name) == known[-1][0] for name, known in acknowledged.items())


def _until(done: Callable[[], bool], otherwise: str) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while not done():
        if time.monotonic() > end:
            raise RuntimeError(f"{otherwise} within {_PATIENCE_SECONDS:.0f} s")
        time.sleep(1.0)


def _since(moment: float) -> float:
    return time.monotonic() - moment

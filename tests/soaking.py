"""A soak: an installation under load for minutes, with a fault every few seconds.

Its parts are processes of their own: door and API as `penstock up` starts them, landing, upkeep and
senders of replays as in `soak_parts`. At first some are killed; what follows breaks nothing that
goes on, so that every part lives from then on to the end, and can be measured.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Event, Thread

from balance import Findings, compare
from door_process import answers
from drift import MB, Bounds, Sample, Unmeasured, slopes, too_much
from evidence.sheet import happened
from installing import Installation, outside
from ports import free_ports
from sending import Sender, until
from soak_parts import ENOUGH, PRELOADED, TROUBLES, land_on, name_of, send_replay, tend_on

from assets.checks import check_books, check_conservation
from lakehouse import Lake
from lakehouse.catalog import main_table, quarantine_table
from orchestration.keys import UPKEEP
from penstock.buffer import Buffer, open_buffer
from penstock.cli.home import Running, write_running
from penstock.cli.receiver import Receiver, digest, receiving
from penstock.cli.up import _prepare
from penstock.clock import machine_clock
from penstock.envelope import DEFAULT_TEAM, CollectionId
from penstock.errors import PenstockError
from penstock.memory import keep_little
from penstock.metadata.states import ENDS
from penstock.metadata.store import store_of
from penstock.settings import load_settings
from replay.lease import Bounds as LeaseBounds

COLLECTION = "soak"
MAIN_TABLE = main_table(CollectionId(DEFAULT_TEAM, COLLECTION))
CONTRACTS = ("evolve", "freeze", "quarantine", "drop_value")
KILLS = ("door", "landing", "upkeep")
MILD = ("contract", "stop", "replay")
"""What nothing dies of but the sender of a replay."""
MOST_SNAPSHOTS = 60
SAY_SECONDS = 10.0

_SLICE = 3_000
"""Events of one replay. Were it a share of all, the load would grow as long as the soak goes on."""
_CLASH_EVERY = 37
_BROKEN_EVERY = 50
_STOP_SECONDS = 1.0
_ID_MEMORY_MIB = 1
_FILE_BYTES = 1 << 20
_SQL_MEMORY = "64MB"
_MEASURED_SECONDS = 0.5
_SHORT = 120.0
_LONG = 200.0
"""Seconds without a kill that are enough to measure a slope of a megabyte a minute."""


@dataclass(frozen=True)
class Plan:
    """How long, how much, and which faults."""

    seed: int
    seconds: float
    """How long it takes where the machine does not make it wait."""
    rate: float
    """Events a second, of two senders together."""
    every: float
    """Seconds from one fault to the next."""
    kills: float
    """Seconds in which parts are killed; nothing that goes on is, from then on."""

    def faults(self) -> tuple[list[str], list[str]]:
        """Answer what to do, first with kills and then without."""
        chance = random.Random(self.seed)
        return (
            dealt(chance, (*KILLS, *MILD), int(self.kills / self.every)),
            dealt(chance, MILD, int((self.seconds - self.kills) / self.every)),
        )


def dealt(chance: random.Random, kinds: Sequence[str], count: int) -> list[str]:
    """Answer so many of them by chance: each once, before any comes again."""
    found: list[str] = []
    while len(found) < count:
        found += chance.sample(kinds, len(kinds))
    return found[:count]


def plan_of(seed: int, seconds: float, rate: float) -> Plan:
    """Answer a soak of so many seconds: a fault each 5 s, or 3 s in a short one."""
    if seconds < _SHORT:
        return Plan(seed, seconds, rate, every=3.0, kills=max(0.6 * seconds, 18.0))
    return Plan(seed, seconds, rate, every=5.0, kills=0.4 * seconds)


def bounds_of(calm: float, end: float) -> Bounds:
    """Answer when growth is measured, and how much there may be.

    A third of the calm is left out: whoever was started before it fills its caches. What lives for
    seconds cannot be held to a megabyte a minute.
    """
    begin = calm + (end - calm) / 3
    if end - calm < _LONG:
        floor = (end - begin) / 6
        return Bounds(begin, end, floor_seconds=floor, memory=400 * MB, handles=120)
    return Bounds(begin, end)


def payload(number: int) -> bytes:
    """Answer a numbered event: some have a text where others have a number, some are no JSON."""
    size = f'"{number} kB"' if clashes(number) else str(number % 1_000)
    note = f"what happened at {number * 7_919 % 100_003} and later " * 3
    body = f'{{"n": {number}, "slice": {number // _SLICE}, "size": {size}, "note": "{note}"'
    return (body + "}" * (number % _BROKEN_EVERY != 0)).encode()


def clashes(number: int) -> bool:
    """Say whether the event is one that contracts decide about; the first ones make the columns."""
    return number > 1_000 and number % _CLASH_EVERY == 5


def is_row(number: int) -> bool:
    """Say whether the event becomes a row under every contract."""
    return number % _BROKEN_EVERY != 0 and not clashes(number)


@dataclass
class Part:
    """A process of the installation, that is started again when it was killed."""

    name: str
    launch: Callable[[], subprocess.Popen | BaseProcess]
    ready: Callable[[], bool] = lambda: True
    samples: list[Sample] = field(default_factory=list)
    """Of the process that runs now."""
    deaths: list[int] = field(default_factory=list)
    """How it ended when nobody killed it."""

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.samples = []
        self.process = self.launch()
        until(self.ready, f"{self.name} does not begin", seconds=600)

    @property
    def code(self) -> int | None:
        """How it ended; None while it runs."""
        process = self.process
        return process.exitcode if isinstance(process, BaseProcess) else process.poll()

    def kill(self) -> None:
        """Kill it at once."""
        if self.code is not None:
            self.deaths.append(self.code)
        self.process.kill()
        self.wait()

    def wait(self, seconds: float = 600.0) -> int | None:
        """Wait until it has ended; answer how."""
        until(lambda: self.code is not None, f"{self.name} does not end", seconds=seconds)
        return self.code

    def signal(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def measure(self, seconds: float) -> None:
        """Take a sample, if it runs."""
        assert self.process.pid is not None
        with suppress(FileNotFoundError, ProcessLookupError, StopIteration):
            status = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
            own = next(line for line in status if line.startswith("RssAnon"))
            handles = sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())
            self.samples.append(Sample(seconds, int(own.split()[1]) * 1024, handles))


@dataclass
class Soak:
    """An installation that runs, and what was done to it."""

    plan: Plan
    home: Path
    receiver: Receiver
    say: Callable[[str], None]
    done: Counter[str] = field(default_factory=Counter)
    latest: deque[str] = field(default_factory=deque)
    replays: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The slice of each, and how many were acknowledged before it was asked for."""

    def __post_init__(self) -> None:
        self._chance = random.Random(self.plan.seed + 1)
        self._contracts: list[str] = []
        self.home.mkdir()
        http, grpc, platform = free_ports(3)
        (self.home / "penstock.toml").write_text(
            f"http_port = {http}\ngrpc_port = {grpc}\nplatform_port = {platform}\n"
            f'allow_networks = ["127.0.0.1/32"]\nallow_ports = [{self.receiver.port}]\n'
            # The ids of a day would fill 256 MiB for hours, and files grow to 128 MB as long:
            # what has its full size already does not grow.
            f"duplicate_memory_mib = {_ID_MEMORY_MIB}\ncompact_to_bytes = {_FILE_BYTES}\n"
            f'sql_memory = "{_SQL_MEMORY}"\n'
            # What a replay would send is counted first where more than that came: by the default
            # nothing is before the millionth event, and each replay does more from then on.
            f"replay_confirm_above = {2 * _SLICE}\n"
        )
        self._ports = {"door": http, "platform": platform}
        door, api = f"http://127.0.0.1:{http}", f"http://127.0.0.1:{platform}"
        settings = load_settings(self.home, {})
        token = _prepare(settings)
        self.store = store_of(settings)
        running = Running(
            supervisor=os.getpid(), door=door, grpc="", platform=api, dagster="", token=token
        )
        write_running(self.home, running)
        self.parts = {
            "door": Part("door", lambda: self._serve("door"), lambda: answers(http)),
            "platform": Part(
                "platform", lambda: self._serve("platform"), lambda: answers(platform)
            ),
            "landing": Part("landing", lambda: _child(land_on, self.home)),
            "upkeep": Part("upkeep", lambda: _child(tend_on, self.home)),
        }
        self.sender = Sender(door, token, COLLECTION, make=payload)

    def _serve(self, what: str) -> subprocess.Popen:
        with (self.home / f"{what}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "penstock", "serve", what, "--home", str(self.home)],
                env=outside(),
                stdout=log,
                stderr=log,
            )

    def begin(self) -> Installation:
        """Start all parts."""
        for part in self.parts.values():
            part.start()
        platform = self.parts["platform"].process
        assert isinstance(platform, subprocess.Popen)
        here = Installation(self.home, platform, self.receiver)
        with here.client() as client:
            client.create_collection(COLLECTION)
            client.create_destination("out", f"http://127.0.0.1:{self.receiver.port}/in")
        self.here = here
        return here

    def stop(self) -> None:
        """End what still runs."""
        for part in self.parts.values():
            with suppress(AttributeError):  # it was never started
                part.process.kill()
                part.wait()
        self.store.close()

    # What is done to it

    def suffer(self) -> None:
        """Do what the plan says, each at its time, and say every ten seconds how it is."""
        begun = time.monotonic()
        killing, calm = self.plan.faults()
        with self._watched(begun):
            self._break(killing)
            calm_at = time.monotonic()
            self._break(calm)
            left = calm_at + self.plan.seconds - self.plan.kills - time.monotonic()
            time.sleep(max(0.0, left))
        self.bounds = bounds_of(calm_at - begun, time.monotonic() - begun)

    @contextmanager
    def _watched(self, begun: float) -> Iterator[None]:
        """Measure all parts again and again during the block, and say how it is."""
        over = Event()

        def watch() -> None:
            said = SAY_SECONDS
            while not over.wait(_MEASURED_SECONDS):
                now = time.monotonic() - begun
                for part in self.parts.values():
                    part.measure(now)
                if now >= said:
                    self.say(self.line(now))
                    said = now + SAY_SECONDS

        watching = Thread(target=watch)
        watching.start()
        try:
            yield
        finally:
            over.set()
            watching.join()

    def _break(self, kinds: Sequence[str]) -> None:
        due = time.monotonic()
        for kind in kinds:
            # What took long is not followed by two at once.
            due = max(due + self.plan.every, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
            self.do(kind)

    def do(self, kind: str) -> None:
        """Break something."""
        match kind:
            case "contract":
                contract = self._next_contract()
                with self.here.client() as client:
                    client.set_contract(COLLECTION, contract)
                self._note("contracts switched", f"contract {contract}")
                happened("contracts switched")
            case "stop":
                part = self.parts[self._chance.choice(sorted(self.parts))]
                part.signal(signal.SIGSTOP)
                time.sleep(_STOP_SECONDS)
                part.signal(signal.SIGCONT)
                self._note("stops for a second", f"{part.name} stopped for a second")
                happened("stops for a second")
            case "replay":
                self._replay()
            case _:
                part = self.parts[kind]
                if kind == "upkeep":
                    until(lambda: self._tends(part), "upkeep never works", seconds=600)
                part.kill()
                self._note(f"kills of {kind}", f"{kind} killed")
                happened("kills")
                part.start()

    def _next_contract(self) -> str:
        """Answer each once before any comes again: what it fills is full before growth counts."""
        if not self._contracts:
            self._contracts = self._chance.sample(CONTRACTS, len(CONTRACTS))
        return self._contracts.pop()

    def _tends(self, part: Part) -> bool:
        lease = self.store.lease(UPKEEP)
        return lease is not None and lease.holder == name_of(part.process.pid)

    def _replay(self) -> None:
        """Start a replay, and kill who sends it."""
        before = self.sender.acknowledged
        some = self._chance.randrange(before // _SLICE + 1)
        with self.here.client() as client:
            asked = client.create_replay(COLLECTION, f"slice:{some}", destination="out")
        self.replays[asked.id] = some, before
        sender = _child(send_replay, self.home, asked.id)
        sender.join(0.3 + 2 * self._chance.random())
        sender.kill()
        sender.join()
        killed = sender.exitcode == -signal.SIGKILL
        self._note("kills of a replay" if killed else "replays", f"a replay{' killed' * killed}")
        if killed:
            happened("kills")

    def _note(self, what: str, said: str) -> None:
        self.done[what] += 1
        self.latest.append(said)

    def line(self, now: float) -> str:
        """Say how it is."""
        try:
            with self.here.client() as client:
                waiting = f"{client.collection_status(COLLECTION).waiting:,}"
        except PenstockError:
            waiting = "?"
        faults = ", ".join(self.latest.popleft() for _ in range(len(self.latest)))
        held = ", ".join(
            f"{name} {part.samples[-1].memory / MB:.0f} MB {part.samples[-1].handles}"
            for name, part in self.parts.items()
            if part.samples
        )
        minutes, seconds = divmod(int(now), 60)
        return (
            f"{minutes:3}:{seconds:02}  {self.sender.acknowledged:,} acknowledged, "
            f"{waiting} wait; {faults or 'no fault'}; memory and handles: {held}"
        )

    # What is left

    def end(self) -> None:
        """Bring all replays to their end, land their ledger, and tend the tables once more."""
        for replay_id in self.replays:
            self._bring_to_end(replay_id)
        with closing(open_buffer(self.here.settings().log)) as log:
            lake = self.here.lake()
            until(
                lambda: all(waiting_of(log, lake, one) == 0 for one in log.collections()),
                "the ledger does not land",
                seconds=600,
            )
        (self.home / ENOUGH).touch()
        for name in ("landing", "upkeep"):
            self.parts[name].wait()

    def _bring_to_end(self, replay_id: str) -> None:
        deadline = time.monotonic() + 600
        while self.store.replay(DEFAULT_TEAM, replay_id).state not in ENDS:
            assert time.monotonic() < deadline, f"replay {replay_id} does not end"
            sender = _child(send_replay, self.home, replay_id)
            sender.join(300)
            sender.kill()
            time.sleep(0.5)  # the lease of one that was killed has not ended yet

    def sent_again(self) -> Findings:
        """Compare what came of all replays with what had to."""
        sent, wrong = self.sender.sent, Findings(events=0)
        # What was sent again after an answer got lost may be there twice, and so may its replay.
        doubles = sum(tries - 1 for tries in sent.tries.values())
        for replay_id, (some, before) in self.replays.items():
            told = [n for n, _ in sent.kept[:before] if n // _SLICE == some and is_row(n)]
            known = (n for n in sent.tries if n // _SLICE == some)
            wrong += compare(
                {digest(payload(n)): None for n in told},
                ((one, None) for one in self.receiver.payloads[replay_id].elements()),
                known={digest(payload(n)) for n in known},
                most_again=LeaseBounds().window + doubles,
            )
            state = self.store.replay(DEFAULT_TEAM, replay_id)
            if state.state != "finished":
                said = (f"replay {replay_id} is {state.state}: {state.error}",)
                wrong += Findings(events=0, said=said)
        return wrong

    def books(self) -> Findings:
        """Look at the books and at the tables of all collections."""
        lake, settings = self.here.lake(), self.here.settings()
        said = []
        with closing(open_buffer(settings.log)) as log:
            for one in log.collections():
                for verdict in (
                    check_conservation(lake, one, log.log_id(one)),
                    check_books(log, lake, one, machine_clock(), None),
                ):
                    said += [] if verdict.passed else [verdict.sentence]
                for name in (main_table(one), quarantine_table(one)):
                    table = lake.table(name)
                    snapshots = len(table.metadata.snapshots) if table is not None else 0
                    if snapshots > MOST_SNAPSHOTS:
                        said.append(f"{'.'.join(name)} has {snapshots} snapshots")
        return Findings(events=0, said=tuple(said))

    def summary(self) -> str:
        """Say how much was done, and how the parts grew."""
        grown = []
        for name, part in self.parts.items():
            with suppress(Unmeasured):
                memory, handles = slopes(part.samples, self.bounds)
                grown.append(f"{name} {memory / MB:+.2f} MB {handles:+.1f}")
        done = ", ".join(f"{times} {what}" for what, times in sorted(self.done.items()))
        return f"{self.sender.acknowledged:,} acknowledged; {done}; a minute: {', '.join(grown)}"

    def processes(self) -> Findings:
        """Look at how the parts lived."""
        said = []
        for name, part in self.parts.items():
            said += too_much(name, part.samples, self.bounds)
            deaths = part.deaths + ([part.code] if part.code else [])
            said += [f"{name} died by itself: {code}" for code in deaths]
        troubles = self.home / TROUBLES
        said += troubles.read_text().splitlines() if troubles.exists() else []
        return Findings(events=0, said=tuple(said))


def waiting_of(log: Buffer, lake: Lake, collection: CollectionId) -> int:
    """Answer how many events of a collection have not landed."""
    view = lake.view(collection)
    log_id = log.log_id(collection)
    return sum(
        extent.end - (view.mark(log_id, partition).next if view is not None else 0)
        for partition, extent in log.extents(collection).items()
    )


def _child(target: Callable[..., None], *arguments: object) -> BaseProcess:
    """Start a process that has imported what the target needs."""
    keep_little(os.environ)  # as the command line does, for all that it starts
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


@contextmanager
def soaked(plan: Plan, folder: Path, say: Callable[[str], None]) -> Iterator[Soak]:
    """Run an installation under load and faults; answer it as it is then, for the block."""
    with receiving() as receiver:
        soak = Soak(plan, folder / "home", receiver, say)
        try:
            here = soak.begin()
            with soak.sender.sending(threads=2, rate=plan.rate):
                # Columns are there before the first contract that makes none.
                with here.client() as client:
                    until(
                        lambda: client.collection_status(COLLECTION).rows > 0,
                        "nothing lands",
                        seconds=600,
                    )
                soak.suffer()
            yield soak
        finally:
            soak.stop()

"""Kill a sender with SIGKILL: at its fault points, and at moments nobody chose.

The sender is a process of its own, on a real row, lake and SQL engine, and it sends by HTTP to a
receiver in this process. What stands in for the door folds rows by their idempotency key, as the
door's ids let landing do.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path

import msgspec
import pytest
from builders import FLIGHTS, NOON, event
from engines.places import KAFKA_PORT, RABBITMQ_PORT, SQS_PORT
from far_sides import far_side
from lakes import finished, landing, new_lake
from metadata_builders import collection
from ready_store import ready_store
from receiving import Receiver, Reply, Request, receiving
from replay_process import sending_process
from tallied import tally

from penstock.buffer import open_appender, open_buffer
from penstock.metadata.records import Destination, ReplayRecord
from penstock.vocabulary import Kind
from replay.lease import Bounds
from replay.progress import Attempt, Progress, read_progress, report
from replay.request import read_request, record_of

pytestmark = pytest.mark.crash

EVENTS = 200
WINDOW = 40
KEYS = 7
BOUNDS = Bounds(window=WINDOW, batch_window=WINDOW, checkpoint_answers=10)


class Door:
    """Takes rows as a door does: what comes again under its key is there already."""

    def __init__(self) -> None:
        self.rows: dict[str, Attempt] = {}

    def __call__(self, request: Request) -> Reply:
        key = request.header("idempotency-key")
        lines = request.body.splitlines()
        for number, line in enumerate(lines, 1):
            self.rows[f"{key}:{number}"] = msgspec.json.decode(line, type=Attempt)
        return Reply(202, body=b'{"accepted": %d}' % len(lines))


class Moody:
    """Answers now and then that it cannot: some events need two or three attempts."""

    def __init__(self) -> None:
        self.seen: Counter[str | None] = Counter()

    def __call__(self, request: Request) -> Reply:
        event_id = request.header("penstock-event-id")
        self.seen[event_id] += 1
        number = int(str(event_id)[1:])
        if number % 97 == 5 and self.seen[event_id] == 1:
            return Reply(500)
        if number % 101 == 7 and self.seen[event_id] == 1:
            return Reply(503, (("Retry-After", "0"),))
        return Reply()


class World:
    """A planned replay of landed events, its destination and its ledger."""

    def __init__(
        self,
        folder: Path,
        receiver: Receiver,
        door: Receiver,
        rows: Door,
        *,
        destination: Destination | None = None,
        too_large: int | None = None,
    ) -> None:
        self.folder = folder
        self.receiver = receiver
        self.door = door
        self._rows = rows
        self._starts = 0
        log = open_appender(f"embedded://{folder / 'log'}")
        keyed = [
            event(
                b'{"n": %d}' % n + (b" " * (1_200_000 if n == too_large else 0)),
                id=f"e{n}",
                received_at=NOON + n,
                key=b"k%d" % (n % KEYS) if n % 3 else None,
            )
            for n in range(EVENTS)
        ]
        log.append(FLIGHTS, keyed).result(10)
        log.close()
        buffer = open_buffer(f"embedded://{folder / 'log'}")
        landing(buffer, new_lake(folder)).land_once(FLIGHTS)
        buffer.close()
        self.store = ready_store(folder)
        self.store.create_collection(collection())
        self.store.add_destination(
            destination or Destination(team="main", name="d1", url=receiver.url, created_at=NOON)
        )

    def ask(self, order: str) -> None:
        asked = {"collection": "flights", "destination": "d1", "order": order, "concurrency": 8}
        request = read_request({**asked, "pause_after": 1_000}, team="main")
        self.store.create_replay(record_of(request, id="r1", now=NOON))

    def start(self, fault: str | None = None) -> BaseProcess:
        """Start the next sender, in whose time the lease of the last one is over."""
        self._starts += 1
        process = sending_process(
            self.folder, self.receiver.port, self.door.port, BOUNDS, fault, self._starts
        )
        process.start()
        return process

    @property
    def record(self) -> ReplayRecord:
        return self.store.replay("main", "r1")

    @property
    def progress(self) -> Progress:
        return read_progress(self.record.progress)

    @property
    def rows(self) -> list[Attempt]:
        return list(self._rows.rows.values())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    rows = Door()
    with receiving(Moody(), seconds=0.002) as receiver, receiving(rows) as door:
        made = World(tmp_path, receiver, door, rows)
        yield made
        made.store.close()


def number_of(request: Request) -> int:
    return int(str(request.header("penstock-event-id"))[1:])


def delivered(requests: list[Request]) -> list[int]:
    """Answer the events that the destination took, in the order in which it took them."""
    seen: Counter[int] = Counter()
    taken = []
    for request in requests:
        number = number_of(request)
        seen[number] += 1
        first = seen[number] == 1
        if not (first and (number % 97 == 5 or number % 101 == 7)):
            taken.append(number)
    return taken


class Repeats:
    """Counts what each sender delivers again."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._before = 0

    def after(self) -> int:
        """Answer how many delivered events were delivered again since the last time."""
        taken = delivered(self._world.receiver.requests)
        again = set(taken[: self._before]) & set(taken[self._before :])
        self._before = len(taken)
        return len(again)


def assert_promises_kept(world: World, order: str, *, deaths: int) -> None:
    taken = delivered(world.receiver.requests)
    assert set(taken) == set(range(EVENTS)), "each at least once"

    lanes: dict[object, list[int]] = defaultdict(list)
    for number in taken:
        lane = "all" if order == "log" else number % KEYS if number % 3 else None
        if lane is not None:
            lanes[lane].append(number)
    for numbers in lanes.values():
        place = {number: at for at, number in enumerate(sorted(set(numbers)))}
        steps = [place[b] - place[a] for a, b in pairwise(numbers)]
        assert max(steps, default=0) <= 1, "in order, up to a repeated suffix"

    named = {(r.epoch, r.offset, r.attempt) for r in world.rows if r.kind == "outcome"}
    intents = [r for r in world.rows if r.kind == "intent"]
    assert [r for r in intents if (r.epoch, r.offset, r.attempt) not in named] == []
    attempts = {(number_of(r), r.header("penstock-attempt")) for r in world.receiver.requests}
    told = {(r.offset, str(r.attempt)) for r in intents}
    assert attempts <= told, "nothing was sent that the ledger does not know"
    assert len(attempts) == len(world.receiver.requests), "no attempt number is used twice"
    assert tally(world.rows).delivered == EVENTS

    assert world.record.epoch == deaths + 1
    account = report(world.progress, matched=EVENTS, ended=True)
    assert (account.delivered, account.failed, account.skipped) == (EVENTS, 0, 0)
    assert account.repeated >= len(taken) - len(set(taken))
    assert new_lake(world.folder).pins(FLIGHTS) == {}


@pytest.mark.parametrize(
    ("point", "order"),
    [
        ("replay_sent", "key"),
        ("replay_before_ckpt", "log"),
        ("replay_after_ckpt", "key"),
    ],
)
def test_a_sender_that_is_killed_at_a_point_is_taken_over(
    world: World, point: str, order: str
) -> None:
    """Between sending and its books, before a checkpoint and behind one."""
    world.ask(order)
    repeats = Repeats(world)
    for nth in (2, 12):
        killed = world.start(f"{point}:{nth}:kill")
        assert finished(killed) == -signal.SIGKILL
        assert repeats.after() <= WINDOW

    assert finished(world.start()) == 0
    assert repeats.after() <= WINDOW
    assert_promises_kept(world, order, deaths=2)


def until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.001)


@pytest.mark.parametrize(("order", "seed"), [("key", 1), ("log", 3)])
def test_a_sender_that_is_killed_at_any_moment_is_taken_over(
    world: World, order: str, seed: int
) -> None:
    """The moments nobody thought of a name for."""
    chance = random.Random(seed)
    world.ask(order)
    repeats = Repeats(world)
    deaths = 0
    for _ in range(3):
        process = world.start()
        wanted = len(world.receiver.requests) + chance.randrange(1, EVENTS // 6)
        until(lambda p=process, n=wanted: len(world.receiver.requests) >= n or not p.is_alive())
        time.sleep(chance.random() * 0.02)
        process.kill()
        deaths += finished(process) == -signal.SIGKILL
        assert repeats.after() <= WINDOW
        if world.record.state == "finished":
            break
    else:
        assert finished(world.start()) == 0
        assert repeats.after() <= WINDOW

    assert deaths >= 2
    assert_promises_kept(world, order, deaths=world.record.epoch - 1)


PORTS = {"kafka": KAFKA_PORT, "rabbitmq": RABBITMQ_PORT, "sqs": SQS_PORT}
TOO_LARGE = 100


@pytest.mark.engines
@pytest.mark.parametrize("kind", ["kafka", "rabbitmq", "sqs"])
@pytest.mark.parametrize("point", ["replay_sent:3:kill", "replay_after_ckpt:4:kill"])
def test_a_replay_to_a_bus_is_taken_over(tmp_path: Path, kind: Kind, point: str) -> None:
    """The whole way: plan, send, die, send the rest, and account for every event."""
    rows = Door()
    with far_side(kind) as far, receiving(rows) as door:
        stand_in = Receiver(PORTS[kind])
        world = World(
            tmp_path, stand_in, door, rows, destination=far.destination(), too_large=TOO_LARGE
        )
        world.ask("key")
        assert finished(world.start(point)) == -signal.SIGKILL
        assert finished(world.start()) == 0
        took = far.took(EVENTS + WINDOW + 1, patience=4)
        record, progress = world.record, world.progress
        world.store.close()

    failed = 0 if kind == "rabbitmq" else 1
    arrived = Counter(text_of(dict(each.headers)["penstock-event-id"]) for each in took)
    assert set(arrived) == {f"e{n}" for n in range(EVENTS) if not (failed and n == TOO_LARGE)}
    assert sum(arrived.values()) - len(arrived) <= WINDOW
    assert record.state == "finished"
    account = report(progress, matched=EVENTS, ended=True)
    assert (account.delivered, account.failed, account.skipped) == (EVENTS - failed, failed, 0)
    assert tally(world.rows).delivered == EVENTS - failed
    by_key = defaultdict(list)
    for each in took if kind == "kafka" else ():
        number = int(each.payload.split(b":")[1].rstrip(b" }"))
        by_key[each.key].append(number)
    for key, numbers in by_key.items():
        place = {number: at for at, number in enumerate(sorted(set(numbers)))}
        steps = [place[b] - place[a] for a, b in pairwise(numbers)]
        assert key is None or max(steps, default=0) <= 1, "in order, up to a repeated suffix"


def text_of(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()

"""Kill a sender with SIGKILL: at its fault points, and at moments nobody chose.

The sender is a process of its own, on a real row, lake and SQL engine, and it sends by HTTP to a
receiver in this process. What stands in for the door folds rows by their idempotency key, as the
door's ids let landing do.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import psutil
import pytest
from balance import Findings, compare, totals
from builders import FLIGHTS, NOON, event
from door_builders import SHIPS
from engines.places import KAFKA_PORT, RABBITMQ_PORT, SQS_PORT
from evidence.sheet import found, happened
from far_sides import FarSide, Took, far_side
from lakes import finished, landing, new_lake
from metadata_builders import collection
from msgspec.structs import replace
from ready_store import ready_store
from receiving import Receiver, Reply, Request, receiving
from replay_process import sending_process
from spreading import believed, connected, outlived, processes
from tallied import tally
from tunnelling import plumber, tunnel_door

from lakehouse.catalog import main_table
from penstock.buffer import open_appender, open_buffer
from penstock.envelope import Event
from penstock.lines import payload_of, read_line
from penstock.metadata.records import Destination, ReplayRecord
from penstock.vocabulary import Kind
from replay.again import retry_of
from replay.files import lines_of, written
from replay.lease import Bounds
from replay.ledger import ATTEMPTS, add_lines
from replay.plan import pin_of
from replay.progress import Attempt, Attempts, Progress, read_progress, report
from replay.request import read_request, record_of

pytestmark = pytest.mark.crash

EVENTS = 200
WINDOW = 40
KEYS = 7
BOUNDS = Bounds(
    window=WINDOW,
    batch_window=WINDOW,
    checkpoint_answers=10,
    look_seconds=0.05,
    idle_seconds=0.2,
)


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


def numbered(n: int, spaces: int = 0) -> Event:
    return event(
        b'{"n": %d}' % n + b" " * spaces,
        id=f"e{n}",
        received_at=NOON + n,
        key=b"k%d" % (n % KEYS) if n % 3 else None,
    )


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
        events: int = EVENTS,
        senders: int = 1,
        bug: Callable[[], None] | None = None,
    ) -> None:
        self.folder = folder
        self.events = events
        self.receiver = receiver
        self.door = door
        self._rows = rows
        self._starts = 0
        self._senders, self._bug = senders, bug
        log = open_appender(f"embedded://{folder / 'log'}")
        keyed = [numbered(n, 1_200_000 if n == too_large else 0) for n in range(events)]
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

    def more(self, first: int, count: int) -> None:
        """Have more events in the table."""
        log = open_appender(f"embedded://{self.folder / 'log'}")
        log.append(FLIGHTS, [numbered(n) for n in range(first, first + count)]).result(10)
        log.close()
        buffer = open_buffer(f"embedded://{self.folder / 'log'}")
        landing(buffer, new_lake(self.folder)).land_once(FLIGHTS)
        buffer.close()

    def ask(self, order: str, **more: object) -> None:
        asked = {"collection": "flights", "destination": "d1", "order": order, "concurrency": 8}
        request = read_request({**asked, "pause_after": 1_000, **more}, team="main")
        self.store.create_replay(record_of(request, id="r1", now=NOON))

    def hurry(self) -> None:
        """Let the replay go as fast as it can."""
        self.receiver.seconds = 0.0
        self.store.change_options("main", "r1", {**self.record.options, "rate": None})

    def start(self, fault: str | None = None) -> BaseProcess:
        """Start the next sender, in whose time the lease of the last one is over."""
        self._starts += 1
        process = sending_process(
            self.folder,
            self.receiver.port,
            self.door.port,
            BOUNDS,
            fault,
            self._starts,
            senders=self._senders,
            bug=self._bug,
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
    return [number for number, _ in bodies_of(requests)]


def bodies_of(requests: list[Request]) -> list[tuple[int, bytes]]:
    """Answer what the destination took, with the bodies."""
    seen: Counter[int] = Counter()
    taken = []
    for request in requests:
        number = number_of(request)
        seen[number] += 1
        first = seen[number] == 1
        if not (first and (number % 97 == 5 or number % 101 == 7)):
            taken.append((number, request.body))
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


def arrived(
    taken: Iterable[tuple[int, object]], wanted: Iterable[int], *, order: str, most_again: int
) -> Findings:
    """Compare what a destination took: each lane in order, but for what a killed sender repeats."""

    def lane(number: int) -> object:
        return "all" if order == "log" else number % KEYS if number % 3 else None

    told = {number: numbered(number).payload for number in wanted}
    return compare(told, taken, most_again=most_again, lane=lane if order else None)


def unanswered_of(world: World) -> list[Attempt]:
    """Answer the attempts of which the ledger says that nobody heard what became of them."""
    return [row for row in world.rows if row.outcome == "retry" and row.status is None]


def assert_promises_kept(world: World, order: str, *, deaths: int) -> None:
    took = bodies_of(world.receiver.requests)
    taken = [number for number, _ in took]
    unanswered = len(unanswered_of(world))
    again = deaths * WINDOW + unanswered
    found(receiver=arrived(took, range(world.events), order=order, most_again=again))

    named = {(r.epoch, r.offset, r.attempt) for r in world.rows if r.kind == "outcome"}
    intents = [r for r in world.rows if r.kind == "intent"]
    assert [r for r in intents if (r.epoch, r.offset, r.attempt) not in named] == []
    attempts = {(number_of(r), r.header("penstock-attempt")) for r in world.receiver.requests}
    told = {(r.offset, str(r.attempt)) for r in intents}
    assert attempts <= told, "nothing was sent that the ledger does not know"
    assert len(attempts) == len(world.receiver.requests), "no attempt number is used twice"
    books = tally(world.rows)
    found(ledger=totals(world.events, books.delivered))
    assert books.open == 0

    assert world.record.epoch == deaths + 1
    account = report(world.progress, matched=world.events, ended=True)
    assert (account.delivered, account.failed, account.skipped) == (world.events, 0, 0)
    assert account.repeated + unanswered >= len(taken) - len(set(taken))
    assert new_lake(world.folder).pins(FLIGHTS) == {}


@pytest.mark.breaks("a replay's sender, at each of its points")
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


def until(holds: Callable[[], bool], seconds: float = 30.0, *, every: float = 0.001) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(every)


@pytest.mark.breaks("a replay's sender, at random moments")
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


@pytest.mark.breaks("a continuous replay's sender, at each of its points")
@pytest.mark.parametrize(
    "point",
    [
        "replay_at_rest",
        "replay_leg_found",
        "replay_leg_made",
        "replay_sent",
        "replay_before_ckpt",
    ],
)
def test_a_continuous_replay_that_is_killed_at_a_point_is_taken_over(
    world: World, point: str
) -> None:
    """In a leg as any other; between two, what was found is neither left out nor sent twice."""
    asked = {"collection": "flights", "destination": "d1", "since": "2020-01-01", "concurrency": 8}
    request = read_request({**asked, "continuous": True}, team="main")
    world.store.create_replay(record_of(request, id="r1", now=NOON))
    repeats = Repeats(world)
    count = EVENTS
    sending = point in ("replay_sent", "replay_before_ckpt")
    # Each run has one more leg to send.
    for nth in (1, 2, 4) if sending else (1, 1, 1):
        assert finished(world.start(f"{point}:{nth}:kill")) == -signal.SIGKILL
        again = repeats.after()
        assert again <= (WINDOW if sending else 0)
        world.more(count, 30)
        count += 30

    assert finished(world.start()) == 0
    repeats.after()
    took, most = bodies_of(world.receiver.requests), 3 * WINDOW if sending else 0
    found(receiver=arrived(took, range(count), order="key", most_again=most))
    named = {(r.epoch, r.offset, r.attempt) for r in world.rows if r.kind == "outcome"}
    intents = [r for r in world.rows if r.kind == "intent"]
    assert [r for r in intents if (r.epoch, r.offset, r.attempt) not in named] == []
    found(ledger=totals(count, tally(world.rows).delivered))
    account = report(world.progress, matched=count, ended=True)
    assert (account.delivered, account.failed, account.skipped) == (count, 0, 0)
    assert (world.record.state, world.record.plan and world.record.plan["count"]) == (
        "running",
        count,
    )
    assert new_lake(world.folder).pins(FLIGHTS) == {}


def failed_before(world: World) -> set[int]:
    """Have a replay in the ledger in which half of the events failed; answer those."""
    failed = set(range(1, EVENTS, 2))
    body = bytearray()
    for n in range(EVENTS):
        row = Attempt(
            replay="r0",
            epoch=1,
            event_id=f"e{n}",
            team="main",
            collection="flights",
            partition=0,
            offset=n,
            last=n,
            attempt=1,
            kind="outcome",
            outcome="failed" if n in failed else "delivered",
            at="2025-11-24T16:00:00.000000Z",
            destination="d1",
            who="run",
        )
        add_lines(body, Attempts(row))
    log = open_appender(f"embedded://{world.folder / 'log'}")
    rows = [event(line, id=f"row{n}") for n, line in enumerate(body.splitlines())]
    log.append(ATTEMPTS, rows).result(10)
    log.close()
    buffer = open_buffer(f"embedded://{world.folder / 'log'}")
    landing(buffer, new_lake(world.folder)).land_once(ATTEMPTS)
    buffer.close()
    request = read_request({"collection": "flights", "destination": "d1"}, team="main")
    ended = Progress(delivered=EVENTS - len(failed), failed=len(failed))
    record = replace(
        record_of(request, id="r0", now=NOON), state="finished", progress=ended.as_dict()
    )
    world.store.create_replay(record)
    return failed


@pytest.mark.breaks("the sender of a retry, at its points")
@pytest.mark.parametrize("point", ["replay_sent", "replay_after_ckpt"])
def test_a_retry_that_is_killed_sends_what_failed_and_nothing_else(
    world: World, point: str
) -> None:
    """Whoever goes on finds the same events, whatever the ledger says meanwhile."""
    failed = failed_before(world)
    changes = {"concurrency": 8, "pause_after": 1_000}
    request = retry_of(world.store.replay("main", "r0"), changes=changes)
    world.store.create_replay(record_of(request, id="r1", now=NOON))
    repeats = Repeats(world)
    for nth in (1, 6):
        assert finished(world.start(f"{point}:{nth}:kill")) == -signal.SIGKILL
        assert repeats.after() <= WINDOW
        assert set(new_lake(world.folder).pins(ATTEMPTS)) == {pin_of("r1")}

    assert finished(world.start()) == 0
    took = bodies_of(world.receiver.requests)
    found(receiver=arrived(took, failed, order="key", most_again=2 * WINDOW))
    assert {number_of(request) for request in world.receiver.requests} == failed
    account = report(world.progress, matched=len(failed), ended=True)
    assert (account.delivered, account.failed, account.skipped) == (len(failed), 0, 0)
    found(ledger=totals(len(failed), tally(world.rows).delivered))
    assert new_lake(world.folder).pins(ATTEMPTS) == new_lake(world.folder).pins(FLIGHTS) == {}


PORTS = {"kafka": KAFKA_PORT, "rabbitmq": RABBITMQ_PORT, "sqs": SQS_PORT}
TOO_LARGE = 100


@pytest.mark.engines
@pytest.mark.breaks("the sender of a replay to a bus")
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
    wanted = [n for n in range(EVENTS) if not (failed and n == TOO_LARGE)]
    # The large one is so by spaces at its end.
    taken = [(number_at(each), each.payload.rstrip()) for each in took]
    order = "key" if kind == "kafka" else ""
    found(receiver=arrived(taken, wanted, order=order, most_again=WINDOW))
    assert record.state == "finished"
    account = report(progress, matched=EVENTS, ended=True)
    assert (account.delivered, account.failed, account.skipped) == (EVENTS - failed, failed, 0)
    found(ledger=totals(EVENTS - failed, tally(world.rows).delivered))


@pytest.mark.breaks("the sender of a replay to a collection")
@pytest.mark.parametrize("point", ["replay_sent:2:kill", "replay_after_ckpt:3:kill"])
def test_a_replay_to_a_collection_shows_each_event_once(tmp_path: Path, point: str) -> None:
    """What a sender that died has sent is sent again, and landing knows it by its id."""
    rows, there = Door(), tmp_path / "there"
    log = open_appender(f"embedded://{there / 'log'}")
    with far_side("collection", log=log) as far, receiving(rows) as door:
        assert far.doorway is not None
        stand_in = Receiver(int(far.doorway.url.rpartition(":")[2]))
        world = World(tmp_path / "here", stand_in, door, rows, destination=far.destination())
        world.store.create_collection(collection(SHIPS))
        world.ask("key")
        assert finished(world.start(point)) == -signal.SIGKILL
        assert finished(world.start()) == 0
        record, progress = world.record, world.progress
        world.store.close()
    log.close()
    buffer = open_buffer(f"embedded://{there / 'log'}")
    while landing(buffer, new_lake(there)).land_once(SHIPS):
        pass
    buffer.close()
    names = ("event_id", "payload", "key", "duplicate_of", "log_offset")
    table = new_lake(there).table(main_table(SHIPS)).scan(selected_fields=names).to_arrow()
    landed = sorted(table.to_pylist(), key=lambda row: row["log_offset"])

    assert record.state == "finished", record.error
    account = report(progress, matched=EVENTS, ended=True)
    assert (account.delivered, account.failed) == (EVENTS, 0)
    assert len(landed) - EVENTS <= WINDOW
    shown = [row for row in landed if row["duplicate_of"] is None]
    took = [(int(row["event_id"][1:]), row["payload"]) for row in shown]
    found(tables=arrived(took, range(EVENTS), order="key", most_again=0))
    if point.startswith("replay_sent"):
        assert len(landed) > EVENTS, "the test killed nothing under way"


@pytest.mark.breaks("the sender of a replay through a tunnel")
@pytest.mark.parametrize("point", ["replay_sent:2:kill", "replay_after_ckpt:3:kill"])
def test_a_replay_to_a_tunnel_is_taken_over(tmp_path: Path, point: str) -> None:
    """What a sender that died has handed over is sent again, in order, and no more than that."""
    rows = Door()
    with tunnel_door() as there, plumber(there) as client, receiving(rows) as door:
        world = World(
            tmp_path,
            Receiver(int(there.url.rpartition(":")[2])),
            door,
            rows,
            destination=Destination(
                team="main", name="d1", kind="tunnel", url="tunnel://ships", created_at=NOON
            ),
        )
        world.ask("key")
        assert finished(world.start(point)) == -signal.SIGKILL
        assert finished(world.start()) == 0
        record, progress = world.record, world.progress
        world.store.close()
        until(lambda: bool(client.written) and number_in(client.written[-1]) == EVENTS - 1)

    assert record.state == "finished", record.error
    account = report(progress, matched=EVENTS, ended=True)
    assert (account.delivered, account.failed) == (EVENTS, 0)
    took = [(number_in(each), each.blob) for each in client.written]
    found(client=arrived(took, range(EVENTS), order="log", most_again=WINDOW))
    if point.startswith("replay_sent"):
        assert len(took) > EVENTS, "the test killed nothing under way"


def number_in(outbound: Any) -> int:
    return int(outbound.blob.split(b":")[1].rstrip(b" }"))


FILE = Destination(team="main", name="d1", kind="file", url="file://out", created_at=NOON)


@pytest.mark.breaks("the sender of a replay to a file, at each of its points")
@pytest.mark.parametrize("order", ["key", "log"])
def test_a_file_holds_each_event_once_whatever_became_of_who_wrote_it(
    tmp_path: Path, order: str
) -> None:
    """And in the order of the log: a suffix that was written again is not seen."""
    rows = Door()
    with receiving(rows) as door:
        world = World(tmp_path, Receiver(1), door, rows, destination=FILE)
        world.ask(order)
        for point in (
            "replay_sent:2:kill",
            "replay_before_ckpt:2:kill",
            "replay_after_ckpt:2:kill",
        ):
            assert finished(world.start(point)) == -signal.SIGKILL
        assert finished(world.start()) == 0
        record, progress = world.record, world.progress
        world.store.close()
    folder = written(tmp_path / "replay-files", "r1").folder
    lines = [read_line(line) for line in lines_of(folder)]

    assert record.state == "finished", record.error
    account = report(progress, matched=EVENTS, ended=True)
    assert (account.delivered, account.failed) == (EVENTS, 0)
    took = [(line.offset, payload_of(line)) for line in lines]
    found(file=arrived(took, range(EVENTS), order="log", most_again=0))
    raw = b"".join(each.read_bytes() for each in folder.glob("*.segment"))
    assert EVENTS < raw.count(b"\n") <= EVENTS + 3 * WINDOW, "the test killed nothing under way"


KILLS = int(os.environ.get("FAULT_KILLS", "2"))
"""So often the sender of each kind is killed at a random moment."""
A_KILL = 150
"""Events of each life of a sender, at most: it sends so many a second, and lives up to one."""


@pytest.mark.breaks("a replay's sender, again and again at random moments")
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize(
    "kind",
    [
        "http",
        "collection",
        "file",
        *(pytest.param(kind, marks=pytest.mark.engines) for kind in ("kafka", "rabbitmq", "sqs")),
    ],
)
def test_senders_are_killed_again_and_again(tmp_path: Path, kind: Kind) -> None:
    """To each kind of target: all events, repeats within what is reported, and whole books."""
    chance, rows, events = random.Random(kind), Door(), A_KILL * KILLS
    with far_side(kind) as far, receiving(rows) as door:
        stand_in = Receiver(PORTS.get(kind) or port_of(far))
        world = World(tmp_path, stand_in, door, rows, destination=far.destination(), events=events)
        if kind == "collection":
            world.store.create_collection(collection(SHIPS))
        world.ask("key", rate=A_KILL)
        deaths = 0
        while deaths < KILLS:
            epoch, process = world.record.epoch, world.start()
            until(lambda p=process, e=epoch: world.record.epoch > e or not p.is_alive(), 60)
            time.sleep(chance.random())
            process.kill()
            killed = finished(process) == -signal.SIGKILL
            assert killed or world.record.state == "finished"
            if not killed:
                break
            deaths += 1
        # Nearly all may be left to the last, which is killed by nobody and need not be slow.
        if (record := world.record).state != "finished":
            world.store.change_options(record.team, record.id, {**record.options, "rate": None})
            assert finished(world.start()) == 0
        record, progress = world.record, world.progress
        repeats = progress.repeated
        if kind == "file":
            lines = [read_line(line) for line in lines_of(tmp_path / "replay-files" / "r1")]
            taken = [(int(str(line.id)[1:]), payload_of(line)) for line in lines]
        else:
            took = far.took(events + repeats + 1, patience=4 + events / 250)
            taken = [(number_at(each), each.payload) for each in took]
        world.store.close()

    assert record.state == "finished", record.error
    # A file holds each event once, and a queue of SQS keeps no order.
    order = {"file": "log", "sqs": ""}.get(kind, "key")
    most = 0 if kind == "file" else repeats
    found(receiver=arrived(taken, range(events), order=order, most_again=most))
    assert repeats <= deaths * WINDOW
    books = tally(world.rows)
    found(ledger=totals(events, books.delivered))
    assert books.open == 0
    account = report(progress, matched=events, ended=True)
    assert (account.delivered, account.failed, account.skipped) == (events, 0, 0)
    assert new_lake(tmp_path).pins(FLIGHTS) == {}


SENDERS = 2
SPREAD_KILLS = int(os.environ.get("FAULT_KILLS", "10"))
"""So often a replay that several processes send is killed, and so often one of those."""
A_SPREAD_KILL = 150
"""Events for each kill: more than are sent until then, so that some are left for the last."""
SLOWLY = 20
"""Events a second until then: of 8 at once half, so whoever stands still is handed more."""
ANSWER_SECONDS = 0.2
CONCURRENCY = 8
TO_ITS_END = max(60.0, A_SPREAD_KILL * SPREAD_KILLS / 100)
"""Seconds for what is left at the end. Two of a hundred events are tried again half a second later,
and a window of 40 waits for them, which makes 160 a second at any speed."""


@contextmanager
def spread_world(
    folder: Path, kills: int, bug: Callable[[], None] | None = None
) -> Iterator[World]:
    """Have a replay that several processes send, slowly, to be killed so often."""
    rows, events = Door(), A_SPREAD_KILL * kills
    with receiving(Moody(), seconds=ANSWER_SECONDS) as receiver, receiving(rows) as door:
        made = World(folder, receiver, door, rows, events=events, senders=SENDERS, bug=bug)
        made.ask("key", rate=SLOWLY)
        yield made
        made.store.close()


def killed_with_those_that_send(world: World, chance: random.Random, *, patience: float) -> None:
    """Kill a replay's process while others start for it or send: they end, too."""
    process, port = world.start(), world.receiver.port
    until(lambda: len(processes(process.pid)) == SENDERS, 120, every=0.05)
    if chance.random() < 0.7:
        until(lambda: len(connected(processes(process.pid), port)) == SENDERS, 120, every=0.05)
    time.sleep(chance.random() * 0.5)
    theirs = processes(process.pid)
    process.kill()
    assert finished(process) == -signal.SIGKILL
    _, left = psutil.wait_procs(theirs, timeout=patience)
    for each in left:
        each.kill()
    assert len(theirs) == SENDERS
    assert not left, f"{len(left)} processes send on without their replay"


def kill_one_that_sends(world: World, process: BaseProcess, chance: random.Random) -> None:
    """Kill one of those that send, now and then one that stood still before."""
    port = world.receiver.port
    until(lambda: connected(processes(process.pid), port) != [], 120, every=0.05)
    time.sleep(chance.random() * 0.5)
    one = chance.choice(connected(processes(process.pid), port))
    if chance.random() < 0.5:
        # What it is handed meanwhile it does not begin.
        one.suspend()
        time.sleep(2 * ANSWER_SECONDS)
    one.kill()
    happened("kills of one that sends")
    until(lambda: one.pid not in {each.pid for each in processes(process.pid)}, every=0.05)


@pytest.mark.breaks("a replay that several processes send, again and again at random moments")
@pytest.mark.timeout(3_600)
def test_a_replay_that_several_processes_send_is_killed_again_and_again(tmp_path: Path) -> None:
    """None of them is left, and whoever takes over repeats the window and no more."""
    chance = random.Random(5)
    with spread_world(tmp_path, SPREAD_KILLS) as world:
        repeats = Repeats(world)
        for _ in range(SPREAD_KILLS):
            killed_with_those_that_send(world, chance, patience=60)
            assert repeats.after() <= WINDOW
        world.hurry()
        assert finished(world.start(), TO_ITS_END) == 0
        assert repeats.after() <= WINDOW
        assert_promises_kept(world, "key", deaths=SPREAD_KILLS)


def kill_those_that_send(world: World, kills: int) -> None:
    """Kill so many of those that send, and let the replay come to its end."""
    chance, process = random.Random(6), world.start()
    for _ in range(kills):
        kill_one_that_sends(world, process, chance)
    world.hurry()
    assert finished(process, 120) == 0


@pytest.mark.breaks("processes that send one replay, one after the other at random moments")
@pytest.mark.timeout(3_600)
def test_processes_that_send_one_replay_are_killed_again_and_again(tmp_path: Path) -> None:
    """What one had in hand is tried again, and the replay goes on."""
    with spread_world(tmp_path, SPREAD_KILLS) as world:
        kill_those_that_send(world, SPREAD_KILLS)
        assert 0 < len(unanswered_of(world)) <= SPREAD_KILLS * CONCURRENCY
        assert_promises_kept(world, "key", deaths=0)


def test_processes_that_outlive_their_replay_are_found(tmp_path: Path) -> None:
    """A mutant: without it nobody knows that the test above could fail."""
    said = "2 processes send on without their replay"
    with spread_world(tmp_path, 1, outlived) as world, pytest.raises(AssertionError, match=said):
        killed_with_those_that_send(world, random.Random(1), patience=3)


def test_a_dead_process_that_is_believed_is_found(tmp_path: Path) -> None:
    """A mutant: what it had in hand is taken for delivered."""
    with spread_world(tmp_path, 5, believed) as world:
        kill_those_that_send(world, 5)
        with pytest.raises(AssertionError, match="acknowledged events are nowhere"):
            assert_promises_kept(world, "key", deaths=0)


def port_of(far: FarSide) -> int:
    """Answer where it listens; a file does nowhere."""
    url = far.doorway.url if far.doorway is not None else far.url
    return urlsplit(url).port or 1


def number_at(took: Took) -> int:
    """Answer the number of an event by the id that it arrived with."""
    said = dict(took.headers)["penstock-event-id"]
    return int((said if isinstance(said, str) else said.decode())[1:])

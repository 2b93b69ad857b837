"""A door goes on while any engine but the log is away, and the books balance when it is back."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import psutil
import pytest
from engines.fresh import fresh_settings
from engines.kafka import Kafka
from engines.kit import Engine, default_root, listening
from engines.postgres import Postgres
from engines.rabbitmq import RabbitMQ
from engines.s3 import S3
from engines.search import Elasticsearch
from engines.trino import Trino
from installing import Installation, installation

pytestmark = [
    pytest.mark.engines,
    pytest.mark.outage,
    pytest.mark.timeout(600),
]

NDJSON = "application/x-ndjson"
PER_BATCH = 50

# The longest a door may take to answer while something else is away.
PROMPT = 5.0


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("stopped")
    with (
        fresh_settings(folder / "engines.toml") as file,
        installation(folder / "home", file) as running,
    ):
        yield running


@dataclass
class Sender:
    """Sends small batches one after the other, and keeps count of how each was answered."""

    here: Installation
    collection: str
    acknowledged: list[str] = field(default_factory=list)
    """Ids of events of which the door said that they are kept."""
    statuses: list[int] = field(default_factory=list)
    slowest: float = 0.0
    unsaid: int = 0
    """Answers of 503 without the time after which to try again."""
    unanswered: int = 0
    sent: int = 0

    def send(self) -> int:
        """Send one batch; answer its status, 0 where there was no answer."""
        body = "\n".join(f'{{"n": {self.sent + n}}}' for n in range(PER_BATCH))
        self.sent += PER_BATCH
        begun = time.monotonic()
        try:
            answer = self.here.post(self.collection, body.encode(), NDJSON)
        except httpx.TransportError:
            self.unanswered += 1
            return 0
        self.slowest = max(self.slowest, time.monotonic() - begun)
        self.statuses.append(answer.status_code)
        if answer.status_code == 202:
            said = answer.json()
            self.acknowledged += [one for one in said["ids"] if one is not None]
        elif answer.status_code == 503 and "retry-after" not in answer.headers:
            self.unsaid += 1
        return answer.status_code

    @contextmanager
    def sending(self, pause: float = 0.1) -> Iterator[None]:
        """Send in a thread for the block."""
        stop = threading.Event()

        def go_on() -> None:
            while not stop.is_set():
                self.send()
                stop.wait(pause)

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def balanced(here: Installation, sender: Sender) -> None:
    """Wait until all has landed; every acknowledged event is there, and each position once."""
    status = here.landed(sender.collection, seconds=180)
    kept = status.rows + status.quarantined
    statement = (
        "select count(*), count(distinct (log_id, log_partition, log_offset)), "
        f"count(distinct event_id) from {sender.collection}"
    )
    rows, positions, _ = here.json("sql", statement)["rows"][0]
    assert kept == rows == positions
    assert kept >= len(sender.acknowledged)
    assert not set(sender.acknowledged) - set(ids_of(here, sender.collection))
    assert here.json("search", sender.collection, "--count")["count"] == kept


def ids_of(here: Installation, collection: str) -> list[str]:
    """Answer the ids of all events of the table."""
    from lakehouse.catalog import main_table
    from penstock.envelope import CollectionId

    table = here.lake().table(main_table(CollectionId("main", collection)))
    found: list[str] = table.scan(selected_fields=("event_id",)).to_arrow()["event_id"].to_pylist()
    return found


@contextmanager
def away(kind: type[Engine]) -> Iterator[None]:
    """Stop the engine for the block, and start it again."""
    engine = kind(default_root())
    assert engine.stop()
    try:
        yield
    finally:
        engine.start()


@contextmanager
def dagster_away(here: Installation) -> Iterator[None]:
    """Halt every process of Dagster for the block."""
    halted = [
        process
        for process in psutil.Process(here.process.pid).children(recursive=True)
        if any("dagster" in word or "multiprocessing" in word for word in process.cmdline())
    ]
    assert halted
    for process in halted:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in halted:
            process.send_signal(signal.SIGCONT)


def door(here: Installation) -> psutil.Process | None:
    """Answer the door's process, None while there is none."""
    for process in psutil.Process(here.process.pid).children():
        if process.cmdline()[-2:] == ["serve", "door"]:
            return process
    return None


def restart_door(here: Installation) -> None:
    """Kill the door and wait until its supervisor has it back."""
    before = door(here)
    assert before is not None
    before.kill()
    before.wait(10)
    deadline = time.monotonic() + 60
    while door(here) is None or not listening(int(here.door.rpartition(":")[2])):
        assert time.monotonic() < deadline, "the door did not come back"
        time.sleep(0.2)


AWAY: dict[str, Callable[[Installation], object]] = {
    "postgres": lambda _: away(Postgres),
    "trino": lambda _: away(Trino),
    "elasticsearch": lambda _: away(Elasticsearch),
    "s3": lambda _: away(S3),
    "rabbitmq": lambda _: away(RabbitMQ),
    "dagster": dagster_away,
}


@pytest.mark.parametrize("name", AWAY)
def test_the_door_acknowledges_while_another_engine_is_away(here: Installation, name: str) -> None:
    """Events do not wait for anybody but the log; a door that restarts starts from its cache."""
    collection = f"without_{name}"
    here.cli("collection", "create", collection)
    sender = Sender(here, collection)
    assert sender.send() == 202

    with AWAY[name](here):
        with sender.sending():
            time.sleep(5)
        assert set(sender.statuses) == {202}
        assert sender.slowest < PROMPT
        restart_door(here)
        assert sender.send() == 202

    assert sender.unanswered == 0
    balanced(here, sender)


def test_without_its_log_the_door_says_503_and_recovers_by_itself(here: Installation) -> None:
    """Nothing is acknowledged that is not on the log, and nobody has to restart anything."""
    here.cli("collection", "create", "without_kafka")
    sender = Sender(here, "without_kafka")
    assert sender.send() == 202

    with away(Kafka):
        before = len(sender.acknowledged)
        with sender.sending():
            time.sleep(15)
        during = sender.statuses[1:]
        assert set(during) == {503}
        assert sender.unsaid == 0
        assert len(sender.acknowledged) == before

    deadline = time.monotonic() + 60
    while sender.send() != 202:
        assert time.monotonic() < deadline, "the door did not recover"
        time.sleep(0.5)
    balanced(here, sender)

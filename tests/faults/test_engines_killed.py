"""Broker, door and landing run are killed at random under load: nothing lost, nothing doubled."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import psutil
import pytest
from door_process import OwnDoor, own_door
from engines.fresh import fresh_settings
from engines.kafka import Kafka
from engines.places import HOST
from evidence.sheet import happened
from installing import Installation, installation
from own_engines import own_engine
from sending import PER_BATCH, UNANSWERED, Sender, assert_balanced, until

from penstock.clock import machine_clock
from penstock.metadata.store import Store, open_store

pytestmark = [
    pytest.mark.engines,
    pytest.mark.crash,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("killed"),
]

EVENTS = 20_000
KILLS = int(os.environ.get("FAULT_KILLS", "30"))
SEEDS = range(max(1, KILLS // 3))

THREADS = 4
PAUSE = 0.1


@dataclass
class Killer:
    """Kills what events come by while they come; each kill says how it knows that it hit."""

    kafka: Kafka
    here: Installation
    door: OwnDoor
    store: Store
    runs: set[str] = field(default_factory=set)
    """Landing runs that were killed."""

    def broker(self, sender: Sender) -> None:
        """Kill the broker, see senders wait for it, and start it again."""
        try:
            assert self.kafka.stop(signal.SIGKILL)
            happened("kills")
            before = sender.acknowledged
            until(lambda: sender.under_way == THREADS, "nobody sends")
            assert sender.acknowledged <= before + THREADS * PER_BATCH
        finally:
            self.kafka.start()

    def one_door(self, sender: Sender) -> None:
        """Kill the door in the middle of a request, and start it again."""
        unanswered = sender.statuses.count(UNANSWERED)
        until(lambda: sender.under_way > 0, "nobody sends")
        assert self.door.kill()
        happened("kills")
        self.door.start()
        assert sender.statuses.count(UNANSWERED) > unanswered

    def landing(self, sender: Sender) -> None:
        """Kill the run that lands, while events wait for it; the sensor starts another."""
        until(lambda: self._lander() is not None, "no run lands", seconds=120)
        with self.here.client() as client:
            until(lambda: client.collection_status(sender.collection).waiting > 0, "none waits")
        run = self._lander()
        assert run is not None
        killed = [one for one in self.here.processes("multiprocessing.spawn") if ended(one)]
        assert killed
        happened("kills")
        self.runs.add(run)

    def _lander(self) -> str | None:
        """Answer the run that holds the lease and was not killed, None while there is none."""
        lease = self.store.lease("lane 0")
        if lease is None or lease.until < machine_clock() or lease.holder in self.runs:
            return None
        return lease.holder


def ended(process: psutil.Process) -> bool:
    """Kill a process; say whether it ran until then."""
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return False
    return True


@pytest.fixture(scope="module")
def killer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    folder = tmp_path_factory.mktemp("killed")
    with (
        own_engine(Kafka, folder) as kafka,
        fresh_settings(folder / "engines.toml", kafka=f"{HOST}:{kafka.port}") as file,
        installation(folder / "home", file) as here,
        own_door(folder / "door", file) as door,
        closing(open_store(here.settings().metadata)) as store,
    ):
        yield Killer(kafka, here, door, store)


@pytest.mark.breaks("broker, door and landing run, at random moments under load")
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_or_doubled_whoever_is_killed(killer: Killer, seed: int) -> None:
    """What was acknowledged is in the tables where the door said, and each position once."""
    chance = random.Random(seed)
    with killer.here.client() as client:
        client.create_collection(f"killed_{seed}", partitions=4)
    sender = Sender(killer.door.url, killer.here.token, f"killed_{seed}")
    kills: list[Callable[[Sender], None]] = [killer.broker, killer.one_door, killer.landing]

    before = len(killer.runs)
    with sender.sending(threads=THREADS, pause=PAUSE):
        # In an order and at moments of the seed's own.
        for kill in chance.sample(kills, len(kills)):
            sender.wait_for(chance.randint(1_000, 5_000))
            kill(sender)
        sender.wait_for(max(1_000, EVENTS - sender.acknowledged))

    assert len(killer.runs) == before + 1
    assert sender.acknowledged >= EVENTS
    assert_balanced(killer.here, sender)

"""Broker, door and landing run are killed at random under load: nothing lost, nothing doubled."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator

import httpx
import psutil
import pytest
from engines.fresh import fresh_settings
from engines.kafka import Kafka
from engines.kit import default_root
from installing import Installation, installation

from lakehouse.catalog import main_table, quarantine_table
from penstock.envelope import CollectionId

pytestmark = [
    pytest.mark.engines,
    pytest.mark.outage,
    pytest.mark.timeout(600),
]

EVENTS = 20_000
PER_BATCH = 100
SEEDS = range(10)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("killed")
    with (
        fresh_settings(folder / "engines.toml") as file,
        installation(folder / "home", file) as running,
    ):
        yield running


def send_all(here: Installation, collection: str, done: threading.Event) -> None:
    """Send numbered events in batches, each batch again until the door acknowledges it."""
    headers = {
        "Authorization": f"Bearer {here.token}",
        "Content-Type": "application/x-ndjson",
    }
    with httpx.Client(headers=headers, timeout=30, trust_env=False) as client:
        for start in range(0, EVENTS, PER_BATCH):
            body = "\n".join(f'{{"n": {n}}}' for n in range(start, start + PER_BATCH))
            while True:
                try:
                    answer = client.post(f"{here.door}/v1/events/{collection}", content=body)
                except httpx.TransportError:
                    answer = None
                if answer is not None and answer.status_code == 202:
                    break
                time.sleep(0.2)
    done.set()


def kill_broker(_here: Installation) -> None:
    """Kill the broker and start it again."""
    broker = Kafka(default_root())
    broker.stop(signal.SIGKILL)
    broker.start()


def kill_door(here: Installation) -> None:
    """Kill the door; its supervisor starts it again."""
    for process in psutil.Process(here.process.pid).children():
        if process.cmdline()[-2:] == ["serve", "door"]:
            process.kill()


def kill_landing(here: Installation) -> None:
    """Kill the run that lands, if one runs; the sensor starts another."""
    for process in psutil.Process(here.process.pid).children(recursive=True):
        if any("multiprocessing.spawn" in word for word in process.cmdline()):
            process.kill()


KILLERS = (kill_broker, kill_door, kill_landing)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_or_doubled_whoever_is_killed(here: Installation, seed: int) -> None:
    """What was acknowledged is in the tables, and each position of the log once."""
    chance = random.Random(seed)
    collection = f"killed_{seed}"
    here.cli("collection", "create", collection, "--partitions", "4")
    done = threading.Event()
    sending = threading.Thread(target=send_all, args=(here, collection, done))
    sending.start()
    # Each is killed at least once, in an order of the seed's own, and while events come in.
    for killer in chance.sample(KILLERS, len(KILLERS)):
        time.sleep(chance.uniform(0.2, 1.5))
        killer(here)
    sending.join(240)
    assert done.is_set(), "the door did not take all events"

    here.landed(collection, seconds=240)
    numbers: Counter[int] = Counter()
    positions: Counter[tuple[str, int, int]] = Counter()
    lake = here.lake()
    name = CollectionId("main", collection)
    columns = ("payload", "log_id", "log_partition", "log_offset")
    for table in (main_table(name), quarantine_table(name)):
        for row in lake.table(table).scan(selected_fields=columns).to_arrow().to_pylist():
            numbers[json.loads(row["payload"])["n"]] += 1
            positions[row["log_id"], row["log_partition"], row["log_offset"]] += 1

    assert set(numbers) == set(range(EVENTS)), "lost"
    assert set(positions.values()) == {1}, "doubled"
    # A batch that was sent again may be there twice, as other positions; most are there once.
    assert numbers.total() < 2 * EVENTS

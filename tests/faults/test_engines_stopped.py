"""A door goes on while any engine but the log is away, and the books balance when it is back."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from door_process import OwnDoor, own_door
from engines.etcd import Etcd
from engines.fresh import fresh_settings
from engines.kafka import Kafka
from engines.kit import Engine, default_root
from engines.postgres import Postgres
from engines.rabbitmq import RabbitMQ
from engines.s3 import S3
from engines.search import Elasticsearch
from engines.trino import Trino
from evidence.sheet import happened
from installing import Installation, installation
from sending import PER_BATCH, UNANSWERED, Sender, assert_balanced, until

pytestmark = [
    pytest.mark.engines,
    pytest.mark.outage,
    pytest.mark.timeout(600),
]

# The longest a door may take to answer while something else is away.
PROMPT = 5.0

PAUSE = 0.05


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("stopped")
    with (
        fresh_settings(folder / "engines.toml") as file,
        installation(folder / "home", file) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def door(here: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnDoor]:
    """Answer a door that nobody but the test starts again."""
    assert here.settings_file is not None
    with own_door(tmp_path_factory.mktemp("door") / "home", here.settings_file) as made:
        yield made


def sender_to(door: OwnDoor, here: Installation, collection: str) -> Sender:
    """Make the collection, and answer a sender of its events."""
    with here.client() as client:
        client.create_collection(collection)
    return Sender(door.url, here.token, collection)


@contextmanager
def away(kind: type[Engine]) -> Iterator[None]:
    """Stop the engine for the block, and start it again."""
    engine = kind(default_root())
    assert engine.stop()
    happened("outages")
    try:
        yield
    finally:
        engine.start()


@contextmanager
def dagster_away(here: Installation) -> Iterator[None]:
    """Halt every process of Dagster for the block."""
    halted = here.processes("dagster", "multiprocessing")
    assert halted
    for process in halted:
        process.send_signal(signal.SIGSTOP)
    happened("outages")
    try:
        yield
    finally:
        for process in halted:
            process.send_signal(signal.SIGCONT)


AWAY: dict[str, Callable[[Installation], AbstractContextManager[None]]] = {
    "postgres": lambda _: away(Postgres),
    "etcd": lambda _: away(Etcd),
    "trino": lambda _: away(Trino),
    "elasticsearch": lambda _: away(Elasticsearch),
    "s3": lambda _: away(S3),
    "rabbitmq": lambda _: away(RabbitMQ),
    "dagster": dagster_away,
}


@pytest.mark.breaks("each engine but the log, and the door meanwhile")
@pytest.mark.parametrize("name", AWAY)
def test_the_door_acknowledges_while_another_engine_is_away(
    here: Installation, door: OwnDoor, name: str
) -> None:
    """Events do not wait for anybody but the log; a door that restarts starts from its cache."""
    sender = sender_to(door, here, f"without_{name}")

    with sender.sending(threads=1, pause=PAUSE):
        sender.wait_for(5 * PER_BATCH)
        with AWAY[name](here):
            sender.wait_for(50 * PER_BATCH)
            assert set(sender.statuses) == {202}

            assert door.kill()
            happened("kills")
            door.start()
            sender.wait_for(20 * PER_BATCH)
        sender.wait_for(5 * PER_BATCH)

    # Nobody answered while the door was dead; whoever answered had stored.
    assert set(sender.statuses) == {202, UNANSWERED}
    assert max(answer.seconds for answer in sender.answers) < PROMPT
    assert_balanced(here, sender)


@pytest.mark.breaks("the broker of the log, under load")
def test_without_its_log_the_door_says_503_and_recovers_by_itself(
    here: Installation, door: OwnDoor
) -> None:
    """Nothing is acknowledged that is not on the log, and nobody has to restart anything."""
    sender = sender_to(door, here, "without_kafka")

    with sender.sending(threads=1, pause=PAUSE):
        sender.wait_for(5 * PER_BATCH)
        with away(Kafka):
            until(lambda: 503 in sender.statuses, "the door hides that its log is away")
            answered, acknowledged = len(sender.answers), sender.acknowledged
            until(lambda: len(sender.answers) >= answered + 2, "the door does not answer")
            refused = sender.answers[answered:]
            assert {answer.status for answer in refused} == {503}
            assert all(answer.says_when for answer in refused)
            assert sender.acknowledged == acknowledged
        sender.wait_for(20 * PER_BATCH)

    assert set(sender.statuses) == {202, 503}
    assert_balanced(here, sender)

"""A Kafka of three brokers and a controller of their own, any of which a test may kill."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from engines.kafka import Kafka
from engines.kit import default_root
from engines.places import HOST
from ports import free_ports

_CONTROLLER = """
process.roles=controller
listeners=CONTROLLER://{host}:{port}
"""
_BROKER = """
process.roles=broker
listeners=PLAINTEXT://{host}:{port}
advertised.listeners=PLAINTEXT://{host}:{port}
"""
_BOTH = """
node.id={number}
controller.quorum.voters=0@{host}:{controller}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
# 128 MB otherwise, of a heap that is hardly larger.
log.cleaner.dedupe.buffer.size=4194304
# A broker that is gone is noticed after two seconds instead of nine.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
"""


class _Node(Kafka):
    heap = "192m"
    port_count = 1

    def __init__(self, folder: Path, number: int, ports: Sequence[int]) -> None:
        super().__init__(default_root(), run=folder / f"node-{number}", port=ports[number])
        self._number = number
        self._controller = ports[0]

    def settings(self) -> str:
        role = _BROKER if self._number else _CONTROLLER
        return (role + _BOTH).format(
            host=HOST, port=self.port, number=self._number, controller=self._controller
        )

    def format_options(self) -> Sequence[str]:
        """None: its settings name the controller."""
        return ()


class ThreeBrokers:
    """The brokers by their numbers, 1 to 3, and where clients begin."""

    def __init__(self, folder: Path) -> None:
        ports = free_ports(4)
        self._controller = _Node(folder, 0, ports)
        self.brokers = {number: _Node(folder, number, ports) for number in (1, 2, 3)}
        self.servers = ",".join(f"{HOST}:{broker.port}" for broker in self.brokers.values())

    def start(self) -> None:
        """Let all of them run that do not, and wait until they do."""
        nodes = [self._controller, *self.brokers.values()]
        nodes[0].ensure_fetched()
        with ThreadPoolExecutor(len(nodes)) as pool:
            list(pool.map(_Node.start, nodes))

    def wipe(self) -> None:
        for node in (*self.brokers.values(), self._controller):
            node.wipe()


@contextmanager
def three_brokers(folder: Path) -> Iterator[ThreeBrokers]:
    """Start them for the block."""
    cluster = ThreeBrokers(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.wipe()

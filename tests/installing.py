"""A running installation for tests: real processes, in a home of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import psutil
from engines import places
from ports import free_ports
from ugly import Message

from ingest_api.proto import records_pb2, services_pb2, services_pb2_grpc
from lakehouse import Lake, open_lake
from penstock.cli.home import read_running
from penstock.cli.receiver import Receiver, receiving
from penstock.client import Client
from penstock.settings import FILE_VARIABLE, Settings, load_settings


@dataclass
class Installation:
    """`penstock up` in a process of its own, and how to reach it."""

    home: Path
    process: subprocess.Popen[bytes]
    receiver: Receiver
    settings_file: Path | None = None

    def __post_init__(self) -> None:
        running = read_running(self.home)
        self.door = running.door
        self.grpc = running.grpc
        self.platform = running.platform
        self.dagster = running.dagster
        self.token = running.token

    def settings(self) -> Settings:
        """Answer what every process of it goes by."""
        return load_settings(self.home, {}, file=self.settings_file)

    def lake(self) -> Lake:
        """Open its tables."""
        settings = self.settings()
        return open_lake(settings.catalog, settings.warehouse, settings.s3)

    def client(self) -> Client:
        return Client(self.platform, self.token)

    def post(self, collection: str, body: bytes, content_type: str, **headers: str):
        return httpx.post(
            f"{self.door}/v1/events/{collection}",
            content=body,
            headers={
                "Authorization": f"Bearer {self.token}",
                "Content-Type": content_type,
                **headers,
            },
            timeout=60,
            trust_env=False,
        )

    def cli(self, *words: str, code: int = 0, **given) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "penstock", *words, "--home", str(self.home)],
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
            **given,
        )
        assert done.returncode == code, done.stderr
        return done.stdout

    def json(self, *words: str):
        return json.loads(self.cli(*words, "--json"))

    def graphql(self, query: str, **variables):
        answer = httpx.post(
            f"{self.dagster}/graphql",
            json={"query": query, "variables": variables},
            timeout=60,
            trust_env=False,
        )
        answer.raise_for_status()
        document = answer.json()
        assert "errors" not in document, document
        return document["data"]

    def processes(self, *words: str) -> list[psutil.Process]:
        """Answer its processes, runs included, whose command line has one of these words."""
        found = []
        for one in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it ended meanwhile
                if any(word in part for part in one.cmdline() for word in words):
                    found.append(one)
        return found

    def landed(self, collection: str, seconds: float = 240.0):
        """Wait until nothing of the collection waits; answer its status."""
        with self.client() as client:
            deadline = time.monotonic() + seconds
            while True:
                status = client.collection_status(collection)
                if status.waiting == 0:
                    return status
                assert time.monotonic() < deadline, f"{status.waiting} events still wait"
                time.sleep(0.3)


def outside() -> dict[str, str]:
    """Answer the environment without anything that is for Penstock."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}


@contextmanager
def installation(
    home: Path,
    settings_file: Path | None = None,
    *,
    networks: str | None = "127.0.0.1/32",
    more_ports: tuple[int, ...] = (),
) -> Iterator[Installation]:
    """Run `penstock up` for the block; afterwards none of its processes is left.

    `networks` are those that the operator allows replays to reach, None where nobody said any;
    `more_ports` are allowed beside those that tests always need.
    """
    http, grpc, platform, dagster = free_ports(4)
    environ = outside()
    with receiving() as receiver:
        if networks is not None:
            environ["PENSTOCK_ALLOW_NETWORKS"] = networks
        ports = (receiver.port, places.KAFKA_PORT, places.RABBITMQ_PORT, places.SQS_PORT)
        ports += more_ports
        environ["PENSTOCK_ALLOW_PORTS"] = ",".join(map(str, ports))
        if settings_file is not None:
            environ[FILE_VARIABLE] = str(settings_file)
        log = (home.parent / "up.log").open("wb")
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "penstock", "up", "--home", str(home)),
                *("--http-port", str(http), "--grpc-port", str(grpc)),
                *("--platform-port", str(platform), "--dagster-port", str(dagster)),
            ],
            env=environ,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_ready(home, process, home.parent / "up.log")
            yield Installation(home, process, receiver, settings_file)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
            finally:
                log.close()


def _wait_ready(home: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 240
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        if "Ctrl-C stops everything" in log.read_text():
            return
        time.sleep(0.2)


def send_kafka_records(
    here: Installation, token: str, messages: list[Message], *, topic: str
) -> None:
    """Send every message as a Kafka record, 100 a call."""
    with grpc.insecure_channel(
        here.grpc, options=[("grpc.max_send_message_length", 100 << 20)]
    ) as channel:
        door = services_pb2_grpc.GRPCCollectorStub(channel)
        for start in range(0, len(messages), 100):
            records = [
                records_pb2.KafkaSinkRecord(
                    topic=topic,
                    key=message.key or b"",
                    value=message.payload,
                    offset=start + place,
                    headers=[
                        records_pb2.KafkaHeader(key=name, value=value)
                        for name, value in message.headers
                    ],
                )
                for place, message in enumerate(messages[start : start + 100])
            ]
            request = services_pb2.KafkaSinkRecordRequest(records=records)
            answer = door.AddKafkaRecord(request, metadata=(("batch.token", token),))
            assert answer.num_records_processed == len(records)

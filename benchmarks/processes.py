"""The servers under test, each a process on the first core; the load is on the second."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.cache import open_cache
from penstock.clock import machine_clock
from penstock.envelope import DEFAULT_TEAM, CollectionId
from penstock.metadata.records import CollectionRecord
from penstock.metadata.store import open_store
from penstock.metadata.tokens import issue
from penstock.settings import Settings, load_settings

COLLECTION = CollectionId(DEFAULT_TEAM, "bench")
SERVER_CORES = {0}
LOAD_CORES = {1}
_READY_SECONDS = 30.0


@dataclass(frozen=True)
class Door:
    """A door process and what is needed to send to it."""

    pid: int
    http_port: int
    grpc_port: int
    token: str
    settings: Settings


def free_port() -> int:
    """Answer a port that nobody holds now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def server(
    argv: Sequence[str], port: int, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[int]:
    """Run a server on its core for the block; answer its process id once it listens.

    What it prints goes to the file `log`.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *argv],
            env={**os.environ, **(env or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_to_server_core,  # noqa: PLW1509 - one system call
        )
    try:
        deadline = time.monotonic() + _READY_SECONDS
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{argv} did not start:\n{log.read_text(errors='replace')}")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def door(home: Path, **given: Any) -> Iterator[Door]:
    """Run a door on a fresh home with one collection, ``bench``, and a token for it.

    `given` are settings for who works on the home beside the door.
    """
    settings = load_settings(home, {}, http_port=free_port(), grpc_port=free_port(), **given)
    home.mkdir(parents=True)
    store = open_store(settings.metadata)
    store.create_collection(CollectionRecord(id=COLLECTION, created_at=machine_clock()))
    token, record = issue(
        secrets.token_bytes,
        team=DEFAULT_TEAM,
        name="bench",
        scopes=("ingest",),
        collection=COLLECTION.name,
        created_at=machine_clock(),
    )
    store.add_token(record)
    open_cache(settings.cache).publish(store.known)
    store.close()
    env = {
        "PENSTOCK_HTTP_PORT": str(settings.http_port),
        "PENSTOCK_GRPC_PORT": str(settings.grpc_port),
    }
    if settings.log_url:
        env["PENSTOCK_LOG_URL"] = settings.log_url
    argv = ("-m", "penstock", "serve", "door", "--home", str(home))
    with server(argv, settings.http_port, home / "door.log", env) as pid:
        yield Door(pid, settings.http_port, settings.grpc_port, token, settings)


def _to_server_core() -> None:
    os.sched_setaffinity(0, SERVER_CORES & os.sched_getaffinity(0) or os.sched_getaffinity(0))


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0

"""The door as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from penstock.faults import VARIABLE


@contextmanager
def door(home: Path, ports: Sequence[int], fault: str | None) -> Iterator[subprocess.Popen]:
    """Run the door's process for the block, and wait until it answers."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
    environ |= {"PENSTOCK_HTTP_PORT": str(ports[0]), "PENSTOCK_GRPC_PORT": str(ports[1])}
    if fault:
        environ[VARIABLE] = fault
    with (home / "door.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock", "serve", "door", "--home", str(home)],
            env=environ,
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 60
        while not answers(ports[0]):
            assert process.poll() is None, (home / "door.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        process.wait(30)


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).is_success
    except httpx.TransportError:
        return False

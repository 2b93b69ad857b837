"""The door as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
from ports import free_ports

from penstock.faults import VARIABLE
from penstock.settings import FILE_VARIABLE


@contextmanager
def door(
    home: Path, ports: Sequence[int], fault: str | None, *, settings_file: Path | None = None
) -> Iterator[subprocess.Popen]:
    """Run the door's process for the block, and wait until it answers."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
    environ |= {"PENSTOCK_HTTP_PORT": str(ports[0]), "PENSTOCK_GRPC_PORT": str(ports[1])}
    if fault:
        environ[VARIABLE] = fault
    if settings_file:
        environ[FILE_VARIABLE] = str(settings_file)
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


class OwnDoor:
    """A door beside those of an installation, with a home of its own: a test may kill it."""

    def __init__(self, home: Path, settings_file: Path) -> None:
        home.mkdir()
        self._home, self._settings_file = home, settings_file
        self._ports = free_ports(2)
        self._running = ExitStack()
        self.url = f"http://127.0.0.1:{self._ports[0]}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        running = door(self._home, self._ports, None, settings_file=self._settings_file)
        self._process = self._running.enter_context(running)

    def kill(self) -> bool:
        """Kill it; say whether it ran until then."""
        ran = self._process.poll() is None
        self._process.kill()
        self._running.close()
        return ran

    def stop(self) -> None:
        """End it, if it runs."""
        self._running.close()


@contextmanager
def own_door(home: Path, settings_file: Path) -> Iterator[OwnDoor]:
    """Run a door on these settings for the block."""
    made = OwnDoor(home, settings_file)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).is_success
    except httpx.TransportError:
        return False

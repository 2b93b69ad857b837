"""The processes that send for a replay, as others see them; and bugs of a replay that has some."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress

import psutil

from replay.targets import Delivered, spread

MODULE = "replay.targets.sending"


def processes(parent: int | None = None) -> list[psutil.Process]:
    """Answer those that send for a process, this one unless another is named."""
    found = []
    with suppress(psutil.NoSuchProcess):  # it has ended, and nobody is its child
        for each in psutil.Process(parent).children():
            with suppress(psutil.Error):  # it has just ended
                if MODULE in each.cmdline():
                    found.append(each)
    return found


def connected(senders: Iterable[psutil.Process], port: int) -> list[psutil.Process]:
    """Answer those that have sent something to a port of this machine: they keep connections."""
    found = []
    for each in senders:
        with suppress(psutil.Error):
            if any(one.raddr and one.raddr.port == port for one in each.net_connections("tcp")):
                found.append(each)
    return found


# Bugs, each put into the process of a replay before it begins.

_GOES_ON = f"""
from {MODULE.rpartition(".")[0]} import sending
sending._end = lambda: None
sending.main()
"""


def outlived() -> None:
    """Start processes that do not end when their replay does."""
    start = subprocess.Popen

    def started(_command: list[str], **more: object) -> object:
        return start([sys.executable, "-P", "-c", _GOES_ON, MODULE], **more)

    subprocess.Popen = started


def believed() -> None:
    """Take what a process that died had in hand for delivered."""
    spread.ENDED = Delivered(200)

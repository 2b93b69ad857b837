"""The parts of an installation that a soak runs beside its door and its API, to be killed.

Each does what a job of Dagster does, without the runs around it, until the file `ENOUGH` is in the
home. Handed to processes by `soaking.Soak`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import structlog

from assets.landing import Trouble
from assets.stores import Stores, opened
from assets.upkeep import Tended
from lakehouse.sql import open_engine
from orchestration.tending import tend_home
from penstock.errors import Unavailable, WrongState
from penstock.settings import load_settings

ENOUGH = "enough"
TROUBLES = "troubles"
"""The file with what went wrong and does not pass by itself, a line each."""

UPKEEP_EVERY = 5.0
"""Seconds from the end of one upkeep to the next."""

# Importing these takes seconds; the server that processes are forked from does it once.
PRELOADED = [
    *("assets.stores", "orchestration.tending", "penstock.buffer.embedded"),
    *("lakehouse.sql.embedded", "replay.job"),
]


def land_on(home: Path) -> None:
    """Land what comes, and tell the statistics, until it is enough."""
    with _stores(home) as stores, stores.books() as books:
        for outcome in stores.landing().drain(
            stores.buffer.collections, until=(home / ENOUGH).exists, hurry=stores.hurried
        ):
            if not isinstance(outcome, Trouble):
                books.tell(outcome)
            elif not outcome.passes:
                _say(home, f"{outcome.collection} does not land: {outcome.reason}")


def tend_on(home: Path) -> None:
    """Tend every table again and again, and once more when it is enough."""
    with _stores(home) as stores:
        last = False
        while not last:
            last = (home / ENOUGH).exists()
            try:
                for outcome in tend_home(
                    stores, stores.lake.collections(), holder=name_of(os.getpid()), seconds=60
                ):
                    passes = isinstance(outcome, Tended) or isinstance(outcome.error, Unavailable)
                    if not passes:
                        _say(home, f"{outcome.collection} is not tended: {outcome.error!r}")
            except WrongState:  # the lease of one that was killed has not ended yet
                last = False
                time.sleep(0.5)
                continue
            rested = time.monotonic() + UPKEEP_EVERY
            while not last and time.monotonic() < rested and not (home / ENOUGH).exists():
                time.sleep(0.1)


def name_of(pid: int | None) -> str:
    """Answer as whom a process holds leases."""
    return f"soak {pid}"


def send_replay(home: Path, replay_id: str) -> None:
    """Bring a replay to its end, or put it down because another has it."""
    from replay.job import tools_of
    from replay.run import run_replay

    with (
        _stores(home) as stores,
        closing(open_engine(home / "sql", memory="300MB", threads=1)) as engine,
    ):
        run_replay(replay_id, tools_of(stores, engine), holder=name_of(os.getpid()))


@contextmanager
def _stores(home: Path) -> Iterator[Stores]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    logging.getLogger("pyiceberg").setLevel(logging.ERROR)
    with opened(load_settings(home, {})) as stores:
        yield stores


def _say(home: Path, what: str) -> None:
    with (home / TROUBLES).open("a") as out:
        out.write(what + "\n")

"""`python -m benchmarks.beside HOME PLACE RATE BEHIND`: so many events a second, sent and landed.

The clock of the events goes `BEHIND` microseconds behind the machine's; the first has the id of
`PLACE`. It says that it has begun, and goes on until it is ended.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from pathlib import Path

import structlog

from assets.stores import opened
from benchmarks.bus import COLLECTION, one_after_the_other, placed
from penstock.buffer import open_appender
from penstock.clock import machine_clock
from penstock.settings import load_settings

_EVERY = 0.1


def main() -> None:
    """Send in this thread, and land in another, as Dagster's runs do."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    home, first, rate, behind = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    settings = load_settings(home, {})
    source, place = one_after_the_other(), first
    with opened(settings) as stores:
        landing = stores.landing()

        def land() -> None:
            for _ in landing.drain(lambda: [COLLECTION], until=lambda: False):
                pass

        appender = open_appender(settings.log)
        threading.Thread(target=land, daemon=True).start()
        begun = time.monotonic()
        sent = 0
        while True:
            due = round((time.monotonic() - begun) * rate)
            now = machine_clock() - behind
            events = [placed(next(source), place + n, now) for n in range(due - sent)]
            if events:
                appender.append(COLLECTION, events).result(30)
            if not sent and events:
                print("begun", flush=True)
            place, sent = place + len(events), due
            time.sleep(_EVERY)


if __name__ == "__main__":
    main()

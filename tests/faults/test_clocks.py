"""Clocks that are set forth and back by a day, under everything that goes by them."""

from __future__ import annotations

from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from balance import compare
from builders import FLIGHTS, NOON, event, numbered
from door_builders import LIMITS, TOKEN, known, token_record
from evidence.sheet import found, happened
from lakes import MAIN, landing, new_lake, stored
from sending import payload

from ingest_api.accept import Door
from ingest_api.auth import Keyring
from lakehouse.upkeep import DAY, compact, expire, sweep_orphans
from penstock.buffer import open_appender, open_buffer
from penstock.envelope import Micros, Position
from penstock.errors import Unauthorized, Unavailable

CALLS = 60
TOGETHER = 5
ENDS_TODAY = "a token that ends today"


class Jumping:
    """A clock that is set now and then: a day ahead, a day behind, or right."""

    def __init__(self, seed: int) -> None:
        self.jumps = 0
        self._chance = Random(seed)
        self._now, self._wrong = NOON, 0

    def __call__(self) -> Micros:
        self._now += 1_000
        if self._chance.random() < 0.05:
            self._wrong = self._chance.choice((-DAY, 0, DAY))
            self.jumps += 1
        return self._now + self._wrong


@pytest.mark.breaks("the clock of door, landing and upkeep, by a day at any look")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nothing_is_lost_or_doubled_whatever_the_clock_says(tmp_path: Path, seed: int) -> None:
    """And no mark goes back, nor the times of a door, nor does a token that had ended count."""
    clock, lake = Jumping(seed), new_lake(tmp_path)
    told: dict[int, bytes] = {}
    times: list[Micros] = []
    marks: list[int] = []
    seen: dict[str, Micros] = {}
    url = f"embedded://{tmp_path / 'log'}"
    with closing(open_appender(url)) as appender, closing(open_buffer(url)) as log:
        ring = Keyring(
            known(tokens=[token_record(ENDS_TODAY, "today", expires_at=NOON + DAY // 2)])
        )
        door = Door(appender, ring, LIMITS, clock=clock, new_ids=numbered())
        work = landing(log, lake, clock=clock)
        for call in range(CALLS):
            grant, _ = door.may_ingest(TOKEN, FLIGHTS)
            times.append(door.received())
            events = [
                event(payload(number), id=f"e{number}", received_at=times[-1])
                for number in range(call * TOGETHER, (call + 1) * TOGETHER)
            ]
            for one, place in zip(
                events, door.accept(grant, FLIGHTS, events).result(10), strict=True
            ):
                assert isinstance(place, Position)
                told[place.offset] = one.payload
            if call % 5 == 4:
                while not marks or marks[-1] < len(told):
                    with suppress(Unavailable):  # by the clock the batch took more than an hour
                        work.land_once(FLIGHTS)
                    view = lake.view(FLIGHTS)
                    marks.append(view.mark(log.log_id(FLIGHTS), 0).next if view else 0)
            if call % 20 == 19:
                compact(lake, MAIN, below=1 << 20, new_name=f"m{call}".format, clock=clock)
                expire(lake, MAIN, keep=2, clock=clock)
                seen = dict(sweep_orphans(lake, MAIN, seen, clock()).seen)
        with pytest.raises(Unauthorized):
            door.may_ingest(ENDS_TODAY, FLIGHTS)

    happened("clock jumps", clock.jumps)
    found(tables=compare(told, stored(lake)))
    for series in (times, marks):
        assert all(one <= next_ for one, next_ in pairwise(series))

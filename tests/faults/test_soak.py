"""An installation under load for minutes, of which something is killed, stopped or switched always.

The default is a short form; `make soak` goes on for ten minutes, at 2,000 events a second.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from evidence.sheet import found, say
from sending import assert_balanced
from soaking import KILLS, MAIN_TABLE, Plan, plan_of, soaked

pytestmark = [pytest.mark.soak, pytest.mark.crash, pytest.mark.timeout(7_200)]

SECONDS = float(os.environ.get("SOAK_SECONDS", "36"))
RATE = float(os.environ.get("SOAK_RATE", "300"))
SEED = int(os.environ.get("SOAK_SEED", "7"))


@pytest.mark.breaks("an installation under load, each part of it in turn")
def test_what_is_acknowledged_is_there_once_and_nothing_grows(tmp_path: Path) -> None:
    """What no test of one moment shows: what builds up while everything goes on."""
    plan = plan_of(SEED, SECONDS, RATE)
    say(f"soak with seed {plan.seed}: {SECONDS:g} s, {RATE:g} events/s")
    with soaked(plan, tmp_path, say) as soak:
        assert_balanced(soak.here, soak.sender)
        soak.end()
        say(soak.summary())
        found(replays=soak.sent_again(), books=soak.books(), processes=soak.processes())
    assert {f"kills of {name}" for name in KILLS} <= soak.done.keys()
    assert soak.replays


def test_the_soak_finds_a_lost_event(tmp_path: Path) -> None:
    """A mutant: a table that loses rows. What grows is found in `tests/unit/test_drift.py`."""
    plan = Plan(SEED, seconds=12.0, rate=200.0, every=5.0, kills=0.0)
    with soaked(plan, tmp_path, say) as soak:
        assert_balanced(soak.here, soak.sender)
        for name in ("landing", "upkeep"):
            soak.parts[name].kill()
        table = soak.here.lake().table(MAIN_TABLE)
        assert table is not None
        table.delete("log_offset >= 100 and log_offset < 103")
        with pytest.raises(AssertionError, match="positions of the log are no row"):
            assert_balanced(soak.here, soak.sender)

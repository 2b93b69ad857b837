"""Contracts that are tried and switched while events land, and while landing dies."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from builders import FLIGHTS, NOON, event
from lakes import PLACES, begin_process, child, finished, log_url, new_lake, urls
from served import until
from sites import Site, site_at

from assets.contract import Past, Trials
from assets.landing import Landing, Limits
from lakehouse import Lake, commit
from lakehouse.sql import open_engine
from penstock.buffer import Buffer, open_appender, open_buffer
from penstock.envelope import Position
from penstock.schema.convert import Rules
from penstock.vocabulary import Contract

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]

KINDS = ('{{"n": {0}}}', '{{"n": "x{0}"}}', '{{"n": {0}, "f{0}": 1}}', '{{"n": {0}', "{0}")
"""Payloads that fit, misfit, bring a field, are no JSON, are no object."""

RULES = Rules(max_columns=20)


@pytest.fixture(params=PLACES)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with site_at(request.param, tmp_path, partitions=2) as site:
        yield site


def send(folder: Path, first: int, end: int) -> None:
    """Accept these events, each of the next kind; on Kafka both partitions have some."""
    events = [
        event(
            KINDS[number % len(KINDS)].format(number),
            id=f"e{number}",
            received_at=NOON,
            key=b"%d" % number,
        )
        for number in range(first, end)
    ]
    with closing(open_appender(log_url(folder))) as appender:
        outcomes = appender.append(FLIGHTS, events).result(30)
    assert all(isinstance(outcome, Position) for outcome in outcomes)


def landing_under(lake: Lake, log: Buffer, contract: list[Contract]) -> Landing:
    """Answer a landing that asks for the contract before each batch."""
    return Landing(
        log,
        lake,
        rules=lambda _: replace(RULES, contract=contract[0]),
        clock=lambda: NOON,
        limits=Limits(batch_bytes=400),
    )


def more_than(site: Site, count: int) -> bool:
    return site.landed().total() > count


def test_a_contract_tried_and_switched_to_and_fro_while_events_land_loses_and_doubles_nothing(
    site: Site,
) -> None:
    """Landing asks for the contract before each batch; each event is in one table, once."""
    contract: list[Contract] = ["evolve"]
    contracts: list[Contract] = ["quarantine", "drop_value", "freeze", "quarantine", "evolve"]
    done, sent = threading.Event(), count(10, 10)

    def drain() -> None:
        with closing(open_buffer(log_url(site.folder))) as log:
            work = landing_under(site.lake, log, contract)
            while not done.is_set():
                work.land_once(FLIGHTS)
            while work.land_once(FLIGHTS):
                pass

    send(site.folder, 0, 10)
    running = threading.Thread(target=drain, daemon=True)
    running.start()
    engine = open_engine(site.folder / "spill", memory="300MB", threads=1, s3=urls(site.folder)[2])
    trials = Trials(site.lake, engine, rules=lambda _: RULES)
    until(partial(more_than, site, 0), 120)
    for name in contracts:
        *_, trial = trials.run(FLIGHTS, name, Past())
        assert trial.done
        assert trial.events > 0
        contract[0] = name
        landed = site.landed().total()
        first = next(sent)
        send(site.folder, first, first + 10)
        until(partial(more_than, site, landed), 120)
    done.set()
    running.join(60)
    engine.close()

    assert not running.is_alive()
    site.assert_each_once(60)
    # Else nothing was switched: under each contract but one such events are rows.
    assert site.rows("select count(*) from flights where data.n is not null")[0][0] > 0
    reasons = site.rows("select distinct reason from main__quarantine.flights")
    assert {"new_field", "invalid_json"} <= {reason for (reason,) in reasons}


def land_under(folder: Path, contract: Contract, fault: str | None) -> None:
    """Land everything under the contract, as a process of its own; `fault` may break it."""
    begin_process(fault)
    with closing(open_buffer(log_url(folder))) as log:
        work = landing_under(new_lake(folder), log, [contract])
        while work.land_once(FLIGHTS):
            pass


def landed_under(folder: Path, contract: Contract, fault: str | None = None) -> int:
    process = child(land_under, folder, contract, fault)
    process.start()
    return finished(process, 120)


# The first commit of a batch is a claim in the main table, then comes quarantine's, then main's.
@pytest.mark.breaks("landing, between commits, with another contract afterwards")
@pytest.mark.parametrize("point", ["before_commit:2", "after_commit:2", "after_commit:3"])
@pytest.mark.parametrize(
    ("first", "then"),
    [("quarantine", "evolve"), ("evolve", "quarantine")],
    ids=["loosened", "tightened"],
)
def test_a_contract_that_is_switched_where_landing_died_loses_and_doubles_nothing(
    site: Site, point: str, first: Contract, then: Contract
) -> None:
    """The rest of the batch is decided otherwise than what of it has reached quarantine."""
    send(site.folder, 0, 5)
    assert landed_under(site.folder, "evolve") == 0
    send(site.folder, 5, 25)

    assert landed_under(site.folder, first, f"{point}:kill") == -signal.SIGKILL
    assert landed_under(site.folder, then) == 0
    send(site.folder, 25, 35)
    assert landed_under(site.folder, first) == 0

    site.assert_each_once(35)


def test_the_checker_finds_a_landing_that_forgets_what_quarantine_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mutant: what died in between is decided anew, and some events are in both tables."""
    with site_at("here", tmp_path) as site, site.log() as log:
        send(tmp_path, 0, 5)
        assert landed_under(tmp_path, "evolve") == 0
        send(tmp_path, 5, 25)
        assert landed_under(tmp_path, "quarantine", "after_commit:2:kill") == -signal.SIGKILL
        monkeypatch.setattr(commit, "held_by_quarantine", lambda _table, _view, _starts: ())
        work = landing_under(site.lake, log, ["evolve"])
        while work.land_once(FLIGHTS):
            pass

        with pytest.raises(AssertionError, match="more than once"):
            site.assert_each_once(25)

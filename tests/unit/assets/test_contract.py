"""Contracts tried on past events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from avros import FIRST, datum, text
from builders import FLIGHTS, NOON, event
from lakes import MAIN, new_lake
from log_batches import log_batch
from msgspec import structs

from assets.contract import LONGEST_PATH, MOST_CAUSES, Past, Tallying, Trial, Trials
from assets.landing import Landing
from lakehouse.sql import open_engine
from penstock.buffer.memory import MemoryLog
from penstock.codec import ENVELOPE, LOG_SCHEMA
from penstock.envelope import CollectionId
from penstock.schema.convert import Rules, convert
from penstock.schema.formats.avro import Avro
from penstock.schema.formats.plain import Plain
from penstock.schema.shape import EMPTY
from penstock.stats import MINUTE
from penstock.vocabulary import Contract


@pytest.fixture
def trials(tmp_path: Path) -> Iterator[Trials]:
    """Answer what tries contracts on 90 events, 30 a minute, of which all but a few fit."""
    lake, log = new_lake(tmp_path), MemoryLog()
    work = Landing(log, lake, rules=lambda _: Rules(contract="freeze"), clock=lambda: NOON)
    fitting = Landing(log, lake, rules=lambda _: Rules(), clock=lambda: NOON)
    odd = {
        7: event('{"n": 7, "b": [1, {"c": 2}, 3]}'),
        8: event('{"n": "x", "b": 1}'),
        50: event('{"n": 1.5}'),
        61: event("{"),
        62: event('{"n": 62}', quarantine=True),
        63: event("[1]"),
    }
    for n in range(90):
        one = odd.get(n, event(f'{{"n": {n}}}'))
        log.append(FLIGHTS, [structs.replace(one, id=f"e{n}", received_at=NOON + n // 30 * MINUTE)])
        if n == 5:
            fitting.land_once(FLIGHTS)
    work.land_once(FLIGHTS)
    engine = open_engine(tmp_path / "spill", memory="300MB", threads=1)
    yield Trials(lake, engine, rules=lambda _: Rules())
    engine.close()


def result(trials: Trials, contract: Contract, past: Past | None = None) -> Trial:
    *progress, last = trials.run(FLIGHTS, contract, past or Past())
    assert last.done
    assert last.contract == contract
    assert not any(one.done for one in progress)
    assert [one.events for one in progress] == sorted(one.events for one in progress)
    assert last.events == last.whole + last.misfits + last.dropped + last.quarantined
    return last


def counts(trial: Trial) -> tuple[int, int, int, int]:
    return trial.whole, trial.misfits, trial.dropped, trial.quarantined


def causes(trial: Trial) -> set[tuple[str, str, str | None, int, tuple[str, ...]]]:
    return {(c.outcome, c.reason, c.path, c.events, c.examples) for c in trial.causes}


def test_another_format_is_tried_on_the_payloads_that_are_there(tmp_path: Path) -> None:
    """As a rebuild would read them, and against the columns that landing has."""
    lake, log = new_lake(tmp_path), MemoryLog()
    payloads = [datum(FIRST, {"value": n, "place": "a"}) for n in range(3)] + [b"{}"]
    for number, each in enumerate(payloads):
        log.append(FLIGHTS, [event(each, id=f"e{number}", received_at=NOON)])
    Landing(log, lake, rules=lambda _: Rules(decoder=Plain()), clock=lambda: NOON).land_once(
        FLIGHTS
    )
    engine = open_engine(tmp_path / "spill", memory="300MB", threads=1)
    trials = Trials(lake, engine, rules=lambda _: Rules(decoder=Plain()))

    rules = Rules(decoder=Avro([text(FIRST)]))
    *_, tried = trials.run(FLIGHTS, "evolve", Past(), rules=rules)
    *_, known = trials.run(FLIGHTS, "evolve", Past())
    engine.close()

    assert counts(tried) == (3, 0, 0, 1)
    assert causes(tried) == {("quarantine", "not_avro", None, 1, ("e3",))}
    assert [change.path for change in tried.columns] == ["value", "place"]
    assert (counts(known), known.columns) == ((4, 0, 0, 0), ())


INVALID = ("quarantine", "invalid_json", None, 1, ("e61",))


def test_a_trial_says_what_past_events_would_become(trials: Trials) -> None:
    """Wished quarantine is no contract's; a list with three misfits is one event of that path."""
    frozen = {
        ("misfit", "misfit", "b", 2, ("e7", "e8")),
        ("misfit", "misfit", "b.c", 1, ("e7",)),
        ("misfit", "misfit", "n", 2, ("e8", "e50")),
        ("misfit", "misfit", "", 1, ("e63",)),
    }
    freeze = result(trials, "freeze")
    assert counts(freeze) == (84, 4, 0, 1)
    assert causes(freeze) == {*frozen, INVALID}

    dropped = result(trials, "drop_value")
    assert counts(dropped) == (84, 0, 4, 1)
    assert causes(dropped) == {*(("dropped", *cause[1:]) for cause in frozen), INVALID}

    quarantine = result(trials, "quarantine")
    assert counts(quarantine) == (84, 0, 0, 5)
    assert causes(quarantine) == {
        ("quarantine", "new_field", "b", 1, ("e7",)),
        ("quarantine", "misfit", "n", 2, ("e8", "e50")),
        ("quarantine", "misfit", "", 1, ("e63",)),
        INVALID,
    }

    evolve = result(trials, "evolve")
    assert counts(evolve) == (84, 4, 0, 1)
    assert [(c.path, c.type, c.event_id) for c in evolve.columns] == [("b[]", "long", "e7")]


def test_what_a_trial_says_is_what_landing_does(tmp_path: Path, trials: Trials) -> None:
    """It is landing's own conversion; another one would be right until the two differ."""
    tried = result(trials, "quarantine", Past(since=NOON + MINUTE))
    table = new_lake(tmp_path).table(MAIN)
    assert table is not None
    rows = table.scan("log_offset >= 30").to_arrow()
    shape = new_lake(tmp_path).view(FLIGHTS)
    assert shape is not None

    no = pa.repeat(pa.scalar(value=False), rows.num_rows)
    log = rows.select(ENVELOPE.names).append_column("quarantine_wish", no)
    again = log.append_column("named", no).cast(LOG_SCHEMA)
    converted = convert(
        again.combine_chunks().to_batches()[0], shape.shape, Rules(contract="quarantine")
    )

    # The one that is no JSON is in quarantine already.
    assert tried.quarantined == converted.quarantined.num_rows + 1
    assert tried.whole == converted.rows.num_rows


def test_a_trial_changes_nothing(tmp_path: Path, trials: Trials) -> None:
    """Not a column, not a snapshot, not a mark."""
    lake = new_lake(tmp_path)
    before = lake.view(FLIGHTS), lake.quarantine_view(FLIGHTS)

    result(trials, "evolve")

    assert (lake.view(FLIGHTS), lake.quarantine_view(FLIGHTS)) == before


def test_a_trial_is_of_a_time_or_of_a_sample(trials: Trials) -> None:
    """A year of events need not be read to see what is wrong with them."""
    assert result(trials, "freeze", Past(until=NOON + MINUTE)).events == 30
    assert result(trials, "freeze", Past(since=NOON + 2 * MINUTE)).events == 29
    assert result(trials, "freeze", Past(since=NOON + 10 * MINUTE)).events == 0
    assert result(trials, "freeze", Past(sample=1_000)).events == 89
    sample = result(trials, "freeze", Past(sample=10))
    assert 8 <= sample.events <= 10


def test_a_collection_without_a_table_has_nothing_to_try(trials: Trials) -> None:
    """It was made a moment ago."""
    *_, last = trials.run(CollectionId("main", "ships"), "quarantine", Past())

    assert (last.events, last.causes, last.done) == (0, (), True)


def test_causes_are_bounded_and_so_are_paths() -> None:
    """Whoever sends events also chooses their keys."""
    tallying = Tallying("freeze", Rules(), EMPTY)
    for n in range(0, 1_200, 100):
        tallying.take(
            log_batch(*(f'{{"{"k" * 2_000}{m}": 1, "k{m}": 1}}' for m in range(n, n + 100)))
        )

    trial = tallying.trial(0, done=True)

    assert (trial.events, trial.misfits) == (1_200, 1_200)
    assert len(trial.causes) == MOST_CAUSES
    assert max(len(cause.path or "") for cause in trial.causes) == LONGEST_PATH + 1
    assert trial.causes[0].events == 1_200
    assert trial.uncounted == 1_200 - (MOST_CAUSES - 1)


def test_a_batch_that_is_too_wide_is_tried_in_parts() -> None:
    """Five hundred events may have a thousand columns each."""
    shape = convert(log_batch(object_of(1_000)), EMPTY, Rules()).shape
    tallying = Tallying("freeze", Rules(), shape)

    tallying.take(log_batch(*[object_of(1_000)] * 5_000))

    assert tallying.trial(0, done=True).whole == 5_000


def object_of(keys: int) -> str:
    return "{" + ",".join(f'"k{n}":{n}' for n in range(keys)) + "}"

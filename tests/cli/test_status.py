"""What `penstock status` shows, and when it says that something is wrong."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from builders import FLIGHTS
from cli_home import Installation, Penstock
from platform_stand_ins import LOG_ID, StandInBuffer, StandInLake, table
from rich.console import Console

from lakehouse.tables import Expired
from penstock.cli.status import Away, Look, bars, follow
from penstock.clock import machine_clock
from penstock.envelope import Extent, Mark, Span
from penstock.errors import EngineUnavailable
from penstock.stats import MINUTE, Batch, Minute


def held(here: Installation, *, end: int, rows: int, mark: int, start: int = 0) -> None:
    """Let the log end here, and the table have so many rows up to the mark."""
    buffer, lake = here.platform.buffer, here.platform.lake
    assert isinstance(buffer, StandInBuffer)
    assert isinstance(lake, StandInLake)
    buffer.held[FLIGHTS] = {0: Extent(start, end)}
    lake.views[FLIGHTS] = table(FLIGHTS, rows=rows, mark=mark)


def test_the_page_says_what_was_accepted_and_where_it_is(
    here: Installation, penstock: Penstock
) -> None:
    """A stranger must see at one look that nothing is missing."""
    held(here, end=1_234, rows=1_200, mark=1_200)

    said = penstock("status", home=here.home)

    head, row = [
        line.split() for line in said.out.splitlines() if "flights" in line or "books" in line
    ]
    assert said.code == 0
    assert head[:5] == ["collection", "accepted", "landed", "quarantined", "waiting"]
    assert row[:5] == ["flights", "1,234", "1,200", "0", "34"]
    assert row[-2:] == ["add", "up"]
    assert "lost" not in said.out, "what there is none of has no column"
    assert "expired" not in said.out


def test_what_retention_dropped_is_on_the_page_and_in_the_sum(
    here: Installation, penstock: Penstock
) -> None:
    """A table that became smaller must not look as if events were missing."""
    held(here, end=100, rows=60, mark=100)
    lake = here.platform.lake
    assert isinstance(lake, StandInLake)
    lake.views[FLIGHTS] = replace(lake.views[FLIGHTS], expired={(LOG_ID, 0): Expired(40, 40)})

    said, one = penstock("status", home=here.home), penstock("status", "flights", home=here.home)

    assert (said.code, one.code) == (0, 0)
    assert "expired" in said.out
    assert "60 landed + 0 quarantined + 0 waiting + 40 expired" in one.out


def test_duplicates_and_closed_events_have_columns_of_their_own(
    here: Installation, penstock: Penstock
) -> None:
    """Who repaired everything must not be told that it still is in quarantine."""
    held(here, end=10, rows=7, mark=10)
    lake = here.platform.lake
    assert isinstance(lake, StandInLake)
    lake.views[FLIGHTS] = replace(lake.views[FLIGHTS], duplicates=2)
    lake.quarantined[FLIGHTS] = table(FLIGHTS, rows=3, mark=10)
    lake.closed[FLIGHTS] = 2

    head, row = [
        line.split()
        for line in penstock("status", home=here.home).out.splitlines()
        if "flights" in line or "books" in line
    ]
    told = penstock("status", "flights", "--json", home=here.home).json()["status"]
    shown = penstock("collection", "show", "flights", home=here.home).out

    parts = ["landed", "duplicates", "quarantined", "closed", "waiting"]
    assert head[1:7] == ["accepted", *parts]
    assert row[1:7] == ["10", "5", "2", "1", "2", "0"]
    assert row[-2:] == ["add", "up"]
    assert (told["rows"], told["duplicates"]) == (7, 2)
    assert (told["quarantined"], told["closed"]) == (1, 2)
    assert "7 rows (2 of them duplicates), 1 open in quarantine (2 closed), 0 waiting" in shown


def test_books_that_do_not_add_up_fail_the_command(here: Installation, penstock: Penstock) -> None:
    """A script that looks at the exit code alone has to notice."""
    held(here, end=100, rows=97, mark=100)

    for words in (["status"], ["status", "flights"]):
        said = penstock(*words, home=here.home)
        assert said.code == 1
        assert "100 accepted, 97 landed + 0 quarantined + 0 waiting, which is 3 too few" in said.out
    assert penstock("status", "--json", home=here.home).code == 1


def test_a_stop_is_shown_with_its_name_and_its_command(
    here: Installation, penstock: Penstock
) -> None:
    """The one who sees it is seldom the one who wrote the page about it."""
    held(here, end=100, rows=10, mark=10, start=30)

    said = penstock("status", home=here.home)
    told = penstock("status", "flights", "--json", home=here.home)

    assert said.code == 1
    assert "stopped: log-truncated" in said.out
    assert "penstock collection resolve flights --by loss" in said.out
    stop = told.json()["status"]["stop"]
    assert (stop["name"], stop["command"]) == (
        "log-truncated",
        "penstock collection resolve flights --by loss",
    )


def test_one_collection_is_shown_by_partition_and_by_minute(
    here: Installation, penstock: Penstock
) -> None:
    """Where it hangs, and since when."""
    held(here, end=10, rows=8, mark=8)
    now = machine_clock() // MINUTE * MINUTE
    minutes = (
        Minute(partition=0, start=now - 9 * MINUTE, events=6, bytes=60, quarantined=0),
        Minute(
            partition=0,
            start=now - 3 * MINUTE,
            events=5,
            bytes=50,
            quarantined=1,
            duplicates=3,
        ),
    )
    here.platform.stats().add(
        Batch(
            collection=FLIGHTS,
            log_id=LOG_ID,
            spans=(Span(FLIGHTS, 0, 0, 11),),
            minutes=minutes,
            landed_at=now,
            lag=1_500_000,
        )
    )

    said = penstock("status", "flights", home=here.home)

    assert said.code == 0
    partition = [line.split() for line in said.out.splitlines() if line.split()[:1] == ["0"]]
    assert partition == [["0", "0", "10", "8", "2", "0"]]
    assert "7, at most 6 a minute" in said.out
    assert "1, at most 1 a minute" in said.out
    assert "3, at most 3 a minute" in said.out
    assert "the longest wait before landing was 1.5 s" in said.out


def test_a_quiet_collection_still_knows_its_last_event(
    here: Installation, penstock: Penstock
) -> None:
    """The log has let go of it by then; the statistics know the minute."""
    held(here, start=8, end=8, rows=8, mark=8)
    minute = Minute(partition=0, start=600 * MINUTE, events=8, bytes=60, quarantined=0)
    here.platform.stats().add(
        Batch(
            collection=FLIGHTS,
            log_id=LOG_ID,
            spans=(Span(FLIGHTS, 0, 0, 8),),
            minutes=(minute,),
            landed_at=600 * MINUTE,
            lag=None,
        )
    )

    assert "last event: 1970-01-01 10:00:00Z" in penstock("status", "flights", home=here.home).out


def test_metrics_of_collections_need_a_token_and_add_up(here: Installation) -> None:
    """Prometheus is given a token with the scope `read`."""
    from penstock.client import Client

    held(here, end=100, rows=97, mark=98)
    lake = here.platform.lake
    assert isinstance(lake, StandInLake)
    lake.views[FLIGHTS] = replace(lake.views[FLIGHTS], duplicates=3)
    with Client(here.running.platform, here.running.token) as client:
        text = client.collection_metrics()
        open_to_all = client.metrics()

    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert {
        name: float(lines[f'penstock_{name}{{collection="flights"}}'])
        for name in (
            "accepted_total",
            "landed_events",
            "duplicate_events",
            "quarantine_closed_events",
            "collection_waiting_events",
            "books_difference",
            "stopped",
            "lake_lag_seconds",
        )
    } == {
        "accepted_total": 100,
        "landed_events": 94,
        "duplicate_events": 3,
        "quarantine_closed_events": 0,
        "collection_waiting_events": 2,
        "books_difference": 1,
        "stopped": 0,
        "lake_lag_seconds": 0,
    }
    assert "flights" not in open_to_all


class Plain(Look):
    """A look that shows a word."""

    def __init__(self, word: str) -> None:
        self.told = {"word": word}
        self._word = word

    def drawn(self, home: Path) -> str:
        return self._word


def test_watching_shows_one_look_after_the_other_and_ends_without_a_trace() -> None:
    """Ctrl-C is how everybody ends it."""
    screen = Console(file=io.StringIO(), force_terminal=True, width=80)

    def looks() -> Iterator[Look]:
        yield Plain("first")
        yield Away(EngineUnavailable("the platform went away"))
        yield Plain("last")
        raise KeyboardInterrupt

    follow(looks(), Path("/home"), screen)

    assert isinstance(screen.file, io.StringIO)
    shown = screen.file.getvalue()
    assert [shown.index(word) for word in ("first", "went away", "last")] == sorted(
        shown.index(word) for word in ("first", "went away", "last")
    )
    assert "Traceback" not in shown
    assert shown.endswith("\x1b[?25h"), "the cursor is back"


def test_bars_stand_for_numbers() -> None:
    """None is told from few."""
    assert bars([0, 1, 7, 0]) == "·▂█·"
    assert bars([]) == ""


def test_a_rolled_back_table_is_a_stop(here: Installation, penstock: Penstock) -> None:
    """Landing would notice at the next event only."""
    held(here, end=5, rows=5, mark=5)
    lake = here.platform.lake
    assert isinstance(lake, StandInLake)
    lake.views[FLIGHTS] = replace(
        lake.views[FLIGHTS], rolled_back=True, marks=(Mark(LOG_ID, 0, 5, "f"),)
    )

    said = penstock("status", "flights", home=here.home)

    assert said.code == 1
    assert "penstock collection resolve flights --by reset-marks" in said.out

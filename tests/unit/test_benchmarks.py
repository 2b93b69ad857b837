"""What `make bench` says of what it measured."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from benchmarks.idle import FLOORS, Watched
from benchmarks.idle import page as idle_page
from benchmarks.measure import (
    Facts,
    Figure,
    Measured,
    Question,
    Result,
    Times,
    asked_together,
)
from benchmarks.report import line, measured_now, page, read_kept, write_kept

LIMIT = Figure(events=1_000, wall=1.0, cpu=1.0)


def result(cpu: float, **options) -> Result:
    return Result("landing", Figure(1_000, 2.0, cpu), "a limit", LIMIT, **options)


def question(ours_ms: float) -> Question:
    ours, plain = Times([ours_ms / 1000] * 3, cpu=0.3), Times([0.010] * 3, cpu=0.03)
    return Question("SQL: a filter", 2_000, ours, "DuckDB", plain)


def paged(*measured: Measured) -> str:
    return page({"landing": measured_now(list(measured), whole=True)})


def minute(share: float, megabytes: float) -> Watched:
    programs = FLOORS[0].programs
    memory = round(megabytes * 1e6 / len(programs))
    return Watched(
        ("upkeep",), dict.fromkeys(programs, share / len(programs)), dict.fromkeys(programs, memory)
    )


def test_a_floor_that_is_not_kept_is_told() -> None:
    """A figure without its verdict is read as good news."""
    kept = result(1.0, floor=900, floor_ratio=0.9)
    slow = result(2.0, floor=900, floor_ratio=0.9)

    assert kept.short == []
    assert slow.short == ["500/core-s < 900", "50% < 90% of a limit"]
    assert "falls short" not in paged(kept)
    assert "**falls short**: 500/core-s < 900" in paged(slow)


def test_everything_measured_is_in_line_and_page() -> None:
    measured = [result(1.25), question(20.0)]

    for text in (paged(*measured), "\n".join(map(line, measured))):
        assert "80% of a limit" in text
        assert "50% of DuckDB" in text


def test_what_is_kept_is_read_as_it_was_written() -> None:
    """A subject that was not measured again stays in the page with all its figures."""
    facts = Facts("a day", {"snapshots": 61, "rewritten": 1.25}, ["61, not 60"])
    kept = {
        "landing": measured_now([result(1.25, detail={"MB": 3.0})], whole=True),
        "search": measured_now([question(20.0), facts], whole=False),
    }

    again = read_kept(write_kept(kept))

    assert again == kept
    assert page(again) == page(kept)
    assert "| `search` |" in page(kept)
    assert "| short |" in page(kept)


def test_answers_that_differ_are_not_compared() -> None:
    """Half of an answer is found in half of the time."""
    with pytest.raises(RuntimeError, match="the answers differ: 1 and 2"):
        asked_together(lambda: 1, lambda: 2, seconds=0.0, most=1)


def test_what_takes_long_is_asked_a_few_times_all_the_same() -> None:
    ours, plain = asked_together(lambda: 1, lambda: 1, seconds=0.0, most=100)

    assert len(ours.seconds) == len(plain.seconds) == 3


def test_an_idle_minute_over_a_floor_is_told() -> None:
    quiet, busy = minute(0.04, 900), minute(0.5, 2_000)

    assert list(quiet.short()) == []
    assert len(list(busy.short())) == 4
    assert "Falls short" not in idle_page([quiet])
    assert "**Falls short**: a minute with upkeep, all: 50.0% of a core" in idle_page([quiet, busy])


def test_a_question_and_facts_that_fall_short_say_so() -> None:
    """A table without its verdict is read as good news, too."""
    slow = replace(question(20.0), floor_ratio=2 / 3)
    fine = replace(question(12.0), floor_ratio=2 / 3)
    facts = Facts("after 3,000 commits", {"snapshots": 61, "rewritten": 1.25}, ["61, not 60"])

    assert (slow.short, fine.short) == (["50% < 67% of DuckDB"], [])
    text = paged(slow, facts)
    assert "| **falls short**: 50% < 67% of DuckDB |" in text
    assert (
        "| after 3,000 commits | snapshots 61; rewritten 1.25 | **falls short**: 61, not 60 |"
        in text
    )
    assert "snapshots 61; rewritten 1.25" in line(facts)

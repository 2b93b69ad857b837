from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from penstock.api.status import Watched
from penstock.dashboard.overview import attention, summary


def seen(name: str, **given: Any) -> Watched:
    """Answer a collection in which nothing is wrong, but for what the test says."""
    told: dict[str, Any] = {
        "lake_lag_seconds": 0.0,
        "search_lag_seconds": None,
        "quarantined": 0,
        "waiting": 0,
        "troubles": [],
        "stop": None,
        "books": SimpleNamespace(accepted=100, difference=0),
        **given,
    }
    return Watched(name, SimpleNamespace(**told), 1_000)  # type: ignore[arg-type]


def test_the_figures_are_those_of_all_collections() -> None:
    found = summary(
        [seen("a", quarantined=3, waiting=2, lake_lag_seconds=4.0), seen("b", quarantined=1)],
        {"a": [0, 60, 60, 60, 60, 60], "b": [9, 0, 0, 0, 0, 240]},
    )

    assert (found.rate, found.minutes) == (1.8, [9, 60, 60, 60, 60, 300])
    assert (found.lake_lag, found.search_lag) == (4.0, None)
    assert (found.accepted, found.quarantined, found.waiting, found.bytes) == (200, 4, 2, 2_000)
    assert found.quarantine_share == 0.02


def test_what_is_not_known_is_not_told_as_nothing() -> None:
    """A lag of 0 s while a collection does not answer would be a lie."""
    found = summary([seen("a"), Watched("b", None, None)], None)

    assert (found.lake_lag, found.rate, found.minutes) == (None, None, None)


def test_books_that_are_off_in_both_directions_do_not_cancel() -> None:
    books = [SimpleNamespace(accepted=1, difference=d) for d in (2, -2)]

    assert summary([seen("a", books=books[0]), seen("b", books=books[1])], {}).difference == 4


def test_what_needs_somebody_is_told_worst_first_with_its_command_or_page() -> None:
    stop = SimpleNamespace(command="penstock collection resolve d")
    found = attention(
        [
            seen("a", quarantined=2),
            seen("b", lake_lag_seconds=61.0),
            seen("c"),
            seen("d", troubles=["landing has stopped"], stop=stop, lake_lag_seconds=900.0),
            Watched("e", None, None),
        ]
    )

    assert [(one.collection, one.command or one.page, one.bad) for one in found] == [
        ("d", "penstock collection resolve d", True),
        ("e", "penstock doctor", True),
        ("a", "quarantine", False),
        ("b", "penstock doctor", False),
    ]


def test_one_event_is_told_as_one() -> None:
    found = attention([seen("a", quarantined=1), seen("b", quarantined=2_000)])

    assert [one.said for one in found] == [
        "1 event could not become a row",
        "2,000 events could not become rows",
    ]

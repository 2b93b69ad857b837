from __future__ import annotations

import json

from replay.failures import EXAMPLES, failures


def row(offset: int, reason: str | None = "answered 410", **given: object) -> bytes:
    """Answer an outcome of the ledger."""
    values = {"event_id": f"e{offset}", "partition": 0, "offset": offset, "attempt": 1, "at": "t"}
    return json.dumps({**values, "reason": reason, "status": 410, "replay": "r1", **given}).encode()


def test_failures_are_counted_by_reason_the_most_frequent_first() -> None:
    small, large = row(2, "too large", status=None), row(4, "too large", events=5)
    found = failures([row(1), small, row(3), large])

    assert [(one.reason, one.status, one.events) for one in found] == [
        ("too large", 410, 5),
        ("answered 410", 410, 2),
        ("too large", None, 1),
    ]
    assert [one.event_id for one in found[1].examples] == ["e1", "e3"]


def test_a_row_that_is_there_twice_counts_once() -> None:
    """The door's answer was lost, and the row sent again: one event failed."""
    [found] = failures([row(1), row(1)])

    assert (found.events, len(found.examples)) == (1, 1)


def test_some_examples_are_enough_and_no_reason_is_told_as_one() -> None:
    [found] = failures([row(n, None) for n in range(EXAMPLES + 5)])

    assert (found.events, len(found.examples)) == (EXAMPLES + 5, EXAMPLES)
    assert found.reason == "no reason was given"

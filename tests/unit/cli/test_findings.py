"""How the checks of a doctor are made."""

from __future__ import annotations

import threading
import time

import pytest

from penstock.cli.findings import Check, Finding, findings
from penstock.errors import EngineUnavailable


def amiss(error: Exception) -> Check:
    def look() -> str:
        raise error

    return Check(look, "do something")


def test_what_checks_found_comes_in_their_order() -> None:
    """Whoever reads two lists beside each other looks for the same line at the same place."""
    quick, slow = threading.Event(), threading.Event()

    def last() -> str:
        quick.set()
        return "last"

    def first() -> str:
        assert quick.wait(10)
        slow.set()
        return "first"

    checks = {"a": Check(first, ""), "b": Check(last, "")}

    assert [one.detail for one in findings(checks, seconds=10)] == ["first", "last"]


def test_one_that_does_not_come_back_is_told_in_time_and_the_others_all_the_same() -> None:
    """A doctor that hangs with the engine it looks at says nothing about any."""
    end = threading.Event()
    checks = {
        "hangs": Check(lambda: str(end.wait(60)), "wake it"),
        "well": Check(lambda: "fine", ""),
    }
    begun = time.monotonic()

    hangs, well = findings(checks, seconds=0.2)
    took = time.monotonic() - begun
    end.set()

    assert (hangs.ok, hangs.detail, hangs.do) == (
        False,
        "it did not answer within 0.2 s",
        "wake it",
    )
    assert (well.ok, well.detail, well.do) == (True, "fine", None)
    assert took < 10


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (EngineUnavailable("no …"), "no …"),
        (OSError("no s3cret"), "no …"),
        (ZeroDivisionError("no s3cret\nand more"), "ZeroDivisionError: no …"),
        (ZeroDivisionError(), "ZeroDivisionError: "),
    ],
)
def test_what_is_raised_is_told_in_a_line_without_secrets(error: Exception, told: str) -> None:
    """Clients put the address they were given into their errors, the password too."""
    [one] = findings(
        {"store": amiss(error)}, seconds=10, censor=lambda text: text.replace("s3cret", "…")
    )

    assert isinstance(one, Finding)
    assert (one.ok, one.detail, one.do) == (False, told, "do something")

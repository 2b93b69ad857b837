"""What one test broke, and what was found afterwards."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec
from balance import Findings

VARIABLE = "FAULT_SHEETS"
"""Names the file to which each test's sheet is added, a line of JSON for each; unset, none is."""

Place = Literal["here", "engines"]


class Sheet(msgspec.Struct, kw_only=True):
    """What a case of a test broke, and what it found in each store it looked at."""

    case: str
    """Where it stands: ``tests/faults/test_x.py::test_y[z]``."""
    breaks: str
    place: Place
    injected: dict[str, int] = {}
    found: dict[str, Findings] = {}
    measured: dict[str, int] = {}
    passed: bool = False

    @property
    def test(self) -> str:
        """Answer the test that it is a case of."""
        return self.case.partition("[")[0]

    def add(self, store: str, findings: Findings) -> None:
        """Add what was found; a store that is looked at again has the same events, or more."""
        before = self.found.get(store)
        if before is not None:
            events = max(before.events, findings.events)
            findings = msgspec.structs.replace(before + findings, events=events)
        self.found[store] = findings


_open: Sheet | None = None


def happened(what: str, times: int = 1) -> None:
    """Note that something was broken, in the test that runs now; what broke may not be tested."""
    if _open is not None:
        _open.injected[what] = _open.injected.get(what, 0) + times


def measured(what: str, most: int) -> None:
    """Note what something took in the test that runs now, its unit being part of what it is."""
    if _open is not None:
        _open.measured[what] = max(most, _open.measured.get(what, 0))


def say(line: str) -> None:
    """Tell whoever watches a long test how far it is."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def found(**stores: Findings) -> None:
    """Note what was found in each of these stores; fail if anything is wrong there."""
    for store, findings in stores.items():
        if _open is not None:
            _open.add(store, findings)
    wrong = [f"{store}: {one}" for store, findings in stores.items() for one in findings.said]
    if wrong:
        raise AssertionError("; ".join(wrong))


@contextmanager
def sheet_of(case: str, breaks: str, place: Place) -> Iterator[None]:
    """Keep a sheet for the block, which has to break something and to look what is left."""
    global _open  # noqa: PLW0603 - a process runs one test at a time
    before, _open = _open, Sheet(case=case, breaks=breaks, place=place)
    sheet = _open
    try:
        yield
        if not sheet.injected or not sheet.found:
            raise AssertionError(f"it says it breaks {breaks}, and broke or counted nothing")
        sheet.passed = True
    finally:
        _open = before
        if file := os.environ.get(VARIABLE):
            # One write of less than a page: processes that test beside this one do not cut in.
            with Path(file).open("ab", buffering=0) as out:
                out.write(msgspec.json.encode(sheet) + b"\n")


def read_sheets(file: Path) -> list[Sheet]:
    """Read what tests have written; of a case that was run again, what it wrote last."""
    lines = file.read_bytes().splitlines()
    sheets = [msgspec.json.decode(line, type=Sheet) for line in lines]
    return list({sheet.case: sheet for sheet in sheets}.values())


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What all cases of a test say together."""

    breaks: str
    place: Place
    cases: int
    failed: int
    injected: dict[str, int]
    stores: list[str]
    found: Findings
    at: str
    """When (UTC)."""
    measured: dict[str, int] = {}
    """The most of all cases."""


def together(sheets: list[Sheet], at: str) -> dict[str, Told]:
    """Add up the cases of each test, here and on the engines, under its name and place."""
    groups: dict[str, list[Sheet]] = {}
    for sheet in sheets:
        groups.setdefault(f"{sheet.test}@{sheet.place}", []).append(sheet)
    return {name: _told(group, at) for name, group in groups.items()}


def _told(group: list[Sheet], at: str) -> Told:
    injected: Counter[str] = Counter()
    most: Counter[str] = Counter()
    whole = Findings(events=0)
    for sheet in group:
        injected.update(sheet.injected)
        most |= Counter(sheet.measured)
        # The same events in each store; what is wrong in any of them is wrong.
        events = max((one.events for one in sheet.found.values()), default=0)
        case = sum(sheet.found.values(), Findings(events=0))
        whole += msgspec.structs.replace(case, events=events)
    return Told(
        breaks=group[0].breaks,
        place=group[0].place,
        cases=len(group),
        failed=sum(not sheet.passed for sheet in group),
        injected=dict(sorted(injected.items())),
        stores=sorted({store for sheet in group for store in sheet.found}),
        found=whole,
        at=at,
        measured=dict(sorted(most.items())),
    )

"""A plugin of pytest: what has run is kept as it goes, and a run that was stopped is gone on with.

Cases that passed before the run was stopped are left out; a test's row is kept once its last case
has run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from evidence import __main__ as keeping
from evidence.sheet import VARIABLE, read_sheets, together


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what has passed."""
    passed = {sheet.case for sheet in read_sheets(_file()) if sheet.passed}
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in passed])
    items[:] = [item for item in items if item.nodeid not in passed]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Keep the row of a test of which no case follows."""
    outcome = yield
    test = _test(item)
    if nextitem is None or _test(nextitem) != test:
        cases = [sheet for sheet in read_sheets(_file()) if sheet.test == test]
        keeping.keep(faults=together(cases, keeping.now()))
    return outcome


def _test(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


def _file() -> Path:
    return Path(os.environ[VARIABLE])

"""What holds for every test."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import pytest
import structlog
from evidence.sheet import sheet_of
from hypothesis import HealthCheck, settings

# How long an example takes is no claim: on a busy machine it takes ten times as long.
settings.register_profile("penstock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("penstock")


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """Undo what a test that starts a process's logging here has set up: the next ones listen."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Let a test that breaks something tell what it broke and what was lost."""
    mark = item.get_closest_marker("breaks")
    if mark is None:
        return (yield)
    place = "engines" if item.get_closest_marker("engines") else "here"
    with sheet_of(item.nodeid, mark.args[0], place):
        return (yield)


def pytest_sessionfinish() -> None:
    """Leave nothing on the engines: the next tests would wait for them longer."""
    fresh = sys.modules.get("engines.fresh")
    if fresh is not None:
        fresh.forget(fresh.given)

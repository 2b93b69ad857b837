"""One browser and two installations, one filled and one empty, for all tests of pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import Site, Visitor, chromium, site, visiting
from playwright.sync_api import Browser


# Before xdist reads the groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, and give them to one worker: they share a browser."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")
            item.add_marker(pytest.mark.xdist_group("browser"))


# Its event loop runs in the thread of the tests for as long as it is there: tests of other folders
# could start none of their own beside it.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Answer the browser of a file of tests."""
    with chromium() as made:
        yield made


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("full") / "home", filled=True) as made:
        yield made


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("bare") / "home", filled=False) as made:
        yield made


@pytest.fixture
def visitor(browser: Browser, full: Site) -> Iterator[Visitor]:
    """Somebody at the filled installation, not signed in."""
    with visiting(browser, full) as made:
        yield made


@pytest.fixture
def newcomer(browser: Browser, bare: Site) -> Iterator[Visitor]:
    """Somebody at the empty installation, not signed in."""
    with visiting(browser, bare) as made:
        yield made

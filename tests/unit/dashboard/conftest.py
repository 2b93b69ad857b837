from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from platform_stand_ins import platform

from penstock.api.app import create_app
from penstock.api.platform import Platform
from penstock.dashboard.app import add_dashboard
from penstock.dashboard.policy import Addresses


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Platform]:
    made = platform(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def app(here: Platform) -> FastAPI:
    made = create_app(here)
    add_dashboard(made, Addresses())
    return made

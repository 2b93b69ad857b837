from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from platform_stand_ins import Caller, grant, platform

from penstock.api.app import create_app
from penstock.api.platform import Platform


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Platform]:
    made = platform(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def app(here: Platform) -> FastAPI:
    return create_app(here)


@pytest.fixture
def admin(app: FastAPI, here: Platform) -> Caller:
    return Caller(app, grant(here.store, "admin"))


@pytest.fixture
def rival(app: FastAPI, here: Platform) -> Caller:
    """Somebody who may do everything, in another team."""
    return Caller(app, grant(here.store, "admin", team="rivals"))

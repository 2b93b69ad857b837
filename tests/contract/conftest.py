"""Houses of the tests of SQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from houses import House, house_in_trino, house_of_duck

_ELSEWHERE = pytest.mark.engines


@pytest.fixture(scope="module")
def duck_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Answer a house with the embedded engine, its lake in a folder."""
    with house_of_duck("here", tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture(scope="module")
def duck_on_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Answer a house with the embedded engine, its lake in PostgreSQL and S3."""
    with house_of_duck("engines", tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture(scope="module")
def trino() -> Iterator[House]:
    """Answer a house with Trino."""
    with house_in_trino() as house:
        yield house


@pytest.fixture(params=["duck_here", pytest.param("duck_on_s3", marks=_ELSEWHERE)])
def duck(request: pytest.FixtureRequest) -> House:
    """Answer a house with the embedded engine, wherever its lake is."""
    chosen: House = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture(
    params=[
        "duck_here",
        pytest.param("duck_on_s3", marks=_ELSEWHERE),
        pytest.param("trino", marks=_ELSEWHERE),
    ]
)
def house(request: pytest.FixtureRequest) -> House:
    """Answer a house with each engine, one after the other."""
    chosen: House = request.getfixturevalue(request.param)
    return chosen

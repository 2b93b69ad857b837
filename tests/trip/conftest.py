"""One running installation for all trip tests of a file, embedded or on the real engines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from installing import Installation, installation


@pytest.fixture(
    scope="module", params=["embedded", pytest.param("engines", marks=pytest.mark.engines)]
)
def here(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("trip")
    if request.param == "embedded":
        with installation(folder / "home") as running:
            yield running
        return
    from engines.fresh import fresh_settings

    with (
        fresh_settings(folder / "engines.toml") as file,
        installation(folder / "home", file) as running,
    ):
        yield running

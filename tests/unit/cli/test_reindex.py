"""`penstock land` and `penstock collection reindex` with a search index."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import FLIGHTS, event
from engines.fresh import fresh_name
from indexing import index_url, wipe
from typer.testing import CliRunner

from penstock.buffer import open_appender
from penstock.cli.main import app
from penstock.clock import machine_clock
from penstock.search.elastic import ElasticIndex
from penstock.settings import load_settings


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    url = index_url("opensearch", prefix=fresh_name())
    (tmp_path / "penstock.toml").write_text(f'search_url = "{url}"\n')
    appender = open_appender(load_settings(tmp_path, {}).log)
    appender.append(FLIGHTS, [event("{}", received_at=machine_clock())] * 3).result(10)
    appender.close()
    yield tmp_path
    index = ElasticIndex(url)
    wipe(index)
    index.close()


def said(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.engines
def test_landing_by_hand_fills_the_index_and_reindex_makes_it_again(home) -> None:
    """Whoever runs without Dagster has an index all the same."""
    landed = said("land", "--home", home)
    again = json.loads(said("collection", "reindex", "flights", "--home", home, "--json"))

    assert "main.flights: 3 rows searchable in the index" in landed
    assert again == {"collection": "main.flights", "rows": 3, "refused": 0}


def test_reindex_without_an_index_says_what_is_missing(tmp_path: Path) -> None:
    """Not a success that did nothing."""
    result = CliRunner().invoke(app, ["collection", "reindex", "flights", "--home", str(tmp_path)])

    assert result.exit_code != 0
    assert "search_url is not set" in str(result.exception)

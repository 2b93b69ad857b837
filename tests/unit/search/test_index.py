"""The index by its address, and searches that have none to ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import FLIGHTS, NOON
from indexing import DAY, Home

from lakehouse.sql import Engine, open_engine
from penstock.errors import BadSetting, EngineUnavailable
from penstock.search.elastic import ElasticIndex
from penstock.search.index import FIRST_DAY, day_of, last_moment, lie_apart, open_index
from penstock.search.indexed import NoAnswer, Shortcuts
from penstock.settings import load_settings

NOWHERE = "elasticsearch://127.0.0.1:1"


@pytest.fixture(scope="module")
def sql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = open_engine(tmp_path_factory.mktemp("spill"), memory="500MB", threads=1)
    yield engine
    engine.close()


def test_without_a_setting_there_is_no_index(tmp_path: Path) -> None:
    """The embedded default needs no engine and no client."""
    assert open_index(load_settings(tmp_path, {})) is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("solr://host:8983", "search_url starts with 'solr'"),
        ("elasticsearch://", "names no host"),
        ("elasticsearch://host:port", "port that is no number"),
        ("elasticsearch://host/Upper-Case", "prefix of indices"),
        ("elasticsearch://u:secret@host", "search_user"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(tmp_path: Path, url: str, said: str) -> None:
    """At the start, and without showing what may be a password."""
    with pytest.raises(BadSetting, match=said) as refused:
        open_index(load_settings(tmp_path, {}, search_url=url))

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "node", "prefix"),
    [
        ("elasticsearch://host", "http://host:9200", "penstock"),
        ("elasticsearch+https://host:443/mine", "https://host:443", "mine"),
        ("opensearch+https://host:9200/", "https://host:9200", "penstock"),
    ],
)
def test_an_address_says_where_and_how(url: str, node: str, prefix: str) -> None:
    """Nothing is asked of an engine before it is needed."""
    index = ElasticIndex(url, user="u", password="p")
    (found,) = index._client.transport.node_pool.all()

    assert (found.base_url, index._prefix) == (node, prefix)
    index.close()


def test_secrets_of_the_engine_are_not_shown(tmp_path: Path) -> None:
    """Settings are printed by people who look for a mistake."""
    settings = load_settings(
        tmp_path, {"PENSTOCK_SEARCH_API_KEY": "s3cret", "PENSTOCK_SEARCH_PASSWORD": "s3cret"}
    )

    assert "s3cret" not in repr(settings)
    assert "s3cret" not in str(settings.model_dump())
    assert settings.search_api_key.get_secret_value() == "s3cret"


def test_the_name_of_an_index_has_the_day_of_its_events() -> None:
    """By it a search leaves indices out, and retention drops them."""
    index = ElasticIndex(NOWHERE)
    name = index.name(FLIGHTS, "0a1b2c3d", NOON)

    assert name == "penstock-main-flights-2025.11.24-0a1b2c3d"
    assert NOON < last_moment(name) <= NOON + DAY
    assert day_of(last_moment(name) - 1) == "2025.11.24"
    assert day_of(FIRST_DAY) == "0001.01.01"
    index.close()


def test_an_index_is_merged_when_a_tenth_of_it_lies_apart() -> None:
    """Each row that lands late would have a whole day written again."""
    assert [lie_apart(segments) for segments in ([], [7], [90, 10], [90, 5, 5])] == [False] * 4
    assert [lie_apart(segments) for segments in ([90, 11], [1, 1], [40, 30, 30])] == [True] * 3


def test_without_its_engine_a_search_is_answered_by_the_lake(tmp_path: Path, sql: Engine) -> None:
    """And says so, and does not ask again at once."""
    index = ElasticIndex(NOWHERE, seconds=1.0)
    home = Home(tmp_path, sql, None)
    home.searcher = home.searching(index)
    sent = home.send('{"k": 1}')
    home.land()
    sent += home.send('{"k": 2}')

    assert home.find("k:*") == sent[::-1]
    assert home.page("k:*").index_away
    assert home.count("k:1") == 1
    assert not home.page("k:*", view="quarantine").index_away
    with pytest.raises(EngineUnavailable):
        home.indexing_with(index).index_once(FLIGHTS)
    index.close()


def test_an_index_is_left_alone_for_a_while_after_it_did_not_answer() -> None:
    """Each search would wait for it as long as a request may take."""
    now = 0.0
    asked = 0

    class Away(ElasticIndex):
        def state(self, *_):
            nonlocal asked
            asked += 1
            raise EngineUnavailable("away")

    index = Away(NOWHERE)
    shortcuts = Shortcuts(index, steady=lambda: now)
    for moment, count in ((0.0, 1), (5.0, 1), (11.0, 2), (12.0, 2), (22.0, 3)):
        now = moment
        with pytest.raises(NoAnswer) as refused:
            shortcuts.begin(FLIGHTS)
        assert refused.value.away
        assert asked == count
    index.close()

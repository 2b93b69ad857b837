"""The search index behind TLS and sign-in, set up as its page says.

The engines come without their vendors' security: a front of the tests stands in for it.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import FLIGHTS
from certificates import make_certificates
from engines.fresh import fresh_name
from engines.places import ELASTICSEARCH, ELASTICSEARCH_PORT, HOST
from guarded import guarded
from indexing import wipe
from secured import PASSWORD, USER, example

from penstock.errors import BadSetting, EngineUnavailable
from penstock.search.elastic import ElasticIndex
from penstock.search.index import open_index
from penstock.settings import load_settings

pytestmark = pytest.mark.engines

API_KEY = "a2V5OmtleQ=="


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secured") / "keys"
    make_certificates(folder)
    return folder


@pytest.fixture(scope="module")
def port(keys: Path) -> Iterator[int]:
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    with guarded(ELASTICSEARCH_PORT, keys, {f"Basic {pair}", f"ApiKey {API_KEY}"}) as front:
        yield front


def index(home: Path, port: int, ca: Path, secrets: dict[str, str], **instead: str) -> ElasticIndex:
    """Open the index of a home that is set up as the page says, but for these parts."""
    parts = {
        "elasticsearch+https": "elasticsearch+https",
        "search.example:9200": f"{HOST}:{port}/{fresh_name()}",
        "/etc/penstock/ca.pem": str(ca),
    }
    (home / "penstock.toml").write_text(example("search_url", {**parts, **instead}))
    opened = open_index(load_settings(home, secrets))
    assert isinstance(opened, ElasticIndex)
    return opened


@pytest.mark.parametrize(
    "secrets",
    [{"PENSTOCK_SEARCH_PASSWORD": PASSWORD}, {"PENSTOCK_SEARCH_API_KEY": API_KEY}],
    ids=["user", "API key"],
)
def test_the_index_works_as_the_page_sets_it_up(
    keys: Path, port: int, tmp_path: Path, secrets: dict[str, str]
) -> None:
    """Every request is signed, over TLS whose certificate was checked."""
    opened = index(tmp_path, port, keys / "ca.pem", secrets)
    name = opened.name(FLIGHTS, "a", 0)

    opened.create(name)

    assert opened.state(FLIGHTS) is None
    wipe(opened)
    opened.close()


def test_what_is_set_up_wrong_is_told(
    keys: Path, port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By the setting to look at, and without what is secret."""
    caplog.set_level(logging.DEBUG)
    stranger = tmp_path / "stranger"
    make_certificates(stranger)
    ours, right = keys / "ca.pem", {"PENSTOCK_SEARCH_PASSWORD": PASSWORD}
    plain = {"search.example:9200": ELASTICSEARCH.removeprefix("http://")}
    wrong = {
        "see search_user and its password": index(
            tmp_path, port, ours, {"PENSTOCK_SEARCH_PASSWORD": f"not {PASSWORD}"}
        ),
        "or search_api_key": index(tmp_path, port, ours, {"PENSTOCK_SEARCH_API_KEY": "canary"}),
        "see search_ca_file": index(tmp_path, port, stranger / "ca.pem", right),
        "without it search_url has no": index(tmp_path, port, ours, right, **plain),
    }
    for told, opened in wrong.items():
        with pytest.raises(EngineUnavailable, match=told) as refused:
            opened.state(FLIGHTS)
        for secret in (PASSWORD, "canary"):
            assert secret not in str(refused.value)
            assert secret not in caplog.text
        opened.close()


def test_certificates_that_cannot_be_read_stop_the_start(
    keys: Path, port: int, tmp_path: Path
) -> None:
    """It will not get better by waiting."""
    with pytest.raises(BadSetting, match="search_ca_file"):
        index(tmp_path, port, tmp_path / "none.pem", {})

"""Commits of which nobody hears whether they were made: some were, and some were not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import pytest
from balance import compare
from builders import FLIGHTS
from engines.fresh import fresh_database, fresh_name
from engines.places import BUCKET, POSTGRES_PORT, REST, REST_PORT
from evidence.sheet import found, happened
from lakes import (
    BROKEN,
    HASTY,
    STORE,
    Tampered,
    append,
    batch_of,
    log_of,
    new_lake,
    put,
    stored,
)
from proxy import Proxy
from pyiceberg.exceptions import CommitFailedException
from sending import until

from lakehouse import Lake, open_lake
from penstock.envelope import CollectionId
from penstock.errors import EngineUnavailable, Unavailable

BATCHES = 50
ERRORS = (CommitFailedException("conflict"), ConnectionError("cut"), TimeoutError())


def land_all(lake: Lake, unsure: Lake, collection: CollectionId) -> None:
    """Land every batch through the one that does not hear, and count them in the other one."""
    log, view = log_of(), lake.create(collection)
    told = {
        number: BROKEN if number % 7 == 0 else b'{"n": %d}' % number for number in range(BATCHES)
    }
    for number in range(BATCHES):
        append(log, told[number], collection=collection)
        while view.mark(log.log_id(collection), 0).next <= number:
            with suppress(Unavailable, *map(type, ERRORS)):
                put(unsure, batch_of(log, view))
            current = lake.view(collection)
            assert current is not None
            view = current

    found(tables=compare(told, stored(lake, collection)))


@pytest.mark.breaks("the catalog's answers: a commit was made or not, and the answer is an error")
def test_commits_whose_answers_are_lost_are_made_once(tmp_path: Path) -> None:
    """Whatever the error says: the table alone is asked, by the snapshot and the marks."""
    chance = Random(5)

    def may_fail(_number: int) -> None:
        if chance.random() < 0.5:
            happened("lost answers")
            raise chance.choice(ERRORS)

    lake = new_lake(tmp_path)
    unsure = Lake(Tampered(lake.catalog, before=may_fail, after=may_fail), HASTY)  # type: ignore[arg-type]  # a stand-in
    land_all(lake, unsure, FLIGHTS)


@contextmanager
def in_postgresql(warehouse_url: str) -> Iterator[tuple[Lake, Proxy, Lake, bytes]]:
    with fresh_database() as url, Proxy(POSTGRES_PORT) as proxy:
        # Not what begins a transaction, ISOLATION LEVEL READ COMMITTED.
        yield (
            open_lake(url, warehouse_url, STORE),
            proxy,
            open_lake(proxy.leads(url), warehouse_url, STORE),
            b"COMMIT\x00",
        )


def answers_all(lake: Lake) -> bool:
    """Say whether the catalog answers whoever asks.

    Its server keeps connections to PostgreSQL, and each fails once where that was stopped before.
    """
    with ThreadPoolExecutor(8) as threads, suppress(EngineUnavailable):
        list(threads.map(lambda _: lake.collections(), range(32)))
        return True
    return False


@contextmanager
def behind_rest(warehouse_url: str) -> Iterator[tuple[Lake, Proxy, Lake, bytes]]:
    lake = open_lake(f"rest+{REST}", warehouse_url, STORE)
    until(lambda: answers_all(lake), "the catalog behind REST does not answer")
    with Proxy(REST_PORT) as proxy:
        through = f"rest+http://127.0.0.1:{proxy.port}"
        yield (
            lake,
            proxy,
            open_lake(through, warehouse_url, STORE),
            b"POST /v1/",
        )


@pytest.mark.engines
@pytest.mark.xdist_group("rest")
@pytest.mark.timeout(600)
@pytest.mark.breaks("the connection to the catalog, before a commit arrives or before its answer")
@pytest.mark.parametrize("catalog", [in_postgresql, behind_rest])
def test_commits_whose_connection_is_cut_are_made_once(catalog: Callable) -> None:
    """Of four commits one arrives and is not answered, and one never arrives."""
    chance, cut = Random(7), {"commits that never arrived": 0, "lost answers": 0}
    with catalog(f"s3://{BUCKET}/{fresh_name('unknown')}") as (lake, proxy, through, question):

        def may_cut(_number: int) -> None:
            outcome = chance.random()
            if outcome < 0.25:
                proxy.cut_before(question)
                cut["commits that never arrived"] += 1
            elif outcome < 0.5:
                proxy.cut_answer_to(question)
                cut["lost answers"] += 1

        unsure = Lake(Tampered(through.catalog, before=may_cut), HASTY)  # type: ignore[arg-type]  # a stand-in
        land_all(lake, unsure, CollectionId(fresh_name(), "flights"))
        assert proxy.cuts == sum(cut.values())
    for what, times in cut.items():
        happened(what, times)

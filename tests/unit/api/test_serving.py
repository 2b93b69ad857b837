"""The app behind a real server: what only shows with sockets, threads and a running loop."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import uvicorn
from metadata_builders import known, token
from platform_stand_ins import StandInSql, grant, platform
from served import served, until

from lakehouse.sql import Answer, Limits, Tables
from penstock.api.app import create_app
from penstock.api.platform import Platform
from penstock.api.serve import Server
from penstock.client import Client
from penstock.errors import Overloaded


class SlowSql(StandInSql):
    """Answers when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()
        self.inside = 0

    def query(self, statement: str, tables: Tables, limits: Limits) -> Answer:
        self.inside += 1
        self.may.wait(60)
        return super().query(statement, tables, limits)


@pytest.fixture
def engine() -> SlowSql:
    return SlowSql()


@pytest.fixture
def here(tmp_path: Path, engine: SlowSql) -> Iterator[Platform]:
    made = platform(tmp_path, sql=engine)
    yield made
    made.store.close()


def test_health_and_lists_answer_while_everybody_asks_slow_questions(
    here: Platform, engine: SlowSql
) -> None:
    """A few slow statements must not look like a dead platform, nor take its memory."""
    with served(create_app(here)) as url, Client(url, grant(here.store, "read")) as client:

        def ask(_number: int) -> str:
            try:
                client.sql("select slow")
            except Overloaded:
                return "refused"
            return "answered"

        with ThreadPoolExecutor(50) as pool:
            try:
                asked = [pool.submit(ask, number) for number in range(50)]
                until(lambda: sum(future.done() for future in asked) == 42)
                assert client.health().status == "ok"
                assert client.collections() == []
                assert sum(future.done() for future in asked) == 42, "these waited for nobody"
                assert engine.inside == 2
            finally:
                engine.may.set()
            answers = [future.result() for future in asked]

    assert answers.count("refused") == 42
    assert answers.count("answered") == 8


def test_a_signal_ends_the_server_and_leaves_the_process_to_close_its_stores(
    here: Platform,
) -> None:
    """A process that dies of the signal leaves its spill files and its database's log behind."""
    server = Server(
        uvicorn.Config(create_app(here), port=0, log_config=None, ws="none"),
        leaving=here.leaving.set,
    )

    def interrupt() -> None:
        until(lambda: server.started)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    before = signal.getsignal(signal.SIGINT)
    thread.start()
    try:
        server.run()
    except KeyboardInterrupt:
        pytest.fail("the signal was raised again")
    thread.join()

    assert signal.getsignal(signal.SIGINT) is before


def test_the_doors_are_told_when_the_platform_starts_and_of_changes_made_elsewhere(
    here: Platform,
) -> None:
    """A home that was restored, or a token made on the command line, needs no further step."""
    assert here.cache.read() is None
    with served(create_app(here)):
        until(lambda: here.cache.read() is not None)
        here.store.add_token(token(1))
        until(lambda: here.cache.read() == here.store.known())


def test_doors_follow_a_restored_database_also_where_its_version_says_nothing(
    here: Platform,
) -> None:
    """A backup may count to the same number with other tokens."""
    here.cache.publish(lambda: known(here.store.version(), tokens=(token(1),)))
    with served(create_app(here)):
        until(lambda: here.cache.read() == here.store.known())


def test_the_platform_starts_while_doors_cannot_be_told(here: Platform, tmp_path: Path) -> None:
    """What is wrong with the cache passes; search goes on."""
    blocker = tmp_path / "cache"
    blocker.write_text("a file where the folder should be")
    with served(create_app(here)) as url, Client(url, grant(here.store, "read")) as client:
        assert client.collections() == []
        blocker.unlink()
        until(lambda: here.cache.read() == here.store.known())

"""What the promise of the store does not say, and holds where it is kept by PostgreSQL."""

from __future__ import annotations

import gc
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from builders import FLIGHTS, NOON
from engines.fresh import fresh_database
from engines.kit import default_root
from engines.places import HOST, PASSWORD, USER, postgres
from engines.postgres import Postgres
from metadata_builders import collection, token
from platform_stand_ins import Caller, grant, platform
from ports import free_ports
from sqlalchemy import Connection, text
from sqlalchemy.exc import DatabaseError, InternalError

from penstock.api.app import create_app
from penstock.api.publishing import Publisher
from penstock.cache import open_cache
from penstock.errors import BadSetting, EngineUnavailable
from penstock.metadata import postgresql
from penstock.metadata.database import (
    answering,
    open_engine,
    open_tables,
    reading,
    writing,
)
from penstock.metadata.home import ensure_admin_token, ensure_system_collections
from penstock.metadata.keys import NO_KEYS
from penstock.metadata.store import Store, open_store
from penstock.metadata.tables import metadata
from penstock.settings import shown

pytestmark = pytest.mark.engines

SECOND = 1_000_000


@pytest.fixture
def url() -> Iterator[str]:
    with fresh_database() as address:
        yield address


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = open_store(url)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def own() -> Iterator[Postgres]:
    """Start a server that may be killed."""
    # Not below pytest's folder: the server runs as another user, who may not look in there.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    folder.chmod(0o755)
    server = Postgres(default_root(), run=folder / "run", port=free_ports(1)[0])
    try:
        server.start()
        yield server
    finally:
        server.stop(signal.SIGKILL)
        shutil.rmtree(folder)


def family(server: Postgres) -> list[psutil.Process]:
    process = server.process()
    assert process is not None
    return [process, *process.children(recursive=True)]


def refused(work: Callable[[], object]) -> tuple[str, float]:
    """Answer why the work could not be done now, and how many seconds it took to say so."""
    begun = time.monotonic()
    with pytest.raises(EngineUnavailable) as refusal:
        work()
    return str(refusal.value), time.monotonic() - begun


def test_the_migrations_make_the_tables_that_the_code_expects(url: str) -> None:
    engine = open_engine(url, NO_KEYS)
    with reading(engine) as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()

    assert differences == []


def test_a_database_of_a_newer_release_is_left_alone(url: str) -> None:
    engine = open_engine(url, NO_KEYS)
    with writing(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()

    with pytest.raises(BadSetting, match="newer release"):
        open_store(url)


def test_an_undone_migration_leaves_nothing(url: str) -> None:
    engine = open_engine(url, NO_KEYS)

    def half_a_step() -> None:
        with writing(engine) as connection:
            connection.execute(text("CREATE TABLE half (a INTEGER)"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half_a_step()
    with reading(engine) as connection:
        found = connection.execute(text("SELECT to_regclass('half')")).scalar()
    engine.dispose()

    assert found is None


def test_what_is_read_is_from_one_moment_and_changes_nothing(store: Store) -> None:
    """A door told of a token but not of its collection would refuse good events."""
    with reading(store._engine) as connection:
        before = connection.execute(text("SELECT version FROM revision")).scalar()
        store.create_collection(collection())
        after = connection.execute(text("SELECT version FROM revision")).scalar()
        with pytest.raises(Exception, match="read-only transaction"):
            connection.execute(text("DELETE FROM collections"))

    assert before == after == 0
    assert store.version() == 1


def test_a_connection_that_has_read_can_write_and_the_other_way_round(store: Store) -> None:
    """Isolation is the transaction's; one that stuck to the connection would refuse the next."""
    for number in range(20):
        store.add_token(token(number))
        assert len(store.known().tokens) == number + 1


def test_collections_are_named_in_one_order_whatever_the_databases_is() -> None:
    """The order of the language puts `a_b` between `aa` and `ac`."""
    with ExitStack() as stack:
        plain = stack.enter_context(fresh_database())
        name = plain.rpartition("/")[2] + "_icu"
        with psycopg.connect(postgres("postgres"), autocommit=True) as connection:
            connection.execute(
                f'CREATE DATABASE "{name}" TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE "en"'
            )
        try:
            store = open_store(postgres(name))
            for each in ("aa", "a_b", "ac"):
                store.create_collection(collection(FLIGHTS._replace(name=each)))
            assert [c.id.name for c in store.collections()] == ["a_b", "aa", "ac"]
            store.close()
        finally:
            with psycopg.connect(postgres("postgres"), autocommit=True) as connection:
                connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def test_a_slow_writer_holds_the_others_up_for_seconds_only(
    url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They say that they could not write, and whoever reads waits for nobody."""
    monkeypatch.setattr(postgresql, "WRITERS_WAIT_SECONDS", 2)
    slow, other = open_store(url), open_store(url)
    begun = threading.Event()

    def change_slowly() -> None:
        with writing(slow._engine) as here:
            begun.set()
            here.execute(text("SELECT pg_sleep(6)"))

    with ThreadPoolExecutor(1) as pool:
        changing = pool.submit(change_slowly)
        assert begun.wait(10)
        said, took = refused(lambda: other.create_collection(collection()))
        assert not changing.done()
        assert store.collections() == []
        changing.result()
    slow.close()
    other.close()

    assert "lock timeout" in said
    assert took > 1


def test_a_halted_writer_is_ended_by_the_server(
    url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was stopped in the middle of a change must not stop every other one."""
    monkeypatch.setattr(postgresql, "WRITERS_WAIT_SECONDS", 1)
    halted = open_store(url)

    def change_and_be_halted() -> None:
        with writing(halted._engine) as here:
            here.execute(text("SELECT 1"))
            time.sleep(3)
            store.create_collection(collection())
            here.execute(text("SELECT 1"))

    with pytest.raises(DatabaseError, match="idle-in-transaction"):
        change_and_be_halted()
    halted.close()

    assert len(store.collections()) == 1


def test_a_server_that_became_a_standby_is_not_kept_for_writing(store: Store) -> None:
    """After a failover the connections that are open may be those to the old server."""
    kept: list[Any] = []

    def write_to_a_standby() -> None:
        with writing(store._engine) as connection:
            kept.append(connection.connection.driver_connection)
            connection.execute(text("SET TRANSACTION READ ONLY"))
            connection.execute(text("UPDATE revision SET version = 9"))

    with pytest.raises(InternalError, match="read-only"):
        write_to_a_standby()

    assert kept[0].closed
    assert store.version() == 0


def test_more_threads_than_connections_wait_for_one(store: Store) -> None:
    with_all = threading.Barrier(40)
    answers: list[int] = []

    def ask() -> None:
        with_all.wait(10)
        for _ in range(5):
            answers.append(store.version())  # noqa: PERF401 - one at a time, from many threads

    threads = [threading.Thread(target=ask) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == [0] * 200
    assert store._engine.pool.checkedout() == 0


@pytest.mark.parametrize(
    ("user", "password", "database", "word"),
    [
        (USER, "not-the-pass", "postgres", "authentication"),
        ("nobody", "not-the-pass", "postgres", "authentication"),
        (USER, PASSWORD, "no_such_database", "does not exist"),
    ],
)
def test_who_is_not_let_in_is_told_why_without_the_password(
    user: str, password: str, database: str, word: str
) -> None:
    port = postgres("x").rpartition(":")[2].partition("/")[0]

    said, took = refused(
        lambda: open_store(f"postgresql://{user}:{password}@{HOST}:{port}/{database}")
    )

    assert word in said
    assert "not-the-pass" not in said
    assert f":{PASSWORD}" not in said
    assert took < 10


def test_a_server_that_is_not_there_is_told_within_seconds() -> None:
    said, took = refused(lambda: open_store(f"postgresql://u:hidden@{HOST}:{free_ports(1)[0]}/db"))

    assert "refused" in said
    assert "hidden" not in said
    assert took < 10


def test_an_address_with_unknown_parts_is_a_bad_setting() -> None:
    with pytest.raises(BadSetting, match="metadata_url") as refusal:
        open_store(f"postgresql://u:hidden@{HOST}:1/db?nonsense=1")
    assert "hidden" not in str(refusal.value)


def test_a_server_that_is_not_there_is_told_in_one_line() -> None:
    """It stands on people's screens, and in logs of a line an entry."""
    with pytest.raises(EngineUnavailable, match="does not answer") as refusal:
        open_store(f"postgresql://u:hidden@{HOST}:1/db")
    assert "\n" not in str(refusal.value)
    assert "hidden" not in str(refusal.value)


def test_an_address_is_shown_without_its_password() -> None:
    assert shown("postgresql://u:hidden@db:5432/penstock") == "postgresql://db:5432/penstock"


def test_without_the_driver_it_is_said_what_to_install() -> None:
    """And the embedded default needs none of it."""
    program = """
import sys
sys.modules["psycopg"] = None
from penstock.errors import BadSetting
from penstock.metadata.store import open_store
open_store("sqlite:///" + sys.argv[1]).close()
try:
    open_store("postgresql://db/penstock")
except BadSetting as error:
    print(error)
"""
    with tempfile.TemporaryDirectory() as folder:
        said = subprocess.run(
            [sys.executable, "-c", program, f"{folder}/metadata.db"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    assert "pip install 'penstock[postgres]'" in said


# The kit waits for its servers by their number, and Popen does not know.
@pytest.mark.filterwarnings("ignore:.*Popen.__del__:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.xdist_group("own-postgres")
class TestAway:
    def test_a_killed_server_is_missed_within_seconds_and_found_again(self, own: Postgres) -> None:
        """Every process goes on by itself; nobody has to restart anything."""
        store = open_store(postgres("metadata", port=own.port))
        store.take_lease("killed", "one", NOON, SECOND)
        own.stop(signal.SIGKILL)

        for _ in range(3):
            said, took = refused(store.version)
            assert PASSWORD + "@" not in said
            assert took < 10
        own.start()

        assert store.take_lease("killed", "other", NOON + 2 * SECOND, SECOND) == 2
        store.close()

    def test_a_restart_between_two_questions_is_not_noticed(self, own: Postgres) -> None:
        store = open_store(postgres("metadata", port=own.port))
        before = store.version()
        own.stop(signal.SIGINT)  # at once: TERM waits until every client has gone
        own.start()

        assert store.version() == before
        store.close()

    def test_a_server_that_says_nothing_is_given_up(
        self, own: Postgres, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is halted, and its connections stay open: no time-out of its own ends the wait."""
        monkeypatch.setattr(postgresql._Patient, "seconds", 2.0)
        store = open_store(postgres("metadata", port=own.port))
        before = store.version()
        halted = family(own)
        for process in halted:
            process.suspend()
        try:
            for _ in range(2):
                _, took = refused(store.version)
                assert took < 15
        finally:
            for process in halted:
                process.resume()

        assert store.version() == before
        store.close()


ENDS = """
CREATE TABLE made (a INTEGER);
CREATE FUNCTION ends() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'the database system is shutting down' USING ERRCODE = '57P03'; END $$;
CREATE CONSTRAINT TRIGGER ends AFTER INSERT ON made DEFERRABLE INITIALLY {when}
FOR EACH ROW EXECUTE FUNCTION ends();
INSERT INTO made VALUES (1);
"""


@pytest.mark.parametrize("when", ["IMMEDIATE", "DEFERRED"])
def test_a_server_that_ends_while_tables_are_made_leaves_no_connection_open(
    url: str, when: str
) -> None:
    """It says so before it closes the connection: then we are the ones to close it.

    At a statement, or at the commit.
    """

    def make(connection: Connection) -> None:
        connection.exec_driver_sql(ENDS.format(when=when))

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(EngineUnavailable, match="shutting down"), answering("the database"):
            open_tables(url, setting="some_url", lock=1, made=lambda _: False, make=make)
        gc.collect()

    assert [str(one.message) for one in seen] == []


def test_two_installations_on_one_database_know_the_same(url: str, tmp_path: Path) -> None:
    """Each has a home and doors of its own; a token revoked at one is refused at both."""
    caches, publishers, stores, apps = [], [], [], []
    for name in ("one", "other"):
        home = tmp_path / name
        home.mkdir()
        store = open_store(url)
        ensure_system_collections(store, now=NOON)
        ensure_admin_token(store, home, now=NOON, chance=secrets.token_bytes)
        cache = open_cache(f"embedded://{home / 'cache'}")
        publisher = Publisher(store, cache)
        publisher.publish()
        caches.append(cache)
        publishers.append(publisher)
        stores.append(store)
        apps.append(create_app(platform(home, store=store, cache=cache)))
    token_text = grant(stores[0], "admin")
    here, there = (Caller(app, token_text) for app in apps)

    made = here("POST", "/api/v1/collections", {"name": "flights", "token": True})
    assert made.status_code == 201
    assert there("GET", "/api/v1/collections/flights").status_code == 200
    assert there("POST", "/api/v1/collections", {"name": "flights"}).status_code == 409
    assert there("POST", "/api/v1/collections/flights/pause", {}).status_code == 200
    for publisher in publishers:
        publisher.catch_up()

    first, second = (cache.read() for cache in caches)
    assert first == second
    assert first is not None
    assert [(c.id.name, c.paused) for c in first.collections] == [
        ("flights", True),
        ("replay_attempts", False),
    ]
    assert len(first.tokens) == 4
    for store in stores:
        store.close()

from __future__ import annotations

import fcntl
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from builders import FLIGHTS
from metadata_builders import KEYS, collection
from sqlalchemy import Engine, create_engine, text

from penstock.errors import BadSetting, EngineUnavailable, KeyMissing
from penstock.metadata.database import NEWEST, open_engine, reading, writing
from penstock.metadata.keys import NO_KEYS
from penstock.metadata.store import open_store
from penstock.metadata.tables import metadata
from penstock.schema.formats import Format
from penstock.schema.formats.avro import schemas_of


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'metadata.db'}"


def test_the_migrations_make_the_tables_that_the_code_expects(tmp_path: Path) -> None:
    """A column that only `tables` knows would fail at the first customer, not here."""
    engine = open_engine(url(tmp_path), NO_KEYS)
    with reading(engine) as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()

    assert differences == []


def test_the_newest_migration_is_the_one_that_opening_looks_for() -> None:
    """Else a new step would never run where Alembic is not asked."""
    config = Config()
    config.set_main_option("script_location", "penstock.metadata:migrations")

    assert ScriptDirectory.from_config(config).get_heads() == [NEWEST]


def made_as(folder: Path, version: str) -> Engine:
    """Answer a database as the release with this migration had it."""
    engine = create_engine(url(folder))
    config = Config()
    config.set_main_option("script_location", "penstock.metadata:migrations")
    with engine.connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, version)
    return engine


def test_collections_of_the_first_release_have_one_partition_and_are_json(tmp_path: Path) -> None:
    """A database that is there keeps what it has, and gets what is new."""
    engine = made_as(tmp_path, "0003")
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO collections VALUES ('main', 'flights', 1, 0, 0, 'evolve', '')")
        )
    engine.dispose()

    store = open_store(url(tmp_path))

    assert [(r.id.name, r.partitions, r.format, r.keep_days) for r in store.collections()] == [
        ("flights", 1, Format(), None)
    ]
    store.close()


def with_plain_text(folder: Path) -> None:
    """Leave a database of an older release that has credentials of both kinds."""
    engine = made_as(folder, "0009")
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO destinations VALUES ('main', 'd1', 'http', 'https://d.example/', :h, "
                "1, '{}', 's3cret', NULL, NULL)"
            ),
            {"h": '[["Authorization", "Bearer hidden"], ["X-More", "é"]]'},
        )
    engine.dispose()


def test_credentials_of_an_older_release_are_encrypted_and_gone_from_the_file(
    tmp_path: Path,
) -> None:
    """SQLite leaves what was overwritten where it was, unless it is told not to."""
    with_plain_text(tmp_path)

    store = open_store(url(tmp_path), KEYS)
    found = store.destination("main", "d1")
    store.close()

    assert found.headers == (("Authorization", "Bearer hidden"), ("X-More", "é"))
    assert found.secret == "s3cret"
    for file in tmp_path.iterdir():
        assert b"hidden" not in file.read_bytes(), file
        assert b"s3cret" not in file.read_bytes(), file


def with_a_plain_secret(folder: Path) -> None:
    """Leave a database of an older release that has two schemas with one secret, and others."""
    engine = made_as(folder, "0013")
    bodies = [
        ("d1", b'{"versions": ["1"], "secret": "me:hidden \xc3\xa9", "salt": "ab"}'),
        ("d2", b'{"versions": ["1", "2"], "secret": "me:hidden \xc3\xa9", "salt": "ab"}'),
        ("d3", b'{"versions": ["3"], "secret": "hidden, too"}'),
        ("d4", b'{"versions": ["4"], "secret": null, "salt": null}'),
        ("d5", b"\x00\xff\x80 a descriptor set"),
        ("registry ab 1", b'{"schema": "5", "kind": "AVRO"}'),
    ]
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO collections VALUES ('main', 'flights', 1, 0, 'evolve', '', 0, 1, "
                '\'{"name": "avro", "schema": "d2", "secret": true}\', NULL)'
            )
        )
        for digest, body in bodies:
            connection.execute(
                text("INSERT INTO format_schemas VALUES ('main', 'flights', :d, :b)"),
                {"d": digest, "b": body},
            )
    engine.dispose()


def test_secrets_of_registries_are_encrypted_and_gone_from_the_file(tmp_path: Path) -> None:
    """What formats name stays as it is: landing goes on with the schemas that it knows."""
    with_a_plain_secret(tmp_path)
    with pytest.raises(KeyMissing, match="'penstock key rotate' makes the first one"):
        open_store(url(tmp_path))

    store = open_store(url(tmp_path), KEYS)
    kept = {one: store.format_schema(FLIGHTS, one) for one in ("d1", "d2", "d3", "d4")}
    schemas = {one: schemas_of(body) for one, body in kept.items()}

    assert [schemas[one].secret_id for one in ("d1", "d2", "d4")] == ["ab", "ab", None]
    assert schemas["d2"].versions == ("1", "2")
    assert store.registry_secret(FLIGHTS, "ab") == "me:hidden é"
    assert store.registry_secret(FLIGHTS, schemas["d3"].secret_id or "") == "hidden, too"
    assert store.format_schema(FLIGHTS, "d5") == b"\x00\xff\x80 a descriptor set"
    assert store.format_schema(FLIGHTS, "registry ab 1") == b'{"schema": "5", "kind": "AVRO"}'
    assert store.keys_needed()[KEYS.held()[0].id].collections == ["main.flights"]
    store.close()
    for file in tmp_path.iterdir():
        assert b"hidden" not in file.read_bytes(), file


def test_without_a_key_they_are_left_as_they_are_and_it_is_said_what_to_do(tmp_path: Path) -> None:
    with_plain_text(tmp_path)

    with pytest.raises(KeyMissing, match="'penstock key rotate' makes the first one") as refused:
        open_store(url(tmp_path))
    assert "hidden" not in str(refused.value)
    store = open_store(url(tmp_path), KEYS)
    assert store.destination("main", "d1").secret == "s3cret"
    store.close()


def test_a_database_of_a_newer_release_is_left_alone(tmp_path: Path) -> None:
    engine = open_engine(url(tmp_path), NO_KEYS)
    with writing(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()

    with pytest.raises(BadSetting, match="newer release"):
        open_store(url(tmp_path))


def test_one_process_at_a_time_prepares_a_database(tmp_path: Path) -> None:
    """Two that switch a new file to WAL together fail now and then."""
    with (tmp_path / "metadata.db.lock").open("w") as lock, ThreadPoolExecutor(1) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        opening = pool.submit(open_store, url(tmp_path))
        with pytest.raises(TimeoutError):
            opening.result(0.3)
        fcntl.flock(lock, fcntl.LOCK_UN)
        opening.result(20).close()


def test_what_is_read_is_from_one_moment(tmp_path: Path) -> None:
    """A door told of a token but not of its collection would refuse good events."""
    store = open_store(url(tmp_path))
    with reading(store._engine) as connection:
        before = connection.execute(text("SELECT version FROM revision")).scalar()
        store.create_collection(collection())
        after = connection.execute(text("SELECT version FROM revision")).scalar()
    store.close()

    assert before == after == 0


def test_only_this_user_may_read_the_database(tmp_path: Path) -> None:
    """Tokens can be told from their digests if they were made by hand."""
    store = open_store(url(tmp_path))
    store.version()
    modes = {
        file.name: stat.filemode(file.stat().st_mode)
        for file in tmp_path.iterdir()
        if file.name != "metadata.db.lock"
    }
    store.close()

    assert set(modes.values()) == {"-rw-------"}
    assert "metadata.db" in modes


def test_what_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "metadata.db").write_bytes(b"this is no database" * 100)

    with pytest.raises(EngineUnavailable, match="does not answer"):
        open_store(url(tmp_path))


@pytest.mark.parametrize(
    "bad", ["mysql://db/penstock", "nonsense", "sqlite://", "sqlite:///:memory:", "postgresql://db"]
)
def test_other_urls_are_refused(bad: str) -> None:
    with pytest.raises(BadSetting, match="sqlite:///file"):
        open_store(bad)


def test_an_undone_migration_leaves_nothing(tmp_path: Path) -> None:
    """A step that fails half way must not leave tables that the next try stumbles over."""
    engine = open_engine(url(tmp_path), NO_KEYS)

    def half_a_step() -> None:
        with writing(engine) as connection:
            connection.execute(text("CREATE TABLE half (a INTEGER)"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half_a_step()
    with reading(engine) as connection:
        names = connection.execute(text("SELECT name FROM sqlite_master")).scalars().all()
    engine.dispose()

    assert "half" not in names

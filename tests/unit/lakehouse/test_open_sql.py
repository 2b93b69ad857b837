"""The address of callers' SQL is taken or refused, and never told with a secret in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakehouse.sql import open_engine, open_sql
from lakehouse.sql.trino import TrinoSql
from lakehouse.sql.trino_session import Address
from penstock.errors import BadSetting
from penstock.settings import load_settings


def test_without_an_address_the_embedded_engine_answers(tmp_path: Path) -> None:
    """It is opened anyway, for searches."""
    engine = open_engine(tmp_path, memory="100MB", threads=1)
    sql = open_sql("", embedded=engine)

    assert sql is engine
    sql.close()
    engine.close()


def test_an_address_of_trino_is_read() -> None:
    """What is not said is what Trino's own clients take."""
    assert Address.of("trino://me%40x@host/Lake") == Address(
        scheme="http", host="host", port=8080, user="me@x", catalog="lake"
    )
    assert Address.of("trino+https://me@host/lake").port == 443
    assert Address.of("trino+https://me@host:8443/lake").port == 8443


@pytest.mark.parametrize(
    "url",
    [
        "duckdb://x",
        "trino://host/lake",
        "trino://me@host",
        "trino://me@host/lake/main",
        "trino://me@host:port/lake",
        "trino://me:hunter2@host/lake",
        "trino:hunter2",
    ],
)
def test_an_address_that_cannot_be_used_is_refused(tmp_path: Path, url: str) -> None:
    """At the start, not at the first statement."""
    with pytest.raises(BadSetting) as refusal:
        open_sql(url, embedded=None)  # type: ignore[arg-type]
    assert "hunter2" not in str(refusal.value)


def test_a_secret_is_sent_over_https_only() -> None:
    """Anybody on the way could read it."""
    for secret in ({"password": "hunter2"}, {"token": "hunter2"}):
        with pytest.raises(BadSetting, match="https") as refusal:
            TrinoSql("trino://me@host/lake", **secret)
        assert "hunter2" not in str(refusal.value)
        assert TrinoSql("trino+https://me@host/lake", **secret)
    with pytest.raises(BadSetting, match="exclude"):
        TrinoSql("trino+https://me@host/lake", password="a", token="b")


def test_settings_do_not_show_the_secrets(tmp_path: Path) -> None:
    """Settings end in logs."""
    settings = load_settings(tmp_path, {"PENSTOCK_SQL_PASSWORD": "hunter2"}, sql_token="hunter3")

    assert "hunter" not in repr(settings)
    assert "hunter" not in settings.model_dump_json()
    assert settings.sql_password.get_secret_value() == "hunter2"

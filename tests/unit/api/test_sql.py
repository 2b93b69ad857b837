from __future__ import annotations

import io

import httpx
import pyarrow as pa
import pytest
from builders import FLIGHTS
from fastapi import FastAPI
from platform_stand_ins import Caller, InProcess, StandInLake, StandInSql, grant, table

from penstock.api.platform import Platform
from penstock.api.sql import ARROW, CSV
from penstock.client import Client
from penstock.envelope import CollectionId
from penstock.errors import BadSql
from penstock.metadata.home import REPLAY_ATTEMPTS

ROWS = pa.table({"carrier": ["UA", "AA"], "n": [3, None]})


@pytest.fixture
def engine(here: Platform) -> StandInSql:
    engine = here.sql
    assert isinstance(engine, StandInSql)
    engine.rows = ROWS
    return engine


@pytest.fixture
def tables(here: Platform) -> None:
    lake = here.lake
    assert isinstance(lake, StandInLake)
    for collection in (FLIGHTS, CollectionId("rivals", "secrets"), REPLAY_ATTEMPTS):
        lake.views[collection] = table(collection)


def test_rows_are_answered_with_names_and_types(admin: Caller, engine: StandInSql) -> None:
    engine.truncated = True
    told = admin("POST", "/api/v1/sql", {"statement": "select 1"}).json()

    assert told.pop("seconds") >= 0
    assert told == {
        "columns": ["carrier", "n"],
        "types": ["string", "int64"],
        "rows": [["UA", 3], ["AA", None]],
        "truncated": True,
    }


def test_a_statement_sees_the_tables_of_its_own_team_only(
    app: FastAPI, here: Platform, engine: StandInSql, tables: None
) -> None:
    for token in (
        grant(here.store, "read"),
        grant(here.store, "admin"),
        grant(here.store, "admin", team="rivals"),
    ):
        Caller(app, token)("POST", "/api/v1/sql", {"statement": "select 1"})

    own = ["main.flights", "main.flights__distinct", "main__quarantine.flights"]
    ledger = ["penstock_system.replay_attempts", "penstock_system.replay_attempts__distinct"]
    assert [(home, names) for _, home, names in engine.asked] == [
        ("main", own),
        ("main", [*own, *ledger, "penstock_system__quarantine.replay_attempts"]),
        (
            "rivals",
            ["rivals.secrets", "rivals.secrets__distinct", "rivals__quarantine.secrets"],
        ),
    ]


@pytest.mark.parametrize("accept", ["application/json", CSV, ARROW])
def test_what_is_wrong_with_a_statement_is_told_in_every_form(
    admin: Caller, engine: StandInSql, accept: str
) -> None:
    engine.error = BadSql("there is no table 'flights'")
    answer = admin(
        "POST", "/api/v1/sql", {"statement": "select * from flights"}, headers={"Accept": accept}
    )

    assert (answer.status_code, answer.json()["detail"]) == (400, "there is no table 'flights'")
    assert engine.open == 0


def test_all_rows_come_as_csv(here: Platform, app: FastAPI, engine: StandInSql) -> None:
    client = Client("http://penstock", grant(here.store, "read"), InProcess(app))

    assert b"".join(client.sql_csv("select 1")) == b"carrier,n\nUA,3\nAA,\n"
    assert engine.open == 0


def test_all_rows_come_as_an_arrow_stream(admin: Caller, engine: StandInSql) -> None:
    answer = admin("POST", "/api/v1/sql", {"statement": "select 1"}, headers={"Accept": ARROW})

    assert answer.headers["Content-Type"] == ARROW
    assert pa.ipc.open_stream(io.BytesIO(answer.content)).read_all() == ROWS
    assert engine.open == 0


def test_an_answer_of_no_rows_has_its_columns(admin: Caller, engine: StandInSql) -> None:
    engine.rows = ROWS.slice(0, 0)
    for accept, body in ((CSV, b"carrier,n\n"), ("*/*", b'"rows":[]')):
        answer = admin("POST", "/api/v1/sql", {"statement": "select 1"}, headers={"Accept": accept})
        assert body in answer.content


def test_a_first_row_that_cannot_be_written_is_told(admin: Caller, engine: StandInSql) -> None:
    """An answer that breaks off at its first row says nothing about why."""
    engine.rows = pa.table({"at": pa.array([1 << 62], pa.timestamp("us"))})
    answer = admin("POST", "/api/v1/sql", {"statement": "select 1"}, headers={"Accept": CSV})

    assert answer.status_code == 400
    assert "cast it to VARCHAR" in answer.json()["detail"]
    assert engine.open == 0


def test_an_error_half_way_breaks_the_answer_off_and_gives_the_place_back(
    admin: Caller, here: Platform, engine: StandInSql, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows that end as if they were all would be believed."""
    engine.breaks_off = RuntimeError("could not convert 'very-hidden'")
    for _ in range(10):
        with pytest.raises(httpx.RemoteProtocolError):
            admin("POST", "/api/v1/sql", {"statement": "select 1"}, headers={"Accept": CSV})

    logged = capsys.readouterr().out
    assert engine.open == 0
    assert "very-hidden" not in logged
    assert "request failed unexpectedly" in logged
    with here.rooms.sql:
        pass


def test_the_client_gets_what_was_answered(
    here: Platform, app: FastAPI, engine: StandInSql
) -> None:
    client = Client("http://penstock", grant(here.store, "read"), InProcess(app))
    answer = client.sql("select 1")

    assert (answer.columns, answer.rows, answer.truncated) == (
        ["carrier", "n"],
        [["UA", 3], ["AA", None]],
        False,
    )

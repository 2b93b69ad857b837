"""The client against the real app: what goes in comes out, and errors arrive as themselves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec
import pytest
from builders import FLIGHTS, NOON
from fastapi import FastAPI
from lakes import landing, log_of, new_lake, numbered
from platform_stand_ins import InProcess, StandInTrials, grant, platform
from pydantic import ValidationError
from served import served

from assets.contract import Past, Trials
from lakehouse.sql import open_engine
from penstock import errors
from penstock.api.app import create_app
from penstock.api.platform import Platform
from penstock.cli.console import print_json
from penstock.client import (
    Client,
    FormatOptions,
    PageOptions,
    ReplayOptions,
    SearchOptions,
    told,
)
from penstock.contract.base import Asked, micros, moment
from penstock.contract.formats import FormatAsked
from penstock.contract.replays import ReplayAsked
from penstock.contract.search import Looked, LookedForEvents
from penstock.errors import EngineUnavailable, NotFound
from penstock.metadata.records import CollectionRecord
from penstock.problem import CONTENT_TYPE, problem
from penstock.schema.convert import Rules

NOON_TIME = datetime.fromtimestamp(NOON / 1_000_000, UTC)


@pytest.fixture
def client(app: FastAPI, here: Platform) -> Client:
    return Client("http://penstock", grant(here.store, "admin"), InProcess(app))


def test_collections(client: Client) -> None:
    made = client.create_collection("flights", notes="from 2013", token=True)

    assert (made.name, made.created_at, made.notes) == ("flights", NOON_TIME, "from 2013")
    assert made.token is not None
    assert not made.allow_loops
    assert client.create_collection("loops", allow_loops=True).allow_loops
    assert [c.name for c in client.collections()] == ["flights", "loops"]
    assert client.pause_collection("flights").paused
    assert client.collection("flights").paused
    assert not client.resume_collection("flights").paused
    assert client.set_contract("flights", "freeze").contract == "freeze"
    assert [c.what for v in client.schema("flights").versions for c in v.changes] == ["contract"]
    assert client.schema("flights").columns == []
    assert client.collection_status("flights").waiting == 0
    assert [c.name for c in client.status().collections] == ["flights", "loops"]


def test_a_trial_is_told_as_it_goes_on(client: Client, here: Platform) -> None:
    """A year of events takes minutes; an answer that breaks off is no answer."""
    client.create_collection("flights")

    first, last = client.try_contract("flights", "quarantine", since=NOON_TIME, sample=5)

    assert (first.events, first.wanted, first.done) == (0, 2, False)
    assert (last.events, last.whole, last.quarantined, last.done) == (2, 1, 1, True)
    [cause] = last.causes
    assert (cause.stage, cause.reason, cause.path) == ("contract", "new_field", "a")
    assert cause.examples == ["e2"]
    trials = here.trials
    assert isinstance(trials, StandInTrials)
    assert trials.asked == [(FLIGHTS, "quarantine", Past(since=NOON, sample=5))]
    trials.error = EngineUnavailable("the tables cannot be read now")
    with pytest.raises(EngineUnavailable):
        list(client.try_contract("flights", "freeze"))
    assert client.collection("flights").contract == "evolve"
    with pytest.raises(NotFound):
        list(client.try_contract("ships", "freeze"))


def test_a_trial_reads_the_lake_while_it_is_told(tmp_path: Path) -> None:
    """Each line may be made in another thread of the server; whoever leaves ends it."""
    lake, log = new_lake(tmp_path), log_of(*numbered(1_200), '{"n": "x"}')
    landing(log, lake).land_once(FLIGHTS)
    with closing(open_engine(tmp_path / "spill", memory="300MB", threads=1)) as engine:
        here = platform(tmp_path, lake=lake, trials=Trials(lake, engine, rules=lambda _: Rules()))
        here.store.create_collection(CollectionRecord(id=FLIGHTS, created_at=NOON))
        with (
            served(create_app(here), lifespan="off") as address,
            Client(address, grant(here.store, "admin")) as client,
        ):
            left = client.try_contract("flights", "quarantine")
            next(left)
            left.close()  # type: ignore[attr-defined]
            *progress, last = client.try_contract("flights", "quarantine")
        here.store.close()

    assert len(progress) > 2
    assert (last.events, last.whole, last.quarantined) == (1_201, 1_200, 1)
    assert [(cause.path, cause.examples) for cause in last.causes] == [("n", ["e1200"])]


def test_tokens(client: Client) -> None:
    later = datetime(2030, 1, 1, 12, 30, 15, 123456, UTC)
    made = client.create_token("ci", ["read", "replay"], expires_at=later)

    assert made.expires_at == later
    assert made.token is not None
    [shown] = [t for t in client.tokens() if t.id == made.id]
    assert "token" not in dict(shown)
    gone = client.revoke_token(made.id)
    assert (gone.revoked_at, gone.doors, gone.within_seconds) == (NOON_TIME, {}, 0.5)


def test_destinations(client: Client) -> None:
    made = client.create_destination(
        "billing", "https://billing.example/", headers=[("X-Key", "hidden")]
    )

    assert made.headers == ["X-Key"]
    assert client.destination("billing") == made
    assert client.destinations() == [made]
    client.delete_destination("billing")
    assert client.destinations() == []


def test_the_whole(client: Client) -> None:
    health = client.health()

    assert health.status == "ok"
    assert health.adapters["lake"].responds
    assert "penstock_platform_requests" in client.metrics()


def test_answers_written_as_json_are_what_the_api_said(
    client: Client, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Programs that read `--json` and programs that call the API see the same."""
    client.create_collection("flights")
    client.create_token("ci", ["read"])

    for path, answer in (
        ("/api/v1/tokens", client.tokens()),
        ("/api/v1/status", client.status()),
    ):
        said = client._http.get(path).json()
        print_json(answer)
        written = msgspec.json.decode(capsysbinary.readouterr().out)
        assert _same_times(written) == _same_times(said)


def _same_times(value: object) -> object:
    """Write times in one form."""
    if isinstance(value, dict):
        return {k: _same_times(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_same_times(v) for v in value]
    if isinstance(value, str) and value.endswith("Z"):
        return datetime.fromisoformat(value)
    return value


ERRORS = [
    errors.Unauthorized("the token is unknown"),
    errors.Forbidden("this needs a token with the scope 'admin'"),
    errors.NotFound("collection", "flights"),
    errors.AlreadyExists("collection", "flights"),
    errors.TooLarge("body", 5_000_000, 1_000_000),
    errors.BadName("A", what="collection"),
    errors.BadQuery("carrier:>", 9, "expected a number"),
    errors.BadSql("one SELECT is wanted"),
    errors.BadRequest("limit: too large"),
    errors.BadRequest("rate cannot be used").at("rate").at("options"),
    errors.WrongState("the replay is finished"),
    errors.AddressRefused("the address is not public"),
    errors.Overloaded("too many searches", retry_after=4),
    errors.EngineUnavailable("the lake does not answer", retry_after=9),
    errors.TableChanged("the table was rolled back"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_arrives_as_it_was_raised(error: errors.PenstockError) -> None:
    """The command line decides by its class what to print and how to exit."""
    sent = problem(error)
    headers = {} if sent.retry_after is None else {"Retry-After": str(sent.retry_after)}
    arrived = told(httpx.Response(sent.status, headers=headers, content=sent.body()))

    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    if isinstance(error, errors.Rejected):
        assert isinstance(arrived, errors.Rejected)
        assert arrived.field == error.field
    if isinstance(error, errors.Unavailable):
        assert isinstance(arrived, errors.Unavailable)
        assert arrived.retry_after == error.retry_after
    if isinstance(error, errors.BadQuery):
        assert isinstance(arrived, errors.BadQuery)
        assert arrived.pointer() == error.pointer()


@pytest.mark.parametrize(
    ("status", "content", "kind"),
    [
        (401, b"", errors.Unauthorized),
        (404, b"<html>", errors.NotFound),
        (418, b"[]", errors.BadRequest),
        (502, b"bad gateway", errors.EngineUnavailable),
        (500, b"{}", errors.PenstockError),
        (404, b'{"type": "urn:penstock:made-up-later", "detail": "gone"}', errors.NotFound),
    ],
)
def test_what_a_proxy_answers_is_an_error_too(
    status: int, content: bytes, kind: type[errors.PenstockError]
) -> None:
    arrived = told(httpx.Response(status, content=content, headers={"Content-Type": CONTENT_TYPE}))

    assert type(arrived) is kind


def test_where_nothing_answers_the_address_is_named() -> None:
    with (
        Client("http://127.0.0.1:1", "pst_x") as client,
        pytest.raises(
            errors.EngineUnavailable, match=r"no platform answers at http://127\.0\.0\.1:1"
        ),
    ):
        client.status()


def test_what_is_no_penstock_is_said_to_be_none() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, text="<html>hello</html>"))
    with (
        Client("http://elsewhere", "pst_x", transport) as client,
        pytest.raises(errors.EngineUnavailable, match="no Penstock"),
    ):
        client.collections()


def test_names_cannot_leave_their_place_in_the_path() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.raw_path)
        return httpx.Response(204)

    with Client("http://penstock", "pst_x", httpx.MockTransport(answer)) as client:
        client.delete_destination("../tokens/t1?x=1#y")

    assert asked == [b"/api/v1/destinations/%2E%2E%2Ftokens%2Ft1%3Fx%3D1%23y"]


def test_the_client_knows_nothing_of_the_server() -> None:
    """The command line must start without loading the platform."""
    script = "import sys, penstock.client; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()

    server = {"fastapi", "starlette", "sqlalchemy", "pyarrow", "penstock.metadata", "assets"}
    assert server & set(loaded) == set()


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        (lambda client: client.search("flights", limit=0), "limit: Input should be greater"),
        (lambda client: client.search("flights", page=2), "page: there is no such field"),
        (lambda client: client.create_token("ci", ["hidden"]), r"scopes\.0: Input should be"),
        (
            lambda client: client.count("flights", since=NOON_TIME.replace(tzinfo=None)),
            "needs its zone",
        ),
    ],
)
def test_what_the_contract_does_not_take_is_refused_as_the_platform_would(
    app: FastAPI, here: Platform, ask: Callable[[Client], object], why: str
) -> None:
    """Nothing is sent, and the sentence does not repeat what may be secret."""
    sent = []
    transport = httpx.MockTransport(lambda request: sent.append(request) or httpx.Response(500))
    with (
        Client("http://penstock", "pst_x", transport) as client,
        pytest.raises(errors.BadRequest, match=why) as refused,
    ):
        ask(client)

    assert sent == []
    assert "hidden" not in str(refused.value)
    assert refused.value.__suppress_context__


@pytest.mark.parametrize(
    ("options", "shape", "given"),
    [
        (FormatOptions, FormatAsked, {"name"}),
        (PageOptions, LookedForEvents, {"query"}),
        (SearchOptions, Looked, {"query"}),
        (ReplayOptions, ReplayAsked, {"collection", "query", "destination"}),
    ],
)
def test_a_call_has_every_option_that_its_request_has(
    options: type, shape: type[Asked], given: set[str]
) -> None:
    """One that is missing here could be used by everybody but programs in Python."""
    assert options.__annotations__.keys() | given == shape.model_fields.keys()


def test_a_later_platform_may_tell_more(here: Platform) -> None:
    """Whoever renews the platform first must not stop the commands of everybody else."""
    more = {"count": 3, "seconds": 0.1, "told_since_next_year": {"a": 1}}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=more))

    with Client("http://penstock", "pst_x", transport) as client:
        assert client.count("flights").count == 3


def test_an_answer_that_cannot_be_read_is_not_repeated() -> None:
    """It may hold payloads; the error goes into logs."""
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={"count": "hidden"}))
    with (
        Client("http://penstock", "pst_x", transport) as client,
        pytest.raises(EngineUnavailable, match="count: Input should be") as refused,
    ):
        client.count("flights")

    assert "hidden" not in str(refused.value)


def test_times_are_told_to_the_microsecond_and_read_in_utc() -> None:
    """Texts sort like times; a time that could be meant in two ways is none."""
    noon = datetime(2026, 11, 22, 12, tzinfo=UTC)
    asked = Looked.model_validate({"since": "2026-11-22T13:00:00+01:00", "until": noon})

    assert (asked.since, asked.until) == (noon, noon)
    assert asked.model_dump(mode="json")["since"] == "2026-11-22T12:00:00.000000Z"
    assert moment(micros(noon)) == noon
    for wrong in ("2026-11-22T12:00:00", "soon", 1_700_000_000, "0001-01-01T00:00:00+14:00"):
        with pytest.raises(ValidationError):
            Looked.model_validate({"since": wrong})

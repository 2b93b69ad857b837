"""Every route times every token: what is open to whom is written down here, and nowhere else."""

from __future__ import annotations

from typing import get_args

import pytest
from builders import FLIGHTS, NOON
from fastapi import FastAPI
from metadata_builders import collection, destination, replay, saved_search
from platform_stand_ins import Caller, grant

from penstock.api.platform import Platform
from penstock.metadata.home import REPLAY_ATTEMPTS, ensure_system_collections
from penstock.metadata.records import CollectionRecord
from penstock.metadata.store import Store
from penstock.metadata.tokens import new_token
from penstock.vocabulary import Scope

EVERYBODY = None

# method, path -> the scope that is needed (admin implies all)
RULES: dict[tuple[str, str], Scope | None] = {
    ("GET", "/healthz"): EVERYBODY,
    ("GET", "/metrics"): EVERYBODY,
    ("GET", "/api/v1/status"): "read",
    ("GET", "/api/v1/metrics"): "read",
    ("GET", "/api/v1/collections"): "read",
    ("POST", "/api/v1/collections"): "admin",
    ("GET", "/api/v1/collections/{c}"): "read",
    ("POST", "/api/v1/collections/{c}/grow"): "admin",
    ("POST", "/api/v1/collections/{c}/contract"): "admin",
    ("POST", "/api/v1/collections/{c}/contract/try"): "admin",
    ("POST", "/api/v1/collections/{c}/format"): "admin",
    ("POST", "/api/v1/collections/{c}/format/try"): "admin",
    ("POST", "/api/v1/collections/{c}/keep"): "admin",
    ("POST", "/api/v1/collections/{c}/loops"): "admin",
    ("GET", "/api/v1/collections/{c}/retype"): "read",
    ("POST", "/api/v1/collections/{c}/rebuild/try"): "admin",
    ("GET", "/api/v1/collections/{c}/quarantine"): "read",
    ("GET", "/api/v1/collections/{c}/quarantine/events/{event_id}"): "read",
    ("POST", "/api/v1/collections/{c}/quarantine/try"): "read",
    ("POST", "/api/v1/collections/{c}/quarantine/release"): "admin",
    ("POST", "/api/v1/collections/{c}/quarantine/discard"): "admin",
    ("GET", "/api/v1/collections/{c}/quarantine/works"): "read",
    ("POST", "/api/v1/collections/{c}/pause"): "admin",
    ("POST", "/api/v1/collections/{c}/resume"): "admin",
    ("GET", "/api/v1/collections/{c}/schema"): "read",
    ("GET", "/api/v1/collections/{c}/status"): "read",
    ("GET", "/api/v1/collections/{c}/stats"): "read",
    ("POST", "/api/v1/collections/{c}/search"): "read",
    ("POST", "/api/v1/collections/{c}/count"): "read",
    ("POST", "/api/v1/collections/{c}/histogram"): "read",
    ("POST", "/api/v1/collections/{c}/facets"): "read",
    ("POST", "/api/v1/collections/{c}/complete"): "read",
    ("POST", "/api/v1/collections/{c}/statement"): "read",
    ("GET", "/api/v1/collections/{c}/tail"): "read",
    ("GET", "/api/v1/collections/{c}/events/{event_id}"): "read",
    ("GET", "/api/v1/collections/{c}/around/{event_id}"): "read",
    ("GET", "/api/v1/collections/{c}/deliveries/{event_id}"): "read",
    ("GET", "/api/v1/searches"): "read",
    ("POST", "/api/v1/searches"): "admin",
    ("GET", "/api/v1/searches/{name}"): "read",
    ("PUT", "/api/v1/searches/{name}"): "admin",
    ("DELETE", "/api/v1/searches/{name}"): "admin",
    ("POST", "/api/v1/sql"): "read",
    ("GET", "/api/v1/sql/tables"): "read",
    ("GET", "/api/v1/sql/tables/{name}"): "read",
    ("GET", "/api/v1/tokens"): "admin",
    ("POST", "/api/v1/tokens"): "admin",
    ("DELETE", "/api/v1/tokens/{id}"): "admin",
    ("GET", "/api/v1/destinations"): "replay",
    ("POST", "/api/v1/destinations"): "admin",
    ("GET", "/api/v1/destinations/{name}"): "replay",
    ("PATCH", "/api/v1/destinations/{name}"): "admin",
    ("DELETE", "/api/v1/destinations/{name}"): "admin",
    ("POST", "/api/v1/destinations/{name}/test"): "replay",
    ("GET", "/api/v1/replays"): "replay",
    ("POST", "/api/v1/replays"): "replay",
    ("POST", "/api/v1/replays/plan"): "replay",
    ("POST", "/api/v1/replays/preview"): "replay",
    ("GET", "/api/v1/replays/{id}"): "replay",
    ("PATCH", "/api/v1/replays/{id}"): "replay",
    ("GET", "/api/v1/replays/{id}/course"): "replay",
    ("GET", "/api/v1/replays/{id}/failures"): "replay",
    ("POST", "/api/v1/replays/{id}/pause"): "replay",
    ("POST", "/api/v1/replays/{id}/resume"): "replay",
    ("POST", "/api/v1/replays/{id}/cancel"): "replay",
    ("POST", "/api/v1/replays/{id}/retry"): "replay",
    ("POST", "/api/v1/replays/plans"): "replay",
    ("POST", "/api/v1/replays/planned"): "replay",
    ("GET", "/api/v1/replays/{id}/report"): "replay",
    ("GET", "/api/v1/replays/{id}/file"): "replay",
}

# What another team's things are asked for by: the same paths, with names that are there.
PLACES = {"c": "flights", "id": "r1", "name": "billing", "event_id": "e1"}


def concrete(path: str) -> str:
    for name, value in PLACES.items():
        path = path.replace(f"{{{name}}}", value)
    assert "{" not in path, f"PLACES lacks a name for {path}"
    return path


def routes_of(app: FastAPI) -> set[tuple[str, str]]:
    return {
        (method.upper(), path)
        for path, operations in app.openapi()["paths"].items()
        for method in operations
    }


@pytest.fixture
def furnished(here: Platform) -> Store:
    """Fill the store with one of each for the team `main`."""
    here.store.create_collection(collection())
    here.store.add_destination(destination())
    here.store.create_replay(replay())
    here.store.add_saved_search(saved_search("billing"))
    return here.store


def test_every_route_has_a_rule(app: FastAPI) -> None:
    """A new route has to be decided about."""
    assert routes_of(app) == set(RULES)


def test_a_route_lets_in_whom_its_rule_names(app: FastAPI, here: Platform) -> None:
    callers = {scope: Caller(app, grant(here.store, scope)) for scope in get_args(Scope)}
    expected, found = {}, {}
    for (method, path), rule in RULES.items():
        for scope, caller in callers.items():
            let_in = rule is EVERYBODY or scope in (rule, "admin")
            status = caller(method, concrete(path), {}).status_code
            expected[method, path, scope] = "let in" if let_in else 403
            found[method, path, scope] = status if status in (401, 403) else "let in"

    assert found == expected


@pytest.mark.parametrize(
    "token",
    [
        None,
        "",
        "pst_unknown",
        new_token(b"a token nobody was ever given..."),
        "a b",
        "Bearer",
    ],
)
def test_nobody_else_is_let_in(app: FastAPI, furnished: Store, token: str | None) -> None:
    nobody = Caller(app, token)
    for (method, path), rule in RULES.items():
        if rule is not EVERYBODY:
            answer = nobody(method, concrete(path), {})
            assert answer.status_code == 401, f"{method} {path}"
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert answer.json()["type"] == "urn:penstock:unauthorized"


def test_a_token_in_the_url_or_a_cookie_is_no_token(app: FastAPI, here: Platform) -> None:
    """URLs end up in logs and histories."""
    token = grant(here.store, "admin")
    nobody = Caller(app, None)

    for path in (f"/api/v1/collections?token={token}", f"/api/v1/collections?access_token={token}"):
        assert nobody("GET", path).status_code == 401
    assert nobody("GET", "/api/v1/collections", headers={"Cookie": f"token={token}"}).is_error
    assert nobody("GET", "/api/v1/collections", headers={"Authorization": token}).is_error


def test_what_belongs_to_another_team_is_not_there(
    rival: Caller, admin: Caller, furnished: Store
) -> None:
    """A 403 would tell that the name exists."""
    before = everything(furnished)
    for method, path in RULES:
        if "{" in path:
            answer = rival(method, concrete(path), BODIES.get(path))
            assert answer.status_code == 404, f"{method} {path}: {answer.text}"

    assert everything(furnished) == before


BODIES: dict[str, object] = {
    **{
        f"/api/v1/collections/{{c}}/{verb}": {}
        for verb in ("search", "count", "histogram", "statement")
    },
    "/api/v1/collections/{c}/facets": {"fields": ["carrier"]},
    "/api/v1/collections/{c}/complete": {"query": "", "position": 0},
    "/api/v1/searches/{name}": {"collection": "flights"},
    "/api/v1/collections/{c}/grow": {"partitions": 2},
    "/api/v1/collections/{c}/contract": {"contract": "freeze"},
    "/api/v1/collections/{c}/contract/try": {"contract": "freeze"},
    "/api/v1/collections/{c}/format": {"name": "plain"},
    "/api/v1/collections/{c}/format/try": {"name": "plain"},
    "/api/v1/collections/{c}/keep": {"days": 90},
    "/api/v1/collections/{c}/loops": {"allow": True},
    "/api/v1/replays/{id}": {"rate": 10},
    "/api/v1/destinations/{name}": {"rate": 10},
    "/api/v1/replays/{id}/retry": {"why": "again"},
    "/api/v1/collections/{c}/quarantine/try": {},
    "/api/v1/collections/{c}/quarantine/release": {},
    "/api/v1/collections/{c}/quarantine/discard": {"why": "a test"},
}


def everything(store: Store) -> object:
    return (
        store.known(),
        store.tokens("main"),
        store.destinations("main"),
        store.replays("main"),
        store.replays("rivals"),
        store.saved_searches("main"),
        store.saved_searches("rivals"),
    )


@pytest.mark.parametrize(
    "path", ["collections", "tokens", "destinations", "replays", "searches", "status"]
)
def test_lists_hold_the_callers_own_things_only(rival: Caller, furnished: Store, path: str) -> None:
    text = rival("GET", f"/api/v1/{path}").text

    for name in ("flights", "billing", "r1"):
        assert name not in text


def test_a_dotted_name_does_not_reach_another_team(rival: Caller, furnished: Store) -> None:
    for name in ("main.flights", "main%2Eflights", "..%2Fmain%2Fflights", "penstock_system.x"):
        assert rival("GET", f"/api/v1/collections/{name}").status_code == 404


def test_penstocks_own_collections_are_for_the_operator(
    app: FastAPI, here: Platform, admin: Caller, rival: Caller
) -> None:
    """The ledger of replays tells of every team."""
    ensure_system_collections(here.store, now=NOON)
    path = f"/api/v1/collections/{REPLAY_ATTEMPTS}"
    reader = Caller(app, grant(here.store, "read"))

    assert admin("GET", path).status_code == 200
    assert admin("GET", f"{path}/status").status_code == 200
    assert [reader("GET", path).status_code, rival("GET", path).status_code] == [404, 404]
    assert admin("POST", f"{path}/pause").status_code == 404


def test_two_teams_may_use_one_name(rival: Caller, furnished: Store) -> None:
    assert rival("POST", "/api/v1/collections", {"name": "flights"}).status_code == 201
    rival("POST", "/api/v1/collections/flights/pause")

    assert furnished.collection(FLIGHTS) == CollectionRecord(id=FLIGHTS, created_at=NOON)

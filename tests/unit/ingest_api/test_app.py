from __future__ import annotations

from typing import Any

import pytest
from door_builders import Client, FailingLog, door_on

from ingest_api.app import create_app
from ingest_api.http import HttpDoor
from penstock.errors import EngineUnavailable


def failing() -> None:
    raise EngineUnavailable("nothing was ever published to the cache")


def client(**checks: Any) -> Client:
    door = door_on(FailingLog())
    return Client(create_app(HttpDoor(door, max_held_bytes=1_000), checks, door.metrics))


def test_events_go_past_fastapi_to_the_door() -> None:
    door = client()

    assert door.post(b"x").status == 202
    assert door.post(b"x", "/v1/collection").status == 400


def test_health_names_every_adapter_and_whether_it_responds() -> None:
    """Whether it is up has to mean the same everywhere."""
    well = client(log=lambda: None, cache=lambda: None).post(path="/healthz", method="GET")
    ill = client(log=lambda: None, cache=failing).post(path="/healthz", method="GET")

    assert (well.status, well.json()) == (
        200,
        {"status": "ok", "adapters": {"log": {"responds": True}, "cache": {"responds": True}}},
    )
    assert (ill.status, ill.json()["status"]) == (503, "failing")
    assert ill.json()["adapters"]["cache"] == {
        "responds": False,
        "reason": "nothing was ever published to the cache",
    }


def test_metrics_are_prometheus_text() -> None:
    door = client()
    door.post(b"four")

    reply = door.post(path="/metrics", method="GET", token=None)

    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/plain")
    assert b'penstock_door_events_total{source="http"} 1.0' in reply.body
    assert b'penstock_door_payload_bytes_total{source="http"} 4.0' in reply.body
    assert b'penstock_door_durable_seconds_bucket{le="+Inf"} 1.0' in reply.body
    assert b"penstock_door_tunnels 0.0" in reply.body
    assert b"penstock_door_handed_over_total 0.0" in reply.body


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/", "GET", 404),
        ("/v2/events/flights", "POST", 404),
        ("/docs", "GET", 404),
        ("/healthz", "POST", 405),
        ("/v1/", "GET", 404),
    ],
)
def test_every_other_address_is_refused_with_a_problem(path: str, method: str, status: int) -> None:
    reply = client().post(path=path, method=method)

    assert (reply.status, reply.json()["status"]) == (status, status)
    assert reply.headers["content-type"] == "application/problem+json"


def test_the_description_holds_the_routes_that_take_events() -> None:
    """They are the ones people look for, and FastAPI does not know them."""
    described = client().post(path="/openapi.json", method="GET").json()

    assert set(described["paths"]) == {
        "/v1/events/{collection}",
        "/v1/collection",
        "/v1/release/{collection}",
        "/v1/tunnels/{name}",
        "/healthz",
        "/metrics",
    }
    responses = described["paths"]["/v1/events/{collection}"]["post"]["responses"]
    assert {"202", "401", "413", "429", "503"} <= set(responses)
    assert described["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"

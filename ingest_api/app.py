"""The door's HTTP application.

FastAPI serves health, metrics and the description of the API. The routes that take events stand
beside it: a FastAPI route alone costs more than all that they do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from ingest_api.answers import Answer, refusal, wrong_method
from ingest_api.handover import HandOverDoor
from ingest_api.http import HttpDoor, Receive, Scope, Send
from ingest_api.metrics import Metrics
from penstock.envelope import ENVELOPES
from penstock.errors import NotFound, PenstockError
from penstock.handover import TUNNELS

Check = Callable[[], None]
"""Returns if an adapter responds, raises `PenstockError` if not. Cheap: it is not awaited."""
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_EVENT_PATHS = "/v1/"


def create_app(
    events: HttpDoor,
    checks: Mapping[str, Check],
    metrics: Metrics,
    *,
    handing: HandOverDoor | None = None,
) -> App:
    """Answer the whole application of a door; `handing` takes what is for tunnels."""
    control = create_control(checks, metrics)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if handing and scope["type"] == "http" and scope["path"].startswith(TUNNELS):
            await handing(scope, receive, send)
        elif scope["type"] == "http" and scope["path"].startswith(_EVENT_PATHS):
            await events(scope, receive, send)
        else:
            await control(scope, receive, send)

    return app


class _Control(FastAPI):
    """Describes the routes beside it too."""

    def openapi(self) -> dict[str, Any]:
        """Answer the description of every route of the door."""
        described = super().openapi()
        described["paths"].update(_EVENT_ROUTES)
        described["components"] = {"securitySchemes": _TOKEN_SCHEMES}
        return described


def create_control(checks: Mapping[str, Check], metrics: Metrics) -> FastAPI:
    """Answer the part of the application that takes no events."""
    control = _Control(
        title="Penstock door", version=version("penstock"), docs_url=None, redoc_url=None
    )

    @control.get("/healthz", summary="Each adapter by name, and whether it responds")
    async def healthz() -> Response:
        adapters = {name: _health(check) for name, check in checks.items()}
        well = all(adapter["responds"] for adapter in adapters.values())
        body = msgspec.json.encode({"status": "ok" if well else "failing", "adapters": adapters})
        return Response(body, 200 if well else 503, media_type="application/json")

    @control.get("/metrics", summary="Prometheus metrics")
    async def prometheus() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @control.exception_handler(HTTPException)
    async def refuse(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:  # noqa: PLR2004
            return _response(wrong_method((error.headers or {}).get("Allow", "GET")))
        return _response(refusal(NotFound("address", request.url.path)))

    return control


def _health(check: Check) -> dict[str, object]:
    try:
        check()
    except PenstockError as error:
        return {"responds": False, "reason": str(error)}
    return {"responds": True}


def _response(answer: Answer) -> Response:
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    return Response(answer.body, answer.status, headers)


_PROBLEM = {"application/problem+json": {"schema": {"type": "object"}}}
_REFUSALS = {
    status: {"description": meaning, "content": _PROBLEM}
    for status, meaning in {
        "400": "What frames the events is broken.",
        "401": "No token, or one that is unknown, revoked or out of date.",
        "403": "The token may not send there.",
        "404": "There is no such collection.",
        "408": "The body did not arrive in time.",
        "409": "The collection is paused, or a replay came back to it.",
        "413": "An event or the body is too large.",
        "415": "The content coding is none of gzip, zstd and identity.",
        "429": "More than this token may send in a second; see Retry-After.",
        "503": "Nothing can be stored now; see Retry-After.",
    }.items()
}
_TOKEN_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "batch": {"type": "apiKey", "in": "header", "name": "Batch-Token"},
    "streamdal": {"type": "apiKey", "in": "header", "name": "Streamdal-Token"},
}
_SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"batch": []}, {"streamdal": []}]
_ANY_BODY = {"schema": {"type": "string", "format": "binary"}}
_SENT_HEADERS = {
    "Idempotency-Key": "The event's id; for lines, what their number is added to.",
    "penstock-event-id": "The same, for senders that have no Idempotency-Key.",
    "penstock-event-time": "When it happened: RFC 3339, or a number since 1970.",
    "penstock-key": "The event's key; %XX stands for a byte.",
}
_TUNNEL = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
_EVENT_ROUTES: dict[str, Any] = {
    "/v1/events/{collection}": {
        "post": {
            "summary": "Send one event, or many",
            "description": (
                "Answered when every event is durable. NDJSON is an event a line; CloudEvents 1.0 "
                "in structured, batch and binary mode; every other body is one event, byte for "
                "byte. Of a batch that failed in parts, `outcomes` names each part."
            ),
            "security": _SECURITY,
            "parameters": [
                {
                    "name": "collection",
                    "in": "path",
                    "required": True,
                    "description": "A name in the token's team, or `team.name`.",
                    "schema": {"type": "string"},
                },
                *(
                    {
                        "name": name,
                        "in": "header",
                        "description": meaning,
                        "schema": {"type": "string"},
                    }
                    for name, meaning in _SENT_HEADERS.items()
                ),
            ],
            "requestBody": {
                "content": {
                    "application/json": {"schema": {}},
                    "application/x-ndjson": _ANY_BODY,
                    "application/cloudevents+json": {"schema": {"type": "object"}},
                    "application/cloudevents-batch+json": {
                        "schema": {"type": "array", "items": {"type": "object"}}
                    },
                    ENVELOPES: _ANY_BODY,
                    "*/*": _ANY_BODY,
                }
            },
            "responses": {
                "202": {
                    "description": "Stored.",
                    "content": {
                        "application/json": {
                            "schema": {
                                "type": "object",
                                "required": ["accepted", "ids", "positions"],
                                "properties": {
                                    "accepted": {"type": "integer"},
                                    "ids": {"type": "array", "items": {"type": "string"}},
                                    "positions": {
                                        "type": "array",
                                        "description": (
                                            "Runs of events on the log: partition, first offset, "
                                            "offset after the last."
                                        ),
                                        "items": {"type": "array", "items": {"type": "integer"}},
                                    },
                                    "outcomes": {"type": "array", "items": {"type": "object"}},
                                },
                            }
                        }
                    },
                },
                **_REFUSALS,
            },
        }
    },
    "/v1/release/{collection}": {
        "post": {
            "summary": "Take events back from quarantine; the platform's own way in",
            "description": (
                "MessagePack: a list of events as the log has them, each with the marks of its "
                "release among its metadata. Needs a token with the scope `admin`."
            ),
            "security": _SECURITY,
            "parameters": [
                {
                    "name": "collection",
                    "in": "path",
                    "required": True,
                    "schema": {"type": "string"},
                }
            ],
            "requestBody": {"content": {"application/msgpack": _ANY_BODY}},
            "responses": {
                "202": {"description": "Stored; answered like other events."},
                **_REFUSALS,
            },
        }
    },
    "/v1/tunnels/{name}": {
        "get": {
            "summary": "Which tunnels of a name are connected, the one that gets events first",
            "security": _SECURITY,
            "parameters": [_TUNNEL],
            "responses": {"200": {"description": "Each with its bus, where from, since when."}},
        },
        "post": {
            "summary": "Hand events to the tunnel of a name; the way of replays",
            "description": (
                "MessagePack: a map of `replay`, `patience` in seconds and `events`, each with "
                "`payload`, `received_at` in microseconds and `metadata`. Answers how many, from "
                "the first on, the connection took. Needs a token with the scope `replay`."
            ),
            "security": _SECURITY,
            "parameters": [_TUNNEL],
            "requestBody": {"content": {"application/msgpack": _ANY_BODY}},
            "responses": {"200": {"description": "How many, and what stopped the others."}},
        },
    },
    "/v1/collection": {
        "post": {
            "summary": "Send one event, as to Batch's HTTP collector",
            "security": _SECURITY,
            "requestBody": {"content": {"*/*": _ANY_BODY}},
            "responses": {"200": {"description": "Stored."}, **_REFUSALS},
        }
    },
}

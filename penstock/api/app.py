"""The platform's HTTP app: routes, errors, limits and counters put together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version

import anyio
import structlog
from anyio import to_thread
from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import PlainTextResponse
from starlette.types import Lifespan

from penstock.api import (
    collections,
    destinations,
    events,
    quarantine,
    replays,
    rewriting,
    search,
    searches,
    sql,
    stats,
    status,
    tail,
    tokens,
)
from penstock.api.access import tell_scopes
from penstock.api.health import Probe, Probes, add_health
from penstock.api.metrics import CONTENT_TYPE, Metrics
from penstock.api.middleware import Counted, Guarded, LimitedBody
from penstock.api.platform import API, Platform
from penstock.api.problems import add_problems, problem_contract
from penstock.api.publishing import Publisher
from penstock.bus import KNOWN
from penstock.errors import PenstockError

log = structlog.get_logger()

# No request needs more than a query or a statement of 100 kB and some JSON around it.
MAX_BODY_BYTES = 1 << 20

# A change made by another process reaches the doors within this and their own half a second.
CATCH_UP_SECONDS = 1.0


def create_app(platform: Platform, *, others: Mapping[str, Probe] | None = None) -> FastAPI:
    """Answer the app. `others` are adapters that health tells about beside the platform's own."""
    publisher = Publisher(
        platform.store,
        platform.cache,
        tell=lambda version: platform.bus.publish(KNOWN, str(version)),
    )
    metrics = Metrics()
    app = FastAPI(
        title="Penstock",
        version=version("penstock"),
        openapi_url=f"{API}/openapi.json",
        docs_url=None,
        redoc_url=None,
        responses={"default": problem_contract()},
        generate_unique_id_function=lambda route: route.name,
        lifespan=_catching_up(publisher),
    )
    app.state.platform = platform
    app.state.publisher = publisher
    add_problems(app)
    # The last one added is the outermost.
    app.add_middleware(Guarded)
    app.add_middleware(LimitedBody, limit=MAX_BODY_BYTES)
    app.add_middleware(Counted, metrics=metrics)
    for noun in (
        collections,
        rewriting,
        status,
        stats,
        search,
        events,
        searches,
        tail,
        sql,
        tokens,
        destinations,
        replays,
        quarantine,
    ):
        tell_scopes(noun.router)
        app.include_router(noun.router)
    app.include_router(_pages(platform, metrics, others or {}))
    return app


def _pages(platform: Platform, metrics: Metrics, others: Mapping[str, Probe]) -> APIRouter:
    router = APIRouter(tags=["status"])

    @router.get("/metrics", response_class=PlainTextResponse)
    def prometheus() -> Response:
        """Answer the counters as Prometheus reads them."""
        return Response(
            metrics.text(platform.buffer, tails=platform.seats.held), media_type=CONTENT_TYPE
        )

    probes = Probes(
        {
            "metadata": platform.store.ping,
            "cache": platform.cache.read,
            "log": platform.buffer.collections,
            "lake": platform.lake.collections,
        },
        others,
    )
    add_health(router, probes)
    return router


def _catching_up(publisher: Publisher) -> Lifespan[FastAPI]:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group() as group:
            group.start_soon(_catch_up, publisher)
            yield
            group.cancel_scope.cancel()

    return lifespan


async def _catch_up(publisher: Publisher) -> None:
    """Publish now, and then whatever changes elsewhere or could not be published, for ever.

    The first time whatever the versions say: after a restored backup they may say nothing.
    """
    step, complained = publisher.publish, False
    while True:
        try:
            await to_thread.run_sync(step)
            step, complained = publisher.catch_up, False
        except PenstockError as error:
            if not complained:
                log.warning("doors not told of changes, trying on", reason=str(error))
            complained = True
        await anyio.sleep(CATCH_UP_SECONDS)

"""The dashboard put together, and beside the API."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from penstock.api.any_id import across_lines
from penstock.api.middleware import Guarded
from penstock.api.platform import Platform
from penstock.dashboard import (
    collection,
    collection_settings,
    destinations,
    event,
    overview,
    quarantine,
    reference,
    replays,
    schema,
    signing,
    sql,
    tokens,
)
from penstock.dashboard.access import Reading
from penstock.dashboard.files import Files, read_files
from penstock.dashboard.policy import Addresses, Policed
from penstock.dashboard.problems import add_problems, told
from penstock.dashboard.render import Place, Renderer
from penstock.errors import NotFound, PenstockError
from penstock.settings import Settings

# A page joins by a line here, and one among the places if it stands in the navigation.
VIEWS = (
    signing,
    overview,
    collection,
    event,
    schema,
    collection_settings,
    quarantine,
    sql,
    replays,
    destinations,
    tokens,
    reference,
)
PLACES = (
    Place("Overview", "/", key="o"),
    Place("Quarantine", "/quarantine", key="q"),
    Place("SQL", "/sql", key="s"),
    Place("Replays", "/replays", key="r", scope="replay"),
    Place("Destinations", "/destinations", key="e", scope="replay"),
    Place("Tokens", "/tokens", key="t", scope="admin"),
    Place("API", "/reference", key="a"),
)


def add_dashboard(app: FastAPI, addresses: Addresses) -> None:
    """Put the pages beside the API, at every path that is not the API's.

    No cookie opens a route of the API, and no bearer token one of these.
    """
    app.router.routes.append(_Beside("/", create_dashboard(app, addresses)))


def addresses_of(settings: Settings) -> Addresses:
    """Answer what the settings say about where browsers come to."""
    return Addresses(
        host=settings.host,
        dashboard=settings.dashboard_url.rstrip("/"),
        dagster=settings.dagster_pages_url,
        dagster_port=settings.dagster_port,
        http_port=settings.http_port,
        grpc_port=settings.grpc_port,
    )


def create_dashboard(api: FastAPI, addresses: Addresses) -> FastAPI:
    """Answer the app of the pages alone, on the platform of the API."""
    platform: Platform = api.state.platform
    files = read_files()
    app = FastAPI(
        title="Penstock", version=api.version, openapi_url=None, docs_url=None, redoc_url=None
    )
    app.state.platform = platform
    app.state.publisher = api.state.publisher
    app.state.described = reference.described(api.openapi)
    app.state.addresses = addresses
    app.state.renderer = Renderer(files, addresses, PLACES, clock=platform.clock)
    add_problems(app)
    app.add_middleware(Guarded, answer=told)
    # The last one added is the outermost: also what is refused or fails has the headers.
    app.add_middleware(Policed, addresses=addresses, refused=_refused)
    app.include_router(_files(files))
    for view in VIEWS:
        app.include_router(view.router)
    app.include_router(_nothing())
    return app


class _Beside(Mount):
    """Every path but the API's own, so that what is wrong there is told as the API tells it."""

    def __init__(self, path: str, app: ASGIApp) -> None:
        super().__init__(path, app)
        self.path_regex = across_lines(self.path_regex)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Leave the API's paths alone."""
        if scope["type"] != "http" or scope["path"].startswith("/api/"):
            return Match.NONE, {}
        return super().matches(scope)


def _files(files: Files) -> APIRouter:
    router = APIRouter(prefix="/static")

    @router.get("/{stamp}/{path:path}", name="static")
    async def static(stamp: str, path: str) -> Response:
        """Answer a file of the pages."""
        return files.answer(stamp, path)

    return router


def _nothing() -> APIRouter:
    router = APIRouter()

    # The last route. Who is not signed in is not told which pages there are.
    @router.get("/{path:path}", name="nothing")
    def nothing(path: str, _visit: Reading) -> Response:
        """Say that there is no such page."""
        raise NotFound("page", f"/{path}")

    return router


def _refused(error: PenstockError) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await told(Request(scope, receive), error)(scope, receive, send)

    return answer

"""Errors as people read them: a page, or a part of one for htmx, with what to do."""

from __future__ import annotations

from urllib.parse import quote

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from penstock.dashboard.access import go, renderer
from penstock.dashboard.render import Shown, is_htmx
from penstock.errors import BadRequest, PenstockError, Unauthorized
from penstock.problem import Problem, problem

log = structlog.get_logger()

_SERVER_ERROR = 500

# What to do, where the error's own sentence does not say it.
_ADVICE = {
    401: "Sign in again.",
    403: "Sign in with a token that may do this, or ask somebody who has one.",
    404: "It may have been deleted, or belong to another team; the address may be misspelt.",
    405: "Go back, and use the buttons of the page.",
    409: "Load the page again to see how things stand now.",
    413: "Send less at once.",
    429: "Wait a little, then try again.",
    500: "The log of the platform says what happened. Going back is safe: nothing was changed by "
    "looking.",
    503: "Try again in a moment. `penstock doctor` says which part does not answer.",
}


def add_problems(app: FastAPI) -> None:
    """Let the app tell every error as a page."""
    app.add_exception_handler(PenstockError, _penstock)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


def told(request: Request, error: Exception) -> Response:
    """Answer what a person sees of an error."""
    if isinstance(error, Unauthorized) and getattr(request.state, "visit", None) is None:
        return _sign_in(request)
    return _show(request, problem(error))


async def _penstock(request: Request, error: Exception) -> Response:
    found = problem(error)
    if found.status >= _SERVER_ERROR:
        log.warning("page failed", path=request.url.path, error=str(error))
    return told(request, error)


async def _invalid(request: Request, _error: Exception) -> Response:
    return told(request, BadRequest("the address has a part that cannot be read"))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - the handler's registration
    return _show(request, Problem(error.status_code, error.detail, error.detail, None, {}))


def _sign_in(request: Request) -> Response:
    """Send to the sign-in page and from there back; to the page, if a part of it was asked for."""
    here = _as_sent(request)
    if request.method not in ("GET", "HEAD") or is_htmx(request):
        here = _page_of(request)
    return go(request, "/sign-in" if here == "/" else f"/sign-in?next={quote(here, safe='/')}")


def _as_sent(request: Request) -> str:
    """Answer the path and the query as the browser wrote them: an id may have any character."""
    path: bytes = request.scope["raw_path"]
    query: bytes = request.scope["query_string"]
    return (path + (b"?" + query if query else b"")).decode("latin-1")


def _page_of(request: Request) -> str:
    """Answer the page that is in the browser, as htmx tells it."""
    _, found, rest = request.headers.get("hx-current-url", "").partition("://")
    return f"/{rest.partition('/')[2]}" if found else "/"


def _show(request: Request, found: Problem) -> Response:
    headers = {} if found.retry_after is None else {"Retry-After": str(found.retry_after)}
    part = is_htmx(request)
    if part and request.method not in ("GET", "HEAD"):
        # What could not be changed is told at the top, and the page stays as it is.
        headers |= {"HX-Retarget": "#notices", "HX-Reswap": "innerHTML"}
    shown = Shown(
        "problem_part.html" if part else "problem.html",
        {"problem": found, "advice": _ADVICE.get(found.status)},
        visit=getattr(request.state, "visit", None),
        status=found.status,
        headers=headers,
    )
    made = renderer(request)
    return made.part(request, shown) if part else made.page(request, shown)

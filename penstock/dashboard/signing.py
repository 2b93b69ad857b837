"""Signing in with a token, and out."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from penstock.api.access import admitted
from penstock.api.platform import Here
from penstock.dashboard import session
from penstock.dashboard.access import (
    Reading,
    cookie_of,
    look_up,
    platform,
    received,
    renderer,
    secret_of,
)
from penstock.dashboard.render import Shown
from penstock.errors import Forbidden, Unauthorized
from penstock.metadata.records import TokenRecord
from penstock.metadata.tokens import digest, looks_like_token

router = APIRouter()

_UNAUTHORIZED = 401


@router.get("/sign-in", name="sign_in")
def show_sign_in(
    request: Request,
    here: Here,
    next: Annotated[str, Query()] = "/",  # noqa: A002
) -> Response:
    """Ask for a token. One that stands behind ``#`` in the address is taken by a module."""
    found = look_up(here, secret_of(request))
    return _form(request, way_back=next, signed_in=None if found is None else found[1])


@router.post("/sign-in")
async def sign_in(request: Request) -> Response:
    """Begin a session, if the token is good and may read; else say why not."""
    form = await received(request)
    return await to_thread.run_sync(
        _begin, request, form.text("token"), form.raw("next"), secret_of(request)
    )


@router.post("/sign-out", name="sign_out")
def sign_out(request: Request, visit: Reading, here: Here) -> Response:
    """End the session, here and in the browser."""
    here.store.drop_session(session.digest(secret_of(request)))
    answer = visit.go("/sign-in")
    name, secure = cookie_of(request)
    answer.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="lax")
    return answer


def _begin(request: Request, text: str, wanted: str, before: str) -> Response:
    here = platform(request)
    now = here.clock()
    token = here.store.token_by_digest(digest(text)) if looks_like_token(text) else None
    try:
        admitted(token, "read", now)
    except (Unauthorized, Forbidden) as error:
        return _form(request, way_back=wanted, error=error)
    assert token is not None  # noqa: S101 - it was admitted
    # Another secret at each sign-in: one that was planted in the browser is of no use.
    secret, record = session.begun(token, text, now=now, chance=here.chance)
    here.store.add_session(record)
    if before:
        here.store.drop_session(session.digest(before))
    answer = Response(status_code=303, headers={"Location": session.way_back(wanted)})
    name, secure = cookie_of(request)
    answer.set_cookie(
        name,
        secret,
        max_age=(record.expires_at - now) // 1_000_000,
        path="/",
        secure=secure,
        httponly=True,
        samesite="lax",
    )
    return answer


def _form(
    request: Request,
    *,
    way_back: str,
    signed_in: TokenRecord | None = None,
    error: Unauthorized | Forbidden | None = None,
) -> Response:
    if isinstance(error, Forbidden):
        said, status = "This token may send events, but not see them: it needs the scope read.", 403
    elif error is not None:
        said, status = "This token is unknown, revoked or out of date.", _UNAUTHORIZED
    else:
        said, status = None, 200
    values = {"next": session.way_back(way_back), "signed_in": signed_in, "error": said}
    return renderer(request).page(request, Shown("sign_in.html", values, status=status))

"""Who is signed in, and what a page may show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from anyio import to_thread
from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from penstock.api.access import Caller, admitted
from penstock.api.platform import Platform
from penstock.dashboard import session
from penstock.dashboard.forms import MOST_BYTES, Form, read_form
from penstock.dashboard.policy import Addresses, host_and_port
from penstock.dashboard.render import Renderer, Shown, is_htmx
from penstock.errors import Forbidden, TooLarge, Unauthorized
from penstock.metadata.records import SessionRecord, TokenRecord
from penstock.vocabulary import Scope

CSRF_FIELD = "csrf"
CSRF_HEADER = "x-csrf-token"

_SAFE = ("GET", "HEAD")


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One request of somebody who is signed in."""

    caller: Caller
    """Whom the API's functions are told."""
    token: TokenRecord
    credentials: str
    """The token's text: for what is asked of a door in the visitor's name, and for snippets."""
    csrf: str
    form: Form
    request: Request

    def may(self, scope: Scope) -> bool:
        """Say whether a button for this is of any use to the visitor."""
        return self.token.may(scope)

    def show(self, template: str, *, status: int = 200, **values: object) -> Response:
        """Answer the page; for htmx only the block that is named like its target, if there is one.

        The template also has `visit`, and what `Renderer` gives to every page.
        """
        return renderer(self.request).page(
            self.request, Shown(template, values, visit=self, status=status)
        )

    def put_aside(self, text: str, *, of: Sequence[str]) -> str:
        """Answer what the page may hold of a credential that was typed (`session.put_aside`)."""
        chance = platform(self.request).chance
        return session.put_aside(text, secret_of(self.request), of=of, chance=chance)

    def taken_up(self, aside: str, *, of: Sequence[str]) -> str | None:
        """Answer what was put aside for this; None where nothing was, or for something else."""
        return session.taken_up(aside, secret_of(self.request), of=of)

    def go(self, path: str) -> Response:
        """Send the browser to another page, after something was done."""
        return go(self.request, path)


@dataclass(frozen=True, slots=True)
class May:
    """Lets in who is signed in with a token of this scope; the rule of a page.

    A request that changes something has to carry the session's own mark (`session.csrf`), in the
    header that htmx sends or in the form.
    """

    scope: Scope

    async def __call__(self, request: Request) -> Visit:
        """Answer the visit; raise `Unauthorized`, or `Forbidden`."""
        secret = secret_of(request)
        form = Form({}) if request.method in _SAFE else await received(request)
        found = await to_thread.run_sync(look_up, platform(request), secret)
        if found is None:
            raise Unauthorized("nobody is signed in")
        record, token = found
        given = request.headers.get(CSRF_HEADER) or form.raw(CSRF_FIELD)
        if request.method not in _SAFE and not session.is_csrf(given, secret):
            raise Forbidden("the form is not one of this session; load the page again")
        # Also where the scope is missing the error is told to somebody who is signed in.
        reader = Visit(
            caller=admitted(token, "read", platform(request).clock()),
            token=token,
            credentials=session.unsealed(record, secret),
            csrf=session.csrf(secret),
            form=form,
            request=request,
        )
        request.state.visit = reader
        admitted(token, self.scope, platform(request).clock())
        return reader


Reading = Annotated[Visit, Depends(May("read"))]
Replaying = Annotated[Visit, Depends(May("replay"))]
Administering = Annotated[Visit, Depends(May("admin"))]


def look_up(here: Platform, secret: str) -> tuple[SessionRecord, TokenRecord] | None:
    """Answer the session and its token if both still hold."""
    found = here.store.session(session.digest(secret)) if secret else None
    now = here.clock()
    if found is None or not session.alive(found[0], now) or not found[1].alive(now):
        return None
    return found


async def received(request: Request) -> Form:
    """Answer the form that a request brings. Raises `TooLarge`, `BadRequest`."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BYTES:
            raise TooLarge("form", len(body), MOST_BYTES)
    return read_form(request.headers.get("content-type", ""), bytes(body))


def go(request: Request, path: str) -> Response:
    """Send the browser to another page: htmx would put it into the old one."""
    if is_htmx(request):
        return Response(status_code=204, headers={"HX-Redirect": path})
    return Response(status_code=303, headers={"Location": path})


def platform(request: Request) -> Platform:
    """Answer what the pages are about."""
    here: Platform = request.app.state.platform
    return here


def renderer(request: Request) -> Renderer:
    """Answer what makes pages."""
    made: Renderer = request.app.state.renderer
    return made


def addresses(request: Request) -> Addresses:
    """Answer where browsers come to."""
    said: Addresses = request.app.state.addresses
    return said


def cookie_of(request: Request) -> tuple[str, bool]:
    """Answer the name of the session's cookie, and whether it goes over TLS only."""
    secure = addresses(request).secure(request.url.scheme)
    _, port = host_and_port(request.headers.get("host", ""))
    return session.cookie_name(port, secure=secure), secure


def secret_of(request: Request) -> str:
    """Answer the secret that the browser holds, ``''`` without one."""
    return request.cookies.get(cookie_of(request)[0], "")

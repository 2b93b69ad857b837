"""Who calls, and what they may do: both from the token alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from penstock.api.platform import Here, Platform
from penstock.envelope import DEFAULT_TEAM, Micros
from penstock.errors import Forbidden, Unauthorized
from penstock.metadata.records import TokenRecord
from penstock.metadata.tokens import digest, looks_like_token
from penstock.vocabulary import Scope

# One text for all of them: an answer must not tell which it is.
_REFUSAL = "the token is missing, unknown, revoked or out of date"

_bearer = HTTPBearer(auto_error=False, description="A token, as `penstock token create` shows it.")


async def _credentials(
    given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> str:
    return "" if given is None else given.credentials


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: the team whose things are seen, and the token that says so."""

    team: str
    token_id: str
    operator: bool
    """Whether Penstock's own tables may be read: they tell of every team's replays."""


def admitted(token: TokenRecord | None, scope: Scope, now: Micros) -> Caller:
    """Answer who calls with this token; raise `Unauthorized`, or `Forbidden` without the scope."""
    if token is None or not token.alive(now):
        raise Unauthorized(_REFUSAL)
    if not token.may(scope):
        raise Forbidden(f"this needs a token with the scope {scope!r}")
    operator = token.team == DEFAULT_TEAM and token.may("admin")
    return Caller(token.team, token.id, operator)


@dataclass(frozen=True, slots=True)
class Needs:
    """Lets in the callers whose token has this scope; the rule of a route."""

    scope: Scope

    def __call__(
        self,
        here: Here,
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> Caller:
        """Answer who calls; raise `Unauthorized` or `Forbidden`."""
        return caller_of(here, "" if given is None else given.credentials, self.scope)


def tell_scopes(router: APIRouter) -> None:
    """Have the description of each route say which scope it needs, as ``x-scope``."""
    for route in router.routes:
        if isinstance(route, APIRoute):
            rules = [one.call for one in route.dependant.dependencies]
            scopes = [rule.scope for rule in rules if isinstance(rule, Needs)]
            route.openapi_extra = {"x-scope": scopes[0]} if scopes else {}


def caller_of(here: Platform, credentials: str, scope: Scope) -> Caller:
    """Answer who holds a token that has the scope now; raise `Unauthorized` or `Forbidden`."""
    if not looks_like_token(credentials):
        raise Unauthorized(_REFUSAL)
    return admitted(here.store.token_by_digest(digest(credentials)), scope, here.clock())


def known_as(here: Platform, caller: Caller) -> str:
    """Answer who calls as people know them: the name of the token, and its id."""
    names = [token.name for token in here.store.tokens(caller.team) if token.id == caller.token_id]
    return f"{names[0] if names else 'token'} ({caller.token_id})"


Reader = Annotated[Caller, Depends(Needs("read"))]
Replayer = Annotated[Caller, Depends(Needs("replay"))]
Admin = Annotated[Caller, Depends(Needs("admin"))]
Credentials = Annotated[str, Depends(_credentials)]
"""The text of the caller's token, for what the platform asks of a door in the caller's name."""

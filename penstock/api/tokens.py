"""Tokens: make, list, revoke."""

from __future__ import annotations

from fastapi import APIRouter

from penstock.api.access import Admin
from penstock.api.collections import one_of
from penstock.api.models import CreatedToken, NewToken, RevokedToken, Token
from penstock.api.platform import API, Doors, Here
from penstock.errors import BadRequest
from penstock.metadata.tokens import issue

router = APIRouter(prefix=f"{API}/tokens", tags=["tokens"])


@router.get("")
def list_tokens(caller: Admin, here: Here) -> list[Token]:
    """List the team's tokens, revoked ones included, oldest first."""
    return [Token.of(record) for record in here.store.tokens(caller.team)]


@router.post("", status_code=201)
def create_token(asked: NewToken, caller: Admin, here: Here, doors: Doors) -> CreatedToken:
    """Make a token. Its text is shown this once."""
    now = here.clock()
    if asked.collection is not None:
        if asked.scopes != ["ingest"]:
            raise BadRequest("only a token with no other scope than 'ingest' can be bound")
        one_of(here, caller.team, asked.collection)
    if asked.expires_at is not None and asked.expires_at <= now:
        raise BadRequest("expires_at has passed already")

    text, record = issue(
        here.chance,
        team=caller.team,
        name=asked.name,
        scopes=tuple(dict.fromkeys(asked.scopes)),
        collection=asked.collection,
        created_at=now,
        expires_at=asked.expires_at,
    )
    here.store.add_token(record)
    doors.publish()
    return CreatedToken.with_text(record, text)


@router.delete("/{id}")
def revoke_token(id: str, caller: Admin, here: Here, doors: Doors) -> RevokedToken:  # noqa: A002
    """Make a token worthless, and say which doors refuse it by now; waits a second for them."""
    record = here.store.revoke_token(caller.team, id, here.clock())
    doors.publish()
    return RevokedToken.at(record, doors.doors(), here.cache.lag)

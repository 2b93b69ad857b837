"""Tokens: make, list, revoke."""

from __future__ import annotations

from fastapi import APIRouter

from penstock.api.access import Admin
from penstock.api.collections import one_of
from penstock.api.platform import API, Doors, Here
from penstock.contract.base import micros, moment
from penstock.contract.tokens import CreatedToken, NewToken, RevokedToken, Token
from penstock.errors import BadRequest
from penstock.metadata.records import TokenRecord
from penstock.metadata.tokens import issue

router = APIRouter(prefix=f"{API}/tokens", tags=["tokens"])


@router.get("")
def list_tokens(caller: Admin, here: Here) -> list[Token]:
    """List the team's tokens, revoked ones included, oldest first."""
    return [_told(record) for record in here.store.tokens(caller.team)]


@router.post("", status_code=201)
def create_token(asked: NewToken, caller: Admin, here: Here, doors: Doors) -> CreatedToken:
    """Make a token. Its text is shown this once."""
    now = here.clock()
    if asked.collection is not None:
        if asked.scopes != ["ingest"]:
            raise BadRequest("only a token with no other scope than 'ingest' can be bound")
        one_of(here, caller.team, asked.collection)
    expires_at = micros(asked.expires_at)
    if expires_at is not None and expires_at <= now:
        raise BadRequest("expires_at has passed already")

    text, record = issue(
        here.chance,
        team=caller.team,
        name=asked.name,
        scopes=tuple(dict.fromkeys(asked.scopes)),
        collection=asked.collection,
        created_at=now,
        expires_at=expires_at,
    )
    here.store.add_token(record)
    doors.publish()
    return CreatedToken(**dict(_told(record)), token=text)


@router.delete("/{id}")
def revoke_token(id: str, caller: Admin, here: Here, doors: Doors) -> RevokedToken:  # noqa: A002
    """Make a token worthless, and say which doors refuse it by now; waits a second for them."""
    record = here.store.revoke_token(caller.team, id, here.clock())
    doors.publish()
    confirmed = doors.doors()
    return RevokedToken(
        **dict(_told(record)),
        doors=None if confirmed is None else dict(confirmed),
        within_seconds=here.cache.lag,
    )


def _told(record: TokenRecord) -> Token:
    return Token(
        id=record.id,
        name=record.name,
        scopes=list(record.scopes),
        collection=record.collection,
        hint=record.hint,
        created_at=moment(record.created_at),
        expires_at=moment(record.expires_at),
        revoked_at=moment(record.revoked_at),
    )

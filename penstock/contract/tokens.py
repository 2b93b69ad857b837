"""Tokens."""

from __future__ import annotations

from pydantic import Field

from penstock.contract.base import Asked, ShortText, Time, Told, example
from penstock.vocabulary import Scope


class NewToken(Asked):
    """A token to be made."""

    model_config = example(name="dashboard", scopes=["read"])

    name: ShortText
    scopes: list[Scope] = Field(min_length=1)
    collection: str | None = Field(
        default=None, description="Bind an ingest token to this collection."
    )
    expires_at: Time | None = None


class Token(Told):
    """A token without its text; `hint` is how it begins."""

    id: str
    name: str
    scopes: list[Scope]
    collection: str | None
    hint: str
    created_at: Time
    expires_at: Time | None
    revoked_at: Time | None


class RevokedToken(Token):
    """A token just revoked, and which doors refuse it by now.

    `doors` is null where nobody could be asked. One that has not confirmed does not reach its
    cache; it refuses the token `within_seconds` after it does again, at the latest.
    """

    doors: dict[str, bool] | None
    within_seconds: float


class CreatedToken(Token):
    """A token just made. `token` is its text, shown this once."""

    token: str

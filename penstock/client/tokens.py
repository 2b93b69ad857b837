"""Tokens: make, list, revoke."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from penstock.client.wire import Wire, asked, path_of, read
from penstock.contract.tokens import CreatedToken, NewToken, RevokedToken, Token


class Tokens(Wire):
    """The team's tokens."""

    def tokens(self) -> list[Token]:
        """List the team's tokens, revoked ones included, oldest first."""
        return self._get(path_of("tokens"), list[Token])

    def create_token(
        self,
        name: str,
        scopes: Sequence[str],
        *,
        collection: str | None = None,
        expires_at: datetime | None = None,
    ) -> CreatedToken:
        """Make a token; its text is in the answer, and nowhere afterwards."""
        body = asked(
            NewToken, name=name, scopes=list(scopes), collection=collection, expires_at=expires_at
        )
        return self._post(path_of("tokens"), CreatedToken, body)

    def revoke_token(self, token_id: str) -> RevokedToken:
        """Make a token worthless."""
        return read(self._checked("DELETE", path_of("tokens", token_id)), RevokedToken)

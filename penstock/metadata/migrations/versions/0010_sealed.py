"""Credentials of destinations are encrypted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from penstock.metadata.texts import Text

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_destinations = sa.table(
    "destinations",
    sa.column("team", Text()),
    sa.column("name", Text()),
    sa.column("headers", sa.JSON()),
    sa.column("secret", Text()),
)


def upgrade() -> None:
    """Encrypt what is there in plain text, under the keys of the installation."""
    connection, table = op.get_bind(), _destinations.c
    for team, name, headers, secret in connection.execute(sa.select(_destinations)).all():
        if not headers and secret is None:
            continue
        keys = op.get_context().config.attributes["keys"]  # type: ignore[union-attr]
        owner = ("destination", team, name)
        sealed = {
            "headers": [
                [header, keys.seal(value, of=(*owner, f"headers/{number}/{header}"))]
                for number, (header, value) in enumerate(headers)
            ],
            "secret": None if secret is None else keys.seal(secret, of=(*owner, "secret")),
        }
        mine = (table.team == team) & (table.name == name)
        connection.execute(sa.update(_destinations).where(mine).values(sealed))

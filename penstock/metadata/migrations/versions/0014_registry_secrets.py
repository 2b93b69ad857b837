"""Secrets of schema registries are encrypted, in a table of their own."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

from penstock.metadata.texts import Text

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_schemas = sa.table(
    "format_schemas",
    sa.column("team", Text()),
    sa.column("name", Text()),
    sa.column("digest", Text()),
    sa.column("body", sa.LargeBinary()),
)


def upgrade() -> None:
    """Make the table, and bring there what is in schemas in plain text.

    Schemas keep the digest that their format names, which is of what they were before.
    """
    secrets = op.create_table(
        "registry_secrets",
        sa.Column("team", Text(), nullable=False),
        sa.Column("name", Text(), nullable=False),
        sa.Column("id", Text(), nullable=False),
        sa.Column("sealed", Text(), nullable=False),
        sa.PrimaryKeyConstraint("team", "name", "id", name="pk_registry_secrets"),
        sa.ForeignKeyConstraint(
            ["team", "name"],
            ["collections.team", "collections.name"],
            name="fk_registry_secrets_collections",
        ),
    )
    connection, table = op.get_bind(), _schemas.c
    done: set[tuple[str, str, str]] = set()
    for team, name, digest, body in connection.execute(sa.select(_schemas)).all():
        kept = _avro(body)
        if kept is None:
            continue
        # Several schemas may have one secret: with each schema that was added it was copied.
        secret, secret_id = kept.pop("secret"), kept.pop("salt", None) or digest[:32]
        if (team, name, secret_id) not in done:
            done.add((team, name, secret_id))
            keys = op.get_context().config.attributes["keys"]  # type: ignore[union-attr]
            sealed = keys.seal(secret, of=("collection", team, name, f"registry/{secret_id}"))
            row = {"team": team, "name": name, "id": secret_id, "sealed": sealed}
            connection.execute(sa.insert(secrets).values(row))
        clean = json.dumps({**kept, "secret_id": secret_id}, ensure_ascii=False).encode()
        mine = (table.team == team) & (table.name == name) & (table.digest == digest)
        connection.execute(sa.update(_schemas).where(mine).values(body=clean))


def _avro(body: bytes) -> dict[str, Any] | None:
    """Answer the schemas of Avro that have a secret; others are of no concern."""
    try:
        found = json.loads(body)
    except ValueError:
        return None
    has_one = isinstance(found, dict) and isinstance(found.get("secret"), str)
    return found if has_one else None

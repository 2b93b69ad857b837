"""The format of a collection's payloads, and what it takes to read them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from penstock.metadata.texts import Text

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Give every collection the one format that there was, which needs nothing."""
    op.add_column(
        "collections",
        sa.Column("format", sa.JSON(), nullable=False, server_default='{"name": "json"}'),
    )
    op.create_table(
        "format_schemas",
        sa.Column("team", Text(), nullable=False),
        sa.Column("name", Text(), nullable=False),
        sa.Column("digest", Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("team", "name", "digest", name="pk_format_schemas"),
        sa.ForeignKeyConstraint(
            ["team", "name"],
            ["collections.team", "collections.name"],
            name="fk_format_schemas_collections",
        ),
    )

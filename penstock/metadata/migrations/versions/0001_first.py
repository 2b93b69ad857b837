"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from penstock.metadata.texts import Text

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables of the first release."""
    counter = op.create_table(
        "revision",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_revision"),
    )
    op.bulk_insert(counter, [{"id": 1, "version": 0}])

    op.create_table(
        "collections",
        sa.Column("team", Text(), nullable=False),
        sa.Column("name", Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("paused", sa.Boolean(create_constraint=False), nullable=False),
        sa.Column("allow_loops", sa.Boolean(create_constraint=False), nullable=False),
        sa.Column("contract", Text(), nullable=False),
        sa.Column("notes", Text(), nullable=False),
        sa.PrimaryKeyConstraint("team", "name", name="pk_collections"),
    )
    op.create_table(
        "schema_versions",
        sa.Column("team", Text(), nullable=False),
        sa.Column("name", Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("changes", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("team", "name", "version", name="pk_schema_versions"),
        sa.ForeignKeyConstraint(
            ["team", "name"],
            ["collections.team", "collections.name"],
            name="fk_schema_versions_collections",
        ),
    )

    op.create_table(
        "tokens",
        sa.Column("id", Text(), nullable=False),
        sa.Column("team", Text(), nullable=False),
        sa.Column("name", Text(), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("collection", Text()),
        sa.Column("digest", Text(), nullable=False),
        sa.Column("hint", Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger()),
        sa.Column("revoked_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("digest", name="uq_tokens_digest"),
    )
    op.create_index("ix_tokens_team", "tokens", ["team"])

    op.create_table(
        "destinations",
        sa.Column("team", Text(), nullable=False),
        sa.Column("name", Text(), nullable=False),
        sa.Column("kind", Text(), nullable=False),
        sa.Column("url", Text(), nullable=False),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("team", "name", name="pk_destinations"),
    )

    op.create_table(
        "replays",
        sa.Column("id", Text(), nullable=False),
        sa.Column("team", Text(), nullable=False),
        sa.Column("collection", Text(), nullable=False),
        sa.Column("query", Text(), nullable=False),
        sa.Column("since", sa.BigInteger()),
        sa.Column("until", sa.BigInteger()),
        sa.Column("destination", Text(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("state", Text(), nullable=False),
        sa.Column("plan", sa.JSON()),
        sa.Column("progress", sa.JSON(), nullable=False),
        sa.Column("wish", Text()),
        sa.Column("error", Text()),
        sa.Column("holder", Text()),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("lease_until", sa.BigInteger()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger()),
        sa.Column("finished_at", sa.BigInteger()),
        sa.Column("run_id", Text()),
        sa.PrimaryKeyConstraint("id", name="pk_replays"),
    )
    op.create_index("ix_replays_team_created_at", "replays", ["team", "created_at"])
    op.create_index("ix_replays_state", "replays", ["state"])

    op.create_table(
        "leases",
        sa.Column("name", Text(), nullable=False),
        sa.Column("holder", Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )
    op.create_table(
        "wakes",
        sa.Column("team", Text(), nullable=False),
        sa.Column("name", Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("team", "name", name="pk_wakes"),
    )

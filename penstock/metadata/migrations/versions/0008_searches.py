"""Searches that a team keeps under names."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from penstock.metadata.texts import Text
from penstock.metadata.times import Micros

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make their table."""
    op.create_table(
        "saved_searches",
        sa.Column("team", Text(), nullable=False),
        sa.Column("name", Text(), nullable=False),
        sa.Column("collection", Text(), nullable=False),
        sa.Column("query", Text(), nullable=False),
        sa.Column("since", Text()),
        sa.Column("until", Text()),
        sa.Column("order", Text(), nullable=False),
        sa.Column("view", Text(), nullable=False),
        sa.Column("duplicates", Text(), nullable=False),
        sa.Column("closed", sa.Boolean(create_constraint=False), nullable=False),
        sa.Column("created_at", Micros(), nullable=False),
        sa.Column("changed_at", Micros(), nullable=False),
        sa.PrimaryKeyConstraint("team", "name", name="pk_saved_searches"),
    )

"""Destinations with a rate of their own, and how it is shared."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from penstock.metadata.texts import Text

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """No destination has a rate yet."""
    op.add_column("destinations", sa.Column("rate", sa.Double()))
    op.create_table(
        "sharings",
        sa.Column("team", Text(), nullable=False),
        sa.Column("destination", Text(), nullable=False),
        sa.Column("sharing", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("team", "destination", name="pk_sharings"),
    )

"""Destinations of other kinds than HTTP: options, and a secret."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from penstock.metadata.texts import Text

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; what is there are HTTP destinations, which have neither."""
    op.add_column(
        "destinations", sa.Column("options", sa.JSON(), nullable=False, server_default="{}")
    )
    op.add_column("destinations", sa.Column("secret", Text()))

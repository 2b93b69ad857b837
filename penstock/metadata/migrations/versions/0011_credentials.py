"""Credentials of destinations that have more than one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add their column; no destination has any yet."""
    op.add_column(
        "destinations", sa.Column("credentials", sa.JSON(), nullable=False, server_default="{}")
    )

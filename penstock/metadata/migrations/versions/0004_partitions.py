"""Log partitions of a collection."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Give every collection the one partition that it has."""
    op.add_column(
        "collections", sa.Column("partitions", sa.Integer(), nullable=False, server_default="1")
    )

"""The format of a collection's payloads."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Give every collection the one format that there was."""
    op.add_column(
        "collections",
        sa.Column("format", sa.JSON(), nullable=False, server_default='{"name": "json"}'),
    )

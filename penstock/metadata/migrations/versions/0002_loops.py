"""Collections may take back what a replay took from them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Let every collection that there is refuse loops, as it did."""
    op.add_column(
        "collections",
        sa.Column(
            "allow_loops",
            sa.Boolean(create_constraint=False),
            server_default=sa.false(),
            nullable=False,
        ),
    )

"""How long the rows of a collection are kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Keep every row for ever, as before."""
    op.add_column("collections", sa.Column("keep_days", sa.Integer()))

"""Replays that start later."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from penstock.metadata.times import Micros

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """All that there are start at once."""
    op.add_column("replays", sa.Column("start_at", Micros()))

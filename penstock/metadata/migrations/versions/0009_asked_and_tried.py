"""Who asked for a replay and why, and what a destination said when it was last tried."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from penstock.metadata.texts import Text
from penstock.metadata.times import Micros

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Of what was before nobody knows."""
    op.add_column("replays", sa.Column("asked_by", Text()))
    op.add_column("replays", sa.Column("why", Text()))
    op.add_column("destinations", sa.Column("tried_at", Micros()))
    op.add_column("destinations", sa.Column("tried", sa.JSON(none_as_null=True)))

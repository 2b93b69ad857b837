"""Messages of every topic, where only landing was woken."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from penstock.metadata.texts import Text

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table of messages; the one of wakes held nothing older than seconds."""
    op.create_table(
        "messages",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("topic", Text(), nullable=False),
        sa.Column("text", Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_messages"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_messages_at", "messages", ["at"])
    op.drop_table("wakes")

"""What Alembic runs: the steps that are missing, on the connection and in the transaction given."""

from __future__ import annotations

from alembic import context

from penstock.metadata.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite can undo DDL as well; Alembic does not assume so.
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()

"""The tables as SQLAlchemy sees them. What a database has is made by `migrations/` alone."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
)

from penstock.metadata.texts import Text
from penstock.metadata.times import Micros

# Named, so that a later migration can name what it changes, on every database.
metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)

# One row. Each change of collections or tokens moves `version` first, and so waits for the change
# before it: versions grow in the order in which changes become visible.
revision = Table(
    "revision",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
)

collections = Table(
    "collections",
    metadata,
    Column("team", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", Micros, nullable=False),
    Column("paused", Boolean(create_constraint=False), nullable=False),
    Column("contract", Text, nullable=False),
    Column("notes", Text, nullable=False),
    Column("allow_loops", Boolean(create_constraint=False), nullable=False),
    Column("partitions", Integer, nullable=False),
    Column("format", JSON, nullable=False),
    Column("keep_days", Integer),
    PrimaryKeyConstraint("team", "name"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("team", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("collection", Text),
    Column("digest", Text, nullable=False, unique=True),
    Column("hint", Text, nullable=False),
    Column("created_at", Micros, nullable=False),
    Column("expires_at", Micros),
    Column("revoked_at", Micros),
    Index(None, "team"),
)

# Who is signed in to the dashboard. A session is known by the SHA-256 of its secret, and ends with
# the token that opened it; that token's text is readable with the secret alone.
sessions = Table(
    "sessions",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("token_id", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", Micros, nullable=False),
    Column("expires_at", Micros, nullable=False),
    ForeignKeyConstraint(["token_id"], ["tokens.id"]),
)

destinations = Table(
    "destinations",
    metadata,
    Column("team", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("headers", JSON, nullable=False),
    Column("options", JSON, nullable=False),
    Column("secret", Text),
    Column("credentials", JSON, nullable=False),
    Column("created_at", Micros, nullable=False),
    Column("tried_at", Micros),
    Column("tried", JSON(none_as_null=True)),
    Column("rate", Double),
    PrimaryKeyConstraint("team", "name"),
)

# How the rate of a destination is shared by those who send to it. A table of its own: it changes
# every second.
sharings = Table(
    "sharings",
    metadata,
    Column("team", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("sharing", JSON, nullable=False),
    PrimaryKeyConstraint("team", "destination"),
)

replays = Table(
    "replays",
    metadata,
    Column("id", Text, primary_key=True),
    Column("team", Text, nullable=False),
    Column("collection", Text, nullable=False),
    Column("query", Text, nullable=False),
    Column("since", Micros),
    Column("until", Micros),
    Column("destination", Text, nullable=False),
    Column("options", JSON, nullable=False),
    Column("state", Text, nullable=False),
    Column("plan", JSON(none_as_null=True)),
    Column("progress", JSON, nullable=False),
    Column("wish", Text),
    Column("error", Text),
    Column("holder", Text),
    Column("epoch", BigInteger, nullable=False),
    Column("lease_until", Micros),
    Column("created_at", Micros, nullable=False),
    Column("started_at", Micros),
    Column("finished_at", Micros),
    Column("run_id", Text),
    Column("asked_by", Text),
    Column("why", Text),
    Column("start_at", Micros),
    Index(None, "team", "created_at"),
    Index(None, "state"),
)

saved_searches = Table(
    "saved_searches",
    metadata,
    Column("team", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("collection", Text, nullable=False),
    Column("query", Text, nullable=False),
    Column("since", Text),
    Column("until", Text),
    Column("order", Text, nullable=False),
    Column("view", Text, nullable=False),
    Column("duplicates", Text, nullable=False),
    Column("closed", Boolean(create_constraint=False), nullable=False),
    Column("created_at", Micros, nullable=False),
    Column("changed_at", Micros, nullable=False),
    PrimaryKeyConstraint("team", "name"),
)

schema_versions = Table(
    "schema_versions",
    metadata,
    Column("team", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("at", Micros, nullable=False),
    Column("changes", JSON, nullable=False),
    PrimaryKeyConstraint("team", "name", "version"),
    ForeignKeyConstraint(["team", "name"], ["collections.team", "collections.name"]),
)

# What formats need to be read: a descriptor set or schemas, known by their SHA-256, and what came
# from a registry, by its address and the id there. Never changed: landing and searches keep what
# they were given.
format_schemas = Table(
    "format_schemas",
    metadata,
    Column("team", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    PrimaryKeyConstraint("team", "name", "digest"),
    ForeignKeyConstraint(["team", "name"], ["collections.team", "collections.name"]),
)

# What schema registries ask for, encrypted; schemas name it by the id. Nothing of it ever changes
# but the key that it is under.
registry_secrets = Table(
    "registry_secrets",
    metadata,
    Column("team", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("sealed", Text, nullable=False),
    PrimaryKeyConstraint("team", "name", "id"),
    ForeignKeyConstraint(["team", "name"], ["collections.team", "collections.name"]),
)

leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("until", Micros, nullable=False),
)

# The embedded bus. Rows are gone a minute after they came; ids are never given out again.
messages = Table(
    "messages",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("topic", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("at", Micros, nullable=False),
    Index(None, "at"),
    sqlite_autoincrement=True,
)

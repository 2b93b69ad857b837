"""Where the engines listen, and who may come in: the same for every test and every settings file.

All of them listen on loopback only. The ports lie outside of those that tests and outgoing
connections are given. ``ENGINES_FIRST_PORT`` moves all of them, for a second set of engines (with
an ``ENGINES_HOME`` of its own) beside the first one.
"""

from __future__ import annotations

import os

HOST = "127.0.0.1"

DEFAULT_FIRST_PORT = 6500
FIRST_PORT = int(os.environ.get("ENGINES_FIRST_PORT", DEFAULT_FIRST_PORT))

KAFKA_PORT = FIRST_PORT + 10
ELASTICSEARCH_PORT = FIRST_PORT + 20
OPENSEARCH_PORT = FIRST_PORT + 25
TRINO_PORT = FIRST_PORT + 30
POSTGRES_PORT = FIRST_PORT + 40
S3_PORT = FIRST_PORT + 50
RABBITMQ_PORT = FIRST_PORT + 70
ETCD_PORT = FIRST_PORT + 75
SQS_PORT = FIRST_PORT + 80
REST_PORT = FIRST_PORT + 90
TIMESCALE_PORT = FIRST_PORT + 95

USER = "penstock"
PASSWORD = "penstock"

S3_KEY = "penstock"
S3_SECRET = "penstock-secret"
S3_REGION = "us-east-1"
BUCKET = "penstock"

KAFKA = f"{HOST}:{KAFKA_PORT}"
ELASTICSEARCH = f"http://{HOST}:{ELASTICSEARCH_PORT}"
OPENSEARCH = f"http://{HOST}:{OPENSEARCH_PORT}"
TRINO = f"http://{HOST}:{TRINO_PORT}"
S3 = f"http://{HOST}:{S3_PORT}"
REST = f"http://{HOST}:{REST_PORT}"
RABBITMQ = f"amqp://{USER}:{PASSWORD}@{HOST}:{RABBITMQ_PORT}/%2F"
ETCD = f"http://{HOST}:{ETCD_PORT}"
SQS = f"http://{HOST}:{SQS_PORT}"


def postgres(database: str, *, port: int = POSTGRES_PORT) -> str:
    """Answer the address of a database, as libpq reads it."""
    return f"postgresql://{USER}:{PASSWORD}@{HOST}:{port}/{database}"

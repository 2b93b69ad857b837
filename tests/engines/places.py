"""Where the engines listen, and who may come in: the same for every test and every settings file.

All of them listen on loopback only. The ports lie outside of those that tests and outgoing
connections are given.
"""

from __future__ import annotations

HOST = "127.0.0.1"

KAFKA_PORT = 6510
ELASTICSEARCH_PORT = 6520
OPENSEARCH_PORT = 6525
TRINO_PORT = 6530
POSTGRES_PORT = 6540
S3_PORT = 6550
RABBITMQ_PORT = 6570
ETCD_PORT = 6575
SQS_PORT = 6580
REST_PORT = 6590

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

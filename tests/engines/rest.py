"""An Iceberg REST catalog: the servlet that Iceberg tests its own clients with.

`java/RestCatalog.java` starts it over tables in PostgreSQL, with its files in the tests' S3 store.
Both have to run.
"""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path

import psycopg

from engines.kit import Engine, EngineError, Launch, fetch_archive, fetch_jars, has_java, run
from engines.places import (
    BUCKET,
    HOST,
    PASSWORD,
    REST_PORT,
    S3,
    S3_KEY,
    S3_REGION,
    S3_SECRET,
    USER,
    postgres,
)

_AWS, _JETTY, _HADOOP = "2.33.0", "11.0.25", "3.4.1"
_JAVA = Path(__file__).parent / "java"
_TABLES = (
    f"jdbc:{postgres('lake').replace(f'{USER}:{PASSWORD}@', '')}?user={USER}&password={PASSWORD}"
)


class Rest(Engine):
    """Lets everybody in."""

    name = "rest"
    version = "1.9.2"
    default_port = REST_PORT

    def fetch(self) -> None:
        """Bring Iceberg, the servlet among its tests, and a web server."""
        aws = ("s3", "sts", "kms", "glue", "dynamodb", "url-connection-client")
        fetch_jars(
            self.kit / "lib",
            f"org.apache.iceberg:iceberg-core:{self.version}",
            f"org.apache.iceberg:iceberg-aws:{self.version}",
            *(f"software.amazon.awssdk:{name}:{_AWS}" for name in aws),
            "org.postgresql:postgresql:42.7.7",
            f"org.eclipse.jetty:jetty-servlet:{_JETTY}",
            f"org.apache.hadoop:hadoop-client-api:{_HADOOP}",
            f"org.apache.hadoop:hadoop-client-runtime:{_HADOOP}",
            "org.slf4j:slf4j-simple:2.0.17",
        )
        fetch_archive(self.kit / "lib", f"org.apache.iceberg:iceberg-core:{self.version}:jar:tests")
        javac = Path(has_java(17)).with_name("javac")
        if not javac.exists():
            raise EngineError("rest needs a JDK 17 or newer, with its compiler")
        source, classes = str(_JAVA / "RestCatalog.java"), str(self.kit / "classes")
        run([
            str(javac), "--release", "17", "-cp", f"{self.kit / 'lib'}/*", "-d", classes, source
        ])  # fmt: skip

    def launch(self) -> Launch:
        """Start it on loopback, once PostgreSQL has the database."""
        until = time.monotonic() + self.patience
        while not _has_database():
            if time.monotonic() > until:
                raise EngineError("rest keeps its tables in postgres, which does not run")
            time.sleep(0.2)
        path = f"{self.kit / 'classes'}:{self.kit / 'lib'}/*"
        return Launch([
            has_java(17), "-Xmx256m", "-XX:+UseSerialGC", "-cp", path, "RestCatalog",
            HOST, str(self.port), _TABLES, f"s3://{BUCKET}/rest",
            S3, S3_KEY, S3_SECRET, S3_REGION,
        ])  # fmt: skip

    def ready(self) -> bool:
        """Ask for its configuration."""
        with urllib.request.urlopen(f"http://{HOST}:{self.port}/v1/config", timeout=5) as answer:
            return "endpoints" in json.load(answer)


def _has_database() -> bool:
    try:
        psycopg.connect(postgres("lake"), connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True

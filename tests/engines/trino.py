"""Trino, with the Iceberg connector on the same catalog and files as Penstock."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from engines.kit import Engine, EngineError, Launch, fetch_archive, has_java
from engines.places import (
    BUCKET,
    HOST,
    PASSWORD,
    POSTGRES_PORT,
    S3,
    S3_KEY,
    S3_REGION,
    S3_SECRET,
    TRINO,
    TRINO_PORT,
    USER,
)

CATALOG = "penstock"

_SERVER = """
coordinator=true
node-scheduler.include-coordinator=true
http-server.http.port={port}
node.internal-address={host}
discovery.uri=http://{host}:{port}
query.max-memory-per-node=1GB
memory.heap-headroom-per-node=256MB
catalog.management=dynamic
catalog.store=file
"""

_JVM = (
    "-Xmx2G", "-XX:+UseG1GC", "-XX:+ExitOnOutOfMemoryError", "-XX:-OmitStackTraceInFastThrow",
    "-XX:ReservedCodeCacheSize=256M", "-XX:PerMethodRecompilationCutoff=10000",
    "-XX:PerBytecodeRecompilationCutoff=10000", "--add-modules=jdk.incubator.vector",
    "--sun-misc-unsafe-memory-access=allow", "--enable-native-access=ALL-UNNAMED",
    "-Djdk.attach.allowAttachSelf=true", "-Djdk.nio.maxCachedBufferSize=2000000",
    "-Dfile.encoding=UTF-8",
)  # fmt: skip


def catalog_properties(database: str, warehouse: str) -> dict[str, str]:
    """Answer the connector's properties for a catalog in this database.

    ``iceberg.jdbc-catalog.catalog-name`` is the name by which Penstock enters its tables.
    """
    return {
        "iceberg.catalog.type": "jdbc",
        "iceberg.jdbc-catalog.driver-class": "org.postgresql.Driver",
        "iceberg.jdbc-catalog.connection-url": (
            f"jdbc:postgresql://{HOST}:{POSTGRES_PORT}/{database}"
        ),
        "iceberg.jdbc-catalog.connection-user": USER,
        "iceberg.jdbc-catalog.connection-password": PASSWORD,
        "iceberg.jdbc-catalog.catalog-name": "penstock",
        "iceberg.jdbc-catalog.schema-version": "V1",
        "iceberg.jdbc-catalog.default-warehouse-dir": warehouse,
        "fs.native-s3.enabled": "true",
        "s3.endpoint": S3,
        "s3.region": S3_REGION,
        "s3.path-style-access": "true",
        "s3.aws-access-key": S3_KEY,
        "s3.aws-secret-key": S3_SECRET,
        # Tests expire at once what a real installation keeps for a week.
        "iceberg.expire-snapshots.min-retention": "0s",
        "iceberg.remove-orphan-files.min-retention": "0s",
    }


def create_catalog(
    name: str, database: str, warehouse: str, more: Mapping[str, str] | None = None
) -> None:
    """Let Trino know a catalog, as a settings file in its folder would; one that is there stays."""
    properties = catalog_properties(database, warehouse) | dict(more or {})
    listed = ", ".join(f"\"{key}\" = '{value}'" for key, value in properties.items())
    _run(f'CREATE CATALOG IF NOT EXISTS "{name}" USING iceberg WITH ({listed})')


def drop_catalog(name: str) -> None:
    """Let Trino forget a catalog; its tables stay."""
    _run(f'DROP CATALOG IF EXISTS "{name}"')


class Trino(Engine):
    """Lets everybody in; catalog `CATALOG` is the one of the settings file.

    Only the Iceberg connector is kept of it.
    """

    name = "trino"
    version = "476"
    default_port = TRINO_PORT

    def fetch(self) -> None:
        """Bring the server without what is not used, 2 GB of other connectors; and the CLI."""
        fetch_archive(self.kit, f"io.trino:trino-cli:{self.version}:jar:executable")
        fetch_archive(self.kit, f"io.trino:trino-server:{self.version}:tar.gz")
        (archive,) = self.kit.glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            # Whole: the same jars of different connectors are links to one file.
            packed.extractall(self.kit, filter="data")
        archive.unlink()
        for connector in (self._server / "plugin").iterdir():
            if connector.name != "iceberg":
                shutil.rmtree(connector)

    @property
    def _server(self) -> Path:
        return self.kit / f"trino-server-{self.version}"

    def launch(self) -> Launch:
        """Write what a launcher script would."""
        etc, data = self.run / "etc", self.run / "data"
        (etc / "catalog").mkdir(parents=True, exist_ok=True)
        data.mkdir(exist_ok=True)
        (etc / "config.properties").write_text(_SERVER.format(host=HOST, port=self.port))
        (etc / "log.properties").write_text("io.trino=WARN\n")
        node = {
            "node.environment": "tests",
            "node.id": "tests",
            "node.data-dir": data,
            "log.levels-file": etc / "log.properties",
            "config": etc / "config.properties",
            "catalog.config-dir": etc / "catalog",
            "plugin.dir": self._server / "plugin",
        }
        properties = [f"-D{name}={value}" for name, value in node.items()]
        return Launch([
            has_java(24), *_JVM, *properties, "-cp", f"{self._server / 'lib'}/*",
            "io.trino.server.TrinoServer",
        ])  # fmt: skip

    def ready(self) -> bool:
        """Ask the server whether it has started, and knows of itself as a node to run things on."""
        address = f"http://{HOST}:{self.port}"
        with urllib.request.urlopen(f"{address}/v1/info", timeout=2) as answer:
            if json.load(answer)["starting"]:
                return False
        try:
            _run("SELECT 1", address)
        except StatementFailed:
            return False
        return True

    def ask(self, statement: str, *, catalog: str, schema: str) -> str:
        """Answer what Trino's own command line prints for a statement, as CSV with a header."""
        command = [
            has_java(24), "--enable-native-access=ALL-UNNAMED", "-jar",
            str(self.kit / f"trino-cli-{self.version}-executable.jar"),
            "--server", f"http://{HOST}:{self.port}", "--user", "tests",
            "--output-format", "CSV_HEADER_UNQUOTED",
            "--catalog", catalog, "--schema", schema, "--execute", statement,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise EngineError(done.stderr)
        return done.stdout

    def prepare(self) -> None:
        """Make the catalog of the settings file known."""
        create_catalog(CATALOG, "lake", f"s3://{BUCKET}/lake")


class StatementFailed(Exception):
    """Trino's answer to a statement is an error."""


def _run(statement: str, address: str = TRINO) -> None:
    """Run a statement to its end over Trino's own protocol."""
    request = urllib.request.Request(
        f"{address}/v1/statement", statement.encode(), {"X-Trino-User": "tests"}
    )
    while True:
        with urllib.request.urlopen(request, timeout=60) as answer:
            said = json.load(answer)
        if "error" in said:
            raise StatementFailed(said["error"]["message"])
        if "nextUri" not in said:
            return
        request = urllib.request.Request(said["nextUri"])

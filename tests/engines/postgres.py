"""PostgreSQL, from Debian's package."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from engines.kit import Engine, EngineError, Launch, fetch_debian, listening, run
from engines.places import HOST, PASSWORD, POSTGRES_PORT, USER, postgres

DATABASES = ("lake", "metadata", "dagster")

_PROGRAMS = Path("/usr/lib/postgresql/15/bin")


class Postgres(Engine):
    """The databases of the settings file are there."""

    name = "postgres"
    version = "15"
    default_port = POSTGRES_PORT

    def fetch(self) -> None:
        """Install the package."""
        fetch_debian("postgresql-15", _PROGRAMS / "postgres")

    def settings(self) -> dict[str, str]:
        """Answer what is not as PostgreSQL has it by itself."""
        return {
            "listen_addresses": HOST,
            "unix_socket_directories": "",
            "port": str(self.port),
            "max_connections": "200",
            "shared_buffers": "64MB",
            # Tests kill the server, they do not cut its power.
            "fsync": "off",
            "full_page_writes": "off",
        }

    def launch(self) -> Launch:
        """Make the database cluster if there is none."""
        # The server refuses to run as root; the package made an account for it.
        user = "postgres" if os.geteuid() == 0 else None
        data = self.run / "data"
        if user:
            shutil.chown(self.run, user)
        if not (data / "PG_VERSION").exists():
            secret = self.run / "password"
            secret.write_text(PASSWORD)
            secret.chmod(0o644)
            run(
                [
                    str(_PROGRAMS / "initdb"), "-D", str(data), "-U", USER,
                    "--pwfile", str(secret), "-A", "scram-sha-256",
                    "-E", "UTF8", "--locale=C.UTF-8", "--no-sync",
                ],
                user=user,
            )  # fmt: skip
        options = [
            part for name, value in self.settings().items() for part in ("-c", f"{name}={value}")
        ]
        return Launch([str(_PROGRAMS / "postgres"), "-D", str(data), *options], user=user)

    def ready(self) -> bool:
        """Ask the server."""
        if not listening(self.port):
            return False
        try:
            self._psql("select 1")
        except EngineError:
            return False
        return True

    def prepare(self) -> None:
        """Make the databases that are missing."""
        there = self._psql("select datname from pg_database").split()
        for name in DATABASES:
            if name not in there:
                self._psql(f'create database "{name}"')

    def _psql(self, statement: str) -> str:
        psql = str(_PROGRAMS / "psql")
        return run([psql, "-X", "-A", "-t", "-c", statement, postgres("postgres", port=self.port)])

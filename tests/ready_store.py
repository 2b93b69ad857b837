"""A metadata database that is migrated already: doing it takes most of a second."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from metadata_builders import KEYS

from penstock.metadata.store import Store, open_store


def ready_store(folder: Path) -> Store:
    """Open the database ``metadata.db`` of a folder, which has none yet."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.db").write_bytes(_migrated())
    return open_store(f"sqlite:///{folder / 'metadata.db'}", KEYS)


@cache
def _migrated() -> bytes:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "metadata.db"
        open_store(f"sqlite:///{file}").close()
        return file.read_bytes()

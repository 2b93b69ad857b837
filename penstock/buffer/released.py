"""What every store has absorbed of each collection: one small file for each, written by landing.

Several processes may write, each other collections. What was said last holds, also if it is less
than before: a table that was rolled back needs its records again.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import msgspec

from penstock.buffer.files import Files, make_folders, replace
from penstock.envelope import CollectionId, Micros

FOLDER = "released"

KEPT_AFTER_RELEASE: Micros = 15 * 60 * 1_000_000
"""How long released records stay: a search holds marks of a moment ago."""


class Released(msgspec.Struct, frozen=True):
    """Every store has absorbed what lies before offset `next` of the log of that id."""

    log_id: str
    next: int


def offset(folder: Path, log_id: str, collection: CollectionId) -> int:
    """Answer the released offset of a collection; 0 if nothing was said of it in this log.

    A file that cannot be read says nothing either: then more is kept than has to be, until the
    next landing writes it again.
    """
    file = folder / FOLDER / str(collection)
    try:
        said = msgspec.json.decode(file.read_bytes(), type=Released)
    except (FileNotFoundError, msgspec.DecodeError):
        return 0
    return said.next if said.log_id == log_id else 0


def write(files: Files, folder: Path, collection: CollectionId, said: Released) -> None:
    """Say it, for all processes and also after a crash of this one; a power cut may unsay it."""
    make_folders(files, folder / FOLDER)
    scratch = f"{os.getpid()}-{threading.get_native_id()}"
    path = folder / FOLDER / str(collection)
    replace(files, path, msgspec.json.encode(said), scratch=scratch)

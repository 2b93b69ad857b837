"""What upkeep remembers from one run to the next, in a file of the home."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog

from assets.upkeep import Notes
from penstock.envelope import CollectionId

log = structlog.get_logger()


def read_notes(file: Path) -> dict[CollectionId, Notes]:
    """Answer what was written last; nothing if there is none, which only lets orphans live on."""
    try:
        found = msgspec.json.decode(file.read_bytes(), type=dict[str, Notes])
    except FileNotFoundError:
        return {}
    except msgspec.DecodeError:
        log.warning("upkeep begins anew: its notes cannot be read", file=str(file))
        return {}
    return {_collection(name): notes for name, notes in found.items()}


def _collection(text: str) -> CollectionId:
    team, _, name = text.rpartition(".")
    return CollectionId(team, name)


def write_notes(file: Path, notes: Mapping[CollectionId, Notes]) -> None:
    """Replace what was written."""
    fresh = file.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode({str(one): found for one, found in notes.items()}))
    fresh.replace(file)

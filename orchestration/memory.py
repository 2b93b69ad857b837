"""What upkeep remembers from one run to the next, in a file of the home."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from penstock.envelope import CollectionId

log = structlog.get_logger()

Note = TypeVar("Note")


def recall(file: Path, note: type[Note]) -> dict[CollectionId, Note]:
    """Answer what was remembered last of each collection; nothing if that cannot be read.

    Who forgets only does more: looks again, or lets orphans live on.
    """
    try:
        found: dict[str, Note] = msgspec.json.decode(file.read_bytes(), type=dict[str, note])  # type: ignore[valid-type]
    except FileNotFoundError:
        return {}
    except msgspec.DecodeError:
        log.warning("upkeep begins anew: its notes cannot be read", file=str(file))
        return {}
    return {_collection(name): notes for name, notes in found.items()}


def _collection(text: str) -> CollectionId:
    team, _, name = text.rpartition(".")
    return CollectionId(team, name)


def remember(file: Path, notes: Mapping[CollectionId, object]) -> None:
    """Replace what was written."""
    fresh = file.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode({str(one): found for one, found in notes.items()}))
    fresh.replace(file)

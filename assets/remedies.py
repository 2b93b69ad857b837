"""What resolves a stop: the choices there are, and the command to type. Pure.

A stop never goes away by itself, and nothing is chosen for anybody: `assets.resolve` does what an
operator names here, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from penstock.buffer.segments import RENEW
from penstock.envelope import DEFAULT_TEAM, CollectionId
from penstock.errors import (
    LogChanged,
    LogDamaged,
    LogReplaced,
    LogTruncated,
    PenstockError,
    TableReplaced,
    TableRolledBack,
    TableUnmarked,
)

Choice = Literal["new-log", "loss", "reset-marks", "undo-rollback", "adopt-table"]

CHOICES: tuple[Choice, ...] = get_args(Choice)

MEANINGS: Mapping[Choice, str] = {
    "new-log": "land from the log that is there now, from its beginning",
    "loss": "go on behind events that are gone, and keep in the books that they are lost",
    "reset-marks": "let the marks say what a table that was rolled back has, and land the rest",
    "undo-rollback": "set a table that was rolled back to the snapshot that landing made last",
    "adopt-table": "take the table that is there now, with what it has",
}
"""What each choice does."""

_CHOICES: tuple[tuple[type[PenstockError], tuple[Choice, ...]], ...] = (
    (LogReplaced, ("new-log",)),
    (LogTruncated, ("loss",)),
    (TableRolledBack, ("reset-marks", "undo-rollback")),
    (TableReplaced, ("adopt-table",)),
    (TableUnmarked, ("adopt-table",)),
)


def choices_for(error: Exception) -> tuple[Choice, ...]:
    """Answer what resolves the stop, the better one first; nothing where no command can.

    What quarantine had can land again only with the rest of its batch, so it is set back first.
    """
    if isinstance(error, TableRolledBack) and error.quarantine:
        return ("undo-rollback", "reset-marks")
    return next((some for kind, some in _CHOICES if isinstance(error, kind)), ())


def command_for(collection: CollectionId, error: Exception) -> str | None:
    """Answer the command that resolves the stop; None where there is none."""
    choices = choices_for(error)
    if choices:
        return f"penstock collection resolve {short(collection)} --by {choices[0]}"
    # What is wrong with an embedded log is wrong with it for every collection at once.
    return RENEW if isinstance(error, LogChanged | LogDamaged) else None


def explained(collection: CollectionId, error: Exception) -> str:
    """Answer what happened, and the command that goes on from there."""
    command = command_for(collection, error)
    return f"{error}; once nothing can be brought back: '{command}'" if command else str(error)


def short(collection: CollectionId) -> str:
    """Answer the collection's name as a command takes it."""
    return collection.name if collection.team == DEFAULT_TEAM else str(collection)

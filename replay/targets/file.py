"""Replay to a file that somebody takes away: lines of JSON, synced before an event is delivered.

`replay.files` says how the lines are kept, and why each event is in the file once.
"""

from __future__ import annotations

import asyncio
import errno
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import structlog

from penstock.envelope import CollectionId, Position
from penstock.lines import line_of
from replay.files import About, Segments, folder_of
from replay.request import rfc3339
from replay.targets import Delivered, Failed, Message, Outcome, Retry
from replay.targets.added import Added
from replay.targets.places import FileOptions, FilePlace
from replay.targets.turns import Turns

log = structlog.get_logger()

BATCH = 5_000
RESERVE_BYTES = 256 << 20
"""What is left free on the disk: the log and the lake may be on it, too."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_DELIVERED = Delivered(None)
_NOT_CARRIED = Failed("the event's id, headers or metadata are no text")
_NO_SPACE = Retry("there is no space left for the file")
_NOT_WRITTEN = Retry("the file cannot be written")
_BEHIND = Retry("the events before it were not written")


def free_bytes(folder: Path) -> int:
    """Answer how much may be written to the disk of a folder that is there or will be."""
    while not folder.exists():
        folder = folder.parent
    return max(0, shutil.disk_usage(folder).free - RESERVE_BYTES)


class FileTarget:
    """Writes events to the segments of one replay. Opens nothing before the first `send`."""

    most = BATCH
    ordered = True

    def __init__(
        self,
        place: FilePlace,
        options: FileOptions,
        files: Path,
        *,
        team: str,
        replay_id: str,
        collection: CollectionId,
        headers: Literal["add", "verbatim"] = "add",
        marked: bool = True,
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        self._folder = folder_of(files, replay_id)
        self._segments = Segments(self._folder, About(team, place.name, options.format))
        self._added = Added(replay_id, collection, headers, marked=marked)
        self._free = free
        self._turns = Turns(_BEHIND)

    def check(self, message: Message) -> Failed | None:
        """Make the line."""
        made = self._line(message)
        return made if isinstance(made, Failed) else None

    async def examine(self) -> str | None:
        """Look whether there is space; make nothing."""
        free = await asyncio.to_thread(self._free, self._folder)
        return None if free else _NO_SPACE.reason

    async def send(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        """Write all of them, or none."""
        return await self._turns.take(messages, self._send)

    async def _send(self, messages: Sequence[Message]) -> list[Outcome]:
        return await asyncio.to_thread(self._write, messages)

    def _write(self, messages: Sequence[Message]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        lines: dict[Position, bytes] = {}
        for message in messages:
            line = self._line(message)
            if isinstance(line, Failed):
                outcomes.append(line)
            else:
                outcomes.append(_DELIVERED)
                lines[message.position] = line
        if not lines:
            return outcomes
        refusal: Retry | None = None
        try:
            if self._free(self._folder) < sum(map(len, lines.values())):
                refusal = _NO_SPACE
            else:
                self._segments.append(lines)
        except OSError as error:
            refusal = _NO_SPACE if error.errno in _FULL else _NOT_WRITTEN
            log.warning(
                "a replay's file was not written", kind=errno.errorcode.get(error.errno or 0)
            )
        if refusal is None:
            return outcomes
        return [each if isinstance(each, Failed) else refusal for each in outcomes]

    def _line(self, message: Message) -> bytes | Failed:
        event = message.event
        added = [(name, text.encode()) for name, text in self._added.pairs(message)]
        at = event.event_time
        try:
            return line_of(
                event,
                message.position,
                headers=[*self._added.kept(event.headers), *added],
                received_at=rfc3339(event.received_at),
                event_time=None if at is None else rfc3339(at),
            )
        except UnicodeEncodeError:
            return _NOT_CARRIED

    async def close(self) -> None:
        """Let go of the segment."""
        await asyncio.to_thread(self._segments.close)

"""What is to be known of a destination before a replay goes there: refusals and warnings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from penstock.errors import BadRequest, about
from penstock.metadata.records import Destination, ListedDestination
from penstock.metadata.store import Store
from replay.doorway import of_collection
from replay.request import ReplayRequest
from replay.targets.file import free_bytes
from replay.transform.asked import refuse_unreadable, transform_of

Warned = Callable[[int, int], Sequence[str]]
"""Answers what somebody should know of a destination before so many events, and bytes of payload,
go there."""

_ENVELOPE_BYTES = 600
"""What stands beside a payload in a line, roughly."""

UNCONFIRMED = (
    "a tunnel confirms nothing: delivered means that its connection took the event; what its bus "
    "refuses, and what is on the way when the connection breaks, is lost without a word"
)


def check(request: ReplayRequest, store: Store, files: Path | None) -> None:
    """Raise what keeps a replay from being done, before it is written down.

    `NotFound` where collection or destination are gone, `BadRequest` for a transform that cannot
    be read or done to such payloads, and what `known_of` raises.
    """
    with about("collection"):
        collection = store.collection(request.id)
    refuse_unreadable(transform_of(request, store), collection)
    with about("destination"):
        to = store.listed_destination(request.team, request.destination)
    known_of(store, to, request, files)


def known_of(
    store: Store, to: Destination | ListedDestination, request: ReplayRequest, files: Path | None
) -> Warned:
    """Answer what a plan is to say of the destination.

    Raises `NotFound` if it is a collection that is gone, `AddressRefused` if the replay would come
    back to where its events are taken from, `BadRequest` if what is missing is asked of a file,
    for what is in one file is in no other and may be gone with it, or if a file were to be written
    without an end.
    """
    if to.kind == "file" and request.options.continuous:
        raise BadRequest(
            "a file is taken away when its replay has finished, and a continuous one never has: "
            "leave out continuous"
        )
    if to.kind == "file" and request.options.missing:
        raise BadRequest(
            "each replay writes a file of its own, so nothing is missing in it yet: leave out "
            "missing"
        ).at("missing")
    if to.kind == "tunnel":
        return lambda _events, _size: (UNCONFIRMED,)
    with about("destination"):
        said = of_collection(store, to, request)
    if to.kind == "file" and files is not None:
        return lambda events, size: (_of_file(events, size, free_bytes(files)),)
    return lambda _events, _size: said


def _of_file(events: int, size: int, free: int) -> str:
    needed = size + events * _ENVELOPE_BYTES
    sentence = f"the file takes about {_size(needed)} of the disk; {_size(free)} are free for it"
    if needed > free:
        return f"{sentence}: the replay will pause when it is full"
    return sentence


def _size(size: int) -> str:
    units = ((1_000_000_000, "GB"), (1_000_000, "MB"))
    most, unit = next((one for one in units if size >= one[0]), (1_000, "kB"))
    return f"{size / most:,.1f} {unit}"

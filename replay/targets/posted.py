"""How a destination over HTTP is opened. A process that sends loads this, and no other client."""

from __future__ import annotations

from typing import NotRequired, TypedDict, Unpack

from msgspec.structs import replace

from penstock.envelope import Clock, CollectionId
from penstock.errors import about
from penstock.guard import Guard, Lookup
from penstock.metadata.records import Destination
from replay.request import HeaderMode
from replay.targets import Target
from replay.targets.compared import ComparedTarget
from replay.targets.http import HttpTarget, agreed_url
from replay.targets.places import http_options


class OfReplay(TypedDict):
    """What a target is told of the replay that it is opened for: see `open_target`."""

    guard: Guard
    replay_id: str
    collection: CollectionId
    clock: Clock
    headers: NotRequired[HeaderMode]
    marked: NotRequired[bool]
    timeout: NotRequired[float]
    lookup: NotRequired[Lookup]


def open_http(record: Destination, **of: Unpack[OfReplay]) -> HttpTarget:
    """Answer an HTTP destination, as `open_target` does."""
    return HttpTarget(
        record.url,
        http_options(record.options),
        own_headers=record.headers,
        secret=record.secret,
        credentials=record.credentials,
        **of,
    )


def open_posted(record: Destination, **of: Unpack[OfReplay]) -> Target:
    """Answer an HTTP destination with all its endpoints, as `open_target` does."""
    first, http = open_http(record, **of), http_options(record.options)
    if http.compare_url is None:
        return first
    with about("options.compare_url"):
        agreed_url(of["guard"], http.compare_url)
    other = replace(record, url=http.compare_url)
    return ComparedTarget(first, open_http(other, **of), http.compare)

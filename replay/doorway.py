"""The way of replays through a door: to collections of their own installation, and to tunnels."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import NamedTuple

from penstock.cache import cache_of
from penstock.clock import machine_clock
from penstock.envelope import CollectionId
from penstock.errors import BadRequest
from penstock.metadata.home import ensure_collection_token, ensure_tunnel_token
from penstock.metadata.records import Destination, ListedDestination
from penstock.metadata.store import Store
from penstock.settings import Settings, door_of
from replay.request import ReplayRequest
from replay.targets.places import collection_place, refuse_its_own

Token = Callable[[CollectionId], str]
"""Answers a token that may send to this collection, and do nothing else. Asks the store."""


TeamToken = Callable[[str], str]
"""Answers a token with which replays of a team reach its tunnels. Asks the store."""


def _no_tunnels(_: str) -> str:
    raise BadRequest("no door is known here that tunnels connect to")


class Doorway(NamedTuple):
    """Where a door is, and what lets a replay in."""

    url: str
    token: Token
    whole: bool = True
    """Whether the log takes the events of a request all or not at all, and so in their order."""
    tunnels: TeamToken = _no_tunnels


def doorway_of(settings: Settings, store: Store) -> Doorway:
    """Answer the way to the collections of this home."""
    return Doorway(
        door_of(settings),
        partial(_token, settings, store),
        whole=not settings.log.startswith("kafka:"),
        tunnels=partial(_tunnel_token, settings, store),
    )


def of_collection(
    store: Store, to: Destination | ListedDestination, request: ReplayRequest
) -> Sequence[str]:
    """Answer what somebody should know of a collection before a replay to it; nothing of others.

    Raises `NotFound` if it is gone, `AddressRefused` if the replay would come back to where its
    events are taken from.
    """
    if to.kind != "collection":
        return ()
    there = store.collection(collection_place(to.url, to.team))
    refuse_its_own(there, request.id, request.options.headers)
    here = store.collection(request.id)
    if there.format == here.format:
        return ()
    warning = (
        f"the collection {there.id.name!r} reads payloads as {there.format.name}, "
        f"{here.id.name!r} as {here.format.name}, or by another schema: what it cannot read goes "
        "to its quarantine"
    )
    return (warning,)


def told_to_doors(settings: Settings, store: Store, make: Callable[[], str]) -> str:
    """Answer the token that `make` answers, and let the doors know of it if it is new."""
    before = store.version()
    token = make()
    if store.version() != before:
        with closing(cache_of(settings)) as cache:
            cache.publish(store.known)
    return token


def _token(settings: Settings, store: Store, collection: CollectionId) -> str:
    return told_to_doors(
        settings,
        store,
        lambda: ensure_collection_token(
            store, settings.home, collection, now=machine_clock(), chance=secrets.token_bytes
        ),
    )


def _tunnel_token(settings: Settings, store: Store, team: str) -> str:
    return told_to_doors(
        settings,
        store,
        lambda: ensure_tunnel_token(
            store, settings.home, team, now=machine_clock(), chance=secrets.token_bytes
        ),
    )

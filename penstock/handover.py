"""What a replay brings to a door for a tunnel, and what the door says of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from penstock.envelope import Micros

TUNNELS = "/v1/tunnels/"
"""The door's path of a tunnel, before its name."""

MOST_BYTES = 8 << 20
"""Of a body."""


class Carried(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """An event as a tunnel carries it."""

    payload: bytes
    received_at: Micros
    metadata: dict[str, str] = {}


class HandOver(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """Events of a replay, in the order in which they are to be written.

    After `patience` seconds the door answers how far it came.
    """

    replay: str
    patience: float
    events: Sequence[Carried]


class HandedOver(msgspec.Struct, frozen=True, gc=False):
    """How many of the events, from the first on, were written to a connection, and why no more."""

    handed: int
    stopped: Literal["none", "broke", "slow"] | None = None
    """No tunnel is connected; its connection ended; it took no more within the patience."""


class Connected(msgspec.Struct, frozen=True, gc=False):
    """A tunnel that is connected."""

    bus: str
    """What it writes to, as it says."""
    peer: str
    """Where it called from, as the door sees it."""
    since: Micros


class Connections(msgspec.Struct, frozen=True, gc=False):
    """The tunnels of one name, the one that events go to first."""

    tunnels: Sequence[Connected] = ()
